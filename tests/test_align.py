import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ealign import align
from ealign.data import batch as batch_lib
from ealign.models import config as config_lib
from ealign.models import lora, transformer

MODEL = config_lib.Config(
  vocab_size=61,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  tie_embeddings=False,
)
ROWS, LENGTH, SLOTS = 4, 14, 4
KEEP = optax.trace(decay=0.0)  # its state is the gradient: see `gradients`
UPDATE = align.Update(
  model=MODEL,
  bind=functools.partial(lora.bind, 2.0),
  tx=optax.chain(KEEP, optax.scale_by_adam()),
  schedule=align.schedule('constant', 0, 0),
  chunk=100,
)
PAIRS = (  # prompts and answers of unequal lengths
  batch_lib.Pair(0, 0, (1, 2, 3), (10, 11, 12, 9), (20, 21, 9), 0.0, 0.0),
  batch_lib.Pair(1, 0, (4, 5), (13, 9), (22, 23, 24, 25, 9), 0.0, 0.0),
  batch_lib.Pair(2, 0, (1, 6, 7, 8), (14, 15, 9), (26, 27, 9), 0.0, 0.0),
)


def hp(lam=0.1, beta=0.1, label_smoothing=0.0, lr=0.01):
  return align.Hp(*(jnp.float32(x) for x in (lam, beta, label_smoothing, lr)))


def random_tree(like, seed, size):
  rng = np.random.default_rng(seed)
  fill = lambda x: jnp.asarray(size * rng.normal(size=x.shape), jnp.float32)
  return jax.tree.map(fill, like)


def frozen_weights():
  init = functools.partial(transformer.init, MODEL, key=jax.random.key(0))
  return random_tree(jax.eval_shape(init), 0, 0.4)


def fresh_adapter(seed=1):
  init = functools.partial(lora.init, MODEL, key=jax.random.key(0), rank=2)
  adapter = random_tree(jax.eval_shape(init), seed, 0.3)
  zero = lambda ab: ab | {'b': jnp.asarray(np.zeros_like(ab['b']))}
  return {name: zero(ab) for name, ab in adapter.items()}


def moved_adapter():
  """An adapter that has been trained: the policy is not the reference."""
  return random_tree(fresh_adapter(), 2, 0.2)


def sft_batch(supervised=(9, 2, 5, 0)):
  """Packed rows of two segments; so many supervised tokens in each row."""
  tokens = np.random.default_rng(3).integers(0, 61, (ROWS, LENGTH), np.int32)
  positions = np.tile(np.r_[0:8, 0:5, -1].astype(np.int32), (ROWS, 1))
  segments = np.tile(
    np.repeat([1, 2, 0], [8, 5, 1]).astype(np.int32), (ROWS, 1)
  )
  mask = np.zeros((ROWS, LENGTH), np.float32)
  targets = np.r_[2:8, 10:13]  # never a segment's first token
  for row, n in enumerate(supervised):
    mask[row, targets[:n]] = 1
  return batch_lib.SFTBatch(tokens, positions, segments, mask)


def pair_batch(pairs=PAIRS, frozen=None):
  """The pairs in SLOTS slots, with the reference's log-probs if asked."""
  batch = batch_lib.pair_batch(pairs, SLOTS, LENGTH)
  if frozen is not None:
    refs = np.array(scored(frozen, batch))
    batch = batch.replace(ref_logps_B=refs * np.repeat(batch.weight_P, 2))
  return batch


@pytest.fixture(scope='module')
def frozen():
  return frozen_weights()


@pytest.fixture(scope='module')
def batch(frozen):
  return batch_lib.Batch(sft_batch(), pair_batch(frozen=frozen))


scored = jax.jit(functools.partial(align.answer_logps, MODEL, chunk=5))


# Compiling the gradient of the decoder takes seconds, so few programs do it:
# what does not depend on the decoder is tested with `light` in its place.
@functools.lru_cache
def step_of(update):
  return jax.jit(functools.partial(align.train_step, update), donate_argnums=0)


def per_token(config, weights, tokens_BT, positions_BT, *_):
  """In place of the decoder: one projection, each token by itself."""
  del config, positions_BT
  adapter = jax.tree.map(lambda x: x[0], weights['adapter']['q'])
  low = jax.tree.map(lambda x: x[:, :16] if x.shape[1] == 32 else x, adapter)
  x_BTD = weights['embed'][tokens_BT]
  w = weights['layers']['q'][0, :, :16]
  return jnp.tanh(lora.project(x_BTD, w, low)), None, None, None


