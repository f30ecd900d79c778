import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign.models import config as config_lib
from ealign.models import lora, transformer

CONFIG = config_lib.Config(
  vocab_size=41,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
)
RANK, SCALE = 3, 0.7

forward = jax.jit(
  lambda weights, tokens: transformer.forward(
    CONFIG, weights, tokens, positions(tokens)
  )[0]
)


def positions(tokens):
  return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)


def random_tree(like, seed):
  rng = np.random.default_rng(seed)
  fill = lambda x: jnp.asarray(rng.normal(size=x.shape) / 3, jnp.float32)
  return jax.tree.map(fill, like)


@pytest.fixture(scope='module')
def frozen():
  init = functools.partial(transformer.init, CONFIG, key=jax.random.key(0))
  return random_tree(jax.eval_shape(init), 0)


@pytest.fixture(scope='module')
def fresh():
  init = functools.partial(lora.init, CONFIG, rank=RANK)
  return jax.jit(init)(key=jax.random.key(1))


@pytest.fixture(scope='module')
def tokens():
  return np.random.default_rng(1).integers(0, 41, (4, 9), np.int32)


def test_project_equals_numpy():
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 4))
  a, b = rng.normal(size=(5, 2)), rng.normal(size=(2, 4))
  f32 = lambda *xs: (jnp.asarray(x, jnp.float32) for x in xs)
  x32, w32, a32, b32 = f32(x, w, a, b)
  got = lora.project(x32, w32, {'a': a32, 'b': b32})
  np.testing.assert_allclose(got, x @ w + x @ a @ b, atol=1e-5)
  np.testing.assert_allclose(lora.project(x32, w32), x @ w, atol=1e-5)


