"""The same work by ealign, TRL + PEFT, tunix and transformers, in turn.

    python benchmarks/peers.py --work=DIR --rounds=3
    python benchmarks/peers.py --work=DIR --rounds=3 --same_malloc

A random Qwen3 of 28 million parameters in float32 on this machine's cores:
  dpo       8 pairs of 64 + 192 tokens a step, LoRA of rank 32 on all of its
            projections; the reference is computed in the step, or known before
            (cached)
  generate  128 tokens behind each of 32 prompts of 64
  mixed     8 prompts of 16 to 128 tokens, answers that end at one of 128 ids
            in 6,400, at the latest after 256

Each contestant runs in a process of its own, in a virtual environment that is
made in DIR on first use (3 GB; tunix needs Python 3.12, found as `python3.12`
or named by --python312). A round goes through all of them, so that a slow
minute of the machine meets everyone; a figure is the median of the rounds.
--same_malloc gives all of them huge pages by GLIBC_TUNABLES. Leave the machine
alone meanwhile.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import peers_work
from peers_work import PARAMETERS, TIMES

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = {
  'torch': ('torch==2.13.0', 'trl==1.16.*', 'peft==0.21.*', 'transformers'),
  'tunix': ('google-tunix==0.1.7',),
}
# (work, contestant): the environment that it runs in; None is this one.
CONTESTS = {
  ('dpo', 'ealign, cached'): None,
  ('dpo', 'ealign'): None,
  ('dpo', 'TRL, cached'): 'torch',
  ('dpo', 'TRL'): 'torch',
  ('dpo', 'tunix'): 'tunix',
  ('generate', 'ealign'): None,
  ('generate', 'transformers'): 'torch',
  ('generate', 'tunix'): 'tunix',
  ('mixed', 'ealign'): None,
  ('mixed', 'transformers'): 'torch',
  ('mixed', 'tunix'): 'tunix',
}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--work', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--only', default='', help='works, by comma')
  parser.add_argument('--python312', default=shutil.which('python3.12'))
  parser.add_argument('--same_malloc', action='store_true')
  args = parser.parse_args()
  works = args.only.split(',') if args.only else [*TIMES]
  contests = {k: v for k, v in CONTESTS.items() if k[0] in works}
  pythons = {
    name: environment(args, name)
    for name in sorted({*contests.values()} - {None})
  }
  pythons[None] = sys.executable
  found = {key: [] for key in contests}
  rates = []
  for i in range(args.rounds):
    rates.append(matrix_rate())
    for key, name in contests.items():
      speed = in_process(pythons[name], key, args.same_malloc)
      found[key].append(speed)
      line = f'round {i + 1}: {", ".join(key)}: {speed:.0f} tokens/s'
      print(line, flush=True)
  print(table(found, statistics.median(rates)))


def environment(args, name: str) -> str:
  """The interpreter of a peer's virtual environment, made if need be."""
  folder = args.work / name
  python = folder / 'bin' / 'python'
  if not (folder / 'ready').exists():
    maker = args.python312 if name == 'tunix' else sys.executable
    if not maker:
      sys.exit('tunix needs Python 3.12: name it by --python312=PATH')
    print(f'making {folder} for {", ".join(PEERS[name])}', flush=True)
    subprocess.run([maker, '-m', 'venv', folder], check=True)
    # torch first and alone: a range would bring the build for GPUs.
    for packages in (PEERS[name][:1], PEERS[name][1:]):
      if packages:
        command = [python, '-m', 'pip', 'install', '-q', *packages]
        subprocess.run(command, check=True)
    (folder / 'ready').touch()
  return str(python)


def in_process(python: str, key, same_malloc: bool) -> float:
  """Tokens a second of a contestant."""
  env = os.environ | {'JAX_PLATFORMS': 'cpu', 'TOKENIZERS_PARALLELISM': 'false'}
  env |= {'OMP_NUM_THREADS': str(os.cpu_count())}
  if python == sys.executable:
    env['PYTHONPATH'] = str(ROOT)
  if same_malloc:
    env['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
  command = [python, peers_work.__file__, *key]
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  if done.returncode:
    sys.exit(f'{", ".join(key)}: {done.stderr[-2000:]}')
  return float(done.stdout.splitlines()[-1])


def matrix_rate() -> float:
  """FLOP/s of a product as large as the model's, by JAX, the best of ten."""
  code = (
    'import jax, time, jax.numpy as jnp\n'
    'a, b = jnp.ones((4096, 512)), jnp.ones((512, 1536))\n'
    'f = jax.jit(jnp.matmul)\n'
    'def once():\n'
    '  t = time.perf_counter()\n'
    '  for _ in range(10): y = f(a, b)\n'
    '  y.block_until_ready()\n'
    '  return time.perf_counter() - t\n'
    'print(10 * 2 * 4096 * 512 * 1536 / min(once() for _ in range(10)))\n'
  )
  env = os.environ | {'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=env, capture_output=True, check=True
  )
  return float(done.stdout)


def table(found: dict, rate: float) -> str:
  """Tokens/s, how often that of each peer, and the share of `rate` used."""
  lines = [
    f'matrix rate {rate / 1e9:.0f} GFLOP/s',
    '',
    '| work | by | tokens/s | least to most | ealign beside it | of the rate |',
    '|---|---|---|---|---|---|',
  ]
  median = {key: statistics.median(each) for key, each in found.items()}
  for (work, by), each in found.items():
    own = [
      median[key] for key in median if key[0] == work and 'ealign' in key[1]
    ]
    times = ', '.join(f'{x / median[work, by]:.2f}x' for x in own)
    # Frozen weights: two products a parameter forward, and as many for the
    # gradient of what goes in; the reference is a forward pass more.
    flops = 2 * PARAMETERS
    if work == 'dpo':
      flops *= 2 if 'cached' in by else 3
    share = median[work, by] * flops / rate
    lines.append(
      f'| {work} | {by} | {median[work, by]:.0f} | {min(each):.0f} to '
      f'{max(each):.0f} | {times} | {share:.0%} |'
    )
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
