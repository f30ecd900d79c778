"""Splash, interpreted on the CPU, against the plain products."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign.models import attention
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError

ALL_DEVICES = True

# 140 tokens are padded to one block of 256, or two; head_dim 24 is padded.
B, T, N, K, H = 2, 140, 4, 2, 24
CONFIG = Config(
  vocab_size=7,
  d_model=8,
  layers=2,
  heads=N,
  kv_heads=K,
  head_dim=H,
  d_ff=8,
  window=30,
)


def rows(kind):
  """positions_BT and segments_BT: packed, or padded on either side."""
  lengths = {
    'packed': ((60, 1, 70), (140,)),
    'left': ((17,), (100,)),
    'right': ((17,), (140,)),
  }[kind]
  positions = np.full((B, T), -1, np.int32)
  segments = np.zeros((B, T), np.int32)
  for row, parts in enumerate(lengths):
    at = T - sum(parts) if kind == 'left' else 0
    for i, n in enumerate(parts):
      positions[row, at : at + n] = np.arange(n)
      segments[row, at : at + n] = i + 1
      at += n
  return positions, segments if kind == 'packed' else None


@functools.cache
def arrays():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=(B, *shape, H)).astype(np.float32)
  return draw(T, N), draw(K, T), draw(K, T), draw(T, N)


@functools.partial(jax.jit, static_argnums=0)
def run(config, positions, segments, local, seed, *qkv):
  attend = attention.attender(
    config, positions, positions, segments, cached=False
  )

  def total(*qkv):
    o = attend(*qkv, local=local)
    o = jnp.where((positions >= 0)[..., None, None], o, 0)
    return jnp.sum(o * seed), o

  return jax.grad(total, (0, 1, 2), has_aux=True)(*qkv)


def both(config, kind, local=None):
  """The gradients and the answer, of what is no padding."""
  *qkv, seed = arrays()
  return run(config, *rows(kind), local, seed, *qkv)


def assert_close(got, wanted):
  close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=2e-5)
  jax.tree.map(close, got, wanted)


def of(kernel, **fields):
  return dataclasses.replace(CONFIG, attention=kernel, **fields)


@pytest.mark.parametrize('kind', ['packed', 'left', 'right'])
def test_splash_equals_the_plain_products(kind, monkeypatch):
  if kind == 'packed':
    monkeypatch.setattr(attention, '_BLOCKS', (128,))
  splash, plain = (both(of(k), kind) for k in ('interpret', 'xla'))
  assert_close(splash, plain)
  assert np.abs(plain[1]).max() > 0.5


@pytest.mark.parametrize('local', [False, True])
def test_local_layers_see_their_window(local):
  layers = {'local': (True, False)}
  flag = jnp.array(local)
  splash, plain = (
    both(of(k, **layers), 'packed', flag) for k in ('interpret', 'xla')
  )
  assert_close(splash, plain)
  whole = both(of('xla'), 'packed')[1]
  assert (np.abs(plain[1] - whole).max() > 1e-2) == local


def test_on_a_mesh_each_device_has_its_rows_and_heads():
  mesh = mesh_lib.make(data=1, fsdp=2, tensor=2)
  splash = both(of('interpret', mesh=mesh), 'packed')
  assert_close(splash, both(of('xla'), 'packed'))
  assert splash[1].sharding.shard_shape((B, T, N, H)) == (1, T, 2, H)


def plain(q_BTNH, k_BKSH, v_BKSH, mask_BTS, *, scale):
  """Attention as it is written, for JAX to differentiate."""
  groups = q_BTNH.shape[2] // k_BKSH.shape[1]
  k_BNSH, v_BNSH = (jnp.repeat(x, groups, 1) for x in (k_BKSH, v_BKSH))
  scores = jnp.einsum('btnh,bnsh->bnts', q_BTNH, k_BNSH) * scale
  share = jax.nn.softmax(jnp.where(mask_BTS[:, None], scores, -1e30))
  return jnp.einsum('bnts,bnsh->btnh', share, v_BNSH)


def seen():
  positions, segments = rows('packed')
  mask = positions[:, :, None] >= positions[:, None]
  return mask & (segments[:, :, None] == segments[:, None])


def gradients(attend, qkv):
  seed = arrays()[3]
  total = lambda *qkv: jnp.sum(attend(*qkv, seen(), scale=0.3) * seed)
  found = jax.jit(jax.grad(total, (0, 1, 2)))(*qkv)
  return [np.asarray(x, np.float32) for x in found]


def test_the_gradient_of_the_plain_products_is_that_of_jax():
  qkv = arrays()[:3]
  assert_close(gradients(attention.einsum, qkv), gradients(plain, qkv))


def test_the_gradient_in_bfloat16_is_as_exact_as_that_of_jax():
  half = [jnp.asarray(x, jnp.bfloat16) for x in arrays()[:3]]
  exact = gradients(plain, [x.astype(jnp.float32) for x in half])
  off = lambda attend: [
    np.abs(x - y).mean()
    for x, y in zip(gradients(attend, half), exact, strict=True)
  ]
  for own, other in zip(off(attention.einsum), off(plain), strict=True):
    assert 0 < own < 1.25 * other


def test_a_query_that_sees_no_key_gives_nothing_and_changes_nothing():
  q, k, v, seed = arrays()
  mask = seen().copy()
  mask[0, 5] = False
  total = lambda *qkv: jnp.sum(
    attention.einsum(*qkv, mask, scale=0.3)[0, 5] * seed[0, 5]
  )
  value, found = jax.value_and_grad(total, (0, 1, 2))(q, k, v)
  assert value == 0 and not any(np.any(x) for x in found)
  one = q[:, 5:6], k.swapaxes(2, 3), v, mask[:, 5:6]
  assert not np.any(attention.of_one_query(*one, scale=0.3)[0])


def test_nothing_as_wide_as_the_scores_is_kept_for_the_gradient():
  of_all = functools.partial(
    jax.vjp, lambda *x: attention.einsum(*x, seen(), scale=0.3)
  )
  kept = jax.tree.leaves(of_all(*arrays()[:3])[1])
  assert max(x.size for x in kept) < B * N * T * T / 2
  assert sum(x.size for x in kept) > B * T * N * H


def test_one_query_is_attended_as_many_are():
  q, k, v, _ = arrays()
  scores = functools.partial(attention.einsum, scale=0.3)
  for t in (0, 5, T - 1):
    one, mask = q[:, t : t + 1], seen()[:, t : t + 1]
    got = attention.of_one_query(one, k.swapaxes(2, 3), v, mask, scale=0.3)
    np.testing.assert_allclose(got, scores(one, k, v, mask), atol=2e-6)


def test_there_is_no_array_of_all_scores():
  positions, segments = rows('packed')

  def sizes(kernel):
    attend = attention.attender(
      of(kernel), positions, positions, segments, cached=False
    )
    run = jax.jit(lambda *qkv: attend(*qkv).sum())
    text = run.lower(*arrays()[:3]).as_text()
    return f'{B}x{T}x{T}x' in text or f'x{T}x{T}xf32' in text

  assert sizes('xla') and not sizes('interpret')


def test_the_choice_goes_by_the_platform_of_the_mesh():
  half = dataclasses.replace(CONFIG, dtype='bfloat16')
  odd = dataclasses.replace(half, head_dim=12)
  choose = attention.choose
  assert choose(CONFIG, 'cpu') == choose(CONFIG, 'gpu') == 'xla'
  assert choose(half, 'gpu') == 'cudnn' and choose(odd, 'gpu') == 'xla'
  assert choose(CONFIG, 'tpu') == choose(odd, 'tpu') == 'splash'
  assert choose(half, 'tpu', 'xla') == 'xla'
  with pytest.raises(UserError, match="'splash': needs TPUs; here are cpu"):
    choose(CONFIG, 'cpu', 'splash')
  with pytest.raises(UserError, match="'cudnn': needs NVIDIA.*head_dim 12"):
    choose(odd, 'gpu', 'cudnn')
