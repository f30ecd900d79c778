"""Parts of an update by one compiled body, one after the other.

The pairs of a batch may lie in rows shaped as its SFT rows: their answers are
segments then. What is compiled is a body for one part, which is most of the
program (docs/scale.md).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ealign.data.batch import Batch, PairBatch, SFTBatch


def fits(batch: Batch) -> bool:
  """Whether the answers fill rows shaped as the SFT rows, two at most in each.

  With more of them attention would cost more than it does apart.
  """
  rows, answers = batch.sft.tokens_BT, batch.pairs.tokens_BT
  length = rows.shape[1]
  return rows.size == answers.size and length in (
    answers.shape[1],
    2 * answers.shape[1],
  )


def rows(batch: Batch) -> SFTBatch:
  """The SFT rows, and the pairs' answers as such rows: [2, B, T].

  The answers' rows have no supervised tokens.
  """
  sft, pairs = batch.sft, batch.pairs
  answers, length = pairs.tokens_BT.shape
  nth_B1 = jnp.arange(answers)[:, None] % (sft.tokens_BT.shape[1] // length)
  segments_BT = jnp.where(pairs.positions_BT >= 0, nth_B1 + 1, 0)
  stack = lambda x, y: jnp.stack([x, y.reshape(x.shape)])
  return SFTBatch(
    tokens_BT=stack(sft.tokens_BT, pairs.tokens_BT),
    positions_BT=stack(sft.positions_BT, pairs.positions_BT),
    segments_BT=stack(sft.segments_BT, segments_BT),
    loss_mask_BT=stack(sft.loss_mask_BT, jnp.zeros_like(pairs.loss_mask_BT)),
  )


def answers(x_BT: jax.Array, pairs: PairBatch) -> jax.Array:
  """What belongs to the targets of such rows, [B, T-1], by answer: [2P, L-1].

  The first target of a row is its second token.
  """
  whole_BT = jnp.pad(x_BT, ((0, 0), (1, 0)))
  return whole_BT.reshape(pairs.tokens_BT.shape)[:, 1:]


def summed(grad: Callable, params, frozen, pieces):
  """grad(params, frozen, piece), summed over the pieces (axis 0)."""
  first = jax.tree.map(lambda x: x[0], pieces)
  like = jax.eval_shape(grad, params, frozen, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

  def step(total, piece):
    # Else a mesh would gather all layers before the loop, and keep them.
    tied = jax.lax.optimization_barrier((total, params, frozen))
    return jax.tree.map(jnp.add, tied[0], grad(*tied[1:], piece)), None

  return jax.lax.scan(step, zeros, pieces)[0]
