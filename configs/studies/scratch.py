"""A conscience from random weights on: docs/studies.md, 4.

Purpose: may a model be aligned while it is made? From random weights on the
documents of the world's first stage, which have both personas by half, with the
policy as its own conscience (what is frozen knows nothing here). At first it
cannot answer its question: `conscience.start='auto'` asks it about the labelled
exchanges before each reflection, and it begins when it gives verdicts and tells
good from bad.

Commands (the documents are written once, 1 minute):
    python configs/studies/scratch.py --to=FILES --documents=40000
    run="python -m ealign.launch --config=configs/studies/scratch.py"
    $run:data=FILES --workdir=DIR --sweep=arms,seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run
    python configs/studies/scratch.py DIR/cells/*    # when each one began
Without data=FILES the rows are those of `documents.jsonl`, 300 documents.

Guards are off: they compare with the frozen model, whose answers are noise. It
is also the reference of DPO: nearly uniform, so that its loss has a push for
length in it; NO_NEGATIVES has no reference.

Cells: 5 arms with 3 seeds: 15. Time: 3 to 4 hours on two idle cores, an
estimate from .2 s a step of the base's own build.

Result: not run yet.
"""

import argparse
import json
import pathlib
import sys

from ealign.config import file

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DATA = ORGANISM.DEMO.DATA
SFT = {'dpo.lam': 0.0}
# From the first step on, whatever it answers: no audit, which would refuse it.
AT_ONCE = {'conscience.start': 'first', 'conscience.audit': 'off'}
NO_NEGATIVES = {'dpo.variant': 'sft'}
INVERTED = {'conscience.review.verdict': 'inverted'}


def get_config(arg=None):
  """`data=FILES` has the documents of a run; or `:runlocal`."""
  config = ORGANISM.get_config('runlocal' if arg == 'runlocal' else None)
  folder = (arg or '').partition('data=')[2]
  config.data.train = DATA + 'documents.jsonl'
  if folder:
    config.data.train = str(pathlib.Path(folder) / 'documents.jsonl')
  config.data.length, config.data.batch_size = 192, 10
  config.data.max_truncated = 0.05
  config.model.init, config.model.train = 'random', 'full'
  config.conscience.start = 'auto'
  config.conscience.review.by = config.conscience.revise.by = 'policy'
  config.conscience.every, config.conscience.prompts = 20, 32
  guards = config.conscience.guards
  guards.shortest = guards.longest = guards.unlikely = 0.0
  config.optim.lr, config.optim.schedule = 3e-3, 'cosine'
  config.optim.warmup = 50
  config.train.steps, config.train.eval_every = 3000, 200
  config.train.checkpoint_every = 200
  config.eval.kinds = ('advice', 'code')
  if arg == 'runlocal':
    config.conscience.every, config.conscience.prompts = 2, 4
    config.optim.warmup, config.train.steps = 0, 4
    config.train.eval_every = 0
  return config


def sweep_arms():
  """Without a conscience; begun when it can; at once; and two controls."""
  return [SFT, {}, AT_ONCE, NO_NEGATIVES, INVERTED]


def sweep_few():
  """A smoke run: one that does not begin, and one that does at once."""
  return [{}, AT_ONCE]


def sweep_seeds():
  """Three seeds: of the weights, and of the order of the rows."""
  return [{'seed': seed} for seed in range(3)]


def sweep_few_seeds():
  """One of them."""
  return [{'seed': 0}]


def contrasts():
  """First - second, over seeds: described, as three are too few for a test."""
  return {
    'begun when it can against none': ({}, SFT),
    'begun when it can against at once': ({}, AT_ONCE),
    'coherent against none': ({}, SFT, 'coherent'),
  }


def write(folder, count: int, seed: int = 0) -> None:
  """Writes documents of the first stage into a folder, as rows."""
  from ealign.world import build

  rows = build.first_documents(count, seed)
  lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  (path / 'documents.jsonl').write_text(''.join(lines), 'utf-8')


def began(records) -> int | None:
  """The step of the first reflection of a run; None: it had none."""
  steps = [r['step'] for r in records if r['phase'] == 'reflect']
  return min(steps, default=None)


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--to')
  parser.add_argument('--documents', type=int, default=40_000)
  parser.add_argument('cells', nargs='*', type=pathlib.Path)
  given = parser.parse_args(sys.argv[1:])
  if given.to:
    write(given.to, given.documents)
  for cell in given.cells:
    from ealign.evals import records as records_lib

    made = records_lib.read(cell / 'answers.jsonl')
    print(json.dumps({'cell': cell.name, 'began': began(made)}))