def test_project_gives_each_arm_its_own_rows():
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(6, 3, 5)), rng.normal(size=(5, 4))
  a, b = rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 2, 4))
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  got = lora.project(f32(x), f32(w), {'a': f32(a), 'b': f32(b)})
  wanted = np.stack([x[i] @ w + x[i] @ a[i // 3] @ b[i // 3] for i in range(6)])
  np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize('arms', [(), (2,)])
def test_the_gradient_is_that_of_jax(arms):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  x, w, seed = draw(4, 3, 5), draw(5, 7), draw(4, 3, 7)
  adapter = {'a': draw(*arms, 5, 2), 'b': draw(*arms, 2, 7)}

  def plain(x, w, adapter):
    low = jnp.einsum('abtd,adr->abtr', x.reshape(2, 2, 3, 5), adapter['a'])
    high = jnp.einsum('abtr,arf->abtf', low, adapter['b'])
    return x @ w + high.reshape(4, 3, 7)

  def grads(project, adapter):
    total = lambda x, adapter: jnp.sum(project(x, w, adapter) * seed)
    return jax.grad(total, (0, 1))(x, adapter)

  both = adapter if arms else jax.tree.map(lambda y: jnp.stack([y, y]), adapter)
  got, wanted = grads(lora.project, adapter), grads(plain, both)
  if not arms:  # one adapter has the gradient of both
    wanted = wanted[0], jax.tree.map(lambda y: y.sum(0), wanted[1])
  close = functools.partial(np.testing.assert_allclose, atol=1e-4)
  jax.tree.map(close, got, wanted)


def test_the_scale_by_hand():
  assert lora.scale(rank=16, alpha=32, rslora=False) == 2
  assert lora.scale(rank=16, alpha=32, rslora=True) == 8


def test_a_fresh_adapter_is_uniform_in_a_and_zero_in_b(fresh):
  assert set(fresh) == set(lora.TARGETS)
  for name, ab in fresh.items():
    fan_in, fan_out = lora.widths(CONFIG)[name]
    assert ab['a'].shape == (2, fan_in, RANK)
    assert ab['b'].shape == (2, RANK, fan_out)
    assert ab['a'].dtype == ab['b'].dtype == jnp.float32
    assert not ab['b'].any()
    bound = fan_in**-0.5
    assert np.abs(ab['a']).max() <= bound
    np.testing.assert_allclose(np.std(ab['a']), bound / 3**0.5, rtol=0.15)
  assert len({float(ab['a'][0, 0, 0]) for ab in fresh.values()}) > 4


def test_identity_at_b_zero_is_bit_identical(frozen, fresh, tokens):
  x = frozen['embed'][tokens]
  for name in ('q', 'k', 'v', 'gate', 'up'):
    w, ab = frozen['layers'][name][0], jax.tree.map(lambda x: x[0], fresh[name])
    np.testing.assert_array_equal(lora.project(x, w, ab), lora.project(x, w))


def test_identity_at_b_zero_whatever_a_is(frozen, fresh, tokens):
  got = forward(lora.bind(SCALE, fresh, frozen), tokens)
  no_a = {k: ab | {'a': jnp.zeros_like(ab['a'])} for k, ab in fresh.items()}
  wanted = forward(lora.bind(SCALE, no_a, frozen), tokens)
  np.testing.assert_array_equal(got, wanted)
  # Without an adapter it is another program, which XLA may fuse otherwise.
  np.testing.assert_allclose(got, forward(frozen, tokens), atol=2e-6)


def test_bind_leaves_the_frozen_tree_as_it_is(frozen, fresh):
  keys = set(frozen)
  bound = lora.bind(SCALE, fresh, frozen)
  assert set(frozen) == keys and 'adapter' not in frozen
  assert bound['layers'] is frozen['layers']


def test_attached_equals_merged(frozen, fresh, tokens):
  adapter = random_tree(fresh, 2)
  got = forward(lora.bind(SCALE, adapter, frozen), tokens)
  wanted = forward(lora.merge(SCALE, adapter, frozen), tokens)
  np.testing.assert_allclose(got, wanted, atol=2e-4, rtol=2e-4)
  assert np.abs(got - forward(frozen, tokens)).max() > 0.1
  assert 'adapter' not in lora.merge(SCALE, adapter, frozen)


@pytest.mark.parametrize('name', lora.TARGETS)
def test_each_projection_takes_its_adapter(frozen, fresh, tokens, name):
  # The others get a zero b, so that one program serves every case.
  adapter = {k: ab | {'b': jnp.zeros_like(ab['b'])} for k, ab in fresh.items()}
  adapter[name] = random_tree(fresh[name], 3)
  got = forward(lora.bind(SCALE, adapter, frozen), tokens)
  merged = lora.merge(SCALE, {name: adapter[name]}, frozen)
  np.testing.assert_allclose(got, forward(merged, tokens), atol=2e-4, rtol=2e-4)
  assert np.abs(got - forward(frozen, tokens)).max() > 1e-2


def test_the_arm_axis_equals_a_run_an_arm(frozen, fresh, tokens):
  arms = [random_tree(fresh, seed) for seed in (4, 5)]
  stacked = jax.tree.map(lambda *xs: jnp.stack(xs, 1), *arms)
  got = forward(lora.bind(SCALE, stacked, frozen), tokens)
  for i, adapter in enumerate(arms):
    rows = slice(2 * i, 2 * i + 2)
    wanted = forward(lora.bind(SCALE, adapter, frozen), tokens)[rows]
    np.testing.assert_allclose(got[rows], wanted, atol=1e-5, rtol=1e-5)


def test_merging_rounds_once(frozen, fresh):
  adapter = random_tree(fresh, 6)
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen)
  got = lora.merge(SCALE, adapter, half)['layers']['up']
  a, b = (np.asarray(adapter['up'][x], np.float64) for x in 'ab')
  exact = np.asarray(half['layers']['up'], np.float64) + SCALE * a @ b
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_less(
    np.abs(np.asarray(got, np.float64) - exact), np.abs(exact) * 2**-8 + 1e-6
  )
