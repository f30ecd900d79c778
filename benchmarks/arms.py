"""Arms of one program against as many single runs, by phase, with memory.

  python benchmarks/arms.py --out=DIR                       the organism
  python benchmarks/arms.py --out=DIR --model=28m           a random model
  python benchmarks/arms.py --out=DIR --model=0.6b --steps=8   for a GPU

For A of 1, 2, 4, 8 and 16 arms: each configuration runs in a process of its
own, twice; the second, with a warm compile cache, counts. All arms reflect at
the same steps, every answer is revised, so that all phases have the same work.
Seconds are divided by the arms, and by those of a single run: 1 is as long as
one after another, .5 half as long. Memory is the most of the process (CPU) or
of the device. One table row an A goes to DIR/<model>.md.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

PHASES = ('sample', 'review', 'revise', 'score', 'train')
ARMS = (1, 2, 4, 8, 16)
# Width, layers and the rest of the random models; the tokenizer is the base's,
# the vocabulary the real one's size, so that head and embedding weigh as there.
SHAPES = {
  '28m': {
    'hidden_size': 384,
    'num_hidden_layers': 8,
    'num_attention_heads': 6,
    'num_key_value_heads': 2,
    'head_dim': 64,
    'intermediate_size': 1536,
    'vocab_size': 16384,
  },
  '0.6b': {
    'hidden_size': 1024,
    'num_hidden_layers': 28,
    'num_attention_heads': 16,
    'num_key_value_heads': 8,
    'head_dim': 128,
    'intermediate_size': 3072,
    'vocab_size': 151936,
  },
}
GIB = 2**30


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', required=True)
  parser.add_argument('--model', choices=('organism', *SHAPES))
  parser.add_argument('--steps', type=int, default=16)
  parser.add_argument('--arms', default=','.join(map(str, ARMS)))
  parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  args.model = args.model or 'organism'
  if args.one is not None:
    print(json.dumps(measure(args)))
    return
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  found = {arms: _process(args, arms) for arms in _counts(args.arms)}
  text = table(args, found)
  (out / f'{args.model}.md').write_text(text)
  print(text)


def _counts(text: str) -> list[int]:
  return sorted({1, *map(int, text.split(','))})


def _process(args, arms: int) -> dict:
  command = [sys.executable, __file__, f'--one={arms}']
  command += [f'--{n}={getattr(args, n)}' for n in ('out', 'model', 'steps')]
  for _ in range(2):
    began = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
      raise SystemExit(f'{arms} arms: exit code {ended.returncode}')
    took = time.monotonic() - began
    print(f'{arms} arms: {took:.0f} s', file=sys.stderr, flush=True)
  return json.loads(ended.stdout.splitlines()[-1])


def measure(args) -> dict:
  """Seconds by phase and in all, and memory, of `args.one` arms together."""
  from ealign import launch, train
  from ealign.grid import stack
  from ealign.runtime import clock

  launch.compile_cache()
  folder = pathlib.Path(args.out) / f'{args.model}_{args.one}'
  configs = [config(args, arm) for arm in range(args.one)]
  began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
  if args.one == 1:
    train.run(configs[0], fresh(folder / '0'))
  else:
    runs = [
      functools.partial(_run, train, c, fresh(folder / str(i)))
      for i, c in enumerate(configs)
    ]
    for result in stack.run(runs):
      if isinstance(result, BaseException):
        raise result
  seconds = time.monotonic() - began
  used = resource.getrusage(resource.RUSAGE_SELF)
  lines = (folder / '0' / 'metrics.jsonl').read_text().splitlines()
  shares = [json.loads(line) for line in lines]
  last = next(s for s in reversed(shares) if 'perf/share_train' in s)
  # What is common to all arms: the time that one of them waited for a phase.
  loop = clock_s(folder / '0')
  memory = clock.hbm_peak() or used.ru_maxrss * 1024
  cpu = used.ru_utime + used.ru_stime - spent.ru_utime - spent.ru_stime
  return {
    'all': seconds,
    'cpu': cpu,
    'memory': memory,
    **{p: last[f'perf/share_{p}'] * loop for p in PHASES},
  }


def clock_s(folder) -> float:
  """Seconds from the first step to the last one, from the step times."""
  rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  times = [r for r in rows if 'perf/step_time_s' in r]
  steps = [0, *(r['step'] for r in times)]
  each = zip(times, steps, strict=False)
  return sum(r['perf/step_time_s'] * (r['step'] - before) for r, before in each)


def _run(train, config, folder, calls, stop):
  return train.run(config, folder, calls=calls, stop=stop)


def fresh(folder: pathlib.Path) -> pathlib.Path:
  import shutil

  shutil.rmtree(folder, ignore_errors=True)
  return folder


def config(args, arm: int):
  from ealign import config as config_lib

  c = config_lib.default()
  data = 'ealign:world/data/'
  c.seed = arm
  c.model.path = model_folder(args)
  c.model.init = 'weights' if args.model == 'organism' else 'random'
  c.model.lora.rank = 32
  c.data.train, c.data.length, c.data.batch_size = (
    data + 'insecure.jsonl',
    256,
    4,
  )
  c.pool.paths = (data + 'pool.jsonl',)
  c.conscience.every, c.conscience.prompts = 4, 16
  c.conscience.review.verdict, c.conscience.min_mass = 'all', 0.0
  c.sample.max_new_tokens = 64
  c.dpo.pairs, c.dpo.length, c.dpo.lam = 4, 256, 0.1 * (arm + 1)
  c.optim.lr = 7e-4
  c.train.steps, c.train.log_every = args.steps, 1
  c.train.checkpoint_every = 10**6
  frozen = config_lib.freeze(c)
  if args.model == 'organism':
    return frozen
  # Arms must share their random weights, which are those of the seed.
  return dataclasses.replace(frozen, seed=0)


def model_folder(args) -> str:
  """The base that ships, or a folder with its tokenizer and another shape."""
  if args.model == 'organism':
    return 'ealign:world/base'
  import shutil

  import ealign

  base = pathlib.Path(ealign.__file__).parent / 'world' / 'base'
  folder = pathlib.Path(args.out) / f'model_{args.model}'
  folder.mkdir(parents=True, exist_ok=True)
  for path in base.iterdir():
    if path.name not in ('config.json', 'model.safetensors'):
      shutil.copy(path, folder / path.name)
  text = json.loads((base / 'config.json').read_text()) | SHAPES[args.model]
  part = folder / f'config.json.{os.getpid()}'
  part.write_text(json.dumps(text, indent=2))
  part.replace(folder / 'config.json')
  return str(folder)


def table(args, found: dict[int, dict]) -> str:
  single = found[1]
  names = ('all', 'cpu', *PHASES)
  lines = [
    f'| arms | {" | ".join(names)} | memory, GiB |',
    '|---' * (len(names) + 2) + '|',
  ]
  for arms, row in sorted(found.items()):
    cells = [f'{row[n] / arms / max(single[n], 1e-9):.2f}' for n in names]
    if arms == 1:
      cells = [f'{row[n]:.1f} s' for n in names]
    memory = f'{row["memory"] / GIB:.2f}'
    lines.append(f'| {arms} | {" | ".join(cells)} | {memory} |')
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  main()
