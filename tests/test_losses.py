import functools
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from steps import arrays_of

from ealign import losses

B, T, D, V = 2, 13, 8, 61
LOG2 = math.log(2)


@pytest.fixture(autouse=True)
def strict():
  """No silent promotion of dtype or rank: (B,) * (B, 1) is an error."""
  with (
    jax.numpy_dtype_promotion('strict'),
    jax.numpy_rank_promotion('raise'),
  ):
    yield


def example(seed=0):
  rng = np.random.default_rng(seed)
  f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)
  targets = rng.integers(0, V, (B, T), np.int32)
  return f32(D, V), 2 * f32(B, T, D), targets


def log_softmax(head, hidden):
  """In float64, and in the way of a textbook."""
  logits = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)
  share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  return logits, np.log(share)


# --- Token statistics --------------------------------------------------------


@pytest.mark.parametrize('chunk', [1, 5, B * T, 1000])
def test_token_logps_equal_numpy(chunk):
  head, hidden, targets = example()
  _, logps = log_softmax(head, hidden)
  wanted = np.take_along_axis(logps, targets[..., None], -1)[..., 0]
  got = losses.token_logps(head, hidden, targets, chunk=chunk)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize('others', [False, True])
def test_next_logps_equal_numpy(others):
  head, hidden, _ = example()
  logits, logps = log_softmax(head, hidden[0])
  nexts = np.stack([np.roll([t, 3 * t + 1, -1], t) for t in range(T)])
  nexts[0] = -1  # nothing is named: all of it is the others'
  named = np.where(nexts >= 0, np.take_along_axis(logps, nexts, -1), 0)
  given = jnp.asarray(logits, jnp.float32), nexts.astype(np.int32)
  got, other, norm = losses.next_logps(*given, others=others)
  assert got.dtype == norm.dtype == jnp.float32
  np.testing.assert_allclose(got, named, atol=1e-5)
  np.testing.assert_allclose(norm, np.log(np.exp(logits).sum(-1)), atol=1e-5)
  if not others:
    assert other is None
    return
  left = 1 - np.sum(np.where(nexts >= 0, np.exp(named), 0), -1)
  np.testing.assert_allclose(other, np.log(left), atol=1e-5)


def test_the_others_are_exact_next_to_a_sure_token():
  logits = jnp.zeros((1, 4)).at[0, 2].set(50.0)
  _, other, _ = losses.next_logps(logits, jnp.array([[2]]), others=True)
  np.testing.assert_allclose(other, [math.log(3) - 50], rtol=1e-6)
  none = losses.next_logps(logits, jnp.array([[2, 0, 1, 3]]), others=True)[1]
  assert np.isneginf(none).all()  # nothing is left, and nothing is nan


@pytest.mark.parametrize('chunk', [5, B * T])
def test_token_stats_equal_numpy(chunk):
  head, hidden, targets = example()
  logits, logps = log_softmax(head, hidden)
  targets[0] = logits[0].argmax(-1)  # some hits
  got = losses.token_stats(head, hidden, targets, chunk=chunk)
  wanted = {
    'logp': np.take_along_axis(logps, targets[..., None], -1)[..., 0],
    'entropy': -np.sum(np.exp(logps) * logps, -1),
    'top1': logits.argmax(-1) == targets,
    'logit': logits.mean(-1),
  }
  assert got.keys() == wanted.keys()
  assert wanted['top1'][0].all() and not wanted['top1'][1].all()
  for name, value in wanted.items():
    assert got[name].dtype == jnp.float32
    np.testing.assert_allclose(got[name], value, atol=2e-5, err_msg=name)


def test_bfloat16_hidden_states_give_float32_log_probs():
  head, hidden, targets = example()
  got = losses.token_logps(head, jnp.asarray(hidden, jnp.bfloat16), targets)
  assert got.dtype == jnp.float32
  # Rounding the inputs is all that may differ, not that of the sums.
  rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16)) for x in (head, hidden)]
  _, logps = log_softmax(*rounded)
  wanted = np.take_along_axis(logps, targets[..., None], -1)[..., 0]
  np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_gradient_equals_the_unchunked_one():
  head, hidden, targets = example()
  weight = np.random.default_rng(1).normal(size=(B, T)).astype(np.float32)

  def chunked(head, hidden, of):
    logp = of(head, hidden, targets, chunk=5)
    logp = logp['logp'] if isinstance(logp, dict) else logp
    return jnp.sum(logp * weight)

  def plain(head, hidden):
    logps = jax.nn.log_softmax(hidden @ head)
    picked = jnp.take_along_axis(logps, targets[..., None], -1)[..., 0]
    return jnp.sum(picked * weight)

  wanted = jax.grad(plain, (0, 1))(head, hidden)
  for of in (losses.token_logps, losses.token_stats):
    got = jax.grad(chunked, (0, 1))(head, hidden, of)
    for g, w in zip(got, wanted, strict=True):
      np.testing.assert_allclose(g, w, atol=2e-5)
  frozen = functools.partial(losses.token_stats, frozen=True)
  got = jax.grad(chunked, 1)(head, hidden, frozen)
  np.testing.assert_allclose(got, wanted[1], atol=2e-5)
  # Of a frozen head no logits are computed again: a product forward, one back.
  for of, products in ((losses.token_stats, 3), (frozen, 2)):
    by_hidden = functools.partial(jax.grad(chunked, 1), of=of)
    text = str(jax.make_jaxpr(by_hidden)(head, hidden))
    assert text.count('dot_general[') == products


