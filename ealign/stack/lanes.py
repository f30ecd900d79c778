"""States of several lanes on a first axis A, updated by one program."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ealign import align
from ealign.align.terms import PAIR_METRICS
from ealign.data import batch as batch_lib
from ealign.models import sharding
from ealign.stack import rows


class Request(NamedTuple):
  """The update of a lane; see `align.train_step`."""

  update: align.Update
  state: 'align.TrainState | Lane'
  frozen: dict
  batch: batch_lib.Batch


class Lanes:
  """The states of `count` lanes, updated by one program.

  A step is for the lanes that wait for one. The others, such as a lane that has
  ended, are computed too, and their states are put back as they were.
  """

  def __init__(self, count: int):
    self.count, self.states = count, None

  def step(self, waiting: Sequence) -> list:
    """One update of the lanes that wait: (state, metrics) of each."""
    first = waiting[0].request
    own = {w.lane: w.request for w in waiting}
    # The place of a lane that does not wait is filled with another's values.
    groups = rows.groups(first.update.model.mesh)
    places = range(rows.width(1, self.count, self.count, groups))
    in_all = [own.get(lane, first) for lane in places]
    if self.states is None:
      states = [each.state for each in in_all]
      self.states = _join(first.update.model, *states)
    learns = [lane in own and not own[lane].batch.empty for lane in places]
    if not any(learns):
      return [(w.request.state, {}) for w in waiting]
    batches = _alike([each.batch for each in in_all])
    program = stacked_step(first.update, len(places))
    self.states, metrics = program(
      self.states, first.frozen, batches, np.array(learns)
    )
    return [
      (Lane(self, w.lane), _own(metrics[w.lane], w.request)) for w in waiting
    ]


class Lane:
  """One lane's `align.TrainState` of these."""

  def __init__(self, lanes: Lanes, lane: int):
    self.lanes, self.lane = lanes, lane

  @property
  def params(self) -> dict:
    return _take(self.lanes.states.params, self.lane)

  def block_until_ready(self) -> None:
    jax.block_until_ready(self.lanes.states)


def alone(state: 'align.TrainState | Lane') -> align.TrainState:
  """A lane's state as its single run has it."""
  single = isinstance(state, Lane)
  return _take(state.lanes.states, state.lane) if single else state


def _alike(batches):
  """The batches of all lanes, with empty parts where only others have some."""
  for name in ('pairs', 'rows'):
    own = [b.parts[name] for b in batches if name in b.parts]
    if own:
      empty = {name: batch_lib.emptied(own[0])}
      batches = [b if name in b.parts else b.replace(**empty) for b in batches]
  return batches


def _own(metrics: dict, request: Request) -> dict:
  """A lane's metrics as its single run has them."""
  if request.batch.empty:
    return {}
  if request.batch.pairs is not None:
    return metrics
  of_pairs = [t.name for t in request.update.terms if t.per == 'pairs']
  absent = {*PAIR_METRICS, *(f'loss_{name}' for name in of_pairs)}
  return {k: v for k, v in metrics.items() if k not in absent}


@jax.jit
def _take(tree, lane):
  return jax.tree.map(lambda x: x[lane], tree)


@functools.partial(jax.jit, static_argnums=0)
def _join(model, *states):
  return _laid(model, jax.tree.map(lambda *xs: jnp.stack(xs), *states))


def _laid(model, states):
  """Each lane's state on its group of devices, as a run alone has it."""
  if rows.groups(model.mesh) == 1:
    return states
  one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
  where = sharding.shardings(model.mesh, jax.tree.map(one, states))
  own = lambda x: NamedSharding(x.mesh, PartitionSpec('stack', *x.spec))
  return jax.lax.with_sharding_constraint(states, jax.tree.map(own, where))


@functools.lru_cache(maxsize=16)
def stacked_step(update: align.Update, count: int):
  """The compiled update of `count` lanes; see `align.train_step`.

  Plain attention takes the place of cuDNN's, whose rule for `jax.vmap` refuses
  a mask that all heads share.
  """
  if update.model.attention == 'cudnn':
    model = dataclasses.replace(update.model, attention='xla')
    update = dataclasses.replace(update, model=model)
  step = functools.partial(align.train_step, update)

  def run(states, frozen, batches, active_A):
    batch = jax.tree.map(lambda *xs: jnp.stack(xs), *batches)
    axis = 'stack' if rows.groups(update.model.mesh) > 1 else None
    all_lanes = jax.vmap(step, (0, None, 0), spmd_axis_name=axis)
    new, metrics = all_lanes(states, frozen, batch)

    def kept(new, old):
      where_A = jnp.reshape(active_A, (-1,) + (1,) * (new.ndim - 1))
      return jnp.where(where_A, new, old)

    own = [
      {k: x_A[lane] for k, x_A in metrics.items()} for lane in range(count)
    ]
    return _laid(update.model, jax.tree.map(kept, new, states)), own

  return jax.jit(run, donate_argnums=0)
