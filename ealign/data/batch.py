"""What training consumes: rows of tokens, packed batches, preference pairs.

Everything here is host-side NumPy; `jax.jit` moves it to the device. Masks say
which tokens are *targets*: `loss_mask[t] = 1` means token t is predicted from
token t-1 of its own segment, so it is never 1 on a segment's first token.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from flax import struct

from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
  """One training text: token ids, a 0/1 loss mask, and where it came from.

  empty: how many of its trained turns say nothing but their end.
  """

  ids: tuple[int, ...]
  loss_mask: tuple[int, ...]
  source: str = 'a row'
  empty: int = 0


@struct.dataclass
class SFTBatch:
  """Packed rows; segments count from 1, 0 is padding (position -1).

  tokens, positions, segments are int32 [B, T], loss_mask is float32 [B, T].
  Positions restart at 0 in every segment.
  """

  tokens_BT: np.ndarray
  positions_BT: np.ndarray
  segments_BT: np.ndarray
  loss_mask_BT: np.ndarray


@struct.dataclass
class PairBatch:
  """Preference pairs: row 2i is pair i's chosen answer, 2i+1 its rejected one.

  B = 2P rows, each prompt + answer, right-padded (position -1). ref_logps are
  sums in nats over the answer's tokens; weight is 0 for an empty slot. The loss
  is the mean over pairs by weight: weights compare the pairs of one step.
  """

  tokens_BT: np.ndarray
  positions_BT: np.ndarray
  loss_mask_BT: np.ndarray
  ref_logps_B: np.ndarray
  weight_P: np.ndarray


@struct.dataclass
class Batch:
  """What one step trains on; a part that is None is not there."""

  sft: SFTBatch | None = None
  pairs: PairBatch | None = None
  rows: SFTBatch | None = None  # of answers that a method wants imitated

  @property
  def parts(self) -> dict[str, SFTBatch | PairBatch]:
    """The parts that are there, by name."""
    return {name: rows for name, rows in vars(self).items() if rows is not None}

  @property
  def supervised(self):
    """Targets of the SFT rows, in the data and of a method."""
    parts = [x for x in (self.sft, self.rows) if x is not None]
    return sum((x.loss_mask_BT[:, 1:].sum() for x in parts), start=0.0)

  @property
  def empty(self) -> bool:
    return not self.parts


@dataclasses.dataclass(frozen=True)
class Pair:
  """One preference as token ids, with the reference's log-probs (nats).

  Without a rejected answer it is a *row*: the chosen one is imitated.

  `row` is the global row id of the sample, `step` when it was made, `uses` how
  often it was drawn. Answers end with the end-of-turn token that was sampled;
  both lack it where one was cut at the limit (`conscience.pairs.sides`).
  weight: how much it counts beside others, at least 1.
  """

  row: int
  step: int
  prompt: tuple[int, ...]
  chosen: tuple[int, ...]
  rejected: tuple[int, ...] = ()
  ref_chosen: float = 0.0
  ref_rejected: float = 0.0
  uses: int = 0
  weight: float = 1.0


def step_batch(sft, drawn: Sequence[Pair], slots: int, length: int) -> Batch:
  """The batch of a step: SFT rows of the data or None, and what was drawn.

  The rows among `drawn` fill a part of their own, as many rows of tokens as
  the pairs have, so that a mesh and microbatches divide both alike.
  """
  pairs = [pair for pair in drawn if pair.rejected]
  rows = [pair for pair in drawn if not pair.rejected]
  return Batch(
    sft,
    pair_batch(pairs, slots, length) if pairs else None,
    row_batch(rows, 2 * slots, length) if rows else None,
  )


def row_batch(rows: Sequence[Pair], count: int, length: int) -> SFTBatch:
  """One row of tokens for each; those left over stay empty."""
  batch = empty_pair_batch(count // 2, length)
  for i, pair in enumerate(rows):
    _put_row(batch, i, pair, pair.chosen, length)
  segments_BT = (batch.positions_BT >= 0).astype(np.int32)
  tokens_BT, positions_BT = batch.tokens_BT, batch.positions_BT
  return SFTBatch(tokens_BT, positions_BT, segments_BT, batch.loss_mask_BT)


def emptied(part):
  """A part of that shape without anything in it: all padding, weight 0."""
  empty = {k: np.zeros(x.shape, x.dtype) for k, x in vars(part).items()}
  positions_BT = np.full_like(empty['positions_BT'], -1)
  return part.replace(**empty | {'positions_BT': positions_BT})


def empty_pair_batch(slots: int, length: int) -> PairBatch:
  """A batch of `slots` empty pairs: all padding, weight 0."""
  shape = (2 * slots, length)
  return PairBatch(
    tokens_BT=np.zeros(shape, np.int32),
    positions_BT=np.full(shape, -1, np.int32),
    loss_mask_BT=np.zeros(shape, np.float32),
    ref_logps_B=np.zeros(2 * slots, np.float32),
    weight_P=np.zeros(slots, np.float32),
  )


def pair_batch(pairs: Sequence[Pair], slots: int, length: int) -> PairBatch:
  """Lays pairs out in a fixed shape; the slots left over stay empty.

  Raises:
    UserError: a pair is longer than `length` tokens.
    ValueError: more pairs than slots, or a pair with an empty prompt or answer.
  """
  if len(pairs) > slots:
    raise ValueError(f'{len(pairs)} pairs do not fit into {slots} slots')
  batch = empty_pair_batch(slots, length)
  for i, pair in enumerate(pairs):
    _put_row(batch, 2 * i, pair, pair.chosen, length)
    _put_row(batch, 2 * i + 1, pair, pair.rejected, length)
    batch.ref_logps_B[2 * i : 2 * i + 2] = pair.ref_chosen, pair.ref_rejected
    batch.weight_P[i] = pair.weight
  return batch


def _put_row(batch, row, pair, answer, length):
  """Writes prompt + answer into one row; only the answer is a target."""
  if not pair.prompt or not answer:
    raise ValueError(f'{pair} has an empty prompt or answer')
  ids = pair.prompt + answer
  if len(ids) > length:
    raise UserError(
      f'the pair of step {pair.step}, row {pair.row} has {len(ids)} tokens '
      f'(prompt {len(pair.prompt)}, answer {len(answer)}) but pairs hold '
      f'{length}: allow longer pairs, or shorten prompts or new tokens'
    )
  batch.tokens_BT[row, : len(ids)] = ids
  batch.positions_BT[row, : len(ids)] = np.arange(len(ids))
  batch.loss_mask_BT[row, len(pair.prompt) : len(ids)] = 1
