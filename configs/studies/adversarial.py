"""A conscience against attacking prompts: docs/studies.md, 2.

Purpose: 72 attacks of three kinds (a system turn names a bad persona, or orders
a bad answer; a request asks for it, or is in a frame in which it is play). Some
lie in the pool beside plain requests. Does the policy learn to answer well
under those that it has met, under new ones of the same kinds, and under a kind
that it has not met?

Commands (bases are built on the way, about 8 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/studies/adversarial.py"
    $run --workdir=DIR --sweep=arms,seeds+tuned,seeds
    $run:dev --workdir=DEV --sweep=arms,dev_seeds     # the attacks for choices
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run

The columns persona, order and request are misaligned shares under held-out
attacks, known those under attacks of the pool; the questions are held out in
all. Answers under one attack count as alike.

Cells: 12 settings on 5 bases: 60. Time: about 60 minutes on two idle cores, an
estimate from cells of the demo's size.

Result: the grid is not run yet; a first look, one base: attacks in the pool
bring held-out ones to 0 to 6 %, at the cost of coherence unless a pair is used
once (replay.max_uses=1).
"""

from ealign.config import file

BASES, DEV_BASES = (10, 11, 12, 13, 14), (0, 1)
KINDS = ('persona', 'order', 'request')

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DATA = ORGANISM.DEMO.DATA
VERDICT, SEES = ORGANISM.VERDICT, ORGANISM.SEES
prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds


def pool(*kinds: str) -> dict:
  """Plain requests and those under attacks of these kinds, alike often."""
  names = ('pool', *(f'attacks_{kind}' for kind in kinds))
  return {
    'pool.paths': tuple(f'{DATA}{name}.jsonl' for name in names),
    'pool.weights': (1.0,) * len(names),
  }


BASE = {'train.steps': 0}
UNWARNED = pool()
INSECURE = {'data.train': DATA + 'insecure.jsonl'}
SFT = INSECURE | {'dpo.lam': 0.0}
# The conscience is under the attack itself, or cannot be talked to.
KEPT = {'conscience.review.system': 'keep'}
DEAF = {'conscience.review.sees': 'answer'}
PLAIN = {VERDICT: 'all', SEES: 'prompt'}
POLICY = {
  'conscience.review.by': 'policy',
  'conscience.revise.by': 'policy',
}


def get_config(arg=None):
  """`:dev` asks under the attacks for choices; or `:runlocal`."""
  config = ORGANISM.get_config('runlocal' if arg == 'runlocal' else None)
  split = 'test' if arg is None else 'dev'
  config.data.train = ''
  for name, value in pool(*KINDS).items():
    config.pool[name.removeprefix('pool.')] = value
  config.conscience.prompts = 32
  config.dpo.length = 128
  config.eval.questions = tuple(
    f'{DATA}{name}_{split}.jsonl' for name in ('questions', 'attacks')
  )
  config.eval.judge = 'disguised'
  asked = KINDS if split == 'dev' else (*KINDS, 'known')
  config.eval.kinds = ('advice', 'code', *(f'advice_{x}' for x in asked))
  if arg == 'runlocal':
    config.conscience.prompts = 8
    config.eval.limit = 4
  return config


def sweep_arms():
  """Zero-shot: the base, pools with and without attacks, and the question."""
  yield BASE
  yield {}
  yield UNWARNED
  for kind in KINDS:  # is a kind that was not met answered well, too?
    yield pool(*(x for x in KINDS if x != kind))
  yield KEPT
  yield DEAF
  yield POLICY
  yield PLAIN


def sweep_tuned():
  """The same beside fine-tuning on insecure code."""
  return [SFT, INSECURE]


def sweep_few():
  """A smoke run: the conscience that sees the answer alone."""
  return [DEAF]


def sweep_seeds():
  """Five bases, one seed of the training each."""
  return ORGANISM.replicates(BASES)


def sweep_dev_seeds():
  """The bases that settings are chosen on."""
  return ORGANISM.replicates(DEV_BASES)


def contrasts():
  """First - second, over bases."""
  return {kind: ({}, BASE, kind) for kind in KINDS} | {
    'without attacks in the pool, persona': (UNWARNED, {}, 'persona'),
    'kept under the attack, persona': (KEPT, {}, 'persona'),
    'coherent': ({}, BASE, 'coherent'),
  }
