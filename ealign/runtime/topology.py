"""TPU slices by name, such as 'v5e:4x4', and what one chip of each kind is.

The figures are those of Google's public pages on each kind, as of 2026:
cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and tpu7x for the chips, .../docs/
types-topologies and kubernetes-engine/docs/concepts/plan-tpus for the shapes,
machines and labels. They are peaks; nothing here was measured.
"""

import dataclasses
import math
import re

from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip of a kind.

  gib: of one device, what XLA's compiler leaves a program: a program that is
  too large names them. flops: bf16 FLOP/s. hbm_bandwidth, ici_bandwidth:
  bytes/s, the latter over all links and both directions. cores: what its
  accelerator type counts. devices: what JAX shows of it.
  """

  gib: float
  flops: float
  hbm_bandwidth: float
  ici_bandwidth: float
  dimensions: int  # of the torus
  most: int  # chips of the largest slice
  cores: int
  devices: int
  device_kind: str  # as jax.Device has it
  prefix: str  # of the accelerator type
  label: str  # cloud.google.com/gke-tpu-accelerator
  runtime: str  # of a TPU VM; '': not to be had as a TPU VM


CHIPS = {
  'v4': Chip(
    *(30.75, 275e12, 1200e9, 600e9, 3, 4096, 2, 1),
    *('TPU v4', 'v4', 'tpu-v4-podslice', 'tpu-ubuntu2204-base'),
  ),
  'v5e': Chip(
    *(15.75, 197e12, 819e9, 400e9, 2, 256, 1, 1),
    *('TPU v5 lite', 'v5litepod', 'tpu-v5-lite-podslice'),
    'v2-alpha-tpuv5-lite',
  ),
  'v5p': Chip(
    *(95.74, 459e12, 2765e9, 1200e9, 3, 6144, 2, 1),
    *('TPU v5', 'v5p', 'tpu-v5p-slice', 'v2-alpha-tpuv5'),
  ),
  'v6e': Chip(
    *(31.25, 918e12, 1638e9, 800e9, 2, 256, 1, 1),
    *('TPU v6 lite', 'v6e', 'tpu-v6e-slice', 'v2-alpha-tpuv6e'),
  ),
  'tpu7x': Chip(
    *(94.75, 2307e12, 7380e9, 1200e9, 3, 9216, 2, 2),
    *('TPU7x', 'tpu7x', 'tpu7x', ''),
  ),
}
_FLAT = tuple((2**i, 2**j) for i in range(5) for j in (i, i + 1) if j < 5)
_SMALL = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice that can be rented: 'v5e:4x4' are 16 chips on 4 hosts."""

  kind: str
  shape: tuple[int, ...]

  def __str__(self) -> str:
    return f'{self.kind}:{self.grid}'

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def grid(self) -> str:
    return 'x'.join(map(str, self.shape))

  @property
  def chips(self) -> int:
    return math.prod(self.shape)

  @property
  def hosts(self) -> int:
    """Hosts of 4 chips each; one host if a 2D slice has 8 at most."""
    alone = 8 if self.chip.dimensions == 2 else 4
    return 1 if self.chips <= alone else self.chips // 4

  @property
  def chips_per_host(self) -> int:
    return self.chips // self.hosts

  @property
  def accelerator_type(self) -> str:
    """v5litepod-16: chips; v5p-32 and tpu7x-32: TensorCores, two a chip."""
    return f'{self.chip.prefix}-{self.chips * self.chip.cores}'


def shapes(kind: str) -> list[tuple[int, ...]]:
  """The shapes a slice of this kind can have, small ones first.

  In three dimensions beyond 32 chips they are made of cubes of 4x4x4, the
  shape nearest to a cube for each number: that which its type stands for.
  """
  chip = CHIPS[kind]
  if chip.dimensions == 2:
    return [shape for shape in _FLAT if shape != (1, 2)]
  cubes = [_cubic(n) for n in range(1, chip.most // 64 + 1)]
  return [*_SMALL, *(tuple(4 * side for side in cube) for cube in cubes)]


def _cubic(n: int) -> tuple[int, int, int]:
  sides = [
    (a, b, n // a // b)
    for a in range(1, n + 1)
    for b in range(a, n + 1)
    if a * b * b <= n and n % (a * b) == 0
  ]
  return min(sides, key=sum)


def parse(text: str) -> Topology:
  """The slice of a name such as 'v5e:4x4' or 'v5p:4x4x4'.

  Raises:
    UserError: no such kind, or no such shape; the nearest is named.
  """
  kind, _, grid = text.partition(':')
  if kind not in CHIPS or not re.fullmatch(
    r'\d{1,9}(x\d{1,9})*', grid, re.ASCII
  ):
    message = f'must be one of {", ".join(CHIPS)}, a colon and a shape'
    raise UserError(f'--topology={text}: {message}, such as v5e:4x4')
  shape = tuple(map(int, grid.split('x')))
  known = shapes(kind)
  if shape not in known:
    chips = max(math.prod(shape), 1)
    far = lambda other: abs(math.log(math.prod(other) / chips))
    near = Topology(kind, min(known, key=far))
    raise UserError(f'--topology={text}: no slice has it; use {near}')
  return Topology(kind, shape)
