import numpy as np
import pytest

from ealign.data import packing
from ealign.data.batch import Row
from ealign.runtime.errors import UserError


def row(*ids, prompt=1):
  mask = (0,) * prompt + (1,) * (len(ids) - prompt)
  return Row(tuple(ids), mask, f'row {ids[0]}')


def test_golden_batch():
  rows = [row(1, 2, 3), row(4, 5, 6, 7), row(8, 9), row(10, 11, 12)]
  packed, used = packing.fill(rows, bins=2, length=6)
  # 4 tokens do not fit behind 3 in the first bin; 2 do; the last 3 nowhere.
  assert used == 3
  assert packed == [[rows[0], rows[2]], [rows[1]]]
  batch = packing.lay_out(packed, 6)
  np.testing.assert_array_equal(
    batch.tokens_BT, [[1, 2, 3, 8, 9, 0], [4, 5, 6, 7, 0, 0]]
  )
  np.testing.assert_array_equal(
    batch.positions_BT, [[0, 1, 2, 0, 1, -1], [0, 1, 2, 3, -1, -1]]
  )
  np.testing.assert_array_equal(
    batch.segments_BT, [[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]]
  )
  np.testing.assert_array_equal(
    batch.loss_mask_BT, [[0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 0, 0]]
  )
  assert batch.tokens_BT.dtype == batch.segments_BT.dtype == np.int32
  assert batch.loss_mask_BT.dtype == np.float32


def test_first_fit():
  assert packing.first_fit([2, 3, 9], 3) == 1
  assert packing.first_fit([2, 3, 9], 10) is None


def test_no_token_is_lost_and_none_is_invented():
  rng = np.random.default_rng(0)
  rows = [row(*rng.integers(1, 99, n)) for n in rng.integers(2, 12, 200)]
  packed, used = packing.fill(rows, bins=8, length=32)
  batch = packing.lay_out(packed, 32)
  found = [
    tuple(batch.tokens_BT[b][batch.segments_BT[b] == s])
    for b in range(8)
    for s in range(1, batch.segments_BT[b].max() + 1)
  ]
  assert sorted(found) == sorted(r.ids for r in rows[:used])
  assert ((batch.segments_BT == 0) == (batch.positions_BT == -1)).all()
  # A segment's first token has nothing before it, so it is no target.
  assert not batch.loss_mask_BT[batch.positions_BT <= 0].any()
  assert (batch.positions_BT >= 0).mean() > 0.9


def test_truncate_keeps_the_start():
  cut = packing.truncate(row(1, 2, 3, 4), 3)
  assert (cut.ids, cut.loss_mask) == ((1, 2, 3), (0, 1, 1))
  assert packing.truncate(row(1, 2, 3), 3) == row(1, 2, 3)


def test_rows_that_train_nothing():
  with pytest.raises(UserError, match='row 1: the prompt has 3 tokens.*hold 3'):
    packing.truncate(row(1, 2, 3, 4, prompt=3), 3)
  assert packing.truncate(row(1, 2, 3, 4, prompt=2), 3).loss_mask == (0, 0, 1)
  with pytest.raises(UserError, match='row 1: no supervised token .* drop it'):
    packing.truncate(row(1, 2, prompt=2), 3)
  with pytest.raises(UserError, match='nothing precedes'):
    packing.truncate(row(1, 2, prompt=0), 3)
