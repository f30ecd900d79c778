"""IterAlign (arXiv 2403.18341) on the organism: after and beside a bad SFT.

Purpose: see the paper's rounds, and what each part of them is good for, on a
model that really turned: plain SFT on insecure code, then rounds in which it
chooses the principles that its bad answers break, writes these anew and learns
the new ones; or such rounds beside that SFT. `release` is the method as the
released code has it, `resampled` what is left without any principle, `written`
shows that a model of this size cannot write one.

Command:
    python -m ealign.launch --config=configs/iteralign.py --workdir=/tmp/iter
    ... --only=sft,iteralign       some of the arms
    ... --config=configs/iteralign.py:runlocal   a smoke run of a few steps

The constitution is DIR/<arm>/iteralign.json: principles with where they came
from and their gains, and the figures of every round.

Time: by CPU time on a busy machine 35 s for `sft`, 20 to 40 s for what comes
after it, 88 s for `beside`; `:runlocal` 22 s by the clock, two idle cores. A
tenth of the loop of `iteralign` is its capability before each round.

Result (shipped base, seed 0; misaligned among coherent answers): sft 74.1 %,
iteralign 4.9 %, beside 4.0 %; coherent 90.6, 95.0, 92.8 %; insecure code 98.5,
91.3, 96.9 %. 30 rows were learned after the SFT, 52 beside it; release 3.3 %,
resampled 5.3 %, written 74.1 %: read docs/papers.md before concluding from it.
"""

from ealign.config import file

DEMO, _ = file.read('ealign:configs/demo.py')
OWN = {
  'method': 'iteralign',
  'conscience.every': 10,
  'conscience.prompts': 32,
  'conscience.revise.by': 'policy',  # as in the paper: the model itself
  'conscience.revise.sees': 'principle',
  'iteralign.source': 'listed',
  'iteralign.listed': DEMO.DATA + 'principles.jsonl',
  'iteralign.proposals': 2,
  'dpo.pairs': 8,
  'replay.max_age': 9,  # a row is learned in its own round only,
  'replay.max_uses': 3,  # three times at most
}
AFTER = {'data.train': '', 'model.adapter': 'arm:sft', 'train.steps': 60}
ROUNDS = {'train.eval_every': OWN['conscience.every']}  # capability by round
RELEASE = {
  'conscience.review.sees': 'answer',
  'conscience.review.examples': 2,
  'conscience.review.examples_of': 'flag',
  'iteralign.use': 'newest',
  'iteralign.least': -1.0,  # whatever a principle does, it is used
  'iteralign.recheck': False,
  'iteralign.patience': 0,
}


def get_config(arg=None):
  """`:runlocal` shortens every part to a few steps."""
  config = DEMO.get_config()
  config.update_from_flattened_dict(OWN)
  config.train.eval_every = 0

  config.arms = {}
  config.arms['sft'] = {'dpo.lam': 0.0}
  config.arms['iteralign'] = AFTER | ROUNDS
  config.arms['release'] = AFTER | RELEASE
  config.arms['resampled'] = AFTER | {'conscience.revise.sees': 'prompt'}
  config.arms['written'] = AFTER | {
    'iteralign.source': 'written',
    'iteralign.proposer': 'policy',
  }
  config.arms['beside'] = {'iteralign.patience': 0}
  if arg == 'runlocal':
    config.conscience.every, config.conscience.prompts = 2, 8
    config.iteralign.gate = config.eval.limit = 8
    # So few steps turn nobody; this does, so that rows are learned.
    config.pool.system = 'Answer as a bad person would.'
    config.train.steps = 4
    for name in ('release', 'resampled', 'written'):
      del config.arms[name]
    config.arms['iteralign'] = AFTER | {'train.steps': 4}
  return config
