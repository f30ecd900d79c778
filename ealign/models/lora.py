"""Low-rank adapters (arXiv 2106.09685) as a tree of their own.

An adapter is {'q': {'a': [L, in, R], 'b': [L, R, out]}, ...}. It is attached
to the frozen weights by `bind` and applied by `project`, the one function all
projections go through. With b = 0 the bound weights compute exactly what
the frozen ones do, so the reference and the conscience are the same arrays
with the adapter left off.
"""

import jax
import jax.numpy as jnp

from ealign.models import int8, names
from ealign.models.config import Config

TARGETS = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')


def project(x, w, adapter=None, wide=False):
  """x W, plus (x A) B where an adapter is attached.

  Args:
    x: [B, T, in].
    w: [in, out], or an int8 leaf of that shape (`models.int8`).
    adapter: None, or {'a': [in, R], 'b': [R, out]}, or with an arm axis
      {'a': [A, in, R], 'b': [A, R, out]} where the rows of x are A groups of
      B/A rows, arm by arm. The scale is already in `a` (see `bind`).
    wide: as in `int8.matmul`.
  """
  y = int8.matmul(x, w, wide)
  if adapter is None:
    return y
  a, b = adapter['a'].astype(x.dtype), adapter['b'].astype(x.dtype)
  if a.ndim == 2:
    return y + _low_rank(x, a, b)
  x_ABTD = x.reshape(a.shape[0], -1, *x.shape[1:])
  return y + jax.vmap(_low_rank)(x_ABTD, a, b).reshape(y.shape)


@jax.custom_vjp
def _low_rank(x, a, b):
  """(x A) B, whose gradient never transposes what is wide.

  Autodiff would contract the first axis of x and of the output's gradient, for
  which XLA on CPUs writes a transposed copy of either.
  """
  return (x @ a) @ b


def _low_rank_fwd(x, a, b):
  low = x @ a
  return low @ b, (x, a, b, low)


def _low_rank_bwd(kept, dy):
  x, a, b, low = kept
  tokens = tuple(range(x.ndim - 1))
  over_tokens = lambda narrow, wide: jnp.tensordot(narrow, wide, (tokens,) * 2)
  dlow = dy @ b.T
  return dlow @ a.T, over_tokens(dlow, x).T, over_tokens(low, dy)


_low_rank.defvjp(_low_rank_fwd, _low_rank_bwd)


def scale(*, rank: int, alpha: float, rslora: bool) -> float:
  """alpha / rank, or alpha / sqrt(rank) for rs-LoRA (arXiv 2312.03732)."""
  return alpha / (rank**0.5 if rslora else rank)


def widths(config: Config) -> dict[str, tuple[int, int]]:
  """(in, out) of each projection that may have an adapter; experts may not."""
  table = names.table(config)
  shape = lambda name: table[f'layers/{name}'].shape[::-1]
  return {name: shape(name) for name in TARGETS if f'layers/{name}' in table}


def init(config: Config, *, key, rank: int, targets=TARGETS) -> dict:
  """A fresh adapter, float32: a uniform (He, as PEFT), b zero."""
  adapter = {}
  for i, name in enumerate(targets):
    fan_in, fan_out = widths(config)[name]
    bound = fan_in**-0.5
    shape = (config.layers, fan_in, rank)
    row = jax.random.fold_in(key, i)
    adapter[name] = {
      'a': jax.random.uniform(row, shape, minval=-bound, maxval=bound),
      'b': jnp.zeros((config.layers, rank, fan_out)),
    }
  return adapter


def bind(scale: float, adapter: dict, frozen: dict) -> dict:
  """The weights of the policy: the frozen tree with the adapter attached."""
  scaled = {
    name: {'a': ab['a'] * scale, 'b': ab['b']} for name, ab in adapter.items()
  }
  return frozen | {'adapter': scaled}


def merge(scale: float, adapter: dict, frozen: dict) -> dict:
  """W + s A B in float32, rounded once to the dtype of W (int8: float32)."""
  layers = dict(frozen['layers'])
  for name, ab in adapter.items():
    delta = scale * jnp.einsum('lir,lro->lio', ab['a'], ab['b'])
    w = int8.dense(layers[name])
    layers[name] = (w.astype(jnp.float32) + delta).astype(w.dtype)
  return frozen | {'layers': layers}
