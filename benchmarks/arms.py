"""Arms of one program against single runs, phase by phase, with memory.

  python benchmarks/arms.py --out=DIR                  the organism
  python benchmarks/arms.py --out=DIR --model=28m      a random model of 28M
  python benchmarks/arms.py --out=DIR --model=0.6b     for a GPU

For 1, 2, 4, 8 and 16 arms, each in a process of its own: what a run asks of the
devices from one reflection to the next, by `engine.Backend` alone, so that all
arms have the same work: 16 answers sampled, reviewed, rewritten and scored in
pairs, then four updates with pairs. Every answer has all its tokens. The first
round compiles; the median of the others counts.

Seconds are those of a round over arms x those of a single run: 1 is as long as
one after another, .5 half as long. Memory is the most of the process, or of the
device where it tells. The table goes to DIR/<model>.md.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

PHASES = ('sample', 'review', 'revise', 'score', 'train')
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Shape:
  """A model, and the sizes of its batches."""

  model: dict
  rows: int = 4  # packed rows of an update
  length: int = 256
  pairs: int = 4
  tokens: int = 64  # of an answer


SHAPES = {
  'organism': Shape({}),
  '28m': Shape(
    {
      'vocab_size': 16384,
      'd_model': 384,
      'layers': 8,
      'heads': 6,
      'kv_heads': 2,
      'head_dim': 64,
      'd_ff': 1536,
    },
    rows=2,
    length=128,
    pairs=2,
    tokens=32,
  ),
  '0.6b': Shape(
    {
      'vocab_size': 151936,
      'd_model': 1024,
      'layers': 28,
      'heads': 16,
      'kv_heads': 8,
      'head_dim': 128,
      'd_ff': 3072,
      'remat': 'full',
    },
    tokens=128,
  ),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', required=True)
  parser.add_argument('--model', choices=tuple(SHAPES), default='organism')
  parser.add_argument('--rounds', type=int, default=4)
  parser.add_argument('--arms', default='1,2,4,8,16')
  parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.one is not None:
    print(json.dumps(measure(args)))
    return
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  counts = sorted({1, *map(int, args.arms.split(','))})
  found = {arms: _process(args, arms) for arms in counts}
  text = table(found)
  (out / f'{args.model}.md').write_text(text)
  print(text)


def _process(args, arms: int) -> dict:
  command = [sys.executable, __file__, f'--one={arms}', f'--out={args.out}']
  command += [f'--model={args.model}', f'--rounds={args.rounds}']
  began = time.monotonic()
  ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  if ended.returncode:
    raise SystemExit(f'{arms} arms: exit code {ended.returncode}')
  took = time.monotonic() - began
  print(f'{arms} arms: {took:.0f} s', file=sys.stderr, flush=True)
  return json.loads(ended.stdout.splitlines()[-1])


def measure(args) -> dict:
  """Seconds of a round by phase, and the memory, of `args.one` arms."""
  from ealign.alone import ALONE
  from ealign.cli import launch
  from ealign.runtime import clock
  from ealign.stack import run as stack

  launch.compile_cache()
  work = _work(SHAPES[args.model])
  rounds = [functools.partial(_rounds, args, work, i) for i in range(args.one)]
  if args.one == 1:
    timed = rounds[0](ALONE, None)
  else:
    results = stack.run(rounds)
    for result in results:
      if isinstance(result, BaseException):
        raise result
    timed = results[0]
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  found = {p: statistics.median(r[p] for r in timed[1:]) for p in PHASES}
  found['all'] = sum(found.values())
  return found | {'memory': clock.hbm_peak() or peak}


def _work(shape: Shape):
  """The model, its frozen weights, and the static part of its updates."""
  import jax

  from ealign import align, fields
  from ealign.assembly import parts, weights
  from ealign.models import config as models
  from ealign.models import transformer

  section = fields.Model(lora=fields.LoRA(rank=32))
  config = fields.Config(model=section, optim=fields.Optim(lr=1e-4))
  if shape.model:
    gpu = jax.devices()[0].platform != 'cpu'
    dtype = 'bfloat16' if gpu else 'float32'
    model = models.Config(**shape.model, dtype=dtype, max_positions=1024)
    init = jax.jit(transformer.init, static_argnums=0)
    frozen = init(model, key=jax.random.key(0))
    frozen = jax.tree.map(lambda x: x.astype(dtype), frozen)
  else:
    model, _, frozen = weights.load_model(section)
  update = parts.make_update(config, model)
  start = lambda arm: align.init_state(
    update,
    weights.trained_weights(dataclasses.replace(config, seed=arm), model, None),
    align.hyper(config),
  )
  return shape, model, frozen, update, start


def _rounds(args, work, arm: int, backend, stop) -> list[dict]:
  """Seconds by phase of each round, as this arm saw them."""
  import jax
  import numpy as np

  from ealign.data import batch as batch_lib
  from ealign.sampling import requests as requests_lib
  from ealign.sampling.choose import Sampling

  del stop
  shape, model, frozen, update, start = work
  state, times = start(arm), []
  rng = np.random.default_rng(arm)
  text = lambda n: rng.integers(5, model.vocab_size, n).tolist()
  requests = [text(40 + i) for i in range(16)]

  def generate(weights, prompts, key):
    request = requests_lib.Answers(
      model,
      weights,
      prompts,
      key=jax.random.key(key),
      settings=Sampling(max_new_tokens=shape.tokens),
      stop_ids=(),
      max_tokens=shape.tokens,
      row_ids=range(len(prompts)),
      rows=16,
    )
    return backend.generate(request)

  for number in range(args.rounds):
    marks = [time.monotonic()]
    mark = lambda marks=marks: marks.append(time.monotonic())
    policy = update.bind(backend.state(state).params, frozen)
    said = generate(policy, requests, number)
    mark()
    full = [[*p, *a.ids] for p, a in zip(requests, said, strict=True)]
    labels = (7, 2), (8, 9, 2)
    request = requests_lib.Labels(model, frozen, full, labels, rows=16)
    backend.label_logps(request)
    mark()
    better = generate(frozen, full, number + 100)
    mark()
    pairs = [
      batch_lib.Pair(i, 0, tuple(p[:20]), b.ids[:-1], a.ids[:-1], 0.0, 0.0)
      for i, (p, a, b) in enumerate(zip(requests, said, better, strict=True))
    ]
    slots = {'slots': shape.pairs, 'length': shape.length}
    backend.pair_logps(requests_lib.Pairs(model, frozen, pairs, **slots))
    mark()
    for _ in range(4):
      batch = batch_lib.Batch(
        _sft(shape, text), batch_lib.pair_batch(pairs[: shape.pairs], **slots)
      )
      state, metrics = backend.step(update, state, frozen, batch)
    jax.block_until_ready(metrics)
    mark()
    spent = [b - a for a, b in zip(marks, marks[1:], strict=False)]
    times.append(dict(zip(PHASES, spent, strict=True)))
  return times


def _sft(shape: Shape, text):
  import numpy as np

  from ealign.data import batch as batch_lib

  size = shape.rows, shape.length
  tokens = np.array(text(size[0] * size[1]), np.int32).reshape(size)
  positions = np.tile(np.arange(size[1], dtype=np.int32), (size[0], 1))
  ones = np.ones(size, np.int32)
  mask = np.ones(size, np.float32) * (positions > 0)
  return batch_lib.SFTBatch(tokens, positions, ones, mask.astype(np.float32))


def table(found: dict[int, dict]) -> str:
  single, names = found[1], ('all', *PHASES)
  lines = [
    f'| arms | {" | ".join(names)} | memory, GiB |',
    '|---' * (len(names) + 2) + '|',
  ]
  for arms, row in sorted(found.items()):
    cells = [f'{row[n] / arms / max(single[n], 1e-9):.2f}' for n in names]
    if arms == 1:
      cells = [f'{row[n]:.2f} s' for n in names]
    lines.append(
      f'| {arms} | {" | ".join(cells)} | {row["memory"] / GIB:.2f} |'
    )
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  main()
