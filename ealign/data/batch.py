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
  """One training text: token ids, a 0/1 loss mask, and where it came from."""

  ids: tuple[int, ...]
  loss_mask: tuple[int, ...]
  source: str = 'a row'


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
  sums in nats over the answer's tokens; weight is 0 for an empty slot.
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

  @property
  def parts(self) -> dict[str, SFTBatch | PairBatch]:
    """The rows that are there, by name."""
    return {name: rows for name, rows in vars(self).items() if rows is not None}

  @property
  def empty(self) -> bool:
    return not self.parts


@dataclasses.dataclass(frozen=True)
class Pair:
  """One preference as token ids, with the reference's log-probs (nats).

  `row` is the global row id of the sample, `step` when it was made, `uses` how
  often it was drawn. Answers end with the end-of-turn token that was sampled.
  """

  row: int
  step: int
  prompt: tuple[int, ...]
  chosen: tuple[int, ...]
  rejected: tuple[int, ...]
  ref_chosen: float
  ref_rejected: float
  uses: int = 0


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
    batch.weight_P[i] = 1
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
