"""The decoder: one forward for training, scoring, reviewing and sampling.

Weights are a nested dict; layers are stacked on axis 0 and scanned:
  embed [V, D], norm [D], head [D, V] (absent when tied), layers: attn_norm
  [L, D], q [L, D, N*H], k, v [L, D, K*H], o [L, N*H, D], q_norm, k_norm
  [L, H], mlp_norm [L, D], gate, up [L, D, F], down [L, F, D].
"""

import functools

import jax
import jax.numpy as jnp

from ealign.models import lora
from ealign.models.config import Config

_REMAT = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


def init(config: Config, *, key, std: float = 0.02) -> dict:
  """Random weights, float32: normal(std), output projections / sqrt(2L)."""
  L, D, H = config.layers, config.d_model, config.head_dim
  keys = iter(jax.random.split(key, 9))
  normal = lambda shape, s: jax.random.normal(next(keys), shape) * s
  out_std = std / (2 * L) ** 0.5
  layers = {
    name: normal((L, *io), out_std if name in ('o', 'down') else std)
    for name, io in lora.widths(config).items()
  }
  ones = {'attn_norm': D, 'mlp_norm': D, 'q_norm': H, 'k_norm': H}
  layers |= {name: jnp.ones((L, width)) for name, width in ones.items()}
  weights = {
    'embed': normal((config.vocab_size, D), std),
    'layers': layers,
    'norm': jnp.ones(D),
  }
  if not config.tie_embeddings:
    weights['head'] = normal((D, config.vocab_size), std)
  return weights


def init_cache(config: Config, rows: int, length: int) -> dict:
  """An empty cache of `length` slots a row; position -1 marks a free slot."""
  shape = (config.layers, rows, length, config.kv_heads, config.head_dim)
  return {
    'k': jnp.zeros(shape, config.dtype),
    'v': jnp.zeros(shape, config.dtype),
    'positions': jnp.full((rows, length), -1, jnp.int32),
  }


def forward(
  config: Config,
  weights: dict,
  tokens_BT: jax.Array,
  positions_BT: jax.Array,
  segments_BT: jax.Array | None = None,
  cache: dict | None = None,
  write_B: jax.Array | None = None,
  steer_LD: jax.Array | None = None,
  tap: tuple[int, ...] = (),
):
  """Hidden states before the head, the new cache and the taps.

  Args:
    config: static.
    weights: the tree above, with an adapter attached or not.
    tokens_BT: token ids.
    positions_BT: position of each token in its sequence; -1 is padding, on
      either side, and is seen by no one.
    segments_BT: packed rows: tokens see their own segment only. None: one
      segment a row. Not used with a cache.
    cache: from `init_cache` or an earlier call. A query at position p sees
      the slots with 0 <= position <= p, so left padding, holes and refilled
      slots need no mask of their own.
    write_B: first slot the T tokens are written to; a scalar for all rows
      (one slice) or [B] (a scatter).
    steer_LD: added to the residual stream after each layer.
    tap: layers whose output is returned, in taps [len(tap), B, T, D].

  Returns:
    hidden_BTD (normed, config.dtype), cache (None if none came in), taps.
  """
  if cache is None:
    mask_BTS = _mask(positions_BT, positions_BT)
    if segments_BT is not None:
      mask_BTS &= segments_BT[:, :, None] == segments_BT[:, None, :]
    kv = None
  else:
    slots_BS = _write(cache['positions'], positions_BT, write_B)
    mask_BTS = _mask(positions_BT, slots_BS)
    kv = (cache['k'], cache['v'])
  rope = _rope_angles(config, positions_BT)
  x_BTD = weights['embed'][tokens_BT].astype(config.dtype)

  def layer(carry, xs):
    x_BTD, kv = carry
    i, p, adapter, steer_D = xs
    dense = lambda x, name: lora.project(x, p[name], adapter.get(name))
    h_BTD = rms_norm(x_BTD, p['attn_norm'], config.norm_eps)
    a_BTD, kv = _attention(
      config, p, dense, h_BTD, rope, mask_BTS, kv, i, write_B
    )
    x_BTD += a_BTD
    h_BTD = rms_norm(x_BTD, p['mlp_norm'], config.norm_eps)
    gated = jax.nn.silu(dense(h_BTD, 'gate')) * dense(h_BTD, 'up')
    x_BTD += dense(gated, 'down')
    if steer_D is not None:
      x_BTD += steer_D.astype(x_BTD.dtype)
    return (x_BTD, kv), x_BTD if tap else None

  if config.remat != 'none':
    layer = jax.checkpoint(layer, policy=_REMAT[config.remat])
  xs = (
    jnp.arange(config.layers),
    weights['layers'],
    weights.get('adapter', {}),
    steer_LD,
  )
  (x_BTD, kv), taps = jax.lax.scan(
    layer, (x_BTD, kv), xs, unroll=1 if config.scan else config.layers
  )
  if cache is not None:
    cache = {'k': kv[0], 'v': kv[1], 'positions': slots_BS}
  taps = taps[jnp.array(tap)] if tap else None
  return rms_norm(x_BTD, weights['norm'], config.norm_eps), cache, taps


