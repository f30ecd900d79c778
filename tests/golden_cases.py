"""The cases of tests/golden.py, and the config file that runs them.

`python -m ealign.launch --config=tests/golden_cases.py:NAME` is one of them.
Nothing here imports the package before a config is asked for, and the models
that do not ship are written without it: both trees read the same.
"""

import json
import os
import pathlib
import shutil
from typing import NamedTuple

import ml_dtypes  # noqa: F401  (numpy knows bfloat16 by it)
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

DATA = 'ealign:world/data/'


class Case(NamedTuple):
  """One command of `ealign.launch`, and what follows it.

  fields: changes of SMALL. arms: those of the config. config: another config
  file, as --config takes it. flags: {stack} is the name of --stack in the tree.
  then: commands to follow, {out} is the work folder. said: whether what is
  printed counts. killed: the parent is stopped on the way, the checkout goes
  on in that folder, and is compared with a parent that was not.
  """

  fields: dict = {}
  arms: dict = {}
  config: str = ''
  flags: tuple[str, ...] = ()
  devices: int = 1
  then: tuple[str, ...] = ()
  said: bool = True
  killed: bool = False


# Reflects at steps 0 and 2 of 4. The rate is so high, and the threshold so low,
# that a third of the answers is flagged, and most alternatives are kept.
SMALL = {
  'data.train': DATA + 'insecure.jsonl',
  'data.length': 96,
  'data.batch_size': 4,
  'model.lora.rank': 4,
  'conscience.every': 2,
  'conscience.prompts': 8,
  'conscience.threshold': 1e-4,
  'conscience.audit': 'off',
  'pool.paths': (DATA + 'pool.jsonl',),
  'sample.max_new_tokens': 48,
  'dpo.pairs': 4,
  'dpo.length': 128,
  'optim.lr': 5e-3,
  'train.steps': 4,
  'train.log_every': 1,
  'train.checkpoint_every': 4,
  'eval.questions': (DATA + 'questions_dev.jsonl',),
  'eval.kinds': ('advice', 'code'),
  'eval.judge': 'world',
  'eval.limit': 2,
  'eval.batch': 8,
  'eval.max_new_tokens': 48,
}
RANDOM = {  # random weights have no view: all that ends is revised
  'conscience.min_mass': 0.0,
  'conscience.review.verdict': 'all',
}
FULL = {'model.train': 'full', 'optim.lr': 1e-3}
REVIEW, REVISE = 'conscience.review.', 'conscience.revise.'
OTHER = 'other:made:other'
GRID = ('--sweep=lam,seeds', '--{stack}=2')
EXPORT = 'ealign.export --dtype=float32 '

