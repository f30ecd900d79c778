"""The choice of one token a row: temperature, top-k, top-p."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Sampling:
  """How to sample; all of it is traced, a number for all rows or one a row.

  Attributes:
    temperature: 0 is greedy.
    top_k: keep the k likeliest tokens; 0 is off.
    top_p: of those, keep the smallest set with this mass; 1 is off.
    max_new_tokens: tokens of an answer, at most `max_tokens` of `generate`.
  """

  temperature: float | jax.Array = 1.0
  top_k: int | jax.Array = 0
  top_p: float | jax.Array = 1.0
  max_new_tokens: int | jax.Array = 256


def choose(
  logits_BV: jax.Array,
  keys_B: jax.Array,
  settings: Sampling,
  truncate: int | None,
):
  """Samples one token a row.

  Gumbel noise times the temperature, then the maximum, samples
  softmax(logits / temperature); at temperature 0 it is greedy.

  Args:
    logits_BV: float32.
    keys_B: a key a row; nothing else decides the noise of that row.
    settings: traced.
    truncate: static number of candidates for top_k and top_p, or None to
      leave both out of the program.

  Returns:
    token_B, cut_B: the probability mass that top_k and top_p would have kept
    and the cap on candidates removed.
  """
  if truncate is None:
    noise_BV = _gumbel(keys_B, logits_BV.shape[1])
    token_B = _argmax(logits_BV + _column(settings.temperature) * noise_BV)
    return token_B, jnp.zeros(len(logits_BV))
  C = min(truncate, logits_BV.shape[1])
  logits_BC, ids_BC = jax.lax.top_k(logits_BV, C)
  keep_BC, cut_B = _keep(logits_BV, logits_BC, settings)
  noisy_BC = logits_BC + _column(settings.temperature) * _gumbel(keys_B, C)
  place_B = _argmax(jnp.where(keep_BC, noisy_BC, -jnp.inf))
  token_B = jnp.take_along_axis(ids_BC, place_B[:, None], axis=1)[:, 0]
  return token_B, cut_B


def _keep(logits_BV, logits_BC, settings):
  """Which of the sorted candidates stay, and the mass the cap cut off."""
  C = logits_BC.shape[1]
  near_zero = jnp.maximum(_column(settings.temperature), 1e-4)  # one-hot
  norm_B1 = jax.nn.logsumexp(logits_BV / near_zero, axis=1, keepdims=True)
  share_BC = jnp.exp(logits_BC / near_zero - norm_B1)
  ranks_C = jnp.arange(C)[None]
  top_k, top_p = _column(settings.top_k), _column(settings.top_p)
  use_k = jnp.logical_and(top_k > 0, top_k <= C)
  keep_BC = ~use_k | (ranks_C < top_k)
  share_BC = jnp.where(keep_BC, share_BC, 0.0)
  mass_B1 = jnp.sum(share_BC, axis=1, keepdims=True)
  # top_p is a share of what top_k left: of the whole when top_k is off.
  share_BC /= jnp.where(use_k, mass_B1, 1.0)
  before_BC = jnp.cumsum(share_BC, axis=1) - share_BC
  keep_BC &= (before_BC < top_p) | (ranks_C == 0)
  # With every token a candidate, what is missing of the mass is rounding.
  capped = ~use_k & (C < logits_BV.shape[1])
  missing_B1 = jnp.maximum(top_p - mass_B1, 0.0)
  return keep_BC, jnp.where(capped, missing_B1, 0.0)[:, 0]


def _column(value):
  """A number a row, or one for all, against [B, V]."""
  return jnp.reshape(value, (-1, 1))


def _gumbel(keys_B, width):
  return jax.vmap(lambda key: jax.random.gumbel(key, (width,)))(keys_B)


def _argmax(x_BV):
  """The first maximum; over fused noise 4x faster on CPU than jnp.argmax."""
  V = x_BV.shape[1]
  places_V = jnp.arange(V, dtype=jnp.int32)
  is_max_BV = x_BV == jnp.max(x_BV, axis=1, keepdims=True)
  return jnp.min(jnp.where(is_max_BV, places_V, V - 1), axis=1)
