"""The step of `align`: against NumPy, what must not vary, and updates."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from steps import (
  LENGTH,
  MODEL,
  PAIRS,
  ROWS,
  UPDATE,
  fresh_adapter,
  gradients,
  hp,
  moved_adapter,
  new_state,
  pair_batch,
  relative,
  scored,
  sft_batch,
  step_of,
)

from ealign import align
from ealign.data import batch as batch_lib
from ealign.models import transformer

# --- Against NumPy -----------------------------------------------------------


@jax.jit
def all_logits(adapter, frozen, tokens_BT, positions_BT, segments_BT):
  weights = UPDATE.bind(adapter, frozen)
  hidden, _, _ = transformer.forward(
    MODEL, weights, tokens_BT, positions_BT, segments_BT
  )
  return transformer.logits(MODEL, weights, hidden)


def all_logps(adapter, frozen, *row):
  """log p(t | before) of every token and word, from plain logits."""
  logits = np.asarray(all_logits(adapter, frozen, *row), np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def answers_by_loop(adapter, frozen, pairs):
  """log p(answer) of (chosen, rejected), one answer at a time."""
  sums = []
  positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
  for pair in pairs:
    for answer in (pair.chosen, pair.rejected):
      ids = np.zeros((ROWS, LENGTH), np.int32)  # what follows changes nothing
      ids[:, : len(pair.prompt + answer)] = pair.prompt + answer
      logps = all_logps(adapter, frozen, ids, positions, np.ones_like(ids))[0]
      start = len(pair.prompt)
      sums.append(
        sum(logps[start + i - 1, token] for i, token in enumerate(answer))
      )
  return np.reshape(sums, (-1, 2))


def logits_by_loop(adapter, frozen, pairs):
  """The mean logit over the vocabulary, a token of each answer's."""
  means = []
  positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
  for pair in pairs:
    for answer in (pair.chosen, pair.rejected):
      ids = np.zeros((ROWS, LENGTH), np.int32)
      ids[:, : len(pair.prompt + answer)] = pair.prompt + answer
      row = ids, positions, np.ones_like(ids)
      logits = np.asarray(all_logits(adapter, frozen, *row), np.float64)[0]
      start = len(pair.prompt) - 1
      means.append(logits[start : start + len(answer)].mean())
  return np.reshape(means, (-1, 2))


def test_loss_and_metrics_equal_numpy(frozen, batch):
  adapter = moved_adapter()
  grads, got = gradients(adapter, frozen, batch, lam=0.3, beta=0.2)
  sft = batch.sft
  logps = all_logps(
    adapter, frozen, sft.tokens_BT, sft.positions_BT, sft.segments_BT
  )
  mask = sft.loss_mask_BT
  where = [(b, t) for b, t in np.ndindex(mask.shape) if mask[b, t]]
  assert len(where) == 16
  before = np.array([logps[b, t - 1] for b, t in where])
  words = [sft.tokens_BT[b, t] for b, t in where]
  own = before[np.arange(16), words]
  policy_P2 = answers_by_loop(adapter, frozen, PAIRS)
  ref_P2 = answers_by_loop(fresh_adapter(), frozen, PAIRS)
  reward_P2 = 0.2 * (policy_P2 - ref_P2)
  margin_P = reward_P2[:, 0] - reward_P2[:, 1]
  dpo = np.mean(np.log1p(np.exp(-margin_P)))
  logit_P2 = logits_by_loop(adapter, frozen, PAIRS)
  wanted = {
    'loss': -own.mean() + 0.3 * dpo,
    'loss_sft': -own.mean(),
    'loss_dpo': dpo,
    'entropy': -np.sum(np.exp(before) * before, -1).mean(),
    'mean_token_accuracy': np.mean(before.argmax(-1) == words),
    'rewards/chosen': reward_P2[:, 0].mean(),
    'rewards/rejected': reward_P2[:, 1].mean(),
    'rewards/margins': margin_P.mean(),
    'rewards/accuracies': np.mean(margin_P > 0),
    'logps/chosen': policy_P2[:, 0].mean(),
    'logps/chosen_per_token': np.mean(
      [
        total / len(p.chosen)
        for total, p in zip(policy_P2[:, 0], PAIRS, strict=True)
      ]
    ),
    'logps/rejected': policy_P2[:, 1].mean(),
    'logits/chosen': logit_P2[:, 0].mean(),
    'logits/rejected': logit_P2[:, 1].mean(),
    'grad_norm': np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(grads))),
  }
  assert np.abs(margin_P).min() > 0.01  # policy and reference do differ
  for name, value in wanted.items():
    np.testing.assert_allclose(got[name], value, rtol=2e-4, err_msg=name)


