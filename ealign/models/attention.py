"""Attention: one choice among kernels, and what a token sees.

  splash  TPU: Pallas kernel, no [T, S] array; sequences without a cache
  cudnn   GPU: the library's fused kernel; bfloat16, head_dim of 8 to 128,
          an even number of tokens
  xla     anywhere, and wherever there is a cache: plain products

A token sees those of its own segment at its position and before. In a layer
that is local, it sees `window` tokens, itself included.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ealign.models import layout
from ealign.models.config import Config
from ealign.runtime.errors import UserError

_LANES = 128  # the TPU's vectors: splash takes multiples of it
_BLOCKS = (512, 256, 128)  # tokens that a splash kernel takes at a time


def choose(config: Config, platform: str, wanted: str = 'auto') -> str:
  """The kernel for a model on devices of a platform ('tpu', 'gpu', 'cpu').

  The platform is that of the mesh: while a program is compiled ahead of time
  for another machine, `jax.default_backend` is 'cpu'.

  Raises:
    UserError: the wanted kernel cannot run there.
  """
  fits = {
    'splash': platform == 'tpu',
    'cudnn': platform in ('gpu', 'cuda')
    and config.dtype == 'bfloat16'
    and config.head_dim % 8 == 0
    and config.head_dim <= 128,
    'xla': True,
  }
  if wanted == 'auto':
    return next(name for name, possible in fits.items() if possible)
  if not fits[wanted]:
    needs = {
      'splash': 'needs TPUs',
      'cudnn': 'needs NVIDIA GPUs, bfloat16 and a head_dim of 8, 16, ... 128',
    }[wanted]
    have = f'{platform}, {config.dtype}, head_dim {config.head_dim}'
    raise UserError(
      f"model.attention='{wanted}': {needs}; here are {have}. Use 'auto'"
    )
  return wanted


def attender(
  config: Config,
  positions_BT,
  slots_BS,
  segments_BT=None,
  sees_BTS=None,
  *,
  cached: bool,
  turned: bool = False,
) -> Callable:
  """What a layer attends with: (q_BTNH, k_BKSH, v_BKSH, local) -> o_BTNH.

  Args:
    config: static.
    positions_BT: of the queries; -1 is padding.
    slots_BS: positions of the keys; -1 is seen by no one.
    segments_BT: of queries and keys alike; None: one segment a row.
    sees_BTS: keys that a query may see at all, by their positions; only of a
      cache. Its first axis is 1 where all rows have the same.
    cached: the keys are a cache's. If not, positions must count up by one
      within a segment, and the tokens of a segment must lie together.
    turned: there is one query a row, and the keys are k_BKHS.

  In the layers' scan `local` is a traced flag; None where no layer is local.
  """
  scale = (config.query_scalar or config.head_dim) ** -0.5
  if config.attention in ('splash', 'interpret') and not cached:
    ids_BT = jnp.ones_like(positions_BT) if segments_BT is None else segments_BT
    ids_BT = jnp.where(positions_BT >= 0, ids_BT, 0)
    return functools.partial(_splash_layer, config, scale, ids_BT)
  q_BTS, s_BTS = positions_BT[:, :, None], slots_BS[:, None, :]
  mask_BTS = (s_BTS >= 0) & (s_BTS <= q_BTS)
  if segments_BT is not None and not cached:
    mask_BTS &= segments_BT[:, :, None] == segments_BT[:, None, :]
  if sees_BTS is not None:
    mask_BTS &= sees_BTS
  near_BTS = mask_BTS
  if any(config.local):
    near_BTS = mask_BTS & (q_BTS - s_BTS < config.window)
  use = of_one_query if turned else einsum
  if config.attention == 'cudnn' and not cached and mask_BTS.shape[1] % 2 == 0:
    use = functools.partial(_cudnn, config)

  def attend(q_BTNH, k_BKSH, v_BKSH, local=None):
    seen = mask_BTS if local is None else jnp.where(local, near_BTS, mask_BTS)
    return use(q_BTNH, k_BKSH, v_BKSH, seen, scale=scale)

  return attend


def among(sees_BTT, start, slots: int):
  """Which keys a query may see, bool [B, T, slots].

  sees_BTT: of the queries, whose keys lie from slot `start` on; what lies
  elsewhere is seen by all.
  """
  all_BTS = jnp.ones((*sees_BTT.shape[:2], slots), bool)
  start = jnp.asarray(start, jnp.int32)
  return jax.lax.dynamic_update_slice_in_dim(all_BTS, sees_BTT, start, axis=2)


def branching(config: Config, positions_BT, sees_BTT) -> Callable:
  """`attender` for a beginning and a tree behind it that goes on from it.

  sees_BTT: of the last tokens, which of them each sees beside the beginning.
  """
  T = positions_BT.shape[1] - sees_BTT.shape[1]
  start_BT, rest_BT = positions_BT[:, :T], positions_BT[:, T:]
  sees_BTS = among(sees_BTT, T, positions_BT.shape[1])
  start = attender(config, start_BT, start_BT, cached=False)
  rest = attender(config, rest_BT, positions_BT, sees_BTS=sees_BTS, cached=True)

  def attend(q_BTNH, k_BKSH, v_BKSH, local=None):
    of_start = q_BTNH[:, :T], k_BKSH[:, :, :T], v_BKSH[:, :, :T]
    both = start(*of_start, local), rest(q_BTNH[:, T:], k_BKSH, v_BKSH, local)
    return jnp.concatenate(both, axis=1)

  return attend


def einsum(q_BTNH, k_BKSH, v_BKSH, mask_BTS, *, scale):
  """Grouped-query attention; scores and softmax in float32."""
  B, T, N, H = q_BTNH.shape
  q_BTKGH = q_BTNH.reshape(B, T, k_BKSH.shape[1], -1, H)
  o_BTKGH = _attend(scale, q_BTKGH, k_BKSH, v_BKSH, mask_BTS)
  return o_BTKGH.reshape(B, T, N, H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scale, q_BTKGH, k_BKSH, v_BKSH, mask_BTS):
  """Its gradient computes the scores anew: nothing as wide is kept."""
  return _attend_fwd(scale, q_BTKGH, k_BKSH, v_BKSH, mask_BTS)[0]


def _attend_fwd(scale, q_BTKGH, k_BKSH, v_BKSH, mask_BTS):
  q_BKGTH = jnp.moveaxis(q_BTKGH, 1, 3)
  scores = _scores(scale, q_BKGTH, k_BKSH, mask_BTS)
  norm_BKGT = jax.nn.logsumexp(scores, axis=-1)
  share = _share(scores, norm_BKGT, mask_BTS)
  o_BKGTH = jnp.einsum('bkgts,bksh->bkgth', share.astype(v_BKSH.dtype), v_BKSH)
  kept = q_BKGTH, k_BKSH, v_BKSH, mask_BTS, norm_BKGT, o_BKGTH
  return jnp.moveaxis(o_BKGTH, 3, 1), kept


def _attend_bwd(scale, kept, do_BTKGH):
  """As in arXiv 2205.14135; products transpose the narrow operand only."""
  q_BKGTH, k_BKSH, v_BKSH, mask_BTS, norm_BKGT, o_BKGTH = kept
  do_BKGTH, dtype = jnp.moveaxis(do_BTKGH, 1, 3), q_BKGTH.dtype
  scores = _scores(scale, q_BKGTH, k_BKSH, mask_BTS)
  share = _share(scores, norm_BKGT, mask_BTS)
  f32 = lambda x: x.astype(jnp.float32)
  mean_BKGT = jnp.sum(f32(do_BKGTH) * f32(o_BKGTH), axis=-1)
  dshare = _dot('bkgth,bksh->bkgts', do_BKGTH, v_BKSH)
  dscores = (share * (dshare - mean_BKGT[..., None]) * scale).astype(dtype)
  dq_BKGTH = jnp.einsum('bkgts,bksh->bkgth', dscores, k_BKSH)
  dk_BKHS = jnp.einsum('bkgth,bkgts->bkhs', q_BKGTH, dscores)
  dv_BKHS = jnp.einsum('bkgth,bkgts->bkhs', do_BKGTH, share.astype(dtype))
  dk_BKSH, dv_BKSH = dk_BKHS.swapaxes(2, 3), dv_BKHS.swapaxes(2, 3)
  return jnp.moveaxis(dq_BKGTH, 3, 1), dk_BKSH, dv_BKSH, None


_attend.defvjp(_attend_fwd, _attend_bwd)
_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(scale, q_BKGTH, k_BKSH, mask_BTS):
  scores = _dot('bkgth,bksh->bkgts', q_BKGTH, k_BKSH)
  # A finite floor: a padding query sees no one and must not become nan.
  return jnp.where(mask_BTS[:, None, None], scores * scale, -1e30)


def _share(scores, norm_BKGT, mask_BTS):
  """The softmax of the scores; 0 where a key is not seen."""
  share = jnp.exp(scores - norm_BKGT[..., None])
  return jnp.where(mask_BTS[:, None, None], share, 0)


def of_one_query(q_B1NH, k_BKHS, v_BKSH, mask_B1S, *, scale):
  """`einsum` for T = 1 and keys with their slots last, without a gradient.

  For a product of so few rows XLA:CPU takes twice the time of this sum.
  """
  B, K, _, H = v_BKSH.shape
  q_BKGH1 = q_B1NH.reshape(B, K, -1, H, 1).astype(jnp.float32)
  scores_BKGS = jnp.sum(q_BKGH1 * k_BKHS[:, :, None], axis=3)
  scores_BKGS = jnp.where(mask_B1S[:, None], scores_BKGS * scale, -1e30)
  share_BKGS = jnp.where(
    mask_B1S[:, None], jax.nn.softmax(scores_BKGS, axis=-1), 0
  )
  share_BKGS = share_BKGS.astype(v_BKSH.dtype)
  o_BKGH = jnp.einsum('bkgs,bksh->bkgh', share_BKGS, v_BKSH)
  return o_BKGH.reshape(q_B1NH.shape)


def _cudnn(config, q_BTNH, k_BKSH, v_BKSH, mask_BTS, *, scale):
  fused = functools.partial(
    jax.nn.dot_product_attention, scale=scale, implementation='cudnn'
  )
  attend = lambda q, k, v, mask: fused(
    q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask=mask[:, None]
  )
  return _each(config, attend)(q_BTNH, k_BKSH, v_BKSH, mask_BTS)


def _splash_layer(config, scale, ids_BT, q_BTNH, k_BKSH, v_BKSH, local=None):
  far, near = (
    _each(config, functools.partial(splash, config, scale, window))
    for window in (0, config.window)
  )
  args = q_BTNH, k_BKSH, v_BKSH, ids_BT
  if local is None or all(config.local):
    return (far if local is None else near)(*args)
  return jax.lax.cond(local, near, far, *args)


def _each(config, attend):
  """`attend` on each device of the mesh, with its own rows and heads.

  The compiler cannot look into a kernel, and would gather what it is given.
  """
  if config.mesh is None:
    return attend
  heads, rows = P(layout.ROWS, None, 'tensor'), P(layout.ROWS)
  keys = P(layout.ROWS, 'tensor')
  return jax.shard_map(
    attend,
    mesh=config.mesh,
    in_specs=(heads, keys, keys, rows),
    out_specs=heads,
    check_vma=False,  # a Pallas call does not say over what its output varies
  )


def splash(config, scale, window, q_BTNH, k_BKTH, v_BKTH, ids_BT):
  """The Pallas kernel on one device; window 0: all tokens before.

  The kernel works on blocks of 128 lanes. So lengths are padded up to a
  multiple of 128 with tokens of segment -1, which no real token sees, and heads
  with zeros, which change no product. The kernel itself does not scale: the
  queries are scaled before it, in float32, and rounded once.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention  # 0.3 s

  T, N, H = q_BTNH.shape[1:]
  q_BTNH = (q_BTNH.astype(jnp.float32) * scale).astype(q_BTNH.dtype)
  size, wide = -(-T // _LANES) * _LANES, -(-H // _LANES) * _LANES
  grow = [(0, 0), (0, 0), (0, size - T), (0, wide - H)]
  padded = lambda x: jnp.pad(x, grow)  # [B, heads, T, H]
  ids = jnp.pad(ids_BT, [(0, 0), (0, size - T)], constant_values=-1)
  # The kernel masks by index, not by position: the two agree within a segment,
  # where positions count up by one.
  seen = splash_attention.CausalMask((size, size))
  if window:
    seen = splash_attention.LocalMask((size, size), (window - 1, 0), 0)
  block = next(b for b in _BLOCKS if size % b == 0)
  kernel = splash_attention.make_splash_mha_single_device(
    splash_attention.MultiHeadMask([seen] * N),
    block_sizes=splash_attention.BlockSizes(*[block] * 8),
    interpret=config.attention == 'interpret',
  )
  o = jax.vmap(kernel)(
    *map(padded, (q_BTNH.swapaxes(1, 2), k_BKTH, v_BKTH)),
    splash_attention.SegmentIds(ids, ids),
  )
  return o.swapaxes(1, 2)[:, :T, :, :H]
