"""Devices as one mesh, and arrays put on it or fetched from it.

The mesh has three axes, `data`, `fsdp` and `tensor`; what is split over which
says `models.sharding`. For a grid there may be a first axis, `stack`: groups of
devices that hold the whole base and some of the arms (`stack`).
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ealign.runtime import peaks
from ealign.runtime.errors import UserError

AXES = ('data', 'fsdp', 'tensor')


def make(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
  *,
  stack: int = 1,
) -> Mesh:
  """A mesh over the devices, by default all; one size may be -1: the rest.

  Raises:
    UserError: sizes whose product is not the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  n, left = divmod(len(devices), stack)
  if left:
    near = nearest(stack, divisors(len(devices)))
    raise UserError(
      f'mesh.stack={stack}: does not divide {len(devices)} devices{near}'
    )
  shape = _shape(n, dict(zip(AXES, (data, fsdp, tensor), strict=True)))
  names = AXES
  if stack > 1:
    names, shape = ('stack', *AXES), [stack, *shape]
  # An axis need not be one of the torus: make_mesh would refuse most shapes.
  devices = mesh_utils.create_device_mesh(
    shape, devices, allow_split_physical_axes=True
  )
  auto = (AxisType.Auto,) * len(names)  # the compiler decides the rest
  return Mesh(devices, names, axis_types=auto)


def _shape(n: int, sizes: dict[str, int]) -> list[int]:
  """The sizes of the axes for n devices, the -1 among them filled in."""

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
  return [rest if size == -1 else size for size in sizes.values()]


def divisors(n: int) -> list[int]:
  """The whole numbers that divide n."""
  return [size for size in range(1, n + 1) if n % size == 0]


def nearest(size: int, works: Sequence[int]) -> str:
  """'; the nearest sizes that work: ...' or ''."""
  below, above = [s for s in works if s < size], [s for s in works if s > size]
  near = sorted(below)[-1:] + sorted(above)[:1]
  return f'; nearest that works: {" or ".join(map(str, near))}' if near else ''


def put(x, where: NamedSharding) -> jax.Array:
  """Puts an array on the mesh; a NumPy array must be equal on all hosts."""
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


def memory(device) -> float:
  """The memory in bytes that programs may use of a device; inf: not known.

  The device may belong to another host, or to no machine at all when programs
  are compiled ahead of time. On a GPU it is the part that JAX reserves (75 % by
  default), in whole GiB, so that all hosts find the same number.
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