def test_answer_logps_equal_a_loop_without_padding(frozen):
  got = np.reshape(scored(frozen, pair_batch()), (-1, 2))
  wanted = answers_by_loop(fresh_adapter(), frozen, PAIRS)
  np.testing.assert_allclose(got[:3], wanted, rtol=1e-5)
  np.testing.assert_array_equal(got[3], [0, 0])


def test_counts_are_of_supervised_tokens_and_valid_pairs(batch):
  got = align.counts(batch)
  assert (float(got['tokens']), float(got['pairs'])) == (16, 3)
  got = align.counts(batch_lib.Batch())
  assert (float(got['tokens']), float(got['pairs'])) == (0, 0)


# --- Invariants --------------------------------------------------------------


def test_policy_is_reference_at_step_0(frozen, batch):
  _, got = gradients(fresh_adapter(), frozen, batch)
  np.testing.assert_allclose(got['loss_dpo'], math.log(2), rtol=1e-6)
  for name in ('rewards/margins', 'rewards/chosen', 'rewards/rejected'):
    np.testing.assert_allclose(got[name], 0, atol=2e-6)


def test_swapping_chosen_and_rejected_negates_the_margin(frozen):
  adapter = moved_adapter()
  swapped = [
    dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen) for p in PAIRS
  ]
  one, other = (
    gradients(
      adapter,
      frozen,
      batch_lib.Batch(sft_batch(), pair_batch(pairs, frozen)),
    )[1]
    for pairs in (PAIRS, swapped)
  )
  margin = float(one['rewards/margins'])
  assert abs(margin) > 0.01
  np.testing.assert_allclose(other['rewards/margins'], -margin, rtol=1e-5)
  np.testing.assert_allclose(
    one['rewards/accuracies'] + other['rewards/accuracies'], 1, rtol=1e-6
  )


def test_cached_reference_log_probs_give_the_loss_of_those_of_the_step(
  frozen, batch
):
  wanted, told = gradients(moved_adapter(), frozen, batch)
  blank = batch.replace(pairs=pair_batch())  # nothing cached to fall back on
  got, said = gradients(moved_adapter(), frozen, blank, reference='step')
  assert relative(got, wanted) < 1e-5 and said.keys() == told.keys()
  assert abs(float(told['rewards/margins'])) > 0.01
  for name, value in said.items():
    np.testing.assert_allclose(value, told[name], rtol=2e-5, err_msg=name)


def test_a_learning_rate_of_0_changes_no_bit(frozen, batch):
  state = new_state(UPDATE, moved_adapter(), hp(lr=0.0))
  state, _ = step_of(UPDATE)(state, frozen, batch)
  jax.tree.map(np.testing.assert_array_equal, state.params, moved_adapter())
  assert float(optax.tree.norm(state.opt[0].trace)) > 0.01


def test_an_empty_slot_changes_nothing_whatever_it_holds(frozen, batch):
  adapter = moved_adapter()
  wanted = gradients(adapter, frozen, batch)
  full = pair_batch((*PAIRS, dataclasses.replace(PAIRS[0], row=3)), frozen)
  full.weight_P[3] = 0
  got = gradients(adapter, frozen, batch.replace(pairs=full))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7),
    got,
    wanted,
  )


# --- Updates -----------------------------------------------------------------


def only_pairs(batch):
  return batch.replace(sft=sft_batch((0, 0, 0, 0)))


def test_one_dpo_step_raises_the_margin(frozen, batch):
  state = new_state(UPDATE, fresh_adapter(), hp(lam=1.0))
  step = step_of(UPDATE)
  state, first = step(state, frozen, only_pairs(batch))
  state, second = step(state, frozen, only_pairs(batch))
  np.testing.assert_allclose(first['rewards/margins'], 0, atol=2e-6)
  assert second['rewards/margins'] > 1e-3
  assert second['loss_dpo'] < first['loss_dpo']
  assert second['rewards/accuracies'] == 1


def test_20_steps_learn_the_task_and_the_preference(frozen, batch):
  state = new_state(UPDATE, fresh_adapter(), hp(lam=1.0, lr=0.02))
  before = jax.tree.map(np.array, frozen)
  seen = []
  for _ in range(20):
    state, metrics = step_of(UPDATE)(state, frozen, batch)
    seen.append({k: float(v) for k, v in metrics.items()})
  assert int(state.step) == 20
  assert seen[-1]['loss_sft'] < seen[0]['loss_sft'] - 1
  assert seen[-1]['loss_dpo'] < 0.9 * math.log(2)
  assert seen[-1]['logps/chosen'] > seen[-1]['logps/rejected']
  assert seen[0]['grad_norm'] > 0
  jax.tree.map(np.testing.assert_array_equal, frozen, before)


