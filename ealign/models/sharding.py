"""Where a model's arrays lie on a mesh, and the model as it is computed there.

Rows of batches are split over `data` and `fsdp`; weights, their gradients and
the optimizer's state over `fsdp` and `tensor`: over `fsdp` they are gathered
where they are used, over `tensor` each device computes with its own heads,
feed-forward columns and vocabulary rows. The rules are those of
`models.layout`.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ealign.models.attention import choose
from ealign.models.config import Config
from ealign.models.layout import ROWS, rule
from ealign.runtime import mesh as meshes
from ealign.runtime import peaks
from ealign.runtime.errors import UserError


def on_mesh(config: Config, mesh: Mesh, attention: str = 'auto') -> Config:
  """The model as it is computed on the mesh.

  Args:
    config: the model.
    mesh: of several devices. With one device the Config stores no mesh, and
      so its programs hold no sharding constraint.
    attention: of `models.attention`; 'auto' goes by the mesh's devices.

  Raises:
    UserError: heads that `tensor` does not divide, or an attention that the
      model's shapes do not allow.
  """
  tensor = mesh.shape['tensor']
  if config.kv_heads % tensor:
    near = meshes.nearest(tensor, meshes.divisors(config.kv_heads))
    raise UserError(
      f'mesh.tensor={tensor}: does not divide the {config.kv_heads} key and '
      f'value heads of the model{near}'
    )
  platform = mesh.devices.flat[0].platform
  kernel = choose(config, platform, attention)
  return dataclasses.replace(resized(config, mesh), attention=kernel)


def shardings(mesh: Mesh, tree: Any) -> Any:
  """Where each array of a tree lies, by the rules: a tree of NamedSharding.

  Args:
    mesh: from `make`.
    tree: weights, adapter, state, batch or cache; arrays or their shapes.

  Raises:
    UserError: all at once: an array without a rule, an axis of the mesh that
      does not divide one of an array.
  """
  problems = []

  def sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = P()
    if leaf.ndim:
      found = rule(name)
      if found is None:
        problems.append(f'{name} {leaf.shape}: no rule says where it lies')
        return None
      problems.extend(_undivided(mesh, name, leaf.shape, found[1]))
      whole = (None,) * (leaf.ndim - len(found[1]))
      spec = _plain(mesh, (*whole, *found[1]))
    return NamedSharding(mesh, spec)

  placed = jax.tree_util.tree_map_with_path(sharding, tree)
  if problems:
    raise UserError(*problems)
  return placed


def _undivided(mesh, name, shape, axes):
  """What an axis of the mesh does not divide, and what would."""
  for size, parts in zip(shape[len(shape) - len(axes) :], axes, strict=True):
    for axis in (parts,) if isinstance(parts, str) else parts or ():
      n = mesh.shape[axis]
      if size % n:
        near = meshes.nearest(n, meshes.divisors(size))
        yield (
          f'mesh.{axis}={n} does not divide the {size} of {name} {shape}{near}'
        )
      size //= n


def _plain(mesh, axes) -> P:
  """The spelling that XLA gives to results; another would be compiled anew."""
  names = lambda axis: (axis,) if isinstance(axis, str) else axis or ()
  real = [tuple(n for n in names(a) if mesh.shape[n] > 1) for a in axes]
  while real and not real[-1]:
    real.pop()
  return P(*(axis[0] if len(axis) == 1 else axis or None for axis in real))


def place(mesh: Mesh, tree: Any) -> Any:
  """The tree on the mesh as the rules have it; see `shardings`."""
  return jax.tree.map(meshes.put, tree, shardings(mesh, tree))


def constrain(config: Config, tree: Any) -> Any:
  """`place` within a program: a sharding constraint instead of a transfer."""
  if config.mesh is None:
    return tree
  where = shardings(config.mesh, tree)
  return jax.lax.with_sharding_constraint(tree, where)


def gathered(
  config: Config, mesh: Mesh, weights: Any, rows: int = 1, new: int = 0
):
  """Weights laid out for sampling: none is gathered again for every token.

  The weights lie whole on each device, or split over `tensor`. Where they do
  not fit the memory, or where few rows make that faster by estimate, more
  devices split them like `tensor` does, which sends activations instead of
  weights. Where nothing fits, they stay as they are and each layer is gathered
  as it is used.

  Args:
    config: the model.
    mesh: the devices.
    weights: as the rules have them.
    rows: that are sampled at a time, on all devices together.
    new: tokens of an answer; 0: prompts are read, nothing is sampled.

  Returns:
    the model, the mesh and the weights on it.
  """
  size = sum(x.nbytes for x in jax.tree.leaves(weights))
  model, wide = widened(config, mesh, size, rows, new)
  weights = padded(model, unpadded(config, weights))
  return model, wide, place(wide, weights)


def widened(
  config: Config, mesh: Mesh, size: int, rows: int = 1, new: int = 0
) -> tuple[Config, Mesh]:
  """The model and the mesh of `gathered`, for weights of `size` bytes."""
  shape = mesh.shape
  fsdp, tensor = shape['fsdp'], shape['tensor']
  spread = shape['data'] * fsdp
  # The other half is for the cache and the state.
  room = meshes.memory(mesh.devices.flat[0]) / 2
  ways = [
    tensor * n
    for n in range(1, spread + 1)
    if not any(x % (tensor * n) for x in (config.kv_heads, config.d_ff))
    and spread % n == 0
  ]
  fitting = [way for way in ways if size / way <= room]
  if not fitting and 'stack' not in shape:
    return config, mesh
  # Rows go lane by lane: what is split over `data` may be over `stack` too.
  split = (fsdp, tensor)
  if fitting:
    split = (1, _fastest(config, mesh, fitting, size, rows, new))
  devices = mesh.devices.reshape(-1, *split)
  wide = Mesh(
    devices, meshes.AXES, axis_types=mesh.axis_types[-len(meshes.AXES) :]
  )
  return resized(config, wide), wide


def _fastest(config, mesh, ways: list[int], size: int, rows: int, new: int):
  """Over how many devices the weights are split while answers are sampled.

  Each token reads them once, and where they are split each layer adds up two
  partial results of all rows of the group. The first way where nothing is
  sampled, or the device's speed is not known.
  """
  peak = peaks.peak(mesh.devices.flat[0].device_kind)
  if not new or peak is None:
    return ways[0]
  of_row = config.d_model * jnp.dtype(config.dtype).itemsize

  def seconds(way):
    moved = size / way / (peak.link_bandwidth / 2)
    token = size / way / peak.memory_bandwidth
    if way > 1:
      sent = 2 * of_row * rows * way / mesh.size  # a sum goes both ways
      one = sent / (peak.link_bandwidth / 2) + peaks.SLOW
      token += 2 * config.layers * one
    return moved + new * token

  return min(ways, key=seconds)


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
      message = f'{leaf.shape[0]} rows do not divide over {size} devices'
      near = -(-leaf.shape[0] // size) * size
      raise UserError(f'{message}; use a multiple of {size}, such as {near}')
  return jax.tree.map(
    lambda x: meshes.put(x, NamedSharding(mesh, P(ROWS))), tree
  )
