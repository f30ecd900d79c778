"""Rows into fixed shapes: truncation, first-fit packing, segment ids."""

from collections.abc import Iterable, Sequence

import numpy as np

from ealign.data.batch import Row, SFTBatch
from ealign.runtime.errors import UserError


def truncate(row: Row, length: int) -> Row:
  """The row's first `length` tokens.

  Raises:
    UserError: nothing of what the row trains lies within `length` tokens.
  """
  if 1 not in row.loss_mask:
    raise UserError(f'{row.source}: no supervised token in the row; drop it')
  prompt = row.loss_mask.index(1)
  if prompt >= length:
    raise UserError(
      f'{row.source}: the prompt has {prompt} tokens but sequences hold '
      f'{length}: raise data.length or drop the row'
    )
  if prompt == 0:
    raise UserError(
      f'{row.source}: nothing precedes the first supervised token; drop the row'
    )
  return Row(row.ids[:length], row.loss_mask[:length], row.source)


def first_fit(room: Sequence[int], size: int) -> int | None:
  """Index of the first bin with at least `size` tokens of room, or None."""
  return next((i for i, free in enumerate(room) if free >= size), None)


def fill(
  rows: Iterable[Row], bins: int, length: int
) -> tuple[list[list[Row]], int]:
  """Packs a stream first-fit until a row fits nowhere.

  Returns:
    The rows of each bin, and how many rows of the stream they are. The row that
    did not fit has been read but not used: the next batch starts with it.
  """
  packed: list[list[Row]] = [[] for _ in range(bins)]
  room = [length] * bins
  used = 0
  for row in rows:
    index = first_fit(room, len(row.ids))
    if index is None:
      break
    packed[index].append(row)
    room[index] -= len(row.ids)
    used += 1
  return packed, used


def lay_out(packed: Sequence[Sequence[Row]], length: int) -> SFTBatch:
  """Writes each bin's rows one after the other into one row of the batch.

  Each row keeps its own positions from 0 and its own segment number, so packing
  changes no logit: attention sees within a segment only, and RoPE only sees
  differences of positions.
  """
  shape = (len(packed), length)
  tokens_BT = np.zeros(shape, np.int32)
  positions_BT = np.full(shape, -1, np.int32)
  segments_BT = np.zeros(shape, np.int32)
  loss_mask_BT = np.zeros(shape, np.float32)
  for b, rows in enumerate(packed):
    start = 0
    for segment, row in enumerate(rows, start=1):
      span = slice(start, start + len(row.ids))
      tokens_BT[b, span] = row.ids
      positions_BT[b, span] = np.arange(len(row.ids))
      segments_BT[b, span] = segment
      loss_mask_BT[b, span] = row.loss_mask
      start = span.stop
  return SFTBatch(tokens_BT, positions_BT, segments_BT, loss_mask_BT)