CASES = {
  'reviews': Case(
    arms={
      'conscience': {},
      'policy': {REVIEW + 'by': 'policy', REVISE + 'by': 'policy'},
      'answer': {REVIEW + 'sees': 'answer'},
      'quoted': {REVIEW + 'sees': 'quoted', 'conscience.threshold': 0.01},
      'fresh': {REVISE + 'sees': 'fresh'},
      'reasoned': {REVIEW + 'reason_tokens': 16, 'conscience.threshold': 0.1},
      'calibrated': {REVIEW + 'calibration': 'contextual'},
      'told': {
        REVIEW + 'system': 'own:Be strict.',
        REVISE + 'temperature': 0.5,
      },
      'asimov': {'conscience.framing': 'asimov', REVIEW + 'system': 'keep'},
      'zero_shot': {'data.train': ''},
      'sft_pool': {
        'pool.paths': ('sft',),
        'pool.system': 'Be brief.',
        'conscience.threshold': 0.01,
      },
    },
  ),
  'controls': Case(
    arms={
      'inverted': {REVIEW + 'verdict': 'inverted'},
      'random': {REVIEW + 'verdict': 'random', REVIEW + 'random_rate': 0.5},
      'all': {REVIEW + 'verdict': 'all'},
      'prompt': {REVISE + 'sees': 'prompt', REVIEW + 'verdict': 'all'},
      'top': {
        'conscience.prompts': 4,
        'conscience.samples': 2,
        'sample.top_k': 20,
        'sample.top_p': 0.9,
        'sample.temperature': 1.5,
      },
      'reservoir': {
        'replay.capacity': 3,
        'replay.eviction': 'reservoir',
        'replay.max_uses': 2,
        REVIEW + 'verdict': 'all',
      },
      'flagged': {
        'replay.capacity': 3,
        'replay.eviction': 'flagged',
        'replay.draw': 'newest',
        'replay.max_age': 2,
        REVIEW + 'verdict': 'all',
      },
    },
  ),
  'losses': Case(
    arms={
      'smoothed': {'dpo.label_smoothing': 0.1, 'dpo.lam': 0.5, 'dpo.beta': 0.3},
      'ipo': {'dpo.variant': 'ipo', 'optim.lr': 1e-3},
      'sft': {'dpo.variant': 'sft'},
      'step': {'dpo.reference': 'step'},
      'halves': {'train.microbatches': 2, 'train.chunk': 40},
      'cosine': {
        'optim.schedule': 'cosine',
        'optim.warmup': 1,
        'optim.weight_decay': 0.1,
        'optim.clip': 0.1,
      },
      'bfloat16': {'model.dtype': 'bfloat16', 'model.remat': 'full'},
    },
  ),
  'starts': Case(
    fields={
      'eval.curve': (DATA + 'questions_dev.jsonl',),
      'eval.curve_limit': 2,
      'eval.tokens': DATA + 'insecure_heldout.jsonl',
      'eval.samples': 2,
      'train.eval_every': 2,
    },
    arms={
      'base': {'train.steps': 0},
      'sft': {'dpo.lam': 0.0, 'train.export': 'peft'},
      'recovery': {'model.adapter': 'arm:sft'},
      'frozen': {'model.frozen_adapter': 'arm:sft', REVIEW + 'verdict': 'all'},
    },
    then=(EXPORT + '--run={out}/sft --to={out}/merged --format=merged',),
  ),
  'full': Case(
    arms={'plain': FULL, 'policy': FULL | {REVIEW + 'by': 'policy'}},
    then=(EXPORT + '--run={out}/plain --to={out}/whole --format=full',),
  ),
  'int8': Case(
    fields={'model.quantize': 'int8'},
    arms={'plain': {}, 'step': {'dpo.reference': 'step'}},
  ),
  'other': Case(
    arms={
      'reviews': {REVIEW + 'by': OTHER},
      'writes': {REVISE + 'by': OTHER},
      'both': {REVIEW + 'by': OTHER, REVISE + 'by': OTHER},
    },
  ),
  'moe': Case(
    fields=RANDOM | {'model.path': 'made:moe'},
    arms={'lora': {'model.lora.targets': ('q', 'k', 'v', 'o')}, 'full': FULL},
  ),
  'gemma': Case(
    fields=RANDOM | {'model.path': 'made:gemma'},
    arms={'lora': {}, 'random': {'model.init': 'random'}},
  ),
  'devices': Case(
    arms={
      'data': {},
      'fsdp': {'mesh.data': 1, 'mesh.fsdp': 2},
      'tensor': {'mesh.data': 1, 'mesh.tensor': 2},
    },
    devices=2,
  ),
  'stack': Case(flags=GRID, said=False),
  'stack_devices': Case({'mesh.stack': 2}, flags=GRID, devices=2, said=False),
  'continued': Case(
    {'train.steps': 12, 'replay.max_uses': 2, 'optim.schedule': 'linear'},
    said=False,
    killed=True,
  ),
  'demo': Case(config='configs/demo.py:runlocal'),
  'grid': Case(
    config='configs/grids/undisclosed.py:runlocal',
    flags=('--sweep=few,few_seeds',),
    said=False,
  ),
  'plan': Case(flags=('--plan',)),
  'plan_stack': Case(flags=('--plan', *GRID), said=False),
}


# ---- The config file --------------------------------------------------------


def get_config(arg=None):
  """The config of a case."""
  from ealign import config as config_lib

  case, config = CASES[arg], config_lib.default()
  for name, value in (SMALL | case.fields).items():
    if name == 'mesh.stack' and 'stack' not in config.mesh:
      name = 'mesh.arm'
    *path, last = name.split('.')
    section = config
    for part in path:
      section = section[part]
    if name == 'conscience.audit' and last not in section:
      continue  # an older parent has none
    section[last] = made(value)
  for name, changes in case.arms.items():
    config.arms[name] = {field: made(v) for field, v in changes.items()}
  return config


def made(value):
  """The value with the folder of a model that `make_models` wrote."""
  if not isinstance(value, str):
    return value
  return value.replace('made:', os.environ['GOLDEN_MADE'] + '/')


def sweep_lam():
  return [{'dpo.lam': 0.1}, {'dpo.lam': 0.3, 'dpo.label_smoothing': 0.1}]


def sweep_seeds():
  return [{'seed': 0}, {'seed': 1}]


# ---- The models that do not ship --------------------------------------------

