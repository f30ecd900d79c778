"""What each part of the hybrid loss adds, and what adds nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from steps import (
  LENGTH,
  MODEL,
  PAIRS,
  ROWS,
  SLOTS,
  UPDATE,
  fresh_adapter,
  gradients,
  hp,
  moved_adapter,
  pair_batch,
  per_token,
  relative,
  sft_batch,
)

from ealign import align, losses
from ealign.align import step as step_lib
from ealign.data import batch as batch_lib

WEIGHED = [(PAIRS[0], 3.0), (PAIRS[1], 1.0)]


@pytest.fixture
def light(monkeypatch):
  """`gradients` with `per_token` as the decoder, and five tokens a chunk."""
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', per_token)
  own = {'model': dataclasses.replace(MODEL, max_positions=1), 'chunk': 5}
  return lambda *args, **more: gradients(*args, **own, **more)


def test_each_variant_is_its_loss(light, frozen, batch):
  by_hand = {
    'sigmoid': lambda margin, _: np.log1p(np.exp(-0.2 * margin)).mean(),
    'ipo': lambda margin, _: np.square(margin - 1 / (2 * 0.2)).mean(),
    'sft': lambda _, chosen: -(chosen / np.array([4.0, 2.0, 3.0])).mean(),
  }
  assert by_hand.keys() == losses.VARIANTS.keys()
  policy, pairs = UPDATE.bind(moved_adapter(), frozen), batch.pairs
  logps = align.answer_logps(MODEL, policy, pairs, chunk=5)
  policy_P2 = np.reshape(logps, (-1, 2))[:3]
  ratio_P2 = policy_P2 - np.reshape(pairs.ref_logps_B, (-1, 2))[:3]
  margin_P = ratio_P2[:, 0] - ratio_P2[:, 1]
  for variant, loss in by_hand.items():
    terms = align.hybrid(variant)
    _, got = light(moved_adapter(), frozen, batch, beta=0.2, terms=terms)
    wanted = loss(margin_P, policy_P2[:, 0])
    np.testing.assert_allclose(got['loss_dpo'], wanted, rtol=1e-4)


def test_cached_reference_log_probs_give_the_gradient_of_those_of_the_step(
  light, frozen, batch
):
  # `per_token` wants an adapter: that of the reference is b = 0.
  adapter, frozen = moved_adapter(), UPDATE.bind(fresh_adapter(), frozen)
  refs = align.answer_logps(MODEL, frozen, batch.pairs, chunk=5)
  cached = batch.replace(pairs=batch.pairs.replace(ref_logps_B=refs))
  wanted, metrics = light(adapter, frozen, cached, lam=1.0)
  blank = batch.replace(pairs=pair_batch())
  got, _ = light(adapter, frozen, blank, reference='step', lam=1.0)
  assert abs(float(metrics['rewards/margins'])) > 0.01
  assert relative(got, wanted) < 1e-5


def test_a_pair_of_weight_3_counts_as_three_of_weight_1(light, frozen):
  heavy, other = (dataclasses.replace(p, weight=w) for p, w in WEIGHED)
  of = lambda *pairs: batch_lib.Batch(None, pair_batch(pairs, frozen))
  adapter = moved_adapter()
  got, metrics = light(adapter, frozen, of(heavy, other))
  thrice = [dataclasses.replace(heavy, row=i, weight=1.0) for i in range(3)]
  wanted, plain = light(adapter, frozen, of(*thrice, other))
  assert relative(got, wanted) < 1e-5
  for name in ('loss_dpo', 'rewards/margins'):
    np.testing.assert_allclose(metrics[name], plain[name], rtol=1e-5)
  assert (int(metrics['pairs']), int(plain['pairs'])) == (2, 4)
  even, _ = light(adapter, frozen, of(*(p for p, _ in WEIGHED)))
  assert relative(got, even) > 0.05


def test_a_step_with_empty_slots_only_is_plain_sft(light, frozen):
  adapter = moved_adapter()
  empty = batch_lib.Batch(sft_batch(), pair_batch(()))
  none = batch_lib.Batch(sft_batch())
  got, metrics = light(adapter, frozen, empty, lam=5.0)
  wanted, plain = light(adapter, frozen, none, lam=5.0)
  np.testing.assert_allclose(metrics['loss'], plain['loss'], rtol=1e-6)
  assert float(metrics['loss_dpo']) == 0
  assert relative(got, wanted) < 1e-6


def test_a_batch_without_an_sft_part_is_lambda_times_dpo(light, frozen, batch):
  adapter = moved_adapter()
  alone = batch_lib.Batch(None, batch.pairs)
  got, metrics = light(adapter, frozen, alone, lam=0.5)
  np.testing.assert_allclose(
    metrics['loss'], 0.5 * metrics['loss_dpo'], rtol=1e-6
  )
  unsupervised = batch.replace(sft=sft_batch((0, 0, 0, 0)))
  wanted, _ = light(adapter, frozen, unsupervised, lam=0.5)
  assert relative(got, wanted) < 1e-6


def test_the_balance_of_experts_is_added_by_supervised_tokens(
  frozen, batch, monkeypatch
):
  """routing: two experts; the share of the first follows the hidden states."""

  def routed(config, weights, tokens_BT, positions_BT, *_):
    x_BTD, *_ = per_token(config, weights, tokens_BT, positions_BT)
    share_B = jnp.sum(jax.nn.sigmoid(x_BTD[..., 0]) * (positions_BT >= 0), 1)
    tokens_B = jnp.sum(positions_BT >= 0, -1)
    share_B2 = jnp.stack([share_B, tokens_B - share_B], -1)
    got_B2 = jnp.stack([tokens_B, 0.0 * tokens_B], -1)  # all to the first
    routing_B2E = jnp.stack([got_B2, share_B2], 1) * config.layers
    return x_BTD, None, None, routing_B2E

  monkeypatch.setattr(step_lib.transformer, 'forward_routed', routed)
  adapter = moved_adapter()
  model = dataclasses.replace(MODEL, balance_coef=0.5)
  run = lambda **fields: gradients(
    adapter, frozen, batch, model=model, chunk=5, **fields
  )
  grads, metrics = run()
  x_BTD, *_ = per_token(
    model, UPDATE.bind(adapter, frozen), batch.sft.tokens_BT, None
  )
  seen_BT = batch.sft.positions_BT >= 0
  share_B = (np.asarray(jax.nn.sigmoid(x_BTD[..., 0])) * seen_BT).sum(1)
  balance_B = 2 * share_B / seen_BT.sum(1)
  weight_B = batch.sft.loss_mask_BT[:, 1:].sum(1)
  wanted = (balance_B * weight_B).sum() / weight_B.sum()
  np.testing.assert_allclose(metrics['loss_balance'], wanted, rtol=1e-5)
  rest = metrics['loss_sft'] + 0.1 * metrics['loss_dpo']
  np.testing.assert_allclose(metrics['loss'], rest + 0.5 * wanted, rtol=1e-5)
  pieces, again = run(microbatches=2)
  np.testing.assert_allclose(again['loss'], metrics['loss'], rtol=1e-6)
  assert relative(pieces, grads) < 1e-5


def test_prompt_tokens_contribute_exactly_nothing(frozen, batch, monkeypatch):
  """What is predicted in prompts and pads changes no bit of any gradient."""
  update = dataclasses.replace(UPDATE, bind=align.full)
  shapes = {'sft': (ROWS, LENGTH, 16), 'pairs': (2 * SLOTS, LENGTH, 16)}
  rng = np.random.default_rng(4)
  parts = {k: jnp.float32(rng.normal(size=v)) for k, v in shapes.items()}
  given = lambda config, weights, tokens_BT, *_: (
    weights['hidden']['sft' if len(tokens_BT) == ROWS else 'pairs'],
    None,
    None,
    None,
  )
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', given)

  @jax.jit
  def run(hidden, batch):
    weights = {'hidden': hidden, 'head': frozen['head']}
    state = align.init_state(update, weights, hp(lam=1.0))
    return align.gradients(update, state, {}, batch)

  def off(part):
    """1 where the next token is no target."""
    mask = getattr(batch, part).loss_mask_BT[:, 1:]
    return np.pad(1 - mask, [(0, 0), (0, 1)], constant_values=1)

  def retargeted(part):
    """Other tokens where the mask says that they are no target."""
    one = getattr(batch, part)
    tokens = np.where(one.loss_mask_BT == 1, one.tokens_BT, 60 - one.tokens_BT)
    return one.replace(tokens_BT=tokens.astype(np.int32))

  wanted = run(parts, batch)
  for part, grad in wanted[0]['hidden'].items():
    assert not np.asarray(grad)[off(part) == 1].any()
    targets = (off(part) == 0) & (np.asarray(grad) != 0).any(-1)
    assert targets.sum() == getattr(batch, part).loss_mask_BT.sum()
  noisy = {k: x + 3 * off(k)[..., None] for k, x in parts.items()}
  other = batch_lib.Batch(retargeted('sft'), retargeted('pairs'))
  got = run(noisy, other)
  jax.tree.map(np.testing.assert_array_equal, got, wanted)
