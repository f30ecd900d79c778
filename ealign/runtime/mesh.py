"""Devices as one mesh, and arrays placed on it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ealign.runtime.errors import UserError


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh with the one axis 'data', over this host's devices by default."""
  devices = jax.local_devices() if devices is None else list(devices)
  shape, names = (len(devices),), ('data',)
  auto = (AxisType.Auto,)  # the compiler places what is not said
  return jax.make_mesh(shape, names, axis_types=auto, devices=devices)


def shard_rows(mesh: Mesh, tree: Any) -> Any:
  """The tree on the mesh, the leading axis of each array over 'data'.

  Raises:
    UserError: a leading axis that the number of devices does not divide.
  """
  size = mesh.shape['data']
  for leaf in jax.tree.leaves(tree):
    if leaf.shape[0] % size:
      said = f'{leaf.shape[0]} rows do not divide over {size} devices'
      near = -(-leaf.shape[0] // size) * size
      raise UserError(f'{said}; use a multiple of {size}, such as {near}')
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec('data')))


def replicate(mesh: Mesh, tree: Any) -> Any:
  """The tree on the mesh, whole on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
