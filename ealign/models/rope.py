"""Rotary position embedding (arXiv 2104.09864), halves paired as on the Hub."""

import jax.numpy as jnp

from ealign.models.config import Config


def angles(config: Config, positions_BT, *, local: bool = False):
  """cos, sin [B, T, 1, H/2]; float32: bfloat16 rounds position 257 to 256.

  local: those of the local layers, which in Gemma 3 have a base of their own
  and never a scaling.
  """
  half = config.head_dim // 2
  theta, scaling = config.rope_theta, config.rope_scaling
  if local and config.local_rope_theta:
    theta, scaling = config.local_rope_theta, None
  frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  frequency = _scaled(scaling, frequency)
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency
  return jnp.cos(angle), jnp.sin(angle)


def _scaled(scaling, frequency):
  """The frequencies under a `positions.Scaling`, so that more positions fit.

  'linear' slows all of them down alike (arXiv 2306.15595). 'llama3' keeps the
  fast ones, which tell neighbours apart and were seen at every angle in
  training, and slows only those that turned less than `low` times in the
  `original` context; between `low` and `high` turns it interpolates.
  """
  if scaling is None:
    return frequency
  if scaling.kind == 'linear':
    return frequency / scaling.factor
  turns = scaling.original * frequency / (2 * jnp.pi)
  keep = (turns - scaling.low) / (scaling.high - scaling.low)
  keep = jnp.clip(keep, 0.0, 1.0)
  return frequency * (keep + (1 - keep) / scaling.factor)


def rotate(x, angles):
  """x [B, T, N, H] with its pairs (j, j + H/2) turned; computed in float32."""
  cos, sin = angles
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(
    x.dtype
  )
