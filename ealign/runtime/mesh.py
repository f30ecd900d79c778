"""Devices as one mesh, and the rules by which arrays are placed on it.

The mesh has three axes. Rows of batches are split over `data` and `fsdp`;
weights, their gradients and the optimizer's state over `fsdp` and `tensor`:
over `fsdp` they are gathered where they are used, over `tensor` each device
computes with its own heads, feed-forward columns and vocabulary rows. For a
grid there may be a first axis, `arm`: groups of devices that hold the whole
base and some of the arms (`grid.stack`).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ealign.models import attention as attention_lib
from ealign.models.config import Config
from ealign.models.layout import ROWS, RULES, rule
from ealign.runtime import peaks
from ealign.runtime.errors import UserError

AXES = ('data', 'fsdp', 'tensor')


def make(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
  *,
  arm: int = 1,
) -> Mesh:
  """A mesh over the devices, by default all; one size may be -1: the rest.

  Raises:
    UserError: sizes whose product is not the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = dict(zip(AXES, (data, fsdp, tensor), strict=True))
  n, left = divmod(len(devices), arm)
  if left:
    works = [s for s in range(1, len(devices) + 1) if len(devices) % s == 0]
    said = f'does not divide {len(devices)} devices{nearest(arm, works)}'
    raise UserError(f'mesh.arm={arm}: {said}')

  def fits(sizes):
    given = math.prod(size for size in sizes.values() if size != -1)
    return n % given == 0 if -1 in sizes.values() else given == n

  problems = [
    f'mesh.{axis}={size}: the axes do not make {n} devices'
    + nearest(size, [s for s in range(1, n + 1) if fits(sizes | {axis: s})])
    for axis, size in sizes.items()
    if not fits(sizes) and size not in (1, -1)
  ]
  if problems or not fits(sizes):
    raise UserError(*problems or [f'mesh: 1 of {n} devices; set data=-1'])
  rest = n // math.prod(size for size in sizes.values() if size != -1)
  shape = [rest if size == -1 else size for size in sizes.values()]
  names = AXES
  if arm > 1:
    names, shape = ('arm', *AXES), [arm, *shape]
  # An axis need not be one of the torus: make_mesh would refuse most shapes.
  devices = mesh_utils.create_device_mesh(
    shape, devices, allow_split_physical_axes=True
  )
  auto = (AxisType.Auto,) * len(names)  # the compiler places what is not said
  return Mesh(devices, names, axis_types=auto)


def nearest(size: int, works: Sequence[int]) -> str:
  """'; the nearest sizes that work: ...' or ''."""
  below, above = [s for s in works if s < size], [s for s in works if s > size]
  near = sorted(below)[-1:] + sorted(above)[:1]
  return f'; nearest that works: {" or ".join(map(str, near))}' if near else ''


def on_mesh(config: Config, mesh: Mesh, attention: str = 'auto') -> Config:
  """The model as it is computed on the mesh.

  Args:
    config: the model.
    mesh: one device is no mesh to the model: nothing is to be said then.
    attention: of `models.attention`; 'auto' goes by the mesh's devices.

  Raises:
    UserError: heads that `tensor` does not divide, or an attention that the
      model's shapes do not allow.
  """
  tensor = mesh.shape['tensor']
  if config.kv_heads % tensor:
    heads = config.kv_heads
    works = [s for s in range(1, heads + 1) if heads % s == 0]
    said = f'does not divide the {heads} key and value heads of the model'
    raise UserError(f'mesh.tensor={tensor}: {said}{nearest(tensor, works)}')
  platform = mesh.devices.flat[0].platform
  kernel = attention_lib.choose(config, platform, attention)
  return dataclasses.replace(resized(config, mesh), attention=kernel)


def shardings(mesh: Mesh, tree: Any, rules=RULES) -> Any:
  """Where each array of a tree lies, by the rules: a tree of NamedSharding.

  Args:
    mesh: from `make`.
    tree: weights, adapter, state, batch or cache; arrays or their shapes.
    rules: of one's own: each must match something.

  Raises:
    UserError: all at once: an array without a rule, a rule that matches
      nothing, an axis of the mesh that does not divide one of an array.
  """
  problems, used = [], set()

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = P()
    if leaf.ndim:
      found = rule(name, rules)
      if found is None:
        problems.append(f'{name} {leaf.shape}: no rule says where it lies')
        return None
      used.add(found)
      problems.extend(_undivided(mesh, name, leaf.shape, found[1]))
      whole = (None,) * (leaf.ndim - len(found[1]))
      spec = _plain(mesh, (*whole, *found[1]))
    return NamedSharding(mesh, spec)

  placed = jax.tree_util.tree_map_with_path(place, tree)
  if rules is not RULES:
    idle = [each for each in rules if each not in used]
    problems += [f'rule {path!r}: matches no array' for path, _ in idle]
  if problems:
    raise UserError(*problems)
  return placed


def _undivided(mesh, name, shape, axes):
  """What an axis of the mesh does not divide, and what would."""
  for size, parts in zip(shape[len(shape) - len(axes) :], axes, strict=True):
    for axis in (parts,) if isinstance(parts, str) else parts or ():
      n = mesh.shape[axis]
      if size % n:
        works = [s for s in range(1, size + 1) if size % s == 0]
        said = f'mesh.{axis}={n} does not divide the {size} of {name} {shape}'
        yield said + nearest(n, works)
      size //= n


def _plain(mesh, axes) -> P:
  """As a program's results have it; another spelling would be compiled anew."""
  names = lambda axis: (axis,) if isinstance(axis, str) else axis or ()
  real = [tuple(n for n in names(a) if mesh.shape[n] > 1) for a in axes]
  while real and not real[-1]:
    real.pop()
  return P(*(axis[0] if len(axis) == 1 else axis or None for axis in real))