def test_full_fine_tuning_leaves_the_frozen_copy_bit_identical(frozen, batch):
  update = dataclasses.replace(
    UPDATE,
    model=dataclasses.replace(MODEL, layers=1),
    bind=align.full,
    tx=optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1)),
  )
  first = {k: x[:1] for k, x in frozen['layers'].items()}
  frozen = frozen | {'layers': first}
  refs = jax.jit(functools.partial(align.answer_logps, update.model))(
    frozen, batch.pairs
  )
  batch = batch.replace(pairs=batch.pairs.replace(ref_logps_B=refs))
  before = jax.tree.map(np.array, frozen)
  params = jax.tree.map(jnp.copy, frozen)
  state = new_state(update, params, hp(lam=1.0))
  for i in range(3):
    state, metrics = step_of(update)(state, frozen, batch)
    if i == 0:
      np.testing.assert_allclose(metrics['loss_dpo'], math.log(2), rtol=1e-6)
  assert metrics['rewards/margins'] > 0
  jax.tree.map(np.testing.assert_array_equal, frozen, before)
  for name, leaf in state.params['layers'].items():
    assert (np.asarray(leaf) != before['layers'][name]).any(), name


def test_state_is_donated_and_frozen_is_not(frozen, batch):
  state = align.init_state(UPDATE, fresh_adapter(), hp())
  after, _ = step_of(UPDATE)(state, frozen, batch)
  old = jax.tree.leaves((state.params, state.opt))
  assert all(x.is_deleted() for x in old)
  kept = jax.tree.leaves((frozen, after))
  assert not any(x.is_deleted() for x in kept)


def test_states_made_from_one_hp_do_not_share_buffers(frozen, batch):
  shared = hp()
  states = [align.init_state(UPDATE, fresh_adapter(), shared) for _ in range(2)]
  for state in states:
    step_of(UPDATE)(state, frozen, batch)
  assert not any(x.is_deleted() for x in jax.tree.leaves(shared))


def test_other_hyper_parameters_compile_nothing_new(frozen, batch):
  step = step_of(UPDATE)
  step(align.init_state(UPDATE, fresh_adapter(), hp()), frozen, batch)
  size = step._cache_size()
  losses = set()
  for other in (hp(lam=0.0), hp(lam=2.0, beta=0.7), hp(label_smoothing=0.4)):
    state = new_state(UPDATE, moved_adapter(), other)
    losses.add(float(step(state, frozen, batch)[1]['loss']))
  fast = hp(lr=1.0)
  step(align.init_state(UPDATE, fresh_adapter(), fast), frozen, batch)
  assert step._cache_size() == size
  assert len(losses) == 3


def test_the_learning_rate_scales_the_update(frozen, batch):
  before = moved_adapter()
  moved = []
  for lr in (0.01, 0.03):
    state = new_state(UPDATE, moved_adapter(), hp(lr=lr))
    state, metrics = step_of(UPDATE)(state, frozen, batch)
    np.testing.assert_allclose(metrics['learning_rate'], lr, rtol=1e-6)
    moved.append(relative(state.params, before))
  np.testing.assert_allclose(moved[1], 3 * moved[0], rtol=1e-4)


def test_metrics_are_those_of_the_old_parameters(frozen, batch):
  state = new_state(UPDATE, moved_adapter(), hp(lr=0.0))
  state, wanted = step_of(UPDATE)(state, frozen, batch)
  state = new_state(UPDATE, moved_adapter(), hp(lr=0.5))
  state, got = step_of(UPDATE)(state, frozen, batch)
  assert got.keys() == wanted.keys()
  for name in got.keys() - {'learning_rate'}:
    np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)
  assert (float(got['tokens']), float(got['pairs'])) == (16, 3)
  assert all(np.shape(value) == () for value in got.values())


@pytest.mark.parametrize(
  'name, warmup, wanted',
  [
    ('constant', 0, {0: 1, 5: 1, 50: 1}),
    ('constant', 4, {0: 0.25, 1: 0.5, 3: 1, 9: 1}),
    ('linear', 2, {0: 0.5, 1: 1, 2: 1, 6: 0.5, 10: 0, 12: 0}),
    ('cosine', 2, {0: 0.5, 2: 1, 4: 0.853553, 6: 0.5, 10: 0}),
  ],
)
def test_schedules_by_hand(name, warmup, wanted):
  factor = align.schedule(name, warmup, 10)
  for step, value in wanted.items():
    np.testing.assert_allclose(factor(jnp.int32(step)), value, atol=1e-6)