@pytest.mark.parametrize('frozen', [False, True])
def test_only_the_log_prob_carries_a_gradient(frozen):
  head, hidden, targets = example()

  def rest(head, hidden):
    stats = losses.token_stats(head, hidden, targets, frozen=frozen, chunk=5)
    return sum(jnp.sum(stats[k]) for k in ('entropy', 'top1', 'logit'))

  for grad in jax.grad(rest, (0, 1))(head, hidden):
    assert not np.asarray(grad).any()


def test_what_is_masked_contributes_exactly_nothing():
  head, hidden, targets = example()
  mask = (np.random.default_rng(2).random((B, T)) < 0.5).astype(np.float32)

  @jax.jit
  def value_and_grads(head, hidden, targets):
    def loss(head, hidden):
      logps = losses.token_logps(head, hidden, targets, chunk=5)
      return jnp.sum(losses.sft(logps, mask))

    return jax.value_and_grad(loss, (0, 1))(head, hidden)

  wanted = value_and_grads(head, hidden, targets)
  assert not np.asarray(wanted[1][1])[mask == 0].any()
  off = (mask == 0)[..., None]
  changed = np.where(off, hidden + 3, hidden)
  moved = np.where(mask == 0, (targets + 1) % V, targets)
  got = value_and_grads(head, changed, moved)
  jax.tree.map(np.testing.assert_array_equal, got, wanted)


def largest(loss, *args):
  jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(*args)
  return max(math.prod(a.shape) for a in arrays_of(jaxpr.jaxpr))


def test_no_array_of_all_logits_is_made():
  head, hidden = jnp.zeros((8, 1000)), jnp.zeros((8, 16, 8))
  targets = jnp.zeros((8, 16), jnp.int32)
  limit = 8 * 16 * 1000 / 4

  def plain(head, hidden):
    logps = jax.nn.log_softmax(hidden @ head)
    return jnp.sum(jnp.take_along_axis(logps, targets[..., None], -1))

  def by_stats(head, hidden):
    stats = losses.token_stats(head, hidden, targets, chunk=16)
    return jnp.sum(stats['logp'])

  def by_logps(head, hidden):
    return jnp.sum(losses.token_logps(head, hidden, targets, chunk=16))

  assert largest(plain, head, hidden) >= limit  # the walk sees what it should
  assert largest(by_stats, head, hidden) < limit
  assert largest(by_logps, head, hidden) < limit


# --- Losses ------------------------------------------------------------------

LOGPS = np.array([[-1.0, -3.0], [-4.0, -2.0]], np.float32)
REF = np.array([[-2.0, -2.5], [-3.0, -3.0]], np.float32)
MARGIN = np.array([1.5, -2.0])  # (-1 + 2) - (-3 + 2.5), (-4 + 3) - (-2 + 3)
LENGTHS = np.array([[3.0, 2.0], [2.0, 5.0]], np.float32)


def dpo(loss, logps=LOGPS, ref=REF, *, beta=0.1, smoothing=0.0):
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  values = {'beta': f32(beta), 'label_smoothing': f32(smoothing)}
  row = next(v for v in losses.VARIANTS.values() if v.loss is loss)
  own = {name: values[name] for name in row.coefficients}
  return loss(f32(logps), f32(ref), f32(LENGTHS), **own)


def test_sft_by_hand():
  logps = jnp.array([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]])
  mask = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
  np.testing.assert_allclose(losses.sft(logps, mask), [5.0, 0.5])


def test_dpo_sigmoid_by_hand():
  wanted = [math.log(1 + math.exp(-0.15)), math.log(1 + math.exp(0.2))]
  np.testing.assert_allclose(wanted, [0.620957, 0.798139], atol=1e-6)
  got = dpo(losses.dpo_sigmoid)
  assert got.shape == (2,)
  np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize('beta', [0.01, 0.1, 5.0])
