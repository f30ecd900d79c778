"""Hugging Face folders (config.json, *.safetensors) in and out, no torch."""

import json
import pathlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from ealign.models import config as config_lib
from ealign.models import names
from ealign.models.config import Config
from ealign.runtime.errors import UserError


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
  table = names.table(config)
  parts = lambda entry: [
    entry.name.format(*index) for index in np.ndindex(*entry.stack)
  ]
  shapes = {name: e.shape for e in table.values() for name in parts(e)}
  if config.tie_embeddings:
    tensors = {k: v for k, v in tensors.items() if k != 'lm_head.weight'}
  problems = [f'{path}: unexpected tensor {k}' for k in tensors.keys() - shapes]
  for name, shape in shapes.items():
    if name not in tensors:
      problems.append(f'{path}: missing tensor {name}')
    elif tensors[name].shape != shape:
      have = tensors[name].shape
      problems.append(f'{path}: {name} has shape {have}, config.json: {shape}')
  if len(problems) > 8:  # another model altogether: a few tell it
    problems = [*sorted(problems)[:7], f'and {len(problems) - 7} more']
  if problems:
    raise UserError(*problems)

  def leaf(entry):
    each = [tensors[name] for name in parts(entry)]
    x = np.stack([x.T if entry.transposed else x for x in each])
    return jnp.asarray(x.reshape(entry.leaf_shape()), dtype)

  leaves = {path: leaf(entry) for path, entry in table.items()}
  return traverse_util.unflatten_dict(leaves, sep='/')


def to_tensors(config: Config, weights: dict, dtype: str) -> dict:
  """The inverse of `from_tensors`, on the host, rounded once to `dtype`."""
  as_numpy = lambda x, t: np.ascontiguousarray(
    np.asarray(x.T if t else x, np.float32).astype(ml_dtypes.bfloat16)
    if dtype == 'bfloat16'
    else np.asarray(x.T if t else x, dtype)
  )
  leaves = traverse_util.flatten_dict(weights, sep='/')
  return {
    entry.name.format(*index): as_numpy(x[index], entry.transposed)
    for path, entry in names.table(config).items()
    for x in [np.asarray(leaves[path])]
    for index in np.ndindex(*entry.stack)
  }


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
