"""Kappa by hand, its variance by the textbook, and at its edges."""

import numpy as np
import pytest

from ealign.evals import stats
from ealign.evals.agreement import kappa


def labels(table):
  """Two lists of labels of a table of counts, one row a label of the first."""
  pairs = [
    (i, j)
    for i, row in enumerate(table)
    for j, times in enumerate(row)
    for _ in range(times)
  ]
  return [*map(list, zip(*pairs, strict=True))]


def test_by_hand():
  # 20 + 15 of 50 agree; by chance (25 * 30 + 25 * 20) / 2500 = 1/2.
  a, b = labels([[20, 5], [10, 15]])
  found = kappa(a, b, range(50))
  assert found.value == pytest.approx((0.7 - 0.5) / (1 - 0.5))
  assert found.n == 50


def test_three_classes_and_the_order_does_not_matter():
  a, b = labels([[30, 2, 1], [3, 20, 4], [0, 5, 35]])
  chance = (33 * 33 + 27 * 27 + 40 * 40) / 100**2
  found = kappa(a, b, range(100))
  assert found.value == pytest.approx((0.85 - chance) / (1 - chance))
  back = kappa(b, a, range(100))
  assert (back.low, back.high) == pytest.approx((found.low, found.high))
  words = kappa(['xyz'[i] for i in a], ['xyz'[i] for i in b], range(100))
  assert words == found


def test_the_variance_is_that_of_fleiss_cohen_and_everitt():
  """Their three terms; the interval is the score interval of that size."""
  table = np.array([[60, 6, 2], [4, 40, 5], [1, 8, 74]])
  a, b = labels(table)
  n = table.sum()
  p = table / n
  rows, columns = p.sum(1), p.sum(0)
  agree, chance = np.trace(p), rows @ columns
  value = (agree - chance) / (1 - chance)
  both = rows[None] + columns[:, None]  # of cell i, j: row j and column i
  first = sum(p[i, i] * (1 - both[i, i] * (1 - value)) ** 2 for i in range(3))
  second = sum(
    p[i, j] * both[i, j] ** 2 for i in range(3) for j in range(3) if i != j
  )
  third = (value - chance * (1 - value)) ** 2
  variance = first + (1 - value) ** 2 * second - third
  variance /= n * (1 - chance) ** 2
  variance *= n / (n - 1)
  apart = 1 - agree
  size = apart * agree / (variance * (1 - chance) ** 2)
  ends = stats.score(apart * size, size, stats.t_quantile(n - 1))
  found = kappa(a, b, range(n))
  assert found.low == pytest.approx(1 - ends[1] / (1 - chance))
  assert found.high == pytest.approx(1 - ends[0] / (1 - chance))


def test_full_agreement_is_exact_by_cluster():
  a = [0, 1] * 10
  found = kappa(a, a, range(20))
  most = stats.wilson(0, 20)[1]
  assert (found.value, found.high) == (1, 1)
  assert found.low == pytest.approx(1 - most / 0.5)
  wide = kappa(a, a, np.arange(20) // 4)
  assert wide.low == pytest.approx(max(-1, 1 - stats.wilson(0, 5)[1] / 0.5))


def test_an_answer_labelled_twice_is_no_second_answer():
  a, b = labels([[20, 5], [10, 15]])
  once = kappa(a, b, range(50))
  twice = kappa(a * 2, b * 2, [*range(50)] * 2)
  assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
  alone = kappa(a * 2, b * 2, range(100))
  assert alone.high - alone.low < 0.8 * (once.high - once.low)


def test_it_is_never_nan_and_has_a_value_in_its_interval():
  rng = np.random.default_rng(0)
  for n in (1, 2, 3, 6):
    for _ in range(60):
      a, b = rng.integers(0, 2, (2, n))
      found = kappa([*a], [*b], [*rng.integers(0, 3, n)])
      if found is None:
        assert set(a) == set(b) and len(set(a)) == 1
        continue
      assert -1 <= found.low <= found.value <= found.high <= 1


def test_without_labels_or_with_one_there_is_none():
  assert kappa([], [], []) is None
  assert kappa([1, 1], [1, 1], [0, 1]) is None
  # One has two labels: agreement is what chance gives.
  assert kappa([1, 1], [1, 0], [0, 1]).value == pytest.approx(0)
  with pytest.raises(ValueError, match='2, 1 labels, 2 clusters'):
    kappa([1, 1], [1], [0, 1])


@pytest.mark.parametrize('share, error, n', [(0.5, 0.02, 40), (0.2, 0.1, 100)])
def test_it_covers(share, error, n):
  """Two people who err independently: 300 files of n answers at 95 %."""
  rng = np.random.default_rng(1)
  said = share * (1 - error) + (1 - share) * error
  agree, chance = 1 - 2 * error * (1 - error), said**2 + (1 - said) ** 2
  true = (agree - chance) / (1 - chance)
  covered = 0
  for _ in range(300):
    label = rng.random(n) < share
    a, b = (label ^ (rng.random(n) < error) for _ in range(2))
    found = kappa([*a], [*b], range(n))
    covered += found.low <= true <= found.high
  assert covered >= 276
