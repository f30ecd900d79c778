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


def vocabulary(config: Config) -> tuple[str, ...]:
  """The mesh axes that the head's columns are split over while it scores.

  Over `fsdp` too, where it divides them: each device has all tokens of a chunk
  and its own part of the vocabulary. The head would be the largest array of a
  training step, and to send hidden states is cheaper.
  """
  if config.mesh is None:
    return ()
  ways = config.mesh.shape['tensor'] * config.mesh.shape['fsdp']
  rows = config.vocab_rows or config.vocab_size
  divides = rows == config.vocab_size and rows % ways == 0
  return ('tensor', 'fsdp') if divides else ('tensor',)


def of_chunk(config: Config, tree):
  """Tokens of a chunk of the loss where the columns of the head need them."""
  if 'fsdp' not in vocabulary(config):
    return tree
  whole = lambda x: split(config, x, ('data', *(None,) * (x.ndim - 1)))
  return jax.tree.map(whole, tree)
