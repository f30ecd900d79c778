"""Weight matrices as int8 with a scale for each output channel.

An int8 leaf {'q': int8 [..., in, out], 'scale': float32 [..., out]} stands for
the matrix q * scale. Symmetric: zero stays zero and nothing is added, so the
product is computed from q and scaled once; activations are not quantized. Only
frozen weights can be such leaves.
"""

import jax
import jax.numpy as jnp


def quantize(weights: dict, names) -> dict:
  """The tree with the layers' matrices [L, in, out] of `names` as int8 leaves.

  Embeddings, head, norms and stacks of experts stay as they are.
  """
  leaf = jax.jit(_leaf)
  layers = {
    name: leaf(w) if name in names and w.ndim == 3 else w
    for name, w in weights['layers'].items()
  }
  return weights | {'layers': layers}


def _leaf(w):
  w = w.astype(jnp.float32)
  scale = jnp.max(jnp.abs(w), axis=-2) / 127
  scale = jnp.where(scale == 0, 1.0, scale)  # a column of zeros
  q = jnp.round(w / scale[..., None, :]).astype(jnp.int8)
  return {'q': q, 'scale': scale}


def matmul(x, w, wide=False):
  """x W in the dtype of x; w is an array or an int8 leaf.

  wide: the product is made in float32 and rounded then (`Config.wide`), as it
  always is with an int8 leaf.
  """
  if not isinstance(w, dict):
    to = jnp.float32 if wide else None
    product = jnp.matmul(x, w.astype(x.dtype), preferred_element_type=to)
    return product.astype(x.dtype)
  # Whole numbers up to 256 are exact in bfloat16, so the cast of q loses
  # nothing; the product is summed in float32 and rounded once, after the scale.
  y = jnp.matmul(x, w['q'].astype(x.dtype), preferred_element_type=jnp.float32)
  return (y * w['scale']).astype(x.dtype)


def dense(w):
  """A matrix as an array: an int8 leaf in float32, anything else as it is."""
  if not isinstance(w, dict):
    return w
  return w['q'] * w['scale'][..., None, :]