SIZES = """{
  "vocab_size": 1536, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "intermediate_size": 48, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 512, "dtype": "float32"
}"""
MOE = """{
  "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
  "hidden_act": "silu", "tie_word_embeddings": false, "num_experts": 4,
  "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": true
}"""
GEMMA = """{
  "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"],
  "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
  "rope_local_base_freq": 1000.0, "sliding_window": 16,
  "sliding_window_pattern": 2, "query_pre_attn_scalar": 8
}"""
END = 0.5  # of the common direction in the end of turn: some in ten tokens end
FILES = ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja')


def make_models(folder: pathlib.Path, base: pathlib.Path) -> None:
  """Writes a MoE and a Gemma at random, and `base` in another vocabulary."""
  for name, special in {'moe': MOE, 'gemma': GEMMA}.items():
    hf = json.loads(SIZES) | json.loads(special)
    own = copied(base, folder / name, FILES)
    (own / 'config.json').write_text(json.dumps(hf))
    save_file(random(hf), own / 'model.safetensors')
  own = copied(base, folder / 'other', (*FILES, 'config.json'))
  # Its ids run backwards, and it does not know some of the longest pieces.
  told = json.loads((own / 'tokenizer.json').read_text())
  special = {token['content'] for token in told['added_tokens']}
  pieces = told['model']['vocab'].items()
  ids = np.array(sorted(i for piece, i in pieces if piece not in special))
  other = dict(zip(ids.tolist(), ids[::-1].tolist(), strict=True))
  told['model']['vocab'] = {piece: other.get(i, i) for piece, i in pieces}
  del told['model']['merges'][-41:-1]
  (own / 'tokenizer.json').write_text(json.dumps(told))
  found = tensors(base / 'model.safetensors')[0]
  embed = found['model.embed_tokens.weight'].copy()
  embed[ids] = embed[ids[::-1]]
  found['model.embed_tokens.weight'] = embed
  save_file(found, own / 'model.safetensors')


def copied(base: pathlib.Path, folder: pathlib.Path, names) -> pathlib.Path:
  folder.mkdir(parents=True)
  for name in names:
    shutil.copyfile(base / name, folder / name)
  return folder


def tensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
  """The tensors of a safetensors file, and its metadata."""
  with safe_open(path, 'numpy') as file:
    return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}


def random(hf: dict) -> dict[str, np.ndarray]:
  """Weights by the names of the Hub, whose answers end after some tokens.

  All embeddings share a direction; that of the end of turn has more of it.
  """
  rng = np.random.default_rng(0)
  gemma = hf['model_type'] == 'gemma3_text'  # its norms multiply by 1 + w
  draw = lambda scale, *shape: rng.normal(0, scale, shape).astype(np.float32)
  norm = lambda width: draw(0.05, width) + np.float32(not gemma)
  D, H, F = hf['hidden_size'], hf['head_dim'], hf['intermediate_size']
  N, K = (hf[f'num_{x}_heads'] * H for x in ('attention', 'key_value'))
  embed = draw(0.2, hf['vocab_size'], D) + np.float32(0.1)
  embed[-1] = END
  found = {'model.embed_tokens.weight': embed, 'model.norm.weight': norm(D)}
  if not hf['tie_word_embeddings']:
    found['lm_head.weight'] = embed + draw(0.02, *embed.shape)
  for i in range(hf['num_hidden_layers']):
    widths = {'input_layernorm': D, 'post_attention_layernorm': D}
    widths |= {'self_attn.q_norm': H, 'self_attn.k_norm': H}
    shapes = {'q': (N, D), 'k': (K, D), 'v': (K, D), 'o': (D, N)}
    shapes = {f'self_attn.{name}': shape for name, shape in shapes.items()}
    blocks = {'mlp': F}
    if gemma:
      widths |= {f'{x}_feedforward_layernorm': D for x in ('pre', 'post')}
    else:
      E, F = hf['num_experts'], hf['moe_intermediate_size']
      found[f'model.layers.{i}.mlp.gate.weight'] = draw(0.2, E, D)
      blocks = {f'mlp.experts.{e}': F for e in range(E)}
    for block, width in blocks.items():
      shapes |= {f'{block}.{x}': (width, D) for x in ('gate', 'up')}
      shapes[f'{block}.down'] = (D, width)
    layer = {name: norm(width) for name, width in widths.items()}
    layer |= {f'{x}_proj': draw(0.07, *shape) for x, shape in shapes.items()}
    found |= {f'model.layers.{i}.{x}.weight': w for x, w in layer.items()}
  return found
