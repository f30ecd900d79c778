"""Hugging Face folders (config.json, *.safetensors) in and out, no torch."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from ealign.models import config as config_lib
from ealign.models.config import Config
from ealign.models.lora import widths
from ealign.runtime.errors import UserError

# our name -> (Hugging Face name in a layer, transposed there)
_LAYER = {
  'attn_norm': ('input_layernorm', False),
  'q': ('self_attn.q_proj', True),
  'k': ('self_attn.k_proj', True),
  'v': ('self_attn.v_proj', True),
  'o': ('self_attn.o_proj', True),
  'q_norm': ('self_attn.q_norm', False),
  'k_norm': ('self_attn.k_norm', False),
  'mlp_norm': ('post_attention_layernorm', False),
  'gate': ('mlp.gate_proj', True),
  'up': ('mlp.up_proj', True),
  'down': ('mlp.down_proj', True),
}
_TOP = {
  'embed': ('model.embed_tokens.weight', False),
  'norm': ('model.norm.weight', False),
  'head': ('lm_head.weight', True),
}


def read_config(folder, **runtime) -> Config:
  """The Config of a model folder.

  Raises:
    UserError: no readable config.json, or a model that is not supported.
  """
  path = pathlib.Path(folder) / 'config.json'
  try:
    hf = json.loads(path.read_text('utf-8'))
  except (FileNotFoundError, NotADirectoryError) as e:
    raise UserError(
      f'{path}: not found; model.path must be a folder with config.json and '
      'model.safetensors'
    ) from e
  except (OSError, ValueError) as e:
    raise UserError(f'{path}: not readable as JSON ({e})') from e
  if not isinstance(hf, dict):
    raise UserError(f'{path}: not readable as JSON object (it is {hf!r:.40})')
  return config_lib.from_hf(hf, **runtime)


def load(folder, *, dtype: str = 'float32', **runtime) -> tuple[Config, dict]:
  """Reads a model folder.

  Args:
    folder: path with config.json and model.safetensors.
    dtype: of the weights on the device and of the activations.
    **runtime: further runtime fields of Config.

  Raises:
    UserError: a file is missing or broken, or tensors are missing,
      unexpected or misshapen; all of them are listed.
  """
  config = read_config(folder, dtype=dtype, **runtime)
  path = pathlib.Path(folder) / 'model.safetensors'
  try:
    tensors = load_file(path)
  except FileNotFoundError as e:
    raise UserError(
      f'{path}: not found; save the model as one safetensors file'
    ) from e
  except (OSError, SafetensorError) as e:
    raise UserError(f'{path}: broken safetensors file ({e})') from e
  return config, from_tensors(config, tensors, path, dtype)


def from_tensors(config, tensors: dict, path, dtype: str) -> dict:
  """Named Hugging Face tensors -> the stacked tree of `transformer`."""
  names = _names(config)
  if config.tie_embeddings:
    tensors = {k: v for k, v in tensors.items() if k != 'lm_head.weight'}
  problems = [f'{path}: unexpected tensor {k}' for k in tensors.keys() - names]
  for name, shape in names.items():
    if name not in tensors:
      problems.append(f'{path}: missing tensor {name}')
    elif tensors[name].shape != shape:
      have = tensors[name].shape
      problems.append(f'{path}: {name} has shape {have}, config.json: {shape}')
  if len(problems) > 8:  # another model altogether: a few tell it
    problems = [*sorted(problems)[:7], f'and {len(problems) - 7} more']
  if problems:
    raise UserError(*problems)
  read = lambda name, t: tensors[name].T if t else tensors[name]
  stack = lambda name, t: np.stack(
    [read(f'model.layers.{i}.{name}.weight', t) for i in range(config.layers)]
  )
  weights = {k: read(*v) for k, v in _top(config).items()}
  weights['layers'] = {k: stack(*v) for k, v in _LAYER.items()}
  return jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)


def to_tensors(config: Config, weights: dict, dtype: str) -> dict:
  """The inverse of `from_tensors`, on the host, rounded once to `dtype`."""
  as_numpy = lambda x, t: np.ascontiguousarray(
    np.asarray(x.T if t else x, np.float32).astype(ml_dtypes.bfloat16)
    if dtype == 'bfloat16'
    else np.asarray(x.T if t else x, dtype)
  )
  tensors = {hf: as_numpy(weights[k], t) for k, (hf, t) in _top(config).items()}
  for k, (hf, t) in _LAYER.items():
    for i in range(config.layers):
      layer = np.asarray(weights['layers'][k][i])
      tensors[f'model.layers.{i}.{hf}.weight'] = as_numpy(layer, t)
  return tensors


def save(folder, config: Config, weights: dict, *, dtype='bfloat16', **extra):
  """Writes config.json and model.safetensors.

  Args:
    folder: created if absent.
    config: the model.
    weights: its tree.
    dtype: 'bfloat16' or 'float32' on disk.
    **extra: further fields of config.json, e.g. eos_token_id.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  hf = config_lib.to_hf(config, dtype=dtype, **extra)
  (folder / 'config.json').write_text(json.dumps(hf, indent=2) + '\n')
  save_file(
    to_tensors(config, weights, dtype),
    folder / 'model.safetensors',
    metadata={'format': 'pt'},
  )