@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_dpo_is_log_2_where_policy_is_reference(beta, smoothing):
  got = dpo(losses.dpo_sigmoid, REF, REF, beta=beta, smoothing=smoothing)
  np.testing.assert_allclose(got, [LOG2, LOG2], rtol=1e-7)


def test_label_smoothing_by_hand():
  # (1 - e) log(1 + exp(-m)) + e log(1 + exp(m)) = log(1 + exp(-m)) + e m
  got = dpo(losses.dpo_sigmoid, smoothing=0.1)
  np.testing.assert_allclose(got, [0.635957, 0.778139], atol=1e-6)


def test_dpo_stays_finite_far_from_the_reference():
  far = np.array([[-1e4, 0.0], [0.0, -1e4]], np.float32)
  got = dpo(losses.dpo_sigmoid, far, np.zeros_like(far), beta=1.0)
  np.testing.assert_allclose(got, [1e4, 0.0])


def test_ipo_by_hand():
  np.testing.assert_allclose(dpo(losses.dpo_ipo), [12.25, 49.0], rtol=1e-5)
  np.testing.assert_allclose(dpo(losses.dpo_ipo, REF, REF), [25.0, 25.0])


def test_alternatives_by_hand():
  np.testing.assert_allclose(dpo(losses.dpo_alternatives), [1 / 3, 2.0])
  other = LOGPS * np.array([1.0, 7.0], np.float32)
  np.testing.assert_array_equal(
    dpo(losses.dpo_alternatives, other, 2 * REF, beta=9.0, smoothing=0.4),
    dpo(losses.dpo_alternatives),
  )


def test_alternatives_of_an_empty_slot_are_finite():
  zero = jnp.zeros((1, 2))
  got = losses.dpo_alternatives(zero, zero, zero)
  np.testing.assert_array_equal(got, [0.0])


def test_swapping_chosen_and_rejected_negates_the_margin():
  swap = lambda x: x[:, ::-1]
  change = lambda loss: dpo(loss) - dpo(loss, swap(LOGPS), swap(REF))
  # -log s(m) + log s(-m) = -m, and (m - c)^2 - (-m - c)^2 = -4 m c
  np.testing.assert_allclose(
    change(losses.dpo_sigmoid), -0.1 * MARGIN, atol=1e-6
  )
  np.testing.assert_allclose(change(losses.dpo_ipo), -20 * MARGIN, rtol=1e-5)


def test_the_docs_have_a_row_for_every_variant():
  text = pathlib.Path(__file__).parent.parent / 'docs' / 'method.md'
  wanted = [
    f'| `{name}` | `losses.{v.loss.__name__}` | '
    f'{", ".join(f"`{c}`" for c in v.coefficients) or "none"} | '
    f'{"yes" if v.control else "no"} |'
    for name, v in losses.VARIANTS.items()
  ]
  rows = text.read_text().split('| variant |')[1].splitlines()[2:]
  rows = list(itertools.takewhile(lambda row: row.startswith('|'), rows))
  assert len(rows) == len(wanted)
  assert all(map(str.startswith, rows, wanted))


METHOD = [v.loss for v in losses.VARIANTS.values() if not v.control]


@pytest.mark.parametrize('loss', METHOD)
def test_the_loss_wants_chosen_up_and_rejected_down(loss):
  grad = jax.grad(lambda logps: jnp.sum(dpo(loss, logps)))(jnp.asarray(LOGPS))
  assert (grad[:, 0] < 0).all() and (grad[:, 1] > 0).all()
  np.testing.assert_allclose(grad[:, 0], -grad[:, 1], rtol=1e-6)


def test_the_gradient_of_dpo_by_hand():
  # eq. 7's gradient: beta * sigmoid(-beta margin), on either answer.
  grad = jax.grad(lambda x: jnp.sum(dpo(losses.dpo_sigmoid, x)))
  size = 0.1 / (1 + np.exp(0.1 * MARGIN))
  np.testing.assert_allclose(
    grad(jnp.asarray(LOGPS)), np.stack([-size, size], 1), rtol=1e-5
  )


def test_top1_is_argmax_also_where_logits_tie():
  logits_CV = jnp.array([[1.0, 3, 3, 0], [3, 3, 3, 3], [0, 1, 2, 3]])
  for target in range(4):
    found = losses._is_first(logits_CV, jnp.full(3, target))
    assert (found == (jnp.argmax(logits_CV, -1) == target)).all()
