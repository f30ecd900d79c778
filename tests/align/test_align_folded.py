"""SFT rows and pairs by one body: what they give apart."""

import dataclasses

import jax
import numpy as np
import pytest
from steps import (
  MODEL,
  PAIRS,
  UPDATE,
  frozen_weights,
  gradients,
  hp,
  moved_adapter,
  per_token,
  random_tree,
  relative,
  scored,
  sft_batch,
)

from ealign import align
from ealign.align import accumulate, terms
from ealign.align import step as step_lib
from ealign.data import batch as batch_lib

FROZEN = frozen_weights()


def a_batch(fold):
  """Four rows of 16 tokens, and as many of one or two answers each."""
  wide = lambda x, value=0: np.pad(x, [(0, 0), (0, 2)], constant_values=value)
  rows = sft_batch()
  sft = jax.tree.map(wide, rows)
  sft = sft.replace(positions_BT=wide(rows.positions_BT, -1))
  slots = 2 * fold
  pairs = batch_lib.pair_batch(PAIRS[:slots], slots, 16 // fold)
  refs = np.array(scored(FROZEN, pairs)) * np.repeat(pairs.weight_P, 2)
  return batch_lib.Batch(sft, pairs.replace(ref_logps_B=refs))


def check(monkeypatch, batch, **fields):
  """Gradient and metrics by one body equal those one after the other."""
  assert accumulate.fits(batch)
  got, said = gradients(moved_adapter(), FROZEN, batch, lam=1.0, **fields)
  monkeypatch.setattr(accumulate, 'fits', lambda batch: False)
  fields |= {'chunk': 9}  # a program of its own
  wanted, told = gradients(moved_adapter(), FROZEN, batch, lam=1.0, **fields)
  assert relative(got, wanted) < 1e-5
  assert abs(float(told['rewards/margins'])) > 0.01
  assert said.keys() == told.keys()
  for name, value in told.items():
    np.testing.assert_allclose(said[name], value, rtol=1e-5, err_msg=name)


def test_two_answers_in_a_row_see_nothing_of_each_other(monkeypatch):
  check(monkeypatch, a_batch(2))


@pytest.mark.parametrize(
  'fields',
  [{'microbatches': 2}, {'reference': 'step'}, {'terms': terms.hybrid('ipo')}],
)
def test_slices_references_and_variants(monkeypatch, fields):
  batch = a_batch(1)
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', per_token)
  monkeypatch.setattr(step_lib, 'answer_logps', _references)
  model = dataclasses.replace(MODEL, max_positions=2)
  check(monkeypatch, batch, model=model, **fields)


def test_arms_of_one_program_too(monkeypatch):
  batch = a_batch(1)
  assert accumulate.fits(batch)
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', per_token)
  params = [random_tree(moved_adapter(), seed, 0.2) for seed in range(2)]
  states = [align.init_state(UPDATE, p, hp(lam=0.5)) for p in params]
  step = lambda state: align.gradients(UPDATE, state, FROZEN, batch)[0]
  got = jax.jit(jax.vmap(step))(jax.tree.map(lambda *x: np.stack(x), *states))
  for arm, state in enumerate(states):
    own = jax.tree.map(lambda x, arm=arm: x[arm], got)
    assert relative(own, jax.jit(step)(state)) < 1e-5


def _references(config, weights, pairs, **_):
  """In place of the reference: other numbers for other answers and weights."""
  own_B = pairs.tokens_BT @ np.arange(16) * 1e-3
  return -own_B - weights['norm'][0] - 10 * ('adapter' in weights)


def test_other_shapes_go_one_after_the_other():
  batch = a_batch(2)
  half = jax.tree.map(lambda x: x[: len(x) // 2], batch.pairs)
  assert not accumulate.fits(batch.replace(pairs=half))
  short = jax.tree.map(lambda x: x[:, :12], batch.sft)
  assert not accumulate.fits(batch.replace(sft=short))
