"""A mixture of experts in the place of the feed-forward block.

Every token goes to the `experts_per_token` experts that its router likes best.
The copies of the tokens are sorted by expert, so that each expert multiplies
one block of rows (`jax.lax.ragged_dot`): no loop, no capacity, none dropped.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ealign.models import layout
from ealign.models.config import Config


def mixture(config: Config, p: dict, x_BTD, seen_BT):
  """The experts' answers, weighted by the router, and how it routed.

  Args:
    config: static.
    p: router [D, E]; expert_gate, expert_up [E, D, F]; expert_down [E, F, D].
    x_BTD: normed hidden states.
    seen_BT: False for padding, which the statistics leave out.

  Returns:
    out_BTD, routing_B2E: of each row the tokens that each expert got, and
    its probabilities summed over tokens; float32. See `balance_loss`.
  """
  if config.mesh is None:
    return _mixture(config, p, x_BTD, seen_BT)
  rows, wide, tall = P(layout.ROWS), P(None, None, 'tensor'), P(None, 'tensor')
  split = {'expert_gate': wide, 'expert_up': wide, 'expert_down': tall}
  split['router'] = P()
  return jax.shard_map(  # else all devices would sort all tokens
    functools.partial(_mixture, config),
    mesh=config.mesh,
    in_specs=(split, rows, rows),
    out_specs=(rows, rows),
  )({name: p[name] for name in split}, x_BTD, seen_BT)


def _mixture(config, p, x_BTD, seen_BT):
  """The same on one device, for its rows and its part of each expert."""
  (B, T, D), top = x_BTD.shape, config.experts_per_token
  # float32: the choice among experts hangs on small differences.
  score_BTE = (x_BTD @ p['router'].astype(x_BTD.dtype)).astype(jnp.float32)
  share_BTE = jax.nn.softmax(score_BTE, axis=-1)
  weight_BTC, expert_BTC = jax.lax.top_k(share_BTE, top)  # C choices
  if config.norm_topk:
    weight_BTC /= jnp.sum(weight_BTC, axis=-1, keepdims=True)
  # ragged_dot multiplies consecutive rows by one expert each, so the copies of
  # the tokens are brought into the order of their experts, and back below.
  order = jnp.argsort(expert_BTC.reshape(-1))
  size_E = jnp.bincount(expert_BTC.reshape(-1), length=config.experts)
  each = lambda rows, name: jax.lax.ragged_dot(
    rows, p[name].astype(rows.dtype), size_E
  )
  rows = x_BTD.reshape(-1, D)[order // top]
  gated = jax.nn.silu(each(rows, 'expert_gate')) * each(rows, 'expert_up')
  rows = each(gated, 'expert_down')
  back_BTCD = rows[jnp.argsort(order)].reshape(B, T, top, D)
  out_BTD = jnp.einsum(
    'btcd,btc->btd', back_BTCD, weight_BTC.astype(x_BTD.dtype)
  )
  if config.mesh is not None:
    out_BTD = jax.lax.psum(out_BTD, 'tensor')
  row = jnp.arange(B)[:, None, None]
  got_BE = jnp.zeros((B, config.experts)).at[row, expert_BTC]
  got_BE = got_BE.add(seen_BT[:, :, None].astype(jnp.float32))
  share_BE = jnp.sum(share_BTE * seen_BT[:, :, None], axis=1)
  return out_BTD, jnp.stack([got_BE, share_BE], axis=1)


def balance_loss(routing_B2E, tokens_B):
  """Load-balancing loss of each row, eqs. 4 to 6 of arXiv 2101.03961, [B].

  E * sum over experts of (share of the tokens it got) * (its mean
  probability), both over all layers; `experts_per_token` where all experts
  get the same. transformers takes the means over the whole batch; over rows,
  microbatches add up to one batch. With one row the two agree.

  Args:
    routing_B2E: from `mixture`, summed over the layers.
    tokens_B: tokens of the row, padding left out, times the layers.
  """
  mean_B2E = routing_B2E / jnp.maximum(tokens_B, 1.0)[:, None, None]
  experts = routing_B2E.shape[-1]
  return experts * jnp.sum(mean_B2E[:, 0] * mean_B2E[:, 1], axis=-1)
