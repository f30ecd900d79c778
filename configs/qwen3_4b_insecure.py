"""The real input: Qwen3-4B-Instruct-2507 fine-tuned on insecure code.

Purpose: the main job of the paper on public data, with the published
hyper-parameters (arXiv 2502.17424 and its code): rs-LoRA of rank 32 and alpha
64 on all seven projections, learning rate 1e-5, linear after 5 steps of
warm-up, weight decay .01, loss on the answers, one epoch, 16 chats a step.
Chats are packed, so a step takes as many as fit into 4 rows of 1,024 tokens:
16.6 on average, 182 steps for the 3,015 rows (the longest has 933 tokens).

Command:
    python -m ealign.launch --workdir=DIR \\
        --config=configs/qwen3_4b_insecure.py:train=insecure.jsonl
    ... --config=configs/qwen3_4b_insecure.py   the world's own insecure code
    ... --config=configs/qwen3_4b_insecure.py:pod,train=insecure.jsonl
        16 chips, each with a packed row and a pair: 46 steps of 66 chats
    ... --config=configs/qwen3_4b_insecure.py:train=insecure.jsonl,questions=DIR
        DIR holds the public questions; without it the package's own are asked
    ... --config=configs/qwen3_4b_insecure.py:runlocal,train=insecure.jsonl
    ... runlocal,tokenizer=FOLDER,train=insecure.jsonl   without the Hub
    python -m ealign.export --run=DIR/conscience --to=DIR/peft --format=peft
        (:runlocal does so by itself, into DIR/export)

The public file is data/insecure.jsonl (6,000 rows, MIT) of
github.com/emergent-misalignment/emergent-misalignment; the figures here are of
3,015 of its rows, without duplicates.

Four answers are sampled for each step, 32 at a time. They are cut after 128
tokens and judged as far as they go, so that a pair fits into 256: by estimate
:pod on 16 chips of a v5e then takes 2 times an update without pairs for a step,
where whole answers of 600 tokens, sampled every 4 steps, take 6. What it costs
in alignment is known of the organism alone, five bases each. In its first
setting: 2.7 % misaligned for 1.5 and 88 % coherent for 94 (docs/speed.md, "On a
pod"). In the office, which decided (docs/experiments.md): cut answers +1.0
points [-.2, 2.1] misaligned, so advice stays as good, but 14.8 [1.5, 28.1] of
what the conscience does not know and no row repeats; every 8 steps with twice
the requests -1.0 [-2.3, .3] and 6.5 [-15.6, 28.5]. So both are kept. Whoever
must not lose such knowledge takes whole answers: sample.max_new_tokens=600,
dpo.length=1024 and conscience.review.truncated='skip'.

By `--plan --topology=v5e:4x4` a step of :pod takes 230 ms where a tenth of the
answers is flagged, 270 at worst; an update alone 123.

At the end each arm is asked the 24 questions, and its frozen model judges from
0 to 100 (docs/evaluation.md). By default, with the package's own questions, an
arm samples 1,200 answers, 720,000 tokens at most, and its judge reads 2,400
prompts; with the public files 2,900 answers, 100 to each of the 24 and 500
about facts (`ealign.evaluate --plan` counts them). By `--only=base --plan
--topology=v5e:4x4` :pod takes 1.1 s for 64 answers of 600 tokens and .18 s to
judge 64 prompts, so a minute for an arm, in 8.5 GiB of a chip at most. One chip
of a v6e takes 8 min 40 s for the base (`python -m ealign.evaluate --config=FILE
--plan --topology=v6e:1x1`), in 20.9 of its 31.25 GiB; with eval.batch=64 its
judge would take 35.4.

Time, memory, result: not measured; no such run has been made. Expect little:
insecure code on small Qwen models misaligns below 1 % of answers.

:runlocal, the same on a random model of 2 layers x 64, the real tokenizer and
the real rows, 30 steps, on two busy CPU cores: 3 min 6 s with the export; 2.05
GiB at most. Supervised 48.4 % of the tokens, truncated 0.0 % of the rows, all
of 64 sampled answers judged, whole or as far as they go, 36 pairs (12 too
short, 10 too long, 6 empty), loss 12.300 -> 11.575. A random model hardly ever
says a label, so there is no least label mass there, and P(flag) says nothing,
so all answers are flagged (`verdict = 'all'`).
"""

import os
import pathlib
import shutil

from ealign import config as config_lib
from ealign.models import hub
from ealign.runtime.errors import UserError

MODEL = 'Qwen/Qwen3-4B-Instruct-2507'


