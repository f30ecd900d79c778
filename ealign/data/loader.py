"""An endless, deterministic stream of packed batches that can be resumed.

Rows are kept in memory, tokenized: resuming a stream of Hugging Face `datasets`
skips or repeats rows, while a position in a list of rows is one integer. A
batch is a function of that integer alone, so it is the whole state.
"""

import collections
import functools
import hashlib
import sys
from collections.abc import Sequence

import grain
import numpy as np

from ealign.data import packing
from ealign.data.batch import Row, SFTBatch
from ealign.runtime.errors import UserError

# Reading a row costs microseconds: threads would only add a delay.
_READ = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)


class Loader:
  """Packed batches of [batch_size, length] tokens, shuffled anew every epoch.

  A batch takes rows, first-fit, until one fits nowhere; that row opens the next
  batch. Epochs follow one another without a gap, so a data set smaller than a
  batch repeats within it. Every host computes the same global batch.

  Attributes:
    stats: chats, rows, `split` = chats that became several rows, `empty` =
      answers that are trained on their end alone, tokens (of an epoch, after
      truncation), `supervised` = share of tokens that are targets, `truncated`
      = share of rows cut to `length`.

  Raises:
    UserError: no rows, a row whose prompt fills `length`, more than
      `max_truncated` of the rows cut.
  """

  def __init__(
    self,
    rows: Sequence[Row],
    *,
    length: int,
    batch_size: int,
    seed: int,
    max_truncated: float = 0.01,
  ):
    if not rows:
      raise UserError('the training data has no rows')
    self._rows = [packing.truncate(row, length) for row in rows]
    self._length, self._batch_size = length, batch_size
    self.stats = _stats(rows, self._rows)
    _check_truncated(rows, length, self.stats['truncated'], max_truncated)
    self._digest = _digest(self._rows, length, batch_size, seed)
    order = functools.partial(_order, len(rows), seed)
    stream = grain.MapDataset.range(sys.maxsize).map(order)
    self._stream = iter(stream.to_iter_dataset(_READ))

  def __str__(self) -> str:
    """The stats as a line for people."""
    text = (
      '{chats:,} chats in {rows:,} rows, {tokens:,} tokens: {supervised:.1%} '
      'supervised; {truncated:.1%} of the rows truncated'
    ).format(**self.stats)
    if split := self.stats['split']:
      text += f'; {split:,} chats split, since the template rewrites turns'
    if empty := self.stats['empty']:
      text += f'; {empty:,} answers are empty: only their end is trained'
    return text

  def epochs(self, steps: int) -> float:
    """How many times so many steps read the data, if rows had no gaps."""
    read = steps * self._batch_size * self._length
    return read / max(self.stats['tokens'], 1)

  @property
  def epoch(self) -> float:
    """How many times the data has been read so far."""
    return self._stream.get_state()['next_index'] / len(self._rows)

  def next(self) -> SFTBatch:
    """The next batch."""
    start = self._stream.get_state()['next_index']
    rows = (self._rows[i] for i in self._stream)
    packed, used = packing.fill(rows, self._batch_size, self._length)
    self._stream.set_state({'next_index': start + used})
    return packing.lay_out(packed, self._length)

  def state(self) -> dict:
    """Where the next batch starts, and a digest of the data, as JSON."""
    return {**self._stream.get_state(), 'digest': self._digest}

  def restore(self, state: dict) -> None:
    """Continues from `state`; a UserError if it belongs to other data."""
    if state['digest'] != self._digest:
      raise UserError(
        'the saved data position belongs to other rows, data.length, batch '
        'size or seed: restore them, or start in a new workdir'
      )
    self._stream.set_state({'next_index': state['next_index']})


@functools.lru_cache(maxsize=4)
def _permutation(count, seed, epoch):
  return np.random.default_rng((seed, epoch)).permutation(count)


def _order(count, seed, position):
  """Which row stands at a position of the endless stream."""
  epoch, index = divmod(position, count)
  return int(_permutation(count, seed, epoch)[index])


def _stats(given, kept):
  tokens = sum(len(row.ids) for row in kept)
  cut = sum(len(a.ids) > len(b.ids) for a, b in zip(given, kept, strict=True))
  of_chat = collections.Counter(row.source for row in given)
  return {
    'chats': len(of_chat),
    'rows': len(kept),
    'split': sum(count > 1 for count in of_chat.values()),
    'empty': sum(row.empty for row in given),
    'tokens': tokens,
    'supervised': sum(sum(row.loss_mask) for row in kept) / tokens,
    'truncated': cut / len(kept),
  }


def _check_truncated(rows, length, share, limit):
  if share > limit:
    longest = max(rows, key=lambda row: len(row.ids))
    raise UserError(
      f'{share:.1%} of the rows are longer than {length} tokens (the longest, '
      f'{longest.source}, has {len(longest.ids)}) but '
      f'data.max_truncated is {limit:.1%}: raise data.length, or raise '
      'data.max_truncated to accept the cut'
    )


def _digest(rows, length, batch_size, seed):
  """A hash of everything that the meaning of a position depends on."""
  digest = hashlib.sha256(str((length, batch_size, seed)).encode())
  for row in rows:
    digest.update(np.asarray((row.ids, row.loss_mask), np.int32).tobytes())
  return digest.hexdigest()[:16]
