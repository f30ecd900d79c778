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

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import traverse_util

from ealign.models import attention, layout, lora, moe, names, rope
from ealign.models.config import Config

REMAT = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}
_GATES = {
  'silu': jax.nn.silu,
  'gelu_pytorch_tanh': functools.partial(jax.nn.gelu, approximate=True),
}


def init(config: Config, *, key, std: float = 0.02) -> dict:
  """Random weights, float32: normal(std), output projections / sqrt(2L)."""
  keys = iter(jax.random.split(key, 10))
  out_std = std / (2 * config.layers) ** 0.5

  def leaf(path, shape):
    if path.endswith('norm'):  # with an offset it multiplies by 1 + w
      return (jnp.zeros if config.traits.norm_offset else jnp.ones)(shape)
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
  shape = (config.layers, rows, config.kv_heads, length, config.head_dim)
  return {
    'k': jnp.zeros(shape, config.dtype),
    'v': jnp.zeros(shape, config.dtype),
    'positions': jnp.full((rows, length), -1, jnp.int32),
  }


def forward(*args, **kwargs):
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
      slots need no mask of their own. Weights and cache may be `unstacked`.
    write_B: first slot the T tokens are written to; a scalar for all rows
      (one slice) or [B] (a scatter). None: the cache is empty, they are its
      first and see one another alone.
    sees_BTT: which of one another the tokens see, where several go on from
      one beginning, as a tree; they all see what was there before. With a
      cache, of all the tokens, and it needs a write_B that is a scalar; without
      one, of the last tokens, behind a beginning of one segment. Its first axis
      may be 1, for all rows.
    steer_LD: added to the residual stream after each layer.
    tap: layers whose output is returned, in taps [len(tap), B, T, D].

  Returns:
    hidden_BTD (normed, config.dtype), cache (None if none came in), taps.
  """
  return forward_routed(*args, **kwargs)[:3]


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
  sees_BTT: jax.Array | None = None,
):
  """`forward` and, as a fourth result, how a mixture of experts routed.

  routing_B2E of `moe.mixture` summed over the layers; None without experts.
  """
  slots_BS, kv, sees_BTS = positions_BT, None, None
  alone = write_B is None  # what is attended to are these tokens, no others
  by_layer = isinstance(weights['layers'], tuple)
  if cache is not None:
    kv, write_B = (cache['k'], cache['v']), 0 if alone else write_B
    filled_BS = _write(cache['positions'], positions_BT, write_B)
    slots_BS = positions_BT if alone else filled_BS
    if sees_BTT is not None:
      sees_BTS = attention.among(sees_BTT, write_B, slots_BS.shape[1])
  angles = functools.partial(rope.angles, config, positions_BT)
  if cache is None and sees_BTT is not None:
    attend = attention.branching(config, positions_BT, sees_BTT)
  else:
    attend = attention.attender(
      *(config, positions_BT, slots_BS, segments_BT, sees_BTS),
      cached=not alone,
      turned=by_layer,
    )
  call = _Call(
    attend=attend,
    far=angles(),
    near=angles(local=True) if any(config.local) else None,
    positions_BT=positions_BT,
    write_B=write_B,
    alone=alone,
    by_layer=by_layer,
    tap=bool(tap),
  )
  x_BTD = _embed(config, weights, tokens_BT)
  (x_BTD, kv), outs = _layers(config, call, weights, steer_LD, x_BTD, kv)
  if cache is not None:
    cache = {'k': kv[0], 'v': kv[1], 'positions': filled_BS}
  taps = outs[0][jnp.array(tap)] if tap else None
  routing = jnp.sum(outs[1], axis=0) if config.experts else None
  return _norm(config)(x_BTD, weights['norm']), cache, taps, routing


@dataclasses.dataclass(frozen=True)
class _Call:
  """What all layers of one forward pass share."""

  attend: Callable  # of `attention.attender`
  far: tuple  # angles of RoPE
  near: tuple | None  # those of local layers; None: no layer is local
  positions_BT: jax.Array  # -1 for padding
  write_B: jax.Array | None
  alone: bool  # the tokens see one another only, nothing that is in the cache
  by_layer: bool  # weights and cache are of `unstacked`
  tap: bool


def _embed(config, weights, tokens_BT):
  split = functools.partial(layout.split, config)
  # Each device looks the tokens of all up in its own columns, then has all
  # columns of its rows. Else the whole embedding would be gathered.
  named_BT = split(tokens_BT, ('data', None))
  x_BTD = split(weights['embed'][named_BT], ('data', None, 'fsdp'))
  x_BTD = split(x_BTD.astype(config.dtype), (layout.ROWS,))
  if config.traits.scaled_embedding:
    # Rounded to the activations' dtype, as the model was trained.
    x_BTD *= jnp.asarray(config.d_model**0.5, config.dtype)
  return x_BTD


def _layers(config, call: _Call, weights, steer_LD, x_BTD, kv):
  """The scan over all layers: (x_BTD, kv), and what each of them reports."""
  layer = functools.partial(_layer, config, call)
  if config.remat != 'none':
    layer = jax.checkpoint(layer, policy=REMAT[config.remat])
  xs = (
    jnp.arange(config.layers),
    weights['layers'],
    weights.get('adapter', {}),
    steer_LD,
    jnp.array(config.local) if any(config.local) else None,
  )
  if call.by_layer:
    return _each_layer(config, layer, xs, x_BTD, kv)
  unroll = 1 if config.scan else config.layers
  return jax.lax.scan(layer, (x_BTD, kv), xs, unroll=unroll)


def _each_layer(config, layer, xs, x_BTD, kv):
  """`_layers` of what `unstacked` gives: tuples, with an entry a layer."""
  by_layer, new, outs = lambda x: isinstance(x, tuple), [], []
  for i in range(config.layers):
    take = lambda x, i=i: x[i]
    own = [jax.tree.map(take, part, is_leaf=by_layer) for part in xs]
    (x_BTD, of_layer), out = layer((x_BTD, [c[i] for c in kv]), own)
    new.append(of_layer)
    outs.append(out)
  outs = jax.tree.map(lambda *of: jnp.stack(of), *outs)
  return (x_BTD, tuple(zip(*new, strict=True))), outs


def unstacked(weights: dict, cache: dict) -> tuple[dict, dict]:
  """Weights and cache by layer, for a loop of `forward` on CPUs.

  Of a stack XLA:CPU copies each layer before it is used, at every token. Here
  each has arrays of its own, and its keys are [B, K, H, S], as they are summed
  over H. `forward` then takes one token a row, from the slot write_B on.
  """
  layers = range(len(cache['k']))
  take = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
  own = {
    name: tuple(take(weights[name], i) for i in layers)
    for name in ('layers', 'adapter')
    if name in weights
  }
  k = tuple(cache['k'][i].swapaxes(2, 3) for i in layers)
  return weights | own, cache | {'k': k, 'v': tuple(cache['v'])}


def resized(cache: dict, length: int) -> dict:
  """The cache of `unstacked` with so many slots; those behind are free."""

  def to(x, axis, free=0):
    x = jax.lax.slice_in_dim(x, 0, min(length, x.shape[axis]), axis=axis)
    pad = [(0, 0)] * x.ndim
    pad[axis] = 0, length - x.shape[axis]
    return jnp.pad(x, pad, constant_values=free)

  k = tuple(to(x, 3) for x in cache['k'])
  v = tuple(to(x, 2) for x in cache['v'])
  return {'k': k, 'v': v, 'positions': to(cache['positions'], 1, -1)}


def stacked(cache: dict) -> dict:
  """The cache of `unstacked` as `init_cache` makes it."""
  k, v = jnp.stack(cache['k']).swapaxes(3, 4), jnp.stack(cache['v'])
  return cache | {'k': k, 'v': v}


def _layer(config, call: _Call, carry, xs):
  """One layer of the scan: attention, then feed-forward, each added."""
  x_BTD, kv = carry
  i, p, adapter, steer_D, local = xs
  own = layout.gathered(config, {'layers': p, 'adapter': adapter})
  p, norm = own['layers'], _norm(config)
  dense = functools.partial(_dense, config, p, own['adapter'])
  h_BTD = norm(x_BTD, p['attn_norm'])
  a_BTD, kv = _attention(config, call, p, dense, h_BTD, kv, i, local)
  if config.traits.post_norms:
    a_BTD = norm(a_BTD, p['post_attn_norm'])
  x_BTD += a_BTD
  h_BTD = norm(x_BTD, p['mlp_norm'])
  if config.experts:
    m_BTD, routing = moe.mixture(config, p, h_BTD, call.positions_BT >= 0)
  else:
    m_BTD, routing = _mlp(config, dense, h_BTD), None
  if config.traits.post_norms:
    m_BTD = norm(m_BTD, p['post_mlp_norm'])
  x_BTD += m_BTD
  if steer_D is not None:
    x_BTD += steer_D.astype(x_BTD.dtype)
  x_BTD = layout.split(config, x_BTD, (layout.ROWS,))
  return (x_BTD, kv), (x_BTD if call.tap else None, routing)


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


def _norm(config) -> Callable:
  norm = offset_norm if config.traits.norm_offset else rms_norm
  return functools.partial(norm, eps=config.norm_eps)


def rms_norm(x, weight, eps):
  """Root-mean-square norm (arXiv 1910.07467), statistics in float32.

  It is rounded before the weight is applied, as transformers does for Llama and
  Qwen: to round once at the end would give other bits in bfloat16.
  """
  return _normed(x, eps).astype(x.dtype) * weight.astype(x.dtype)


def offset_norm(x, weight, eps):
  """`rms_norm` times 1 + w; all of it in float32, and rounded once."""
  return (_normed(x, eps) * (1 + weight.astype(jnp.float32))).astype(x.dtype)


def _normed(x, eps):
  x32 = x.astype(jnp.float32)
  var = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
  return x32 * jax.lax.rsqrt(var + eps)


def _write(old, new, write_B, axis=1, layer=()):
  """new over old from slot write_B of the axis on; rows are axis 0.

  layer: its index where `old` is the stacked cache [L, B, K, S, H], which the
  scan of the layers then updates in place.
  """
  new = new.astype(old.dtype)
  if jnp.ndim(write_B) == 0:
    start = [0] * new.ndim
    start[axis] = write_B
    start = [jnp.asarray(index, jnp.int32) for index in (*layer, *start)]
    return jax.lax.dynamic_update_slice(old, new[(None,) * len(layer)], start)
  B, T = new.shape[0], new.shape[axis]
  slots_BT = write_B[:, None] + jnp.arange(T)
  heads = (slice(None),) * (axis - 1)
  at = (*layer, jnp.arange(B)[:, None], *heads, slots_BT)
  return old.at[at].set(jnp.moveaxis(new, axis, 1))


def _dense(config, p, adapter, x, name):
  """One projection of a layer, with its bias and adapter if there are."""
  y = lora.project(x, p[name], adapter.get(name), config.wide)
  bias = p.get(f'{name}_bias')
  return y if bias is None else y + bias.astype(y.dtype)


def _mlp(config, dense, x_BTD):
  act = _GATES[config.traits.gate]
  return dense(act(dense(x_BTD, 'gate')) * dense(x_BTD, 'up'), 'down')


def _attention(config, call: _Call, p, dense, x_BTD, kv, i, local):
  """The heads' output and the cache with the keys and values of layer i."""
  B, T, _ = x_BTD.shape
  split = lambda x: x.reshape(B, T, -1, config.head_dim)
  q_BTNH, k_BTKH = split(dense(x_BTD, 'q')), split(dense(x_BTD, 'k'))
  if config.traits.qk_norm:
    norm = _norm(config)
    q_BTNH, k_BTKH = norm(q_BTNH, p['q_norm']), norm(k_BTKH, p['k_norm'])
  angles = call.far
  if local is not None:
    pick = functools.partial(jnp.where, local)
    angles = jax.tree.map(pick, call.near, call.far)
  q_BTNH, k_BTKH = (rope.rotate(x, angles) for x in (q_BTNH, k_BTKH))
  v_BTKH = split(dense(x_BTD, 'v'))
  k_BKSH, v_BKSH = (x.swapaxes(1, 2) for x in (k_BTKH, v_BTKH))
  if kv is not None:
    kv, (k_BKSH, v_BKSH) = _cached(call, kv, i, k_BKSH, v_BKSH)
  o_BTNH = call.attend(q_BTNH, k_BKSH, v_BKSH, local)
  return dense(o_BTNH.reshape(B, T, -1), 'o'), kv


def _cached(call: _Call, kv, i, k_BKSH, v_BKSH):
  """The cache with new keys and values of layer i, and what is attended to."""
  if call.by_layer:
    k_BKHS = _write(kv[0], k_BKSH.swapaxes(2, 3), call.write_B, axis=3)
    kv = k_BKHS, _write(kv[1], v_BKSH, call.write_B, axis=2)
    seen = kv
  else:
    write = functools.partial(_write, write_B=call.write_B, axis=2, layer=(i,))
    kv = write(kv[0], k_BKSH), write(kv[1], v_BKSH)
    if call.alone:
      return kv, (k_BKSH, v_BKSH)
    seen = (jax.lax.dynamic_index_in_dim(c, i, keepdims=False) for c in kv)
  return kv, [x.astype(k_BKSH.dtype) for x in seen]
