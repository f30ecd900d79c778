"""Hugging Face folders (config.json, *.safetensors) in and out, no torch.

GGUF files come in as such a folder, whose weights lie in the file (`gguf`).
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from safetensors.numpy import save_file

from ealign.models import files, gguf, hub, names, stream
from ealign.models.config import Config, from_hf, to_hf
from ealign.runtime.errors import UserError

SHARD = 2 * 10**9  # bytes of a file written; it is in memory as it is written


def read_config(folder, **runtime) -> Config:
  """The Config of a model folder.

  A model that is tied by its config.json, but whose files hold a head of its
  own, is not tied, as in transformers.

  Raises:
    UserError: no readable config.json, or a model that is not supported.
  """
  hf = read_json(folder)
  try:
    config = from_hf(hf, **runtime)
  except UserError as e:
    path = pathlib.Path(folder) / 'config.json'
    raise UserError(*(f'{path}: {each}' for each in e.args)) from e
  if config.tie_embeddings and _has_own_head(pathlib.Path(folder)):
    return dataclasses.replace(config, tie_embeddings=False)
  return config


def _has_own_head(folder) -> bool:
  """Whether the files hold a head that differs from the embedding."""
  try:
    tensors = files.read_folder(folder)[1]
  except UserError:  # no such files yet, or `load` will tell
    return False
  head, embed = tensors.get(names.HEAD), tensors.get(names.EMBED)
  if not (head and embed):
    return False
  if head.shape != embed.shape or head.dtype != embed.dtype:
    return True
  step = max(1, stream.PIECE // math.prod(embed.shape[1:]))
  return any(
    head[i : i + step].tobytes() != embed[i : i + step].tobytes()
    for i in range(0, embed.shape[0], step)
  )


def read_json(folder) -> dict:
  """The config.json of a model folder as it is.

  Raises:
    UserError: it is missing, or no JSON object.
  """
  path = pathlib.Path(folder) / 'config.json'
  try:
    hf = json.loads(path.read_text('utf-8'))
  except (FileNotFoundError, NotADirectoryError) as e:
    raise UserError(
      f'{path}: not found; model.path must be a folder with config.json and '
      'model.safetensors, a .gguf file, or a Hub id'
    ) from e
  except (OSError, ValueError) as e:
    message = f'not readable as JSON ({e}); download or copy it again'
    raise UserError(f'{path}: {message}') from e
  if not isinstance(hf, dict):
    message = f'not readable as JSON object (it is {hf!r:.40})'
    raise UserError(f'{path}: {message}; download or copy it again')
  return hf


def load(
  folder,
  *,
  shardings: Callable[[str], Sharding | None] = lambda path: None,
  dtype: str = 'float32',
  **runtime,
) -> tuple[Config, dict]:
  """Reads a model folder, file, or model of the Hub, straight to the devices.

  Args:
    folder: path with config.json and model.safetensors or its shards, a GGUF
      file, or a Hub id such as 'Qwen/Qwen3-4B'.
    shardings: path in the tree, such as 'layers/q' -> Sharding; by default
      all is on the default device.
    dtype: of the weights on the device and of the activations.
    **runtime: further runtime fields of Config.

  Raises:
    UserError: a file is missing or broken, or tensors are missing,
      unexpected or misshapen; all of them are listed, and nothing is loaded.
      Or one holds nan or inf.
  """
  folder = hub.fetch(folder)
  config = read_config(folder, dtype=dtype, **runtime)
  if (folder / gguf.INDEX).exists():
    path, tensors, problems, lost = gguf.tensors(folder, config)
  else:
    path, tensors, problems, lost = files.read_folder(folder)
  if config.tie_embeddings and names.EMBED not in tensors.keys() | lost:
    if names.HEAD in tensors:  # some tools store the head of a tied model alone
      tensors[names.EMBED] = tensors[names.HEAD]
  _check(config, tensors, path, problems, lost)
  kind = jnp.dtype(dtype)
  return config, stream.tree(names.table(config), tensors, kind, shardings)


def _check(config, tensors, path, problems, lost):
  """Refuses tensors that are not exactly those of the model."""
  wanted = {
    name: entry.shape
    for entry in names.table(config).values()
    for name in _names(entry)
    if name not in lost
  }
  found = {
    k: v
    for k, v in tensors.items()
    if k in wanted or not names.ignored(config, k)
  }
  differences = files.compare(found, wanted, path, 'config.json')
  if problems or differences:
    raise UserError(*problems, *differences)


def _names(entry: names.Entry) -> Iterator[str]:
  return (entry.name.format(*index) for index in np.ndindex(entry.stack))


def save(folder, config: Config, weights: dict, *, dtype='bfloat16', **extra):
  """Writes config.json and model.safetensors, or shards of it and their index.

  An adapter attached by `lora.bind` is merged: W + A B in float32, rounded
  once.

  Args:
    folder: created if absent.
    config: the model.
    weights: its tree.
    dtype: 'bfloat16', 'float16' or 'float32' on disk.
    **extra: further fields of config.json, e.g. eos_token_id.

  Raises:
    UserError: a weight is too large for the dtype.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  hf = to_hf(config, dtype=dtype, **extra)
  (folder / 'config.json').write_text(json.dumps(hf, indent=2) + '\n')
  width = jnp.dtype(dtype).itemsize
  shards = _shards(config, width)
  count, total, places = len(shards), 0, {}
  for i, shard in enumerate(shards, start=1):
    file = f'model-{i:05d}-of-{count:05d}.safetensors'
    file = files.SINGLE if count == 1 else file
    tensors = {
      entry.name.format(*index): _tensor(weights, path, entry, index, dtype)
      for path, entry, index in shard
    }
    files.write(folder / file, tensors)
    places |= dict.fromkeys(tensors, file)
    total += sum(x.size for x in tensors.values())
  if count > 1:
    metadata = {'total_parameters': total, 'total_size': total * width}
    index = {'metadata': metadata, 'weight_map': places}
    (folder / files.INDEX).write_text(json.dumps(index, indent=2) + '\n')