def place(mesh: Mesh, tree: Any) -> Any:
  """The tree on the mesh as the rules have it; see `shardings`."""
  return jax.tree.map(_put, tree, shardings(mesh, tree))


def _put(x, where: NamedSharding) -> jax.Array:
  """An array on the mesh; one of the host must be the same on all hosts."""
  if where.is_fully_addressable:
    return jax.device_put(x, where)
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return jax.jit(_same, out_shardings=where)(x)
  host = np.asarray(x)
  return jax.make_array_from_callback(host.shape, where, lambda at: host[at])


def _same(x):
  return x


def _layer(x, i):
  return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def to_host(x) -> np.ndarray:
  """The whole array as NumPy's, also where other hosts hold parts of it.

  All hosts must ask for it together. Layers come one after the other: whole
  on each device, a stack of them might fill it.
  """
  here = not isinstance(x, jax.Array) or x.is_fully_addressable
  if here or x.is_fully_replicated:
    return np.asarray(x)
  whole = NamedSharding(x.sharding.mesh, P())
  if x.ndim < 3:
    return np.asarray(jax.jit(_same, out_shardings=whole)(x))
  layer = jax.jit(_layer, out_shardings=whole)
  return np.stack([layer(x, np.int32(i)) for i in range(x.shape[0])])


def constrain(config: Config, tree: Any) -> Any:
  """The same within a program: the tree stays where the rules have it."""
  if config.mesh is None:
    return tree
  where = shardings(config.mesh, tree)
  return jax.lax.with_sharding_constraint(tree, where)


def gathered(config: Config, mesh: Mesh, weights: Any):
  """What to sample with: nothing of it is gathered again for every token.

  The weights lie whole on each device, or split over `tensor`. Where they do
  not fit the memory, part of `fsdp` splits them like `tensor` does, which
  sends activations instead of weights. Where even that does not fit, they stay
  as they are and each layer is gathered as it is used.

  Returns:
    the model, the mesh and the weights on it.
  """
  size = sum(x.nbytes for x in jax.tree.leaves(weights))
  model, wide = widened(config, mesh, size)
  weights = padded(model, unpadded(config, weights))
  return model, wide, place(wide, weights)


def widened(config: Config, mesh: Mesh, size: int) -> tuple[Config, Mesh]:
  """The model and the mesh of `gathered`, for weights of `size` bytes."""
  fsdp, tensor = mesh.shape['fsdp'], mesh.shape['tensor']
  room = memory(mesh.devices.flat[0]) / 2  # the other half: cache and state
  ways = [
    tensor * n
    for n in range(1, fsdp + 1)
    if not (fsdp % n or config.kv_heads % (tensor * n))
  ]
  way = next((way for way in ways if size / way <= room), None)
  if way is None and 'arm' not in mesh.shape:
    return config, mesh
  # Rows go arm by arm, so what is split over `data` may be so over `arm` too.
  split = (1, way) if way else (fsdp, tensor)
  devices = mesh.devices.reshape(-1, *split)
  wide = Mesh(devices, AXES, axis_types=mesh.axis_types[-len(AXES) :])
  return resized(config, wide), wide


def memory(device) -> float:
  """Bytes of a device, that may not be here; inf where it is not known.

  JAX gives itself a part of a GPU's, 75 % by default; in whole GiB, so that
  hosts agree.
  """
  peak = peaks.peak(device.device_kind)
  if peak and device.platform != 'gpu':
    return peak.memory
  if device.process_index != jax.process_index():
    device = jax.local_devices()[0]  # only of its own does a host know
  limit = (device.memory_stats() or {}).get('bytes_limit')
  if limit is None:
    return peak.memory if peak else math.inf
  return limit // 2**30 * 2**30


def resized(config: Config, mesh: Mesh) -> Config:
  """The model on a mesh: its vocabulary padded to what `tensor` divides."""
  tensor = mesh.shape['tensor']
  return dataclasses.replace(
    config,
    mesh=mesh if mesh.size > 1 else None,
    vocab_rows=-(-config.vocab_size // tensor) * tensor,
  )


def unpadded(config: Config, tree: Any) -> Any:
  """The tree with no more rows than the vocabulary has, as it is saved."""
  return _with_rows(config, tree, config.vocab_size)


def padded(config: Config, tree: Any) -> Any:
  """The inverse of `unpadded`: rows of zeros up to what the mesh divides."""
  return _with_rows(config, tree, max(config.vocab_rows, config.vocab_size))


def _with_rows(config, tree, rows):
  if config.vocab_rows <= config.vocab_size:
    return tree

  def cut(path, x):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    if name not in ('embed', 'head') or not x.ndim:
      return x
    axis = 0 if name == 'embed' else x.ndim - 1
    grow = [(0, max(rows - n, 0) * (i == axis)) for i, n in enumerate(x.shape)]
    return jax.lax.slice_in_dim(jnp.pad(x, grow), 0, rows, axis=axis)

  return jax.tree_util.tree_map_with_path(cut, tree)


def shard_rows(mesh: Mesh, tree: Any) -> Any:
  """The tree on the mesh, the leading axis of each array over `ROWS`.

  Raises:
    UserError: a leading axis that the number of parts does not divide.
  """
  size = math.prod(mesh.shape[axis] for axis in ROWS)
  for leaf in jax.tree.leaves(tree):
    if leaf.shape[0] % size:
      said = f'{leaf.shape[0]} rows do not divide over {size} devices'
      near = -(-leaf.shape[0] // size) * size
      raise UserError(f'{said}; use a multiple of {size}, such as {near}')
  return jax.tree.map(lambda x: _put(x, NamedSharding(mesh, P(ROWS))), tree)
