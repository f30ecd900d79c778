"""Tensors to the devices in pieces, so that hardly a copy is in memory.

A piece is some rows of one tensor: it is read and cast by a thread, and written
where the device's array has its place for it, in a donated buffer, by the
device, which transposes it. On the CPU the device's memory is the host's: there
the threads fill the array in place and JAX makes it its own.
"""

import collections
import concurrent.futures
import functools
import itertools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Sharding

from ealign.models.names import Entry
from ealign.runtime.errors import UserError

PIECE = 16 * 2**20  # bytes on the device of what is read at once
_THREADS = 4  # as many pieces are read ahead
# Rows and columns that the host transposes at once: they fit its caches, and no
# power of two, at which lines of a cache displace each other.
_BLOCK = 240


def tree(
  table: Mapping[str, Entry],
  tensors: Mapping,
  dtype,
  shardings: Callable[[str], Sharding | None],
) -> dict:
  """The nested dict of arrays that a table describes.

  Args:
    table: path, such as 'layers/q' -> Entry.
    tensors: name -> anything with shape, dtype and rows by `[a:b]`.
    dtype: of the arrays.
    shardings: path -> Sharding; None: all on the default device.

  Raises:
    UserError: a tensor holds nan or inf, or its file was cut off.
  """
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    leaves = {
      path: _leaf(tensors, entry, dtype, shardings(path), pool)
      for path, entry in table.items()
    }
  return traverse_util.unflatten_dict(leaves, sep='/')


def _leaf(tensors, entry, dtype, sharding, pool) -> jax.Array:
  """One array of the tree; each part is read once and put where it belongs."""
  shape = entry.leaf_shape()
  shard = functools.partial(_shard, tensors, entry, dtype, pool)
  if sharding is None:
    return shard(tuple((0, n) for n in shape), [None])[0]
  places = {}
  for device, index in sharding.addressable_devices_indices_map(shape).items():
    box = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
    places.setdefault(box, []).append(device)
  arrays = [x for box, devices in places.items() for x in shard(box, devices)]
  return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _shard(tensors, entry, dtype, pool, box, devices) -> list[jax.Array]:
  """The part of an array within `box`, on each of the devices.

  Args:
    box: (start, stop) along each axis.
    devices: all get the same; None is the default device.
  """
  shape = tuple(stop - start for start, stop in box)
  read = functools.partial(_read, tensors, entry, dtype, box)
  pieces = _pieces(entry, box)
  if _on_host(devices[0]) or math.prod(shape) * dtype.itemsize <= PIECE:
    host = _empty(shape, dtype)
    if entry.pad:
      host[...] = 0
    collections.deque(_ahead(pool, _fill(host, entry, read), pieces), maxlen=0)
    return [jax.device_put(host, device) for device in devices]
  arrays = [jnp.zeros(shape, dtype, device=device) for device in devices]
  for place, x in _ahead(pool, read, pieces):
    start = [axis.start for axis in place]
    arrays = [
      _write(array, jax.device_put(x, device), start, entry.transposed)
      for array, device in zip(arrays, devices, strict=True)
    ]
    jax.block_until_ready(arrays)  # else all that was read would queue up
  return arrays


def _fill(host, entry, read):
  """Reads a piece into its place in the host's array, in the same thread."""

  def fill(piece):
    place, x = read(piece)
    if not entry.transposed:
      host[place] = x
      return
    for i, j in itertools.product(*(range(0, n, _BLOCK) for n in x.shape)):
      block = np.ascontiguousarray(x[i : i + _BLOCK, j : j + _BLOCK])
      host[place][..., j : j + _BLOCK, i : i + _BLOCK] = block.T

  return fill


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _write(array, x, start, transposed):
  x = x.T if transposed else x
  x = x.reshape((1,) * (array.ndim - x.ndim) + x.shape)
  return jax.lax.dynamic_update_slice(array, x, start)


def _on_host(device) -> bool:
  return (device.platform if device else jax.default_backend()) == 'cpu'


def _empty(shape, dtype) -> np.ndarray:
  """Memory aligned so that JAX makes it its own on a CPU, without a copy."""
  size, align = math.prod(shape) * dtype.itemsize, 64
  raw = np.empty(size + align, np.uint8)
  start = -raw.ctypes.data % align
  return raw[start : start + size].view(dtype).reshape(shape)


def _pieces(entry, box):
  """(index in the stack, first row, last row) of what is read at once."""
  depth = len(entry.stack)
  start, stop = box[-1] if entry.transposed else box[depth]
  stop = min(stop, entry.shape[0])  # behind it is padding
  # 4 bytes: as wide as a piece can become when it is cast.
  step = max(1, PIECE // (4 * math.prod(entry.shape[1:])))
  for index in itertools.product(*(range(*axis) for axis in box[:depth])):
    for row in range(start, stop, step):
      yield index, row, min(row + step, stop)


def _read(tensors, entry, dtype, box, piece):
  """One piece as it is stored, and its place in the shard."""
  index, row, end = piece
  axes = box[len(entry.stack) :]
  (first, _), *columns = axes[::-1] if entry.transposed else axes
  name = entry.name.format(*index)
  x = tensors[name][row:end]
  if not _finite(x):
    path = getattr(tensors[name], 'path', 'weights')
    message = f'{name} holds nan or inf; download or copy it again'
    raise UserError(f'{path}: {message}')
  x = x[(slice(None), *(slice(*axis) for axis in columns))]
  x = x.astype(dtype, copy=False)
  place = [slice(row - first, end - first)]
  place += [slice(0, stop - start) for start, stop in columns]
  place = place[::-1] if entry.transposed else place
  at = [
    slice(i - start, i - start + 1)
    for i, (start, _) in zip(index, box, strict=False)
  ]
  return (*at, *place), x


def _finite(x) -> bool:
  """Whether no number is nan or inf, the exponents of which are all ones.

  By the bits: the largest, read with a sign, is that of a positive number, and
  without one that of a negative. NumPy's isfinite is slow on bfloat16, and all
  that makes arrays of a piece's size costs more in fresh memory than in work.
  """
  inf = np.array([np.inf, -np.inf], x.dtype)
  bits = lambda x, kind: x.view(f'{kind}{x.itemsize}')
  return bool(
    bits(x, 'i').max() < bits(inf, 'i')[0]
    and bits(x, 'u').max() < bits(inf, 'u')[1]
  )


def _ahead(pool, read, pieces):
  """Yields `read(piece)` for each piece in order, reading a few ahead."""
  waiting = collections.deque()
  for piece in pieces:
    waiting.append(pool.submit(read, piece))
    if len(waiting) > _THREADS:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()
