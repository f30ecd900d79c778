"""Slices of a batch, and the size of arrays."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from steps import (
  MODEL,
  UPDATE,
  arrays_of,
  gradients,
  hp,
  moved_adapter,
  relative,
)

from ealign import align
from ealign.data import batch as batch_lib
from ealign.models import lora, transformer


def test_microbatches_equal_one_batch(frozen, batch):
  # Rows of 9, 2, 5 and 0 supervised tokens; the last holds no pair either.
  adapter = moved_adapter()
  wanted, metrics = gradients(adapter, frozen, batch, lam=1.0)
  got, summed = gradients(adapter, frozen, batch, microbatches=4, lam=1.0)
  assert relative(got, wanted) < 1e-5
  assert summed.keys() == metrics.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(summed[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize('reference', ['cached', 'step'])
def test_the_gradient_makes_no_array_of_all_logits(reference):
  V, B, T = 2000, 8, 16
  model = dataclasses.replace(MODEL, vocab_size=V, tie_embeddings=True)
  update = dataclasses.replace(
    UPDATE, model=model, reference=reference, chunk=5
  )
  shapes = lambda fn, *args, **kw: jax.eval_shape(fn, *args, **kw)
  key = jax.random.key(0)
  frozen = shapes(functools.partial(transformer.init, model), key=key)
  adapter = shapes(functools.partial(lora.init, model, rank=2), key=key)
  ints, floats = np.zeros((B, T), np.int32), np.zeros((B, T), np.float32)
  batch = batch_lib.Batch(
    batch_lib.SFTBatch(ints, ints, ints, floats),
    batch_lib.empty_pair_batch(B // 2, T),
  )
  state = shapes(functools.partial(align.init_state, update), adapter, hp())
  fn = functools.partial(align.gradients, update)
  jaxpr = jax.make_jaxpr(fn)(state, frozen, batch)
  sizes = [math.prod(a.shape) for a in arrays_of(jaxpr.jaxpr)]
  assert 5 * V in sizes  # the walk sees a chunk's logits
  assert max(sizes) < B * T * V / 4
