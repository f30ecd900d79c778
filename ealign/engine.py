"""What a run asks of the devices: each run for itself, unless it is told so.

`grid.stack` answers the calls of several runs together, as one program.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ealign import align
from ealign.data import batch as batch_lib
from ealign.runtime import mesh as mesh_lib
from ealign.sampling import labels, sampler


def pair_logps(
  model, weights, pairs: Sequence[batch_lib.Pair], *, slots: int, length: int
) -> np.ndarray:
  """log p of the chosen and of the rejected answer of each pair, [P, 2], nats.

  In batches of `slots` pairs of `length` tokens: one program.
  """
  score = scorer(model)
  found = [np.zeros((0, 2), np.float32)]
  for i in range(0, len(pairs), slots):
    part = pairs[i : i + slots]
    logps_B = score(weights, batch_lib.pair_batch(part, slots, length))
    logps_P2 = mesh_lib.to_host(logps_B).reshape(-1, 2)
    found.append(logps_P2[: len(part)])
  return np.concatenate(found)


@functools.lru_cache(maxsize=8)
def scorer(model):
  """The compiled `align.answer_logps` of a model."""
  return jax.jit(functools.partial(align.answer_logps, model))


@functools.lru_cache(maxsize=16)
def jit_step(update: align.Update):
  """The compiled update, one for all runs that share the static part."""
  return jax.jit(functools.partial(align.train_step, update), donate_argnums=0)


def step(update: align.Update, state, frozen, batch: batch_lib.Batch):
  """The next state and the metrics; an empty batch changes nothing."""
  if batch.empty:
    return state, {}
  return jit_step(update)(state, frozen, batch)


@dataclasses.dataclass(frozen=True)
class Calls:
  """The functions a run computes with.

  generate, label_logps, pair_logps: those of `sampling` and of this module.
  step: as here. state: what `step` returned as a `align.TrainState`.
  share: share(name, make) is make(), or what another run made of that name.
  apart: apart(function, *args), of what runs do one after another.
  alone: whether no other run computes in this process.
  """

  generate: Callable = sampler.generate
  label_logps: Callable = labels.label_logps
  pair_logps: Callable = pair_logps
  step: Callable = step
  state: Callable = lambda state: state
  share: Callable = lambda name, make: make()
  apart: Callable = lambda function, *args: function(*args)
  alone: bool = True


ALONE = Calls()
