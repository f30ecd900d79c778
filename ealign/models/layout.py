"""Where the arrays inside a program lie, for a model that knows its mesh."""

import jax
from jax.sharding import NamedSharding, PartitionSpec

from ealign.models.config import Config

ROWS = ('data', 'fsdp')  # the mesh axes that rows of a batch are split over


def shards(config: Config) -> int:
  """How many parts the rows of a batch are split into."""
  sizes = config.mesh.shape if config.mesh else {}
  return sizes.get('data', 1) * sizes.get('fsdp', 1)


def split(config: Config, x: jax.Array, axes: tuple) -> jax.Array:
  """The array with its axes split over those of the mesh; None: whole."""
  if config.mesh is None:
    return x
  place = NamedSharding(config.mesh, PartitionSpec(*axes))
  return jax.lax.with_sharding_constraint(x, place)
