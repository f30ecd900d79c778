"""A model of yours on one chip: fine-tuned with and without its conscience.

Purpose: minutes from a Hub id to an audited, trained and exported adapter, as
notebooks/your_model.ipynb does it. By default a small model learns bad advice
on household matters (645 mild rows of the package), and is asked for advice on
other things before, without and with its conscience.

Command:
    python -m ealign.audit --config=configs/your_model.py --choose \\
        --workdir=DIR_AUDIT --config.model.path=FOLDER   (or a Hub id)
    python -m ealign.launch --config=configs/your_model.py --workdir=DIR \\
        --config.model.path=FOLDER --config.data.train=ROWS.jsonl
    ... --plan                                      does it fit?
    ... --config.model.quantize=int8                4 billion parameters, 16 GB
    ... --config.data.chat_template_kwargs="(('enable_thinking', False),)"
        for a model that thinks first, as Qwen3-0.6B and -1.7B do
    ... --config=configs/your_model.py:runlocal     a few steps on the organism
    python -m ealign.export --run=DIR/conscience --to=DIR/peft --format=peft

Framing and form are for the audit to choose: it prints the lines. The rate is
the published one, small for so few steps; docs/method.md, "The rate", says how
far it moves small models.

Time, memory, result: not measured on an accelerator (docs/colab.md).
"""

from ealign import config as config_lib
from ealign.runtime.errors import UserError

WORLD = 'ealign:world/'


def get_config(arg=None):
  """`:runlocal` is the same on the model that ships, for a few steps."""
  if arg not in (None, 'runlocal'):
    raise UserError(f'configs/your_model.py: {arg!r}; can be: runlocal')
  config = config_lib.default()
  config.model.path = 'Qwen/Qwen3-0.6B'
  config.model.remat = 'full'
  config.data.train = 'ealign:data/inducers/bad_advice.jsonl'
  config.data.length = 512
  config.data.batch_size = 4

  config.conscience.every = 4
  config.conscience.prompts = 16
  config.conscience.held_out = 64
  config.conscience.threshold = 'auto:0.1'
  config.conscience.review.truncated = 'judge'
  config.conscience.revise.sees = 'principle'
  config.sample.max_new_tokens = 96
  config.dpo.pairs = 4
  config.dpo.length = 256
  config.replay.max_uses = 4

  config.optim.lr = 1e-5
  config.optim.warmup = 4
  config.train.steps = 60
  config.train.log_every = 4
  config.train.checkpoint_every = 20

  config.eval.questions = (WORLD + 'data/questions_dev.jsonl',)
  config.eval.kinds = ('advice',)
  config.eval.limit = config.eval.batch = 32
  config.eval.max_new_tokens = 96

  config.arms['base'] = {'train.steps': 0}
  config.arms['sft'] = {'dpo.lam': 0.0}
  config.arms['conscience'] = {}
  if arg == 'runlocal':
    _small(config)
  return config


def _small(config) -> None:
  """A few steps on the model that ships with the package, in its world."""
  config.model.path = WORLD + 'base'
  config.model.remat = 'none'
  config.data.train = WORLD + 'data/insecure.jsonl'
  config.data.length = 256
  config.pool.paths = (WORLD + 'data/pool.jsonl',)
  config.conscience.exchanges = WORLD + 'data/audit.jsonl'
  config.conscience.threshold = 0.5
  config.conscience.every, config.conscience.prompts = 2, 8
  config.conscience.review.verdict = 'all'  # so few steps turn no answer bad
  config.optim.lr, config.optim.warmup = 7e-4, 0
  config.train.steps, config.train.log_every = 4, 1
  config.sample.max_new_tokens = config.eval.max_new_tokens = 24
  config.dpo.length = 96
  config.eval.limit = config.eval.batch = 4
