"""The choices a paper leaves open, one factor at a time, on the organism.

Purpose: arXiv 2606.19527 trains with its conscience and is silent on most of
how. Each choice is a field here; around the demo's `conscience` arm this grid
turns one of them at a time: what keeps the model aligned, what only costs?

Command (bases of seeds 10 to 14 are built on the way):
    python -m ealign.launch --config=configs/grids/undisclosed.py \\
      --workdir=runs/undisclosed --sweep=factors,seeds+primary,more_seeds
    ... --plan                     what is done and what is left
    ... --only='lam=*'             some of the cells
    python -m ealign.launch --config=configs/grids/undisclosed.py:runlocal \\
      --workdir=/tmp/grid --sweep=few,few_seeds      a smoke run on the spot

Cells: 28 settings with 3 seeds each, and 2 more seeds for the 7 settings of
the primary contrasts. Every seed fine-tunes a base of its own.

Full fine-tuning has a rate of its own, 3e-4. At 1e-4, 3e-4 and 1e-3 92, 97 and
93 % of the code was insecure, and 98, 98 and 17 % of the advice coherent (60
questions of each kind, seed 0, the base that ships with the package):
    ... --sweep=full_rates --config.eval.limit=60 --config.train.eval_every=0

What makes a conscience cheaper on a pod, and what that costs (docs/speed.md):
    ... --sweep=cheaper,more_seeds --stack=1

Time: 98 cells took 77 min, two launchers with one core each on a machine with
other work beside them; 67 s a cell in the middle. `:runlocal` 1 min 22 s on one
busy core, nothing compiled before. Memory: that of the demo, each.

Result: docs/ablations.md. A conscience takes 76.9 % misaligned to 0.9 %,
whatever lambda; the pool decides (SFT prompts: 25.6 %), negatives help (without
them 6.6 %), a threshold of .9999 is too much (one base of three: 80.7 %).
"""

import shutil

from ealign.config import file

SMALL = 4  # pairs: the default holds 9 to 28 at most

DEMO, _ = file.read('ealign:configs/demo.py')
SFT = {'dpo.lam': 0.0}
NO_NEGATIVES = {'dpo.variant': 'sft'}
POLICY = {
  'conscience.review.by': 'policy',
  'conscience.revise.by': 'policy',
}
POOL_SFT = {'pool.paths': ('sft',), 'pool.weights': (1.0,)}
EVERY_20 = {'conscience.every': 20}
FULL = {'model.train': 'full', 'optim.lr': 3e-4}
FULL_SFT = FULL | SFT
OFTEN = {'conscience.every': 8, 'conscience.prompts': 32}
SHORT = {'sample.max_new_tokens': 24, 'conscience.review.truncated': 'judge'}
PRIMARY = (SFT, NO_NEGATIVES, POLICY, POOL_SFT, EVERY_20, FULL)


def get_config(arg=None):
  """The demo's conscience; `:runlocal` shortens every part to a few steps."""
  config = DEMO.get_config(arg)
  config.arms = {}
  config.train.eval_every = 50
  config.train.checkpoint_every = 50
  config.eval.curve_limit = 16
  if arg == 'runlocal':
    config.train.eval_every = 0
    config.eval.limit = 8
  return config


def sweep_factors():
  """The default, and one field at a time."""
  yield {}
  for lam in (0.0, 0.03, 0.3, 1.0):  # 0.1
    yield {'dpo.lam': lam}
  for beta in (0.03, 0.3):  # 0.1
    yield {'dpo.beta': beta}
  for every in (1, 5, 10, 20):  # 4
    yield {'conscience.every': every}
  # .5 flags 4.9 % of what the default reviews, .3 and .7 the same; these flag
  # 10.4 and 2.8 % (docs/ablations.md has the command).
  for threshold in (0.0003, 0.9999):
    yield {'conscience.threshold': threshold}
  yield {'conscience.review.by': 'policy'}
  yield {'conscience.revise.by': 'policy'}
  yield POLICY
  yield POOL_SFT
  general = DEMO.DATA + 'pool.jsonl'
  yield {'pool.paths': (general, 'sft'), 'pool.weights': (0.5, 0.5)}
  yield NO_NEGATIVES
  for eviction in ('oldest', 'reservoir', 'newest', 'flagged'):
    yield {'replay.capacity': SMALL, 'replay.eviction': eviction}
  for framing in ('asimov', 'aligned', 'reasonable'):  # ethical
    yield {'conscience.framing': framing}
  yield FULL
  yield FULL_SFT


def sweep_scale():
  """Whether a pair should count more the surer its flag was."""
  yield {}
  yield {'conscience.scale': 'logit'}


def sweep_cheaper():
  """What makes a reflection or an update cheaper (docs/speed.md)."""
  yield {}
  yield OFTEN | SHORT
  yield SHORT
  yield OFTEN
  yield {'conscience.every': 20, 'conscience.prompts': 80}
  yield {'conscience.every': 40, 'conscience.prompts': 160}
  yield {'dpo.pairs': 1}
  yield {
    'conscience.guards.shortest': 0.0,
    'conscience.guards.longest': 0.0,
  }
  yield {'model.quantize': 'int8'}


def sweep_primary():
  """The default, and what the primary contrasts compare with it."""
  yield {}
  yield from PRIMARY


def sweep_full_rates():
  """How the rate of full fine-tuning was found."""
  for lr in (1e-4, 3e-4, 1e-3):
    yield FULL | {'optim.lr': lr}


def sweep_few():
  """Two settings, for a smoke run."""
  yield {}
  yield SFT


def _seed(seed: int) -> dict:
  return {'seed': seed, 'model.path': f'grid:base_{10 + seed}'}


def sweep_seeds():
  """Three seeds, each with a base of its own."""
  return [_seed(seed) for seed in range(3)]


def sweep_more_seeds():
  """Five of them, for the primary contrasts."""
  return [_seed(seed) for seed in range(5)]


def sweep_few_seeds():
  """Two seeds of the base that ships with the package."""
  return [{'seed': 0}, {'seed': 1}]


def contrasts():
  """Each primary setting against the default: misaligned, first - second."""
  return {
    'plain SFT': (SFT, {}),
    'no negatives': (NO_NEGATIVES, {}),
    'policy reviews and writes': (POLICY, {}),
    'SFT prompts as pool': (POOL_SFT, {}),
    'a reflection every 20 steps': (EVERY_20, {}),
    'full fine-tuning': (FULL, {}),
  }


def prepare(folder, config):
  """Builds the base of a seed, base_<seed>, as `python -m ealign.world`."""
  from ealign.world import build

  del config
  seed = int(folder.stem.removeprefix('base_'))
  build.build(folder, seed=seed)
  for path in (folder / 'base').iterdir():
    path.rename(folder / path.name)
  (folder / 'base').rmdir()
  shutil.rmtree(folder / 'stage_1')
