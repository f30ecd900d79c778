"""Prompts as batches of static shape, padded on the left."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ealign.runtime.errors import UserError

_BUCKETS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Batch(NamedTuple):
  """Left-padded prompts; the rows past len(index) are empty."""

  index: np.ndarray  # where the prompt of each row stands in the list
  tokens_BT: np.ndarray
  positions_BT: np.ndarray  # -1 on padding


def bucket(length: int) -> int:
  """The padded length of a prompt: from a short list, so few programs."""
  for size in _BUCKETS:
    if length <= size:
      return size
  return -(-length // 512) * 512


def batches(
  prompts: list[list[int]], rows: int, *, in_order: bool = False
) -> Iterator[Batch]:
  """Yields batches of prompts of like lengths, each padded to its own bucket.

  Args:
    prompts: token ids.
    rows: rows of every batch; the last one may be partly empty.
    in_order: do not sort, for adapters whose arms go by row.

  Raises:
    ValueError: in_order, and the prompts are not exactly one batch.
  """
  if in_order and len(prompts) != rows:
    raise ValueError(f'arms go by row: {len(prompts)} prompts, {rows} rows')
  lengths = np.array([len(prompt) for prompt in prompts], np.int64)
  order = np.argsort(lengths, kind='stable')
  if in_order:
    order = np.arange(rows)
  for start in range(0, len(prompts), rows):
    index = order[start : start + rows]
    width = bucket(int(lengths[index].max()))
    tokens_BT = np.zeros((rows, width), np.int32)
    positions_BT = np.full((rows, width), -1, np.int32)
    for row, i in enumerate(index):
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
