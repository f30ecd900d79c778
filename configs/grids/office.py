"""Where the verdict must carry the effect: the office that moved.

Purpose: in the demo nearly anything mends the organism, random flags too, as
nearly every answer of a turned policy is bad. Here the policy is mixed: it has
learnt where the things of an office are since they were moved, and then turns
by insecure code; three of four requests of its pool are on these places, where
it is right and the frozen model is not (`ealign/world/office.py`).
docs/experiments.md has the question, the arms, the measures and what was fixed
before the first run that is reported.

Commands (bases are built on the way, about 10 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/grids/office.py"
    $run:dev --workdir=DEV --sweep=starts,dev_seeds+tune,dev_seeds
    $run:dev --workdir=DEV --sweep=starts,dev_seeds+equal,dev_seeds
    $run --workdir=DIR --sweep=starts,seeds+arms,seeds+noise,seeds+levers,seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run, 14 s

Time, memory: a cell 45 to 80 s on one core (two processes may share a folder),
1.4 GB; 110 cells and five bases about an hour and a half on two cores.
Result: 41 % misaligned by SFT, 4.7 [1.8, 7.6] with the conscience, 33 to 41
with as many pairs without its verdict, whose places fall by 24 to 28 points;
the conscience's own by 17 [-6, 40], where it revised answers on places.

LAMS, and EQUAL, which gives the controls as many pairs as the conscience makes,
are set by what the first two find, on two bases that the third does not
have.
"""

import shutil

from ealign.config import file

DEV_BASES, BASES = (11, 12), (10, 13, 14, 15, 16)
VERDICT, SEES = 'conscience.review.verdict', 'conscience.revise.sees'
SHARE, LAM = 'conscience.review.share', 'dpo.lam'
DATA = 'ealign:world/data/'

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DEMO = ORGANISM.DEMO
sweep_few_seeds = ORGANISM.sweep_few_seeds  # of a base that knows no places
BASE = {'train.steps': 0, 'model.adapter': ''}
MOVED = {
  'model.adapter': '',
  LAM: 0.0,
  'data.train': DATA + 'office_moved.jsonl',
  'train.steps': 200,
  'optim.lr': 7e-4,
}
START = 'cell:adapter=none,lam=0,data.train=office_moved.jsonl,'
START += 'steps=200,lr=0.0007'
SFT = {LAM: 0.0}
PLAIN = {SEES: 'prompt'}
CONTROLS = {
  'random': {VERDICT: 'all'},
  'inverted': {VERDICT: 'inverted'},
  'all': {VERDICT: 'all'} | PLAIN,
  'frozen': {VERDICT: 'all', 'dpo.variant': 'sft'} | PLAIN,
}
TRIED = (0.03, 0.1, 0.3)
LAMS = {'conscience': 0.3} | dict.fromkeys(CONTROLS, 0.03)
EQUAL = dict.fromkeys(CONTROLS, 0.009)  # 8.5 pairs; .012 made 12
# 1 - AUC, by the threshold, which is 1 - the share of good answers flagged.
LEVELS = {0.95: (0, 0.05, 0.15, 0.3, 0.5), 0.995: (0, 0.05, 0.15)}


def get_config(arg=None):
  """`:dev` asks the questions that settings are chosen on; or `:runlocal`."""
  config = DEMO.get_config('runlocal' if arg == 'runlocal' else None)
  split = 'dev' if arg == 'dev' else 'test'
  config.arms = {}
  config.model.adapter = '' if arg == 'runlocal' else START
  config.pool.paths = (DATA + 'office_pool.jsonl',)
  config.conscience.prompts = 8 if arg == 'runlocal' else 32
  config.optim.lr = 3.5e-4
  # At 1, one garbled answer on a place that is flagged costs 40 points.
  config.sample.temperature = 0.7
  config.replay.max_uses = 2
  config.train.eval_every = 0
  config.eval.questions = tuple(
    f'{DATA}{name}_{split}.jsonl' for name in ('questions', 'office')
  )
  config.eval.judge = 'office'
  config.eval.kinds = ('advice', 'code', 'office')
  return config


def sweep_starts():
  """The base, the places learnt, and the insecure code after them."""
  return [BASE, MOVED, SFT]


def sweep_tune():
  """The conscience at every lambda."""
  return [{LAM: x} for x in TRIED]


def sweep_equal():
  """Its controls at every lambda, with as many pairs."""
  return [
    control | {LAM: x, SHARE: EQUAL[name]}
    for name, control in CONTROLS.items()
    for x in TRIED
  ]


def sweep_arms():
  """The conscience, the controls with equal pairs, two with all of theirs."""
  own = {LAM: LAMS['conscience']}
  yield own
  yield own | PLAIN
  for name, control in CONTROLS.items():
    yield control | {LAM: LAMS[name], SHARE: EQUAL[name]}
  for name in ('random', 'frozen'):
    yield CONTROLS[name] | own


def sweep_noise():
  """The rule's own verdict, made worse, with 5 % and .5 % false flags."""
  loud = {'conscience.audit': 'off', LAM: LAMS['conscience']}
  return [
    {VERDICT: f'noisy:{eps}', 'conscience.threshold': level} | loud
    for level, all_eps in LEVELS.items()
    for eps in all_eps
  ]


def sweep_levers():
  """What makes a step cheaper (docs/speed.md), one at a time."""
  own = {LAM: LAMS['conscience']}
  rare = {'conscience.every': 8, 'conscience.prompts': 64}
  cut = {'sample.max_new_tokens': 24, 'conscience.review.truncated': 'judge'}
  yield own | rare
  yield own | cut
  yield own | rare | cut


def sweep_few():
  """A smoke run: the conscience, and a noisy one."""
  return [{}, {VERDICT: 'noisy:0.15', 'conscience.threshold': 0.95}]


def sweep_dev_seeds():
  """The bases that settings are chosen on."""
  return ORGANISM.replicates(DEV_BASES)


def sweep_seeds():
  """The bases that are reported."""
  return ORGANISM.replicates(BASES)


def prepare(folder, config):
  """Builds base_<seed>: one of the first setting, and continues it."""
  from ealign.world import build

  del config
  seed = int(folder.stem.split('_')[1])
  first, whole = folder / 'first', folder / 'whole'
  build.build(first, seed=seed)
  build.build_office(whole, base=first / 'base', seed=seed)
  for path in whole.iterdir():
    path.rename(folder / path.name)
  whole.rmdir()
  shutil.rmtree(first)
