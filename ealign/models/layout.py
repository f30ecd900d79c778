"""Where arrays lie on a mesh: the rules, and constraints in programs.

Outside of programs `runtime.mesh` places arrays by these rules.
"""

import functools
import re

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ealign.models.config import Config

ROWS = ('data', 'fsdp')  # the mesh axes that rows of a batch are split over


# End of an array's path, as a regex -> what its last axes are split over. The
# first that fits counts; scalars are whole on every device. The optimizer's
# copy of a parameter has the parameter's path behind its own and goes with it.
RULES = (
  # Weights, plain or int8 (`q`, `scale`), stacked by layer and by expert.
  ('embed', P('tensor', 'fsdp')),
  ('head', P('fsdp', 'tensor')),
  ('layers/(q|k|v|(expert_)?(gate|up))(/q)?', P('fsdp', 'tensor')),
  ('layers/(o|(expert_)?down)(/q)?', P('tensor', 'fsdp')),
  ('layers/(q|k|v|gate|up)(_bias|/scale)', P('tensor')),
  ('layers/(o|down)/scale', P('fsdp')),
  ('norm|layers/(.*_norm|router)', P()),
  # Adapters follow their matrix, `a` its rows, `b` its columns; what would be
  # whole over `fsdp` is split over it too: float32 with two moments, a factor
  # takes six times the bytes of as many weights.
  ('(q|k|v|gate|up)/a', P('fsdp', None)),
  ('(q|k|v|gate|up)/b', P(None, ('tensor', 'fsdp'))),
  ('(o|down)/a', P(('tensor', 'fsdp'), None)),
  ('(o|down)/b', P(None, 'fsdp')),
  # Batches, and the cache of a sampler.
  ('(tokens|positions|segments|loss_mask)_BT', P(ROWS, None)),
  ('ref_logps_B|weight_P', P(ROWS)),
  ('k|v', P(ROWS, 'tensor', None, None)),
  ('positions', P(ROWS, None)),
)


def rule(name: str) -> tuple[str, P] | None:
  """The first rule that fits the path of an array, such as 'layers/q'."""
  found = (each for each in RULES if re.search(f'(^|/)({each[0]})$', name))
  return next(found, None)


def one_cpu(config: Config) -> bool:
  """Whether the model's programs run on one CPU, not on parts of a mesh."""
  if config.mesh is None:
    return jax.default_backend() == 'cpu'
  return config.mesh.devices.flat[0].platform == 'cpu' and config.mesh.size == 1


def shards(config: Config) -> int:
  """How many parts the rows of a batch are split into."""
  sizes = config.mesh.shape if config.mesh else {}
  return sizes.get('data', 1) * sizes.get('fsdp', 1)


def split(config: Config, x: jax.Array, axes: tuple) -> jax.Array:
  """Constrains how axes of an array are split over the mesh; None: whole."""
  if config.mesh is None:
    return x
  sharding = NamedSharding(config.mesh, P(*axes))
  return jax.lax.with_sharding_constraint(x, sharding)


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


def scoring(config: Config) -> dict:
  """The arguments of `losses.over_tokens` that depend on the mesh."""
  place = functools.partial(of_chunk, config)
  return {'shards': shards(config), 'place': place}


def of_chunk(config: Config, tree):
  """Reshards the arrays of a chunk of tokens to match the head's sharding.

  Where `fsdp` splits the columns of the head (see `vocabulary`), each device
  needs all tokens of its `data` group for its own part of the vocabulary.
  """
  if 'fsdp' not in vocabulary(config):
    return tree
  whole = lambda x: split(config, x, ('data', *(None,) * (x.ndim - 1)))
  return jax.tree.map(whole, tree)


def gathered(config: Config, tree: dict) -> dict:
  """Gathers over `fsdp` the weights that are about to be used.

  The constraint is explicit because XLA may otherwise send pieces around in a
  loop of small products, which takes more memory and time to compile on a TPU.
  """
  if config.mesh is None or config.mesh.shape['fsdp'] == 1:
    return tree

  def gather(path, x):
    found = rule(jax.tree_util.keystr(path, simple=True, separator='/'))
    axes = tuple('tensor' if 'tensor' in (a or ()) else None for a in found[1])
    return split(config, x, (None,) * (x.ndim - len(axes)) + axes)

  return jax.tree_util.tree_map_with_path(gather, tree)