@pytest.fixture
def light(monkeypatch):
  """`gradients` with `per_token` as the decoder, and five tokens a chunk."""
  monkeypatch.setattr(align.transformer, 'forward_routed', per_token)
  own = {'model': dataclasses.replace(MODEL, max_positions=1), 'chunk': 5}
  return lambda *args, **more: gradients(*args, **own, **more)


@functools.partial(jax.jit, static_argnums=0)
def new_state(update, params, hyper):
  return align.init_state(update, params, hyper)


def gradients(params, frozen, batch, *, lam=0.1, beta=0.1, **fields):
  """(gradient, metrics) of a step; params stay as they are."""
  update = dataclasses.replace(UPDATE, **fields)
  state = new_state(update, params, hp(lam=lam, beta=beta))
  state, metrics = step_of(update)(state, frozen, batch)
  return state.opt[0].trace, metrics


def relative(got, wanted):
  """Relative L2 distance of two trees."""
  flat = lambda tree: np.concatenate(
    [np.ravel(x) for x in jax.tree.leaves(tree)]
  )
  return np.linalg.norm(flat(got) - flat(wanted)) / np.linalg.norm(flat(wanted))


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


def test_loss_and_metrics_equal_numpy(frozen, batch):
  adapter = moved_adapter()
  _, got = gradients(adapter, frozen, batch, lam=0.3, beta=0.2)
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
    'logps/rejected': policy_P2[:, 1].mean(),
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
  in_step = dataclasses.replace(UPDATE, reference='step')
  policy = UPDATE.bind(moved_adapter(), frozen)
  _, wanted = gradients(moved_adapter(), frozen, batch)
  blank = batch.replace(pairs=pair_batch())  # nothing cached to fall back on
  loss = jax.jit(functools.partial(align.hybrid_loss, in_step))
  _, got = loss(hp(), policy, frozen, blank, align.counts(batch))
  assert got.keys() <= wanted.keys()
  assert abs(float(wanted['rewards/margins'])) > 0.01
  for name, value in got.items():
    np.testing.assert_allclose(value, wanted[name], rtol=2e-5, err_msg=name)


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


def test_each_variant_is_its_loss(light, frozen, batch):
  by_hand = {
    'sigmoid': lambda margin, _: np.log1p(np.exp(-0.2 * margin)).mean(),
    'ipo': lambda margin, _: np.square(margin - 1 / (2 * 0.2)).mean(),
    'sft': lambda _, chosen: -(chosen / np.array([4.0, 2.0, 3.0])).mean(),
  }
  assert by_hand.keys() == align.DPO.keys()
  policy, pairs = UPDATE.bind(moved_adapter(), frozen), batch.pairs
  logps = align.answer_logps(MODEL, policy, pairs, chunk=5)
  policy_P2 = np.reshape(logps, (-1, 2))[:3]
  ratio_P2 = policy_P2 - np.reshape(pairs.ref_logps_B, (-1, 2))[:3]
  margin_P = ratio_P2[:, 0] - ratio_P2[:, 1]
  for variant, loss in by_hand.items():
    _, got = light(moved_adapter(), frozen, batch, beta=0.2, variant=variant)
    wanted = loss(margin_P, policy_P2[:, 0])
    np.testing.assert_allclose(got['loss_dpo'], wanted, rtol=1e-4)


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

  monkeypatch.setattr(align.transformer, 'forward_routed', routed)
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
  monkeypatch.setattr(align.transformer, 'forward_routed', given)

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


def test_microbatches_equal_one_batch(frozen, batch):
  # Rows of 9, 2, 5 and 0 supervised tokens; the last holds no pair either.
  adapter = moved_adapter()
  wanted, metrics = gradients(adapter, frozen, batch, lam=1.0)
  got, summed = gradients(adapter, frozen, batch, microbatches=4, lam=1.0)
  assert relative(got, wanted) < 1e-5
  assert summed.keys() == metrics.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(summed[name], value, rtol=1e-5, err_msg=name)


def arrays_of(jaxpr):
  """Every intermediate of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    yield from (v.aval for v in eqn.outvars)
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from arrays_of(inner)


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
