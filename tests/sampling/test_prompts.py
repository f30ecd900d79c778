"""Prompts as batches: buckets, left padding, order."""

import numpy as np
import pytest

from ealign.sampling import prompts as prompting


@pytest.mark.parametrize(
  'length, padded',
  [(1, 32), (32, 32), (33, 64), (129, 160), (1024, 1024), (1025, 1536)],
)
def test_bucket(length, padded):
  assert prompting.bucket(length) == padded


def test_batches_pad_left_and_sort_by_length():
  prompts = [[1] * 40, [2, 3], [4] * 50]
  short, long = prompting.batches(prompts, 2)
  np.testing.assert_array_equal(short.index, [1, 0])
  assert short.tokens_BT.shape == (2, 64) and long.tokens_BT.shape == (2, 64)
  np.testing.assert_array_equal(short.tokens_BT[0, -3:], [0, 2, 3])
  np.testing.assert_array_equal(short.positions_BT[0, -3:], [-1, 0, 1])
  np.testing.assert_array_equal(long.index, [2, -1])
  assert np.all(long.positions_BT[1] == -1)


def test_lanes_have_rows_of_their_own():
  prompts = [[1] * 40, [2], [3] * 3, [4] * 2, [5]]
  kw = {'lanes': (1, 0, 1, 0, 1), 'count': 2}
  first, second = prompting.batches(prompts, 4, **kw)
  np.testing.assert_array_equal(first.index, [1, 3, 4, 2])
  np.testing.assert_array_equal(second.index, [-1, -1, 0, -1])


@pytest.mark.parametrize(
  'count, rows, parts, wide',
  [
    (16, 16, 1, 16),
    (5, 16, 1, 16),
    (4, 16, 1, 4),
    (1, 2, 1, 1),
    (1, 1, 1, 1),
    (3, 16, 8, 8),  # a row for each part at least
    (9, 16, 8, 16),
    (40, 160, 2, 40),
  ],
)
def test_few_prompts_take_a_quarter_of_the_rows(count, rows, parts, wide):
  assert prompting.width(count, rows, parts) == wide


def test_half_a_batch_may_be_two_of_a_quarter():
  wide = [prompting.width(n, 16, apart=True) for n in (4, 5, 8, 9)]
  assert wide == [4, 4, 4, 16]
