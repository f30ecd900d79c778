"""The backend of a run that computes for itself alone."""

import functools

import jax
import numpy as np

from ealign import align
from ealign.data import batch as batch_lib
from ealign.engine import Backend
from ealign.runtime import mesh
from ealign.sampling import labels, requests, sampler


def pair_logps(request: requests.Pairs) -> np.ndarray:
  """log p of the chosen and of the rejected answer of each pair, [P, 2], nats.

  In batches of `slots` pairs of `length` tokens: one program.
  """
  score, slots = scorer(request.config), request.slots
  logps = [np.zeros((0, 2), np.float32)]
  for i in range(0, len(request.pairs), slots):
    part = request.pairs[i : i + slots]
    batch = batch_lib.pair_batch(part, slots, request.length)
    logps_P2 = mesh.to_host(score(request.weights, batch)).reshape(-1, 2)
    logps.append(logps_P2[: len(part)])
  return np.concatenate(logps)


@functools.lru_cache(maxsize=8)
def scorer(config):
  """The compiled `align.answer_logps` of a model."""
  return jax.jit(functools.partial(align.answer_logps, config))


@functools.lru_cache(maxsize=16)
def jit_step(update: align.Update):
  """The compiled update, one for all runs that share the static part."""
  return jax.jit(functools.partial(align.train_step, update), donate_argnums=0)


def step(update: align.Update, state, frozen, batch: batch_lib.Batch):
  """The next state and the metrics; an empty batch changes nothing."""
  if batch.empty:
    return state, {}
  return jit_step(update)(state, frozen, batch)


ALONE = Backend(
  generate=sampler.generate,
  label_logps=labels.label_logps,
  pair_logps=pair_logps,
  step=step,
  state=lambda state: state,
  share=lambda name, make: make(),
  apart=lambda function, *args: function(*args),
  alone=True,
)
