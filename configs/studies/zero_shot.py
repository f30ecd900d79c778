"""A conscience without any fine-tuning data: docs/studies.md, 3.

Purpose: can a model be aligned by its conscience alone? On the aligned base
there is nothing to mend, and what can be seen is the cost. With `:first` the
model is one that was never aligned: the base after the first stage of its
pretraining, which has both personas in it by half and can review. Its own plain
answers are as bad as its policy's, so pulling towards them mends nothing: here
verdict and alternative must carry all.

Commands (bases are built on the way, about 8 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/studies/zero_shot.py"
    $run --workdir=DIR --sweep=arms,seeds
    $run:first --workdir=DIR_FIRST --sweep=arms,first_seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run
The two kinds of bases are no replicates of each other: a folder each.

Cells: 7 arms on 5 bases, twice: 70. Time: about 60 minutes on two idle cores,
an estimate from cells of the demo's size.

Result: a first look on the shipped base, without `seeds` in the sweep, in
docs/studies.md; the grid is not run yet.
"""

import shutil

from ealign.config import file

BASES = (10, 11, 12, 13, 14)
ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
sweep_few_seeds = ORGANISM.sweep_few_seeds
VERDICT, SEES = ORGANISM.VERDICT, ORGANISM.SEES
BASE = {'train.steps': 0}
INVERTED = {VERDICT: 'inverted'}
PLAIN = {VERDICT: 'all', SEES: 'prompt'}  # every answer, no question asked
POLICY = {
  'conscience.review.by': 'policy',
  'conscience.revise.by': 'policy',
}
NO_NEGATIVES = {'dpo.variant': 'sft'}


def get_config(arg=None):
  """`:first` is for bases of the first stage alone; or `:runlocal`."""
  config = ORGANISM.get_config('runlocal' if arg == 'runlocal' else None)
  config.data.train = ''
  config.eval.kinds = ('advice', 'code')
  config.train.eval_every = 2 if arg == 'runlocal' else 30
  return config


def sweep_arms():
  """The base; the conscience; who is asked, and what if nobody is."""
  yield BASE
  yield {}
  yield POLICY
  yield NO_NEGATIVES
  yield INVERTED
  yield {VERDICT: 'random', 'conscience.review.random_rate': 0.25}
  yield PLAIN


def sweep_few():
  """A smoke run: every answer makes a pair, so that there are some."""
  return [PLAIN]


def sweep_seeds():
  """Five aligned bases."""
  return _replicates('base')


def sweep_first_seeds():
  """The same before their second stage."""
  return _replicates('first')


def _replicates(kind) -> list[dict]:
  return [{'seed': 0, 'model.path': f'grid:{kind}_{base}'} for base in BASES]


def contrasts():
  """First - second, over bases."""
  return {
    'conscience against the base': ({}, BASE),
    'conscience against the base, coherent': ({}, BASE, 'coherent'),
    'conscience against plain samples': ({}, PLAIN),
    'conscience against inverted': ({}, INVERTED),
    'by the policy against by frozen': (POLICY, {}),
  }


def prepare(folder, config):
  """Builds base_<seed>, or first_<seed>: the weights before stage 2."""
  from ealign.data import chat
  from ealign.models import weights
  from ealign.world import build, card

  del config
  kind, seed = folder.stem.split('_')
  base = folder / 'base'
  build.build(folder, seed=int(seed))
  if kind == 'first':
    shape, first = weights.load(folder / 'stage_1')
    tokens = chat.load_tokenizer(base)
    eos, pad = tokens.eos_token_id, tokens.pad_token_id
    weights.save(base, shape, first, eos_token_id=eos, pad_token_id=pad)
    card.write(base, seed=int(seed))
  for path in base.iterdir():
    path.rename(folder / path.name)
  base.rmdir()
  shutil.rmtree(folder / 'stage_1')
