"""Programs that read prompts, sample and score, from shapes of the weights.

They are the very functions that a run or an evaluation jits, with arguments
that are shapes on the mesh's devices, so no weight is read and no array exists.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Shape
from jax.sharding import NamedSharding, PartitionSpec

from ealign import alone
from ealign.data import batch as batch_lib
from ealign.fields import Config
from ealign.models import flops, layout, sharding
from ealign.sampling import labels, sampler


@dataclasses.dataclass(frozen=True)
class Program:
  """One compiled program of a run or of an evaluation.

  Attributes:
    name: of `programs.NAMES` or `suites.NAMES`.
    run: jitted.
    args: trees of shapes with shardings.
    flops: that the model needs for it, on all devices together.
    attention, experts: those of `flops` that one forward pass needs for them:
      their kernels do not show what they do.
    holds: which of the run's resident trees are among its arguments.
    trips: of a loop that ends when its data says so, at most.
    of: tells it from others of its name; '' where there are none.
    calls: how often the questions of suites need it, 0 for all else.
    extends: whether it extends a cache, so that no kernel attends.
  """

  name: str
  run: Callable
  args: tuple
  flops: float
  attention: float
  experts: float
  holds: tuple[str, ...]
  trips: int = 1
  of: str = ''
  calls: float = 0.0
  extends: bool = False

  @property
  def title(self) -> str:
    return f'{self.name} {self.of}'.rstrip()


@dataclasses.dataclass(frozen=True)
class Held:
  """What is on the devices while programs run: trees of shapes, by name."""

  config: Config
  mesh: jax.sharding.Mesh
  resident: dict[str, Any]


def gathered(model, mesh, shapes, rows: int, new: int = 0):
  """Model, mesh and weights to sample with, as shapes(model) has them."""
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes(model)))
  model, wide = sharding.widened(model, mesh, size, rows, new)
  return model, wide, placed(wide, shapes(model))


def placed(mesh, tree):
  """The shapes of a tree where the rules have its arrays."""
  place = lambda x, where: Shape(x.shape, x.dtype, sharding=where)
  return jax.tree.map(place, tree, sharding.shardings(mesh, tree))


def device_bytes(tree) -> int:
  """Bytes of a tree of shapes on one device."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )


def by_row(mesh, x):
  """The shape with its first axis split as the rows of a batch are."""
  where = NamedSharding(mesh, PartitionSpec(layout.ROWS))
  return Shape(x.shape, x.dtype, sharding=where)


def _holds(run, mesh, name):
  """The resident tree read in place; none if its weights were gathered."""
  return (name,) if mesh.shape == run.mesh.shape else ()


def _reading(model, rows, length) -> dict:
  """The work of reading prompts into a cache: without the model's head."""
  attention = flops.attention(model, rows, length)
  inner = flops.multiplied(model) - model.vocab_size * model.d_model
  total = 2.0 * rows * length * inner + attention
  experts = flops.experts(model, rows * length)
  return {'flops': total, 'attention': attention, 'experts': experts}


def sampled_from(run) -> str:
  """The resident tree that is sampled from: what full fine-tuning trains."""
  full = run.config.model.train == 'full' and 'params' in run.resident
  return 'params' if full else 'frozen'


def sampled(run, by, c, rows, prompt, names=('prefill', 'decode')):
  """The two programs of `sampler`, as c, a `fields.Sample`, says.

  by: (model, mesh, weights). prompt: tokens of each row. names: of the two.
  """
  model, mesh, weights = by
  read, sample = sampler.programs(model, c.max_new_tokens, c.candidates)
  prompt_BT = by_row(mesh, Shape((rows, prompt), jnp.int32))
  args = weights, prompt_BT, prompt_BT
  holds, new = _holds(run, mesh, sampled_from(run)), c.max_new_tokens
  work = _reading(model, rows, prompt)
  yield Program(names[0], read, args, holds=holds, **work)
  # Every token sees the prompt and half of the answers, on average.
  seen = 4.0 * model.layers * model.heads * model.head_dim
  attention = seen * rows * new * (prompt + new / 2)
  start = jax.eval_shape(read, *args)
  yield Program(
    *(names[1], sample, (weights, *_decoded(mesh, *start))),
    flops=2.0 * rows * new * flops.multiplied(model) + attention,
    attention=attention,
    experts=flops.experts(model, rows * new),
    holds=holds,
    trips=new,
    extends=True,
  )


