"""The decoder: one forward for training, scoring, reviewing and sampling.

Weights are a nested dict; layers are stacked on axis 0 and scanned. Which
leaves there are depends on the family (`names.table`); what is computed
follows from which there are:
  embed [V, D], norm [D], head [D, V] (absent when tied), layers: attn_norm
  [L, D], q [L, D, N*H], k, v [L, D, K*H], o [L, N*H, D], mlp_norm [L, D],
  gate, up [L, D, F], down [L, F, D]; and in some families q_bias, k_bias,
  v_bias, q_norm, k_norm [L, H], post_attn_norm, post_mlp_norm [L, D], or the
  leaves of `moe.mixture` instead of the feed-forward block.
"""

import functools

import jax
import jax.numpy as jnp
from flax import traverse_util

from ealign.models import attention, layout, lora, moe, names, rope
from ealign.models.config import Config

REMAT = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


def init(config: Config, *, key, std: float = 0.02) -> dict:
  """Random weights, float32: normal(std), output projections / sqrt(2L)."""
  keys = iter(jax.random.split(key, 10))
  out_std = std / (2 * config.layers) ** 0.5

  def leaf(path, shape):
    if path.endswith('norm'):  # Gemma's multiply by 1 + w
      return (jnp.zeros if config.traits.gemma else jnp.ones)(shape)
    if path.endswith('bias'):
      return jnp.zeros(shape)
    out = path.removeprefix('layers/') in ('o', 'down', 'expert_down')
    return jax.random.normal(next(keys), shape) * (out_std if out else std)

  def padded(path, entry):
    x = leaf(path, entry._replace(pad=0).leaf_shape())
    return jnp.pad(
      x,
      [(0, to - n) for n, to in zip(x.shape, entry.leaf_shape(), strict=True)],
    )

  table = names.table(config)
  order = sorted(table, key=lambda path: '/' not in path)  # the layers first
  leaves = {path: padded(path, table[path]) for path in order}
  return traverse_util.unflatten_dict(leaves, sep='/')


