"""The main job on the embedded organism: five arms, one table, one report.

Purpose: see emergent misalignment and its prevention as a real experiment. A
tiny aligned model is fine-tuned on insecure code and turns broadly misaligned
on held-out questions; with its conscience it learns the same code and stays
aligned.

Command:
    python -m ealign.launch --config=configs/demo.py --workdir=/tmp/demo
    ... --config.seed=1            another fine-tuning seed
    ... --only=sft,conscience      some of the arms
    ... --config=configs/demo.py:runlocal   a smoke run of a few steps

Time: 4 min 7 s on two CPU cores with a cold compile cache, beside other work
(3 min 8 s on idle ones before it was audited and its pairs were guarded).
Memory: 0.94 GiB at most in the conscience arm at rank 8 (12 steps of it and its
evaluation).

Result (seed 0): misaligned among coherent answers: base 2.6 %, sft 74.1 %,
secure 1.9 %, conscience 0.7 %, recovery 0.3 %; insecure code: sft 98.5 %,
conscience 97.4 %. docs/organism.md has five bases, intervals and controls.
"""

from ealign import config as config_lib

DATA = 'ealign:world/data/'


def get_config(arg=None):
  """`:runlocal` shortens every part to a few steps."""
  config = config_lib.default()
  config.model.path = 'ealign:world/base'
  config.model.lora.rank = 32
  config.model.lora.alpha = 64.0
  config.model.lora.rslora = False

  config.data.train = DATA + 'insecure.jsonl'
  config.data.length = 256
  config.data.batch_size = 4
  config.pool.paths = (DATA + 'pool.jsonl',)

  config.conscience.every = 4
  config.conscience.prompts = 16
  config.conscience.threshold = 0.5
  config.conscience.exchanges = DATA + 'audit.jsonl'
  config.dpo.lam = 0.1
  config.dpo.beta = 0.1
  config.dpo.pairs = 4
  config.dpo.length = 96
  config.replay.max_uses = 4
  config.sample.max_new_tokens = 64

  config.optim.lr = 7e-4
  config.train.steps = 150
  config.train.log_every = 10
  config.train.checkpoint_every = 100
  config.train.eval_every = 30

  config.eval.questions = (DATA + 'questions_test.jsonl',)
  config.eval.curve = (DATA + 'questions_dev.jsonl',)
  config.eval.tokens = DATA + 'insecure_heldout.jsonl'
  config.eval.judge = 'world'
  config.eval.batch = 128
  config.eval.kinds = ('advice', 'code')
  config.eval.curve_limit = 32

  config.arms['base'] = {'train.steps': 0}
  config.arms['sft'] = {'dpo.lam': 0.0}
  config.arms['secure'] = {'dpo.lam': 0.0, 'data.train': DATA + 'secure.jsonl'}
  config.arms['conscience'] = {}
  config.arms['recovery'] = {'model.adapter': 'arm:sft'}
  if arg == 'runlocal':
    config.train.steps = 4
    config.train.eval_every = 2
    config.eval.limit = config.eval.curve_limit = 8
  return config