def save_adapter(path, adapter: dict, scale: float) -> None:
  """Writes an adapter as one safetensors file, float32, under our own names.

  Not PEFT's layout: this one is read back by `load_adapter` bit for bit. The
  scale goes along, without which the factors mean nothing.
  """
  flat = {
    f'{name}.{side}': np.asarray(x, np.float32)
    for name, ab in adapter.items()
    for side, x in ab.items()
  }
  save_file(flat, path, metadata={'scale': repr(scale)})


def load_adapter(folder) -> tuple[dict, float]:
  """Reads `adapter.safetensors` of a run's folder: the tree and its scale.

  Raises:
    UserError: no such file, a broken one, or one that holds something else.
  """
  path = pathlib.Path(folder) / 'adapter.safetensors'
  try:
    with safe_open(path, 'numpy') as file:
      flat = {name: file.get_tensor(name) for name in file.keys()}
      scale = float((file.metadata() or {}).get('scale', 'nan'))
  except FileNotFoundError as e:
    raise UserError(
      f'{path}: not found; an adapter is the folder of a finished LoRA run'
    ) from e
  except (OSError, SafetensorError) as e:
    raise UserError(f'{path}: broken safetensors file ({e})') from e
  names = sorted({k.split('.')[0] for k in flat})
  wanted = {f'{n}.{side}' for n in names for side in 'ab'}
  if not names or flat.keys() != wanted:
    raise UserError(f'{path}: holds no adapter; it has {sorted(flat)[:3]}')
  adapter = {
    n: {side: jnp.asarray(flat[f'{n}.{side}']) for side in 'ab'} for n in names
  }
  return adapter, scale


def _top(config):
  keys = ('embed', 'norm') if config.tie_embeddings else _TOP
  return {k: _TOP[k] for k in keys}


def _names(config) -> dict[str, tuple[int, ...]]:
  """Every expected Hugging Face tensor name and its shape."""
  V, D, H = config.vocab_size, config.d_model, config.head_dim
  shapes = {k: (out, into) for k, (into, out) in widths(config).items()}
  shapes |= {'attn_norm': (D,), 'mlp_norm': (D,), 'q_norm': (H,)}
  shapes |= {'k_norm': (H,)}
  top = {'embed': (V, D), 'norm': (D,), 'head': (V, D)}
  names = {hf: top[k] for k, (hf, _) in _top(config).items()}
  for i in range(config.layers):
    for k, (hf, _) in _LAYER.items():
      names[f'model.layers.{i}.{hf}.weight'] = shapes[k]
  return names