def head(config: Config, weights: dict) -> jax.Array:
  """The output matrix [D, V]; the embedding transposed when tied."""
  return weights['embed'].T if config.tie_embeddings else weights['head']


def logits(config: Config, weights: dict, hidden: jax.Array) -> jax.Array:
  """float32 logits [..., V] of a few positions; scoring goes by chunks."""
  return project_logits(head(config, weights), hidden)


def project_logits(head_DV: jax.Array, hidden: jax.Array) -> jax.Array:
  """hidden [..., D] -> float32 [..., V]; float32 because it is compared."""
  return jnp.einsum(
    '...d,dv->...v',
    hidden,
    head_DV.astype(hidden.dtype),
    preferred_element_type=jnp.float32,
  )


def rms_norm(x, weight, eps):
  """Root-mean-square norm (arXiv 1910.07467), statistics in float32."""
  x32 = x.astype(jnp.float32)
  var = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
  return (x32 * jax.lax.rsqrt(var + eps)).astype(x.dtype) * weight.astype(
    x.dtype
  )


def _mask(queries_BT, slots_BS):
  q, s = queries_BT[:, :, None], slots_BS[:, None, :]
  return (s >= 0) & (s <= q)


def _write(old_BS, new_BT, write_B):
  """new [B, T, ...] over old [B, S, ...] from slot write_B on."""
  new_BT = new_BT.astype(old_BS.dtype)
  if jnp.ndim(write_B) == 0:
    return jax.lax.dynamic_update_slice_in_dim(old_BS, new_BT, write_B, 1)
  rows, slots = _slots(new_BT, write_B)
  return old_BS.at[rows, slots].set(new_BT)


def _slots(new_BT, write_B):
  B, T = new_BT.shape[:2]
  return jnp.arange(B)[:, None], write_B[:, None] + jnp.arange(T)[None, :]


def _write_layer(old_LBS, new_BT, write_B, i):
  """`_write` into layer i of the stacked cache, in place in the scan."""
  new_BT = new_BT.astype(old_LBS.dtype)
  if jnp.ndim(write_B) == 0:
    zero = jnp.zeros((), jnp.int32)
    start = (i, zero, jnp.asarray(write_B, jnp.int32), zero, zero)
    return jax.lax.dynamic_update_slice(old_LBS, new_BT[None], start)
  rows, slots = _slots(new_BT, write_B)
  return old_LBS.at[i, rows, slots].set(new_BT)


def _rope_angles(config, positions_BT):
  """cos, sin [B, T, 1, H/2]; float32: bfloat16 rounds position 257 to 256."""
  half = config.head_dim // 2
  frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency
  return jnp.cos(angle), jnp.sin(angle)


def _rope(x, rope):
  cos, sin = rope
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(
    x.dtype
  )


def _attention(config, p, dense, x_BTD, rope, mask_BTS, kv, i, write_B):
  B, T, _ = x_BTD.shape
  split = lambda x: x.reshape(B, T, -1, config.head_dim)
  q_BTNH = rms_norm(split(dense(x_BTD, 'q')), p['q_norm'], config.norm_eps)
  k_BSKH = rms_norm(split(dense(x_BTD, 'k')), p['k_norm'], config.norm_eps)
  q_BTNH, k_BSKH = _rope(q_BTNH, rope), _rope(k_BSKH, rope)
  v_BSKH = split(dense(x_BTD, 'v'))
  if kv is not None:
    write = functools.partial(_write_layer, write_B=write_B, i=i)
    kv = write(kv[0], k_BSKH), write(kv[1], v_BSKH)
    k_BSKH, v_BSKH = (
      jax.lax.dynamic_index_in_dim(c, i, keepdims=False).astype(x_BTD.dtype)
      for c in kv
    )
  o_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
  return dense(o_BTNH.reshape(B, T, -1), 'o'), kv


def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
  """Grouped-query attention; scores and softmax in float32."""
  B, T, N, H = q_BTNH.shape
  q_BTKGH = q_BTNH.reshape(B, T, k_BSKH.shape[2], -1, H)
  scores = jnp.einsum(
    'btkgh,bskh->bkgts', q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
  )
  # A finite floor: a padding query sees no one and must not become nan.
  scores = jnp.where(mask_BTS[:, None, None], scores * H**-0.5, -1e30)
  share = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
  return jnp.einsum('bkgts,bskh->btkgh', share, v_BSKH).reshape(B, T, N, H)