def _decoded(mesh, cache, hidden_BD, next_B):
  """The arguments of `sampler.decode` after the weights, from `prefill`'s."""
  B, put = next_B.shape, functools.partial(by_row, mesh)
  keys = lambda: jax.random.key_data(jax.random.split(jax.random.key(0), B))
  seeds = jax.eval_shape(keys)
  i32, f32, ids, live = (
    Shape(B, kind) for kind in (jnp.int32, jnp.float32, seeds.dtype, bool)
  )
  how = sampler.Sampling(f32, i32, f32, i32)
  of_rows = hidden_BD, next_B, (seeds, ids, live), how
  stop_K, whole = sampler.pad_stops(()), NamedSharding(mesh, PartitionSpec())
  stop_K = Shape(stop_K.shape, stop_K.dtype, sharding=whole)
  return placed(mesh, cache), *jax.tree.map(put, of_rows), stop_K


def scoring(run, name, by, shape, tree, holds, asked=labels.PLAIN):
  """Prompts of a shape [rows, tokens] and the labels of a tree behind each."""
  model, mesh, weights = by
  prompt_BT = by_row(mesh, Shape(shape, jnp.int32))
  work = _with_labels(model, *shape, tree)
  return Program(
    name,
    labels.program(model, asked),
    (weights, prompt_BT, prompt_BT, tree),
    holds=_holds(run, mesh, holds),
    **work,
  )


def continued(run, names, by, starts, rests, tree, holds, asked):
  """As `scoring`, of prompts whose starts are read once.

  names: of the two programs. starts, rests: shapes [rows, tokens].
  """
  model, mesh, weights = by
  read, extend = labels.shared_programs(model, asked)
  ids = lambda shape: (by_row(mesh, Shape(shape, jnp.int32)),) * 2
  args, own = (weights, *ids(starts)), _holds(run, mesh, holds)
  work = _reading(model, *starts)
  yield Program(names[0], read, args, holds=own, **work)
  cache, *last = jax.eval_shape(read, *args)
  begun = placed(mesh, cache), *(by_row(mesh, x) for x in last)
  from_B = by_row(mesh, Shape(rests[:1], jnp.int32))
  work = _with_labels(model, *rests, tree)
  # The rest of a prompt sees all of its start.
  seen = 4.0 * model.layers * model.heads * model.head_dim * starts[1]
  for name in ('flops', 'attention'):
    work[name] += seen * math.prod(rests)
  args = weights, begun, from_B, *ids(rests), tree
  yield Program(names[1], extend, args, holds=own, extends=True, **work)


def _with_labels(model, rows, length, tree) -> dict:
  """The work of reading prompts and the nodes of a tree behind each."""
  work, extended = _reading(model, rows, length), rows * tree.tokens.shape[1]
  work['flops'] += 2.0 * extended * flops.multiplied(model)
  work['experts'] += flops.experts(model, extended)
  return work


def pairs(run, name, model, weights, holds, slots: int, length: int):
  """The log-probabilities of two answers to each of some prompts."""
  shape = 2 * slots, length
  batch = batch_lib.empty_pair_batch(slots, length)
  return Program(
    name,
    alone.scorer(model),
    (weights, placed(run.mesh, batch)),
    flops=flops.forward(model, *shape),
    attention=flops.attention(model, *shape),
    experts=flops.experts(model, math.prod(shape)),
    holds=holds,
  )
