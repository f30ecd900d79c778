"""What one NVIDIA GPU makes of ealign, on a random model of Qwen3-4B's shape.

    python benchmarks/gpu.py --out=gpu.json            at most eight minutes
    python benchmarks/gpu.py --out=gpu.json --small    2 layers x 64, any device

Needs 80 GB of memory and pip install ealign[cuda]. The parts, in order:

  attention  cuDNN's kernel and XLA's, in bfloat16 against float32, and in time
  train      an SFT step and a hybrid step, LoRA of rank 32 on all projections;
             target: MFU of at least 55 %
  decode     128 tokens after 128; target: at 64 rows at least 75 % of the
             memory's bandwidth
  arms       eight arms of one program against eight single runs, by phase;
             target: sampling in at most .3 of the time
  run        a real run of a few steps, and what its metrics.jsonl says

Times are medians and without the first call, which compiles. MFU and peak
memory are those of the run's own metrics: FLOPs that the model needs, nothing
recomputed, so that with remat='full' and frozen weights 67 % is the most; bytes
of the process up to then. The bandwidth is that of the bytes which a token
needs: all weights, and the slots of the cache that are filled. What is not
known of a device is '–'.

A part that would begin after --limit_s is skipped. One that fails says why, the
others go on, and the exit code is 1.
"""

import argparse
import json
import os
import pathlib
import sys
import time
import traceback

# JAX takes 75 % by default: of 80 GB too little for eight arms.
os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.92')

import gpu_parts  # noqa: E402
import jax  # noqa: E402

from ealign.cli import launch  # noqa: E402
from ealign.models import flops  # noqa: E402

PARTS = {
  'attention': gpu_parts.attention,
  'train': gpu_parts.train,
  'decode': gpu_parts.decode,
  'arms': gpu_parts.arms,
  'run': gpu_parts.run,
}
# (part, which row, column, what is asked)
TARGETS = (
  ('train', {'step': 'SFT', 'remat': 'full'}, 'MFU', '>= 0.55'),
  ('train', {'step': 'hybrid', 'remat': 'full'}, 'MFU', '>= 0.55'),
  ('train', {'step': 'hybrid', 'remat': 'dots'}, 'MFU', '>= 0.55'),
  ('decode', {'rows': 64, 'weights': 'policy'}, 'bandwidth', '>= 0.75'),
  ('arms', {'phase': 'sampling'}, 'ratio', '<= 0.3'),
)


def measured(part, work: gpu_parts.Work) -> dict:
  """What a part found, with its table printed row by row."""
  begun, found = time.monotonic(), {'status': 'done', 'rows': []}
  try:
    table(part(work), found['rows'])
  except Exception as error:
    traceback.print_exc(limit=-8)  # of eight arms it repeats itself
    message = str(error).strip().partition('\n')[0]
    found['status'] = f'failed: {type(error).__name__}: {message}'
    print(f'\n{found["status"]}', flush=True)
  found['seconds'] = time.monotonic() - begun
  return found


def table(rows, kept=None) -> None:
  """Prints rows as they come, and keeps them in a list."""
  for i, row in enumerate(rows):
    if not i:
      print(line(row), '|---' * len(row) + '|', sep='\n')
    print(line(row.values()), flush=True)
    if kept is not None:
      kept.append(row)


def line(cells) -> str:
  return f'| {" | ".join(map(shown, cells))} |'


def shown(x) -> str:
  if x is None:
    return '–'
  if isinstance(x, bool):
    return 'yes' if x else 'no'
  if isinstance(x, float):
    return f'{x:,.0f}' if abs(x) >= 1000 else f'{x:.3g}'
  return str(x)


def targets(parts: dict, small: bool) -> list[dict]:
  """Each target, what was measured, and whether it is met."""
  found = []  # met: None where it is not known, or not of the whole size
  for part, which, column, asked in TARGETS:
    rows = parts[part]['rows']
    own = [r for r in rows if all(r[k] == v for k, v in which.items())]
    value, bound = (own[0][column] if own else None), float(asked[3:])
    met = None
    if value is not None and not small:
      met = value >= bound if asked.startswith('>=') else value <= bound
    what = f'{part}, {", ".join(map(str, which.values()))}: {column} {asked}'
    found.append({'target': what, 'measured': value, 'met': met})
  return found


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--out', required=True, help='JSON file of the figures')
  parser.add_argument('--limit_s', type=float, default=480)
  parser.add_argument('--small', action='store_true')
  args = parser.parse_args()
  begun, work = time.monotonic(), gpu_parts.work_of(args.small)
  launch.compile_cache()
  kind, size = work.device.device_kind, flops.parameters(work.model)
  print(f'# {kind}, JAX {jax.__version__}, {size:,} parameters')
  parts = {name: {'status': 'skipped', 'rows': []} for name in PARTS}
  report = {'device': kind, 'jax': jax.__version__, 'parameters': size}
  report |= {'small': args.small, 'parts': parts}
  for name, part in PARTS.items():
    print(f'\n## {name}\n', flush=True)
    if time.monotonic() - begun < args.limit_s:
      parts[name] = measured(part, work)
    else:
      print(f'skipped: --limit_s={args.limit_s:g} is over')
    report['targets'] = targets(parts, args.small)
    report['seconds'] = time.monotonic() - begun
    pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + '\n')
  print('\n## targets\n')
  table(report['targets'])
  print(f'\n{report["seconds"]:.0f} s, {args.out}')
  for name, part in parts.items():
    print(f'  {name}: {part["status"]}')
  return int(
    any(part['status'].startswith('failed') for part in parts.values())
  )


if __name__ == '__main__':
  sys.exit(main())
