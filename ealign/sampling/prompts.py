"""Prompts as batches of static shape, padded on the left."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ealign.runtime.errors import UserError

_BUCKETS = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768)
_BUCKETS += (896, 1024)


class Batch(NamedTuple):
  """Left-padded prompts."""

  index: np.ndarray  # where the prompt of each row stands; -1: an empty row
  tokens_BT: np.ndarray
  positions_BT: np.ndarray  # -1 on padding


def bucket(length: int) -> int:
  """The padded length of a prompt: from a short list, so few programs."""
  for size in _BUCKETS:
    if length <= size:
      return size
  return -(-length // 512) * 512


def width(count: int, rows: int, parts: int = 1, *, apart: bool = False) -> int:
  """Rows of a batch of `count` prompts: a quarter of `rows` where they fit.

  parts: that the rows of a batch are split into, and must divide by. apart:
  whether half a batch may be two of a quarter, as where to read the weights
  once more costs little beside empty rows.
  """
  few = -(-rows // (4 * parts)) * parts
  return few if count <= few or (apart and count <= rows // 2) else rows


def batches(
  prompts: list[list[int]], rows: int, *, lanes: Sequence[int] = (), count=1
) -> Iterator[Batch]:
  """Yields batches of prompts of like lengths, each padded to its own bucket.

  Args:
    prompts: token ids.
    rows: rows of every batch; the last one may be partly empty.
    lanes: the lane of each prompt, where adapters go by row; () is one lane.
    count: of lanes. Each has rows / count rows of a batch, lane by lane.
  """
  lengths = np.array([len(prompt) for prompt in prompts], np.int64)
  order = np.argsort(lengths, kind='stable')
  lane_of = np.asarray(lanes or np.zeros(len(prompts)), int)
  own = [order[lane_of[order] == lane] for lane in range(count)]
  each = rows // count
  for start in range(0, max(map(len, own)), each):
    index = np.full(rows, -1)
    for lane, mine in enumerate(own):
      part = mine[start : start + each]
      index[lane * each : lane * each + len(part)] = part
    width = bucket(int(lengths[index[index >= 0]].max()))
    tokens_BT = np.zeros((rows, width), np.int32)
    positions_BT = np.full((rows, width), -1, np.int32)
    for row in np.flatnonzero(index >= 0):
      i = index[row]
      tokens_BT[row, width - lengths[i] :] = prompts[i]
      positions_BT[row, width - lengths[i] :] = np.arange(lengths[i])
    yield Batch(index, tokens_BT, positions_BT)


def check(prompts: list[list[int]], limit: int) -> None:
  """Raises UserError for an empty prompt, or one of more than `limit` ids."""
  problems = [
    f'prompt {i} has {len(prompt)} tokens; it must have 1 to {limit}, '
    'the positions of the model less the tokens that follow'
    for i, prompt in enumerate(prompts)
    if not 1 <= len(prompt) <= limit
  ]
  if problems:
    raise UserError(*problems)
