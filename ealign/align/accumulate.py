"""A gradient as the sum of those of pieces, so that one at a time is in memory.

A *piece* is a Batch that one forward pass computes: SFT rows, or pairs, or both
where the pairs' answers lie in rows shaped as the SFT rows (`fold`). Sums are
divided by the counts of the whole batch, so pieces add up to its gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ealign.data.batch import Batch, PairBatch


def over(grad: Callable, params, frozen, batch: Batch):
  """grad(params, frozen, piece) -> (grads, metrics), summed over the pieces.

  Parts go one after the other. If they have one shape, one compiled body
  computes both, and that is most of the program (docs/scale.md).
  """
  if fits(batch):
    return scanned(grad, params, frozen, fold(batch))
  parts = [Batch(**{name: rows}) for name, rows in batch.parts.items()]
  total = grad(params, frozen, parts[0])
  for part in parts[1:]:
    # Without the barrier XLA would run all forward passes first and hold the
    # inputs of the layers of all parts at a time.
    params, total = jax.lax.optimization_barrier((params, total))
    total = _plus(total, grad(params, frozen, part))
  return total


def _plus(one, other):
  """The sum of two (grads, metrics); a metric may be of one part alone."""
  (grads, metrics), (more, others) = one, other
  both = {k: metrics[k] + others[k] for k in metrics.keys() & others.keys()}
  return jax.tree.map(jnp.add, grads, more), metrics | others | both


def scanned(grad: Callable, params, frozen, pieces):
  """grad(params, frozen, piece), summed over pieces stacked on axis 0."""
  first = jax.tree.map(lambda x: x[0], pieces)
  like = jax.eval_shape(grad, params, frozen, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

  def step(total, piece):
    # Else a mesh would gather all layers before the loop, and keep them.
    tied = jax.lax.optimization_barrier((total, params, frozen))
    return jax.tree.map(jnp.add, tied[0], grad(*tied[1:], piece)), None

  return jax.lax.scan(step, zeros, pieces)[0]


def slices(batch: Batch, n: int, shards: int) -> Batch:
  """The batch as n equal slices, stacked on axis 0.

  A slice takes rows of every device: cut in order, the first one would hold
  the rows of the first device alone, and the others would wait.
  """

  def cut(x):
    parts = x.reshape(shards, n, -1, *x.shape[1:]).swapaxes(0, 1)
    return parts.reshape(n, -1, *x.shape[1:])

  return jax.tree.map(cut, batch)


def fits(batch: Batch) -> bool:
  """Whether the answers fill rows shaped as the SFT rows, two at most in each.

  With more of them attention would cost more than it does apart.
  """
  if batch.parts.keys() != {'sft', 'pairs'}:
    return False
  rows, answers = batch.sft.tokens_BT, batch.pairs.tokens_BT
  length = answers.shape[1]
  return rows.size == answers.size and rows.shape[1] in (length, 2 * length)


def fold(batch: Batch) -> Batch:
  """Two pieces of one shape: the SFT rows, and the pairs' answers as such rows.

  Answers that share a row are segments of it. The rows of the second piece
  have no supervised tokens, the pairs of the first one have no weight.
  """
  sft, pairs = batch.sft, batch.pairs
  answers, length = pairs.tokens_BT.shape
  nth_B1 = jnp.arange(answers)[:, None] % (sft.tokens_BT.shape[1] // length)
  segments_BT = jnp.where(pairs.positions_BT >= 0, nth_B1 + 1, 0)
  stack = lambda x, y: jnp.stack([x, y.reshape(x.shape)])
  rows = sft.replace(
    tokens_BT=stack(sft.tokens_BT, pairs.tokens_BT),
    positions_BT=stack(sft.positions_BT, pairs.positions_BT),
    segments_BT=stack(sft.segments_BT, segments_BT),
    loss_mask_BT=stack(sft.loss_mask_BT, jnp.zeros_like(pairs.loss_mask_BT)),
  )
  twice = jax.tree.map(lambda x: jnp.stack([x, x]), pairs)
  weight_2P = jnp.array([[0.0], [1.0]]) * twice.weight_P
  return Batch(rows, twice.replace(weight_P=weight_2P))


def unfold(x_BT: jax.Array, pairs: PairBatch) -> jax.Array:
  """Rearranges values at the targets of folded rows: [B, T-1] -> [2P, L-1].

  The first target of a row is its second token.
  """
  whole_BT = jnp.pad(x_BT, ((0, 0), (1, 0)))
  return whole_BT.reshape(pairs.tokens_BT.shape)[:, 1:]