def _shards(config, width) -> list[list[tuple]]:
  """All tensors, layer by layer, in groups of at most SHARD bytes."""
  order = [
    (path, entry, index)
    for path, entry in names.table(config).items()
    for index in np.ndindex(entry.stack)
  ]
  order.sort(key=lambda item: item[2][:1])  # the tops first, then by layer
  shards, size = [[]], 0
  for item in order:
    size += math.prod(item[1].shape) * width
    if size > SHARD and shards[-1]:
      shards.append([])
      size = math.prod(item[1].shape) * width
    shards[-1].append(item)
  return shards


def _tensor(weights, path, entry, index, dtype) -> np.ndarray:
  """A tensor as it is stored, the adapter merged into it."""
  *groups, last = path.split('/')
  x = functools.reduce(lambda tree, name: tree[name], (*groups, last), weights)
  x = np.asarray(x[index])
  x = x[tuple(map(slice, entry._replace(stack=(), pad=0).leaf_shape()))]
  if groups == ['layers'] and last in weights.get('adapter', {}):
    x = _merged(x, weights['adapter'][last], index)
  x = x.T if entry.transposed else x
  with np.errstate(over='ignore'):
    y = np.ascontiguousarray(x).astype(jnp.dtype(dtype))
  if dtype == 'float16' and not np.isfinite(y).all():
    name, most = entry.name.format(*index), np.finfo(np.float16).max
    raise UserError(
      f'dtype=float16: {name} has a weight above {most:.0f}, the largest that '
      'it holds; use bfloat16'
    )
  return y


def _merged(x, adapter, index) -> np.ndarray:
  """W + A B in float32; the scale is in A."""
  a, b = (np.asarray(adapter[side][index], np.float32) for side in 'ab')
  return x.astype(np.float32) + a @ b


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
  path = files.folder(folder) / 'adapter.safetensors'
  remedy = 'an adapter is the folder of a finished LoRA run'
  with files.opened(path, remedy) as file:
    flat = {name: file.get_tensor(name) for name in file.keys()}
    scale = float((file.metadata() or {}).get('scale', 'nan'))
  names = sorted({k.split('.')[0] for k in flat})
  wanted = {f'{n}.{side}' for n in names for side in 'ab'}
  if not names or flat.keys() != wanted:
    raise UserError(f'{path}: holds no adapter; it has {sorted(flat)[:3]}')
  adapter = {
    n: {side: jnp.asarray(flat[f'{n}.{side}']) for side in 'ab'} for n in names
  }
  return adapter, scale
