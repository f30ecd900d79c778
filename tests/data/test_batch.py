import numpy as np
import pytest

from ealign.data import batch
from ealign.runtime.errors import UserError

PAIR = batch.Pair(
  row=7,
  step=3,
  prompt=(11, 12),
  chosen=(21, 22, 9),
  rejected=(31, 9),
  ref_chosen=-1.5,
  ref_rejected=-0.5,
)


def test_golden_pair_in_the_first_of_two_slots():
  got = batch.pair_batch([PAIR], slots=2, length=6)
  np.testing.assert_array_equal(
    got.tokens_BT,
    [[11, 12, 21, 22, 9, 0], [11, 12, 31, 9, 0, 0], [0] * 6, [0] * 6],
  )
  np.testing.assert_array_equal(
    got.positions_BT,
    [[0, 1, 2, 3, 4, -1], [0, 1, 2, 3, -1, -1], [-1] * 6, [-1] * 6],
  )
  np.testing.assert_array_equal(
    got.loss_mask_BT,
    [[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0], [0] * 6, [0] * 6],
  )
  np.testing.assert_array_equal(got.ref_logps_B, [-1.5, -0.5, 0, 0])
  np.testing.assert_array_equal(got.weight_P, [1, 0])
  assert got.tokens_BT.dtype == np.int32
  assert got.loss_mask_BT.dtype == got.ref_logps_B.dtype == np.float32


def test_no_pairs_is_the_empty_batch():
  got = batch.pair_batch([], slots=3, length=4)
  empty = batch.empty_pair_batch(3, 4)
  for name in ('tokens_BT', 'positions_BT', 'loss_mask_BT', 'weight_P'):
    np.testing.assert_array_equal(getattr(got, name), getattr(empty, name))
  assert not empty.weight_P.any() and not empty.loss_mask_BT.any()
  assert (empty.positions_BT == -1).all()


def test_a_pair_that_exactly_fits_and_one_that_does_not():
  assert batch.pair_batch([PAIR], slots=1, length=5).weight_P[0] == 1
  heavy = batch.dataclasses.replace(PAIR, weight=2.5)
  assert batch.pair_batch([heavy], slots=1, length=5).weight_P[0] == 2.5
  with pytest.raises(UserError, match='step 3, row 7 has 5 tokens.*hold 4'):
    batch.pair_batch([PAIR], slots=1, length=4)


def test_more_pairs_than_slots():
  with pytest.raises(ValueError, match='2 pairs do not fit into 1'):
    batch.pair_batch([PAIR, PAIR], slots=1, length=6)


@pytest.mark.parametrize('part', ['prompt', 'chosen', 'rejected'])
def test_empty_parts_are_refused(part):
  broken = batch.dataclasses.replace(PAIR, **{part: ()})
  with pytest.raises(ValueError, match='empty'):
    batch.pair_batch([broken], slots=1, length=6)