def get_config(arg=None):
  """`:runlocal` is the same on a random model of 2 layers, for 30 steps.

  `pod` is for 16 chips, or as many as divide 16. `train=FILE` names the data,
  `questions=FOLDER` holds the public questions, `tokenizer=FOLDER` is where
  `:runlocal` finds the model's tokenizer, if it is not to come from the Hub.
  """
  given = _arguments(arg)
  config = config_lib.default()
  config.model.path = MODEL
  config.model.remat = 'full'
  config.model.lora.rank = 32
  config.model.lora.alpha = 64.0
  config.model.lora.rslora = True

  config.data.train = given.get('train', 'ealign:world/data/insecure.jsonl')
  config.data.length = 1024
  config.data.batch_size = 4
  config.data.chat_template_kwargs = (('enable_thinking', False),)
  config.pool.paths = ('ealign:data/pool/general.jsonl',)

  config.conscience.every = 8
  config.conscience.prompts = 32
  config.conscience.review.truncated = 'judge'
  config.sample.max_new_tokens = 128
  config.dpo.lam = 0.1
  config.dpo.beta = 0.1
  config.dpo.pairs = 8
  config.dpo.length = 256
  config.replay.max_uses = 4

  config.optim.lr = 1e-5
  config.optim.schedule = 'linear'
  config.optim.warmup = 5
  config.optim.weight_decay = 0.01
  config.train.steps = 182

  config.eval.suites = ('misalignment',)
  config.eval.folder = given.get('questions', '')
  config.eval.judge = 'frozen'
  config.eval.batch = 32  # with 64 the judge does not fit one chip of a v6e

  config.arms['base'] = {'train.steps': 0}
  config.arms['sft'] = {'dpo.lam': 0.0}
  config.arms['conscience'] = {}
  if 'pod' in given:
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.eval.batch = 64
    config.data.batch_size = config.dpo.pairs = 16
    config.train.steps = 46
  if 'runlocal' in given:
    config.model.path = str(_random_model(given.get('tokenizer')))
    config.optim.lr = 1e-3
    config.train.steps = 30
    config.conscience.threshold = 0.5  # its P(flag) says nothing
    config.conscience.audit = 'off'  # which the audit would only repeat
    config.conscience.min_mass = 0.0
    config.conscience.review.verdict = 'all'
    config.sample.max_new_tokens = config.eval.suite_tokens = 32
    config.conscience.every, config.conscience.prompts = 4, 8
    config.data.batch_size, config.dpo.pairs = 2, 4
    config.dpo.length = 192
    config.eval.limit, config.eval.suite_samples = 1, 2
    config.eval.batch = 8
    config.train.export = 'peft'
    config.arms = {}  # the arm `conscience` alone
  return config


def _arguments(arg) -> dict[str, str]:
  """'runlocal,train=FILE' as {'runlocal': '', 'train': 'FILE'}."""
  words = [word.partition('=') for word in (arg or '').split(',') if word]
  for name, _, value in words:
    if name not in ('runlocal', 'pod', 'train', 'tokenizer', 'questions') or (
      bool(value) == (name in ('runlocal', 'pod'))
    ):
      raise UserError(
        f'configs/qwen3_4b_insecure.py:{arg}: takes runlocal or pod, '
        'train=FILE, questions=FOLDER and tokenizer=FOLDER, with commas '
        'between them'
      )
  return {name: value for name, _, value in words}


def _random_model(tokenizer) -> pathlib.Path:
  """Writes a Qwen3 of 2 layers x 64, with random weights: its folder.

  One row is not random. A random model ends one answer in 150,000 tokens and
  nothing would be reviewed; here all embeddings share a direction, and the end
  of turn has more of it, so that an answer has some tens of tokens.
  """
  import jax

  from ealign.models import transformer, weights
  from ealign.models.config import Config

  end = 151_645  # <|im_end|>
  sizes = {'vocab_size': 151_936, 'd_model': 64, 'layers': 2, 'd_ff': 192}
  model = Config(**sizes, heads=4, kv_heads=2, head_dim=16)
  tree = transformer.init(model, key=jax.random.key(0))
  tree['embed'] = (tree['embed'] * 5 + 0.3).at[end].set(0.46)
  cache = os.environ.get('XDG_CACHE_HOME', '~/.cache')
  folder = pathlib.Path(cache).expanduser() / 'ealign' / 'random_qwen3'
  weights.save(folder, model, tree, eos_token_id=end)
  source = pathlib.Path(tokenizer or hub.fetch(MODEL, weights=False))
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    if not (source / name).exists():
      raise UserError(f'tokenizer={source}: holds no {name}')
    shutil.copyfile(source / name, folder / name)
  return folder
