"""The decoder against NumPy and itself; `test_families` has transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign.models import attention, rope, transformer
from ealign.models import config as config_lib

from . import test_families as families

forward = jax.jit(
  transformer.forward, static_argnums=0, static_argnames=('tap',)
)


# --- Parts against NumPy -----------------------------------------------------


def test_rope_is_a_complex_rotation():
  config = config_lib.dataclasses.replace(CONFIG, rope_theta=100.0)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 5, 2, 8)).astype(np.float32)
  positions = np.array([[0, 1, 2, 30, 300]], np.int32)
  got = rope.rotate(x, rope.angles(config, positions))
  # Pair (j, j + H/2) turns by position * theta^(-2j/H).
  frequency = 100.0 ** -np.array([0.0, 0.25, 0.5, 0.75])
  turn = np.exp(1j * positions[0][:, None] * frequency)[None, :, None]
  turned = (x[..., :4] + 1j * x[..., 4:]) * turn
  wanted = np.concatenate([turned.real, turned.imag], -1)
  np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_einsum_equals_numpy_head_by_head():
  rng = np.random.default_rng(0)
  q = rng.normal(size=(2, 3, 4, 8)).astype(np.float32)
  k, v = rng.normal(size=(2, 2, 2, 5, 8)).astype(np.float32)
  mask = rng.random((2, 3, 5)) < 0.6
  mask[..., 0] = True
  got = attention.einsum(q, k, v, mask, scale=8**-0.5)
  for b, t, n in np.ndindex(2, 3, 4):
    scores = k[b, n // 2] @ q[b, t, n] / np.sqrt(8)
    share = np.exp(scores) * mask[b, t]
    wanted = share / share.sum() @ v[b, n // 2]
    np.testing.assert_allclose(got[b, t, n], wanted, atol=1e-5)


def test_rms_norm_by_hand():
  got = transformer.rms_norm(jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0]), 0.0)
  np.testing.assert_allclose(got, [3 / 12.5**0.5, 8 / 12.5**0.5], rtol=1e-6)


# --- The one forward against itself ------------------------------------------
# Few shapes, so that few programs are compiled: rows are LENGTH tokens long,
# a cache has SLOTS slots and is extended by 1, 7 or 32 tokens.

CONFIG, WEIGHTS = families.ours('qwen3 untied')
LENGTH, SLOTS = 47, 51


@pytest.fixture(scope='module')
def weights():
  return WEIGHTS


@pytest.fixture(scope='module')
def tokens_BT():
  return np.random.default_rng(2).integers(0, 41, (2, LENGTH), np.int32)


@pytest.fixture(scope='module')
def whole(weights, tokens_BT):
  hidden, _, _ = forward(CONFIG, weights, tokens_BT, counting(0, LENGTH))
  return np.asarray(hidden)


@pytest.fixture
def extend(weights):
  """Starts an empty cache; each call writes tokens from a slot on."""
  cache = transformer.init_cache(CONFIG, 2, SLOTS)

  def step(tokens_BT, positions_BT, write_B):
    nonlocal cache
    hidden, cache, _ = forward(
      CONFIG,
      weights,
      tokens_BT,
      np.asarray(positions_BT, np.int32),
      cache=cache,
      write_B=np.asarray(write_B, np.int32),
    )
    return np.asarray(hidden), np.asarray(cache['positions'])

  return step


def counting(start, stop):
  return np.tile(np.arange(start, stop, dtype=np.int32), (2, 1))


def close(got, wanted):
  np.testing.assert_allclose(got, wanted, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize('offset_B', [0, (0, 4)], ids=['scalar', 'rows'])
def test_extending_a_cache_by_1_7_and_32_equals_one_pass(
  extend, tokens_BT, whole, offset_B
):
  at, parts = 0, []
  for n in (7, 1, 7, 32):
    cut = slice(at, at + n)
    hidden, positions = extend(
      tokens_BT[:, cut], counting(at, at + n), np.add(offset_B, at)
    )
    parts.append(hidden)
    at += n
  assert at == LENGTH
  close(np.concatenate(parts, 1), whole)
  for row, offset in enumerate(np.broadcast_to(offset_B, 2)):
    wanted = np.full(SLOTS, -1)
    wanted[offset : offset + LENGTH] = np.arange(LENGTH)
    np.testing.assert_array_equal(positions[row], wanted)


def test_token_by_token_equals_one_pass(extend, tokens_BT, whole):
  for t in range(12):
    hidden, _ = extend(tokens_BT[:, t : t + 1], counting(t, t + 1), t)
    close(hidden[:, 0], whole[:, t])


def test_holes_and_padding_inside_a_cache_are_seen_by_no_one(
  extend, tokens_BT, whole
):
  positions = counting(0, 7)
  positions[0, 5:] = -1
  positions[1, :2] = -1
  positions[1, 2:] -= 2
  tokens = tokens_BT[:, :7].copy()
  tokens[1, 2:] = tokens_BT[1, :5]
  hidden, _ = extend(tokens, positions, 3)  # slots 0 to 2 stay empty
  close(hidden[0, :5], whole[0, :5])
  close(hidden[1, 2:], whole[1, :5])
  hidden, _ = extend(tokens_BT[:, 5:12], counting(5, 12), [20, 30])
  close(hidden, whole[:, 5:12])


def test_a_refilled_slot_forgets_what_it_held(extend, tokens_BT, whole):
  extend(tokens_BT[:, 20:27], counting(0, 7), 0)
  positions = counting(0, 7)
  positions[1, 5:] = -1
  hidden, _ = extend(tokens_BT[:, :7], positions, 0)
  close(hidden[0], whole[0, :7])
  close(hidden[1, :5], whole[1, :5])
  next_two = np.stack([tokens_BT[0, 7:8], tokens_BT[1, 5:6]])
  hidden, _ = extend(next_two, [[7], [5]], [7, 6])
  close(hidden[:, 0], np.stack([whole[0, 7], whole[1, 5]]))


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_on_either_side_changes_nothing(
  weights, tokens_BT, whole, side
):
  n = LENGTH - 6
  widths = [(0, 0), (6, 0) if side == 'left' else (0, 6)]
  positions = np.pad(counting(0, n), widths, constant_values=-1)
  got = []
  for filler in (0, 7):
    tokens = np.pad(tokens_BT[:, :n], widths, constant_values=filler)
    hidden, _, _ = forward(CONFIG, weights, tokens, positions)
    assert np.isfinite(hidden).all()
    got.append(np.asarray(hidden)[positions >= 0])
  np.testing.assert_array_equal(*got)
  close(got[0], whole[:, :n].reshape(-1, 16))


def test_packed_segments_equal_separate_rows(weights, tokens_BT, whole):
  tokens, positions, segments = np.zeros((3, 2, LENGTH), np.int32)
  positions -= 1
  packed = {0: [(0, 7), (1, 30), (0, 3)], 1: [(1, LENGTH)]}
  wanted = np.zeros_like(whole)
  for row, cuts in packed.items():
    at = 0
    for i, (source, n) in enumerate(cuts):
      cut = slice(at, at + n)
      tokens[row, cut] = tokens_BT[source, :n]
      positions[row, cut] = np.arange(n)
      segments[row, cut] = i + 1
      wanted[row, cut] = whole[source, :n]
      at += n
  hidden, _, _ = forward(CONFIG, weights, tokens, positions, segments)
  close(hidden[positions >= 0], wanted[positions >= 0])
  assert np.isfinite(hidden).all()


def test_a_token_changes_itself_and_what_follows_only(
  weights, tokens_BT, whole
):
  other = tokens_BT.copy()
  other[:, 9] = (other[:, 9] + 1) % 41
  hidden, _, _ = forward(CONFIG, weights, other, counting(0, LENGTH))
  np.testing.assert_array_equal(hidden[:, :9], whole[:, :9])
  assert (np.abs(hidden[:, 9:] - whole[:, 9:]).max(-1) > 1e-4).all()


def test_taps_are_the_residual_stream(weights, tokens_BT, whole):
  run = lambda tap: forward(
    CONFIG, weights, tokens_BT, counting(0, LENGTH), tap=tap
  )
  hidden, _, taps = run((0, 1))
  assert taps.shape == (2, 2, LENGTH, 16)
  close(hidden, whole)
  close(transformer.rms_norm(taps[1], weights['norm'], 1e-6), hidden)
  close(run((1,))[2][0], taps[1])
  assert run(())[2] is None


def test_steering_adds_to_the_residual_stream_after_its_layer(
  weights, tokens_BT, whole
):
  run = lambda steer: forward(
    CONFIG, weights, tokens_BT, counting(0, LENGTH), steer_LD=steer, tap=(0, 1)
  )
  steer = np.zeros((2, 16), np.float32)
  plain, _, taps = run(steer)
  close(plain, whole)
  steer[0, 3] = 2.0
  _, _, steered = run(steer)
  close(steered[0] - taps[0], np.broadcast_to(steer[0], taps[0].shape))
  assert np.abs(steered[1] - taps[1])[..., :3].max() > 1e-2
  steer = np.roll(steer, 1, axis=0)
  _, _, steered = run(steer)
  np.testing.assert_array_equal(steered[0], taps[0])
  close(steered[1] - taps[1], np.broadcast_to(steer[1], taps[1].shape))


@pytest.fixture(scope='module')
def gradient(weights, tokens_BT):
  def loss(weights, config):
    hidden, _, _ = transformer.forward(
      config, weights, tokens_BT[:, :9], counting(0, 9)
    )
    return jnp.mean(jnp.square(transformer.logits(config, weights, hidden)))

  grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  how = lambda fields: config_lib.dataclasses.replace(CONFIG, **fields)
  return lambda **fields: grad(weights, how(fields))


@pytest.mark.parametrize(
  'how', [{'remat': 'dots'}, {'remat': 'full'}, {'scan': False}], ids=str
)
def test_remat_and_unrolled_layers_give_the_same_gradient(gradient, how):
  value, wanted = gradient()
  changed, got = gradient(**how)
  np.testing.assert_allclose(changed, value, rtol=1e-6)
  compare = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)
  jax.tree.map(compare, got, wanted)


def test_bfloat16_activations_and_cache_with_float32_logits(
  weights, tokens_BT, whole
):
  config = config_lib.dataclasses.replace(CONFIG, dtype='bfloat16')
  hidden, cache, _ = forward(
    config,
    weights,
    tokens_BT,
    counting(0, LENGTH),
    cache=transformer.init_cache(config, 2, LENGTH),
    write_B=np.int32(0),
  )
  assert hidden.dtype == cache['k'].dtype == cache['v'].dtype == jnp.bfloat16
  logits = jax.eval_shape(
    lambda h: transformer.logits(config, weights, h), hidden
  )
  assert logits.dtype == jnp.float32
  got = np.asarray(hidden, np.float32)
  length = lambda x: np.linalg.norm(x, axis=-1)
  cosine = np.sum(got * whole, -1) / (length(got) * length(whole))
  assert cosine.mean() > 0.999


def test_init_has_the_shapes_and_scales_it_says():
  config = config_lib.dataclasses.replace(
    CONFIG, d_model=64, d_ff=96, tie_embeddings=True
  )
  init = jax.jit(transformer.init, static_argnums=0)
  weights = jax.device_get(init(config, key=jax.random.key(1)))
  assert 'head' not in weights and weights['embed'].shape == (41, 64)
  layers = weights['layers']
  assert layers['down'].shape == (2, 96, 64)
  np.testing.assert_allclose(np.std(layers['gate']), 0.02, rtol=0.05)
  np.testing.assert_allclose(np.std(layers['down']), 0.01, rtol=0.05)
  for name in ('attn_norm', 'mlp_norm', 'q_norm', 'k_norm'):
    assert (layers[name] == 1).all()
  drawn = [x.ravel()[:16] for k, x in layers.items() if 'norm' not in k]
  drawn.append(weights['embed'].ravel()[:16])
  signs = {tuple(np.sign(x).tolist()) for x in drawn}
  assert len(signs) == len(drawn)  # no key was used twice