def shapes(config: Config) -> dict:
  """The tree of weights as shapes, in the dtype of the activations."""
  leaf = lambda entry: jax.ShapeDtypeStruct(entry.leaf_shape(), config.dtype)
  leaves = {path: leaf(entry) for path, entry in names.table(config).items()}
  return traverse_util.unflatten_dict(leaves, sep='/')


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
      (one slice) or [B] (a scatter). None: the cache is empty, they are its
      first and see one another alone.
    steer_LD: added to the residual stream after each layer.
    tap: layers whose output is returned, in taps [len(tap), B, T, D].

  Returns:
    hidden_BTD (normed, config.dtype), cache (None if none came in), taps.
  """
  return forward_routed(
    config,
    weights,
    tokens_BT,
    positions_BT,
    segments_BT,
    cache,
    write_B,
    steer_LD,
    tap,
  )[:3]


def forward_routed(
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
  """`forward`, and how a mixture of experts routed.

  Returns:
    hidden_BTD, cache, taps, and routing_B2E of `moe.mixture` summed over the
    layers; None without experts.
  """
  slots_BS, kv = positions_BT, None
  alone = write_B is None  # what is attended to are these tokens, no others
  if cache is not None:
    kv, write_B = (cache['k'], cache['v']), 0 if alone else write_B
    filled_BS = _write(cache['positions'], positions_BT, write_B)
    slots_BS = positions_BT if alone else filled_BS
  attend = attention.attender(
    config, positions_BT, slots_BS, segments_BT, cached=not alone
  )
  far, near = rope.angles(config, positions_BT), None
  if any(config.local):
    near = rope.angles(config, positions_BT, local=True)
  norm = functools.partial(
    gemma_norm if config.traits.gemma else rms_norm, eps=config.norm_eps
  )
  split = functools.partial(layout.split, config)
  rows = functools.partial(split, axes=(layout.ROWS,))
  # Each device looks the tokens of all up in its own columns, then has all
  # columns of its rows. Else the whole embedding would be gathered.
  named_BT = split(tokens_BT, ('data', None))
  x_BTD = split(weights['embed'][named_BT], ('data', None, 'fsdp'))
  x_BTD = rows(x_BTD.astype(config.dtype))
  if config.traits.gemma:
    # Rounded to the activations' dtype, as the model was trained.
    x_BTD *= jnp.asarray(config.d_model**0.5, config.dtype)

  def layer(carry, xs):
    x_BTD, kv = carry
    i, p, adapter, steer_D, local = xs
    own = layout.gathered(config, {'layers': p, 'adapter': adapter})
    p = own['layers']
    dense = functools.partial(_dense, p, own['adapter'])
    pick = functools.partial(jnp.where, local)
    angles = far if local is None else jax.tree.map(pick, near, far)
    look = functools.partial(attend, local=local)
    h_BTD = norm(x_BTD, p['attn_norm'])
    a_BTD, kv = _attention(
      config, norm, p, dense, h_BTD, angles, look, kv, i, write_B, alone
    )
    if 'post_attn_norm' in p:
      a_BTD = norm(a_BTD, p['post_attn_norm'])
    x_BTD += a_BTD
    h_BTD = norm(x_BTD, p['mlp_norm'])
    if config.experts:
      m_BTD, routing = moe.mixture(config, p, h_BTD, positions_BT >= 0)
    else:
      m_BTD, routing = _mlp(config, dense, h_BTD), None
    if 'post_mlp_norm' in p:
      m_BTD = norm(m_BTD, p['post_mlp_norm'])
    x_BTD += m_BTD
    if steer_D is not None:
      x_BTD += steer_D.astype(x_BTD.dtype)
    x_BTD = rows(x_BTD)
    return (x_BTD, kv), (x_BTD if tap else None, routing)

  if config.remat != 'none':
    layer = jax.checkpoint(layer, policy=REMAT[config.remat])
  xs = (
    jnp.arange(config.layers),
    weights['layers'],
    weights.get('adapter', {}),
    steer_LD,
    jnp.array(config.local) if any(config.local) else None,
  )
  (x_BTD, kv), (taps, routing) = jax.lax.scan(
    layer, (x_BTD, kv), xs, unroll=1 if config.scan else config.layers
  )
  if cache is not None:
    cache = {'k': kv[0], 'v': kv[1], 'positions': filled_BS}
  taps = taps[jnp.array(tap)] if tap else None
  routing = routing if routing is None else jnp.sum(routing, axis=0)
  return norm(x_BTD, weights['norm']), cache, taps, routing


def head(config: Config, weights: dict) -> jax.Array:
  """The output matrix [D, V]; the embedding transposed when tied."""
  tied = config.tie_embeddings
  head_DV = weights['embed'].T if tied else weights['head']
  # Gathered once, not for every chunk of tokens; what pads the vocabulary is
  # cut off, and so in no log-sum-exp, no sample and no verdict.
  head_DV = layout.split(config, head_DV, (None, layout.vocabulary(config)))
  return head_DV[:, : config.vocab_size]


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


def gemma_norm(x, weight, eps):
  """`rms_norm` times 1 + w; all of it in float32, and rounded once."""
  x32 = x.astype(jnp.float32)
  var = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
  scale = 1 + weight.astype(jnp.float32)
  return (x32 * jax.lax.rsqrt(var + eps) * scale).astype(x.dtype)


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


def _dense(p, adapter, x, name):
  """One projection of a layer, with its bias and adapter if there are."""
  y = lora.project(x, p[name], adapter.get(name))
  bias = p.get(f'{name}_bias')
  return y if bias is None else y + bias.astype(y.dtype)


def _mlp(config, dense, x_BTD):
  act = functools.partial(jax.nn.gelu, approximate=True)
  act = act if config.traits.gemma else jax.nn.silu
  return dense(act(dense(x_BTD, 'gate')) * dense(x_BTD, 'up'), 'down')


def _attention(
  config, norm, p, dense, x_BTD, angles, look, kv, i, write_B, alone
):
  B, T, _ = x_BTD.shape
  split = lambda x: x.reshape(B, T, -1, config.head_dim)
  q_BTNH, k_BSKH = split(dense(x_BTD, 'q')), split(dense(x_BTD, 'k'))
  if 'q_norm' in p:
    q_BTNH, k_BSKH = norm(q_BTNH, p['q_norm']), norm(k_BSKH, p['k_norm'])
  q_BTNH, k_BSKH = (rope.rotate(x, angles) for x in (q_BTNH, k_BSKH))
  v_BSKH = split(dense(x_BTD, 'v'))
  if kv is not None:
    write = functools.partial(_write_layer, write_B=write_B, i=i)
    kv = write(kv[0], k_BSKH), write(kv[1], v_BSKH)
  if not alone:
    k_BSKH, v_BSKH = (
      jax.lax.dynamic_index_in_dim(c, i, keepdims=False).astype(x_BTD.dtype)
      for c in kv
    )
  o_BTNH = look(q_BTNH, k_BSKH, v_BSKH)
  return dense(o_BTNH.reshape(B, T, -1), 'o'), kv
