"""Signed ranks and rank correlation against scipy and against all cases."""

import itertools

import numpy as np
import pytest
from scipy import stats as sps

from ealign.evals import ranks


@pytest.mark.parametrize('n', [1, 5, 8, 30])
def test_signed_ranks_are_those_of_scipy_without_ties(n):
  rng = np.random.default_rng(n)
  a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
  found = ranks.signed(a, b)
  wanted = sps.wilcoxon(a, b, method='exact').pvalue
  assert found.p == pytest.approx(wanted, rel=1e-9)
  assert (found.pairs, found.differ) == (n, n)


def test_signed_ranks_with_ties_and_zeros_over_all_signs():
  by = np.array([0.5, 0.5, -0.5, 1.0, 0.0, 2.0, 2.0, 0.0])
  found = ranks.signed(by, np.zeros(8))
  own = by[by != 0]
  rank = sps.rankdata(np.abs(own))
  seen = abs(rank @ np.sign(own))
  signs = itertools.product((-1, 1), repeat=len(own))
  wanted = np.mean([abs(rank @ np.array(s)) >= seen - 1e-9 for s in signs])
  assert found.p == pytest.approx(wanted)
  assert (found.pairs, found.differ) == (8, 6)


def test_many_pairs_by_the_normal_law():
  rng = np.random.default_rng(0)
  a = rng.normal(0.1, 1, 300)
  found = ranks.signed(a, np.zeros(300))
  wanted = sps.wilcoxon(a, method='exact').pvalue
  assert found.p == pytest.approx(wanted, rel=0.02)


def test_the_shift_and_its_interval_by_hand():
  found = ranks.signed([1, 2, 3, 4, 5, 6], [0] * 6, bounds=(-9, 9))
  assert found.shift == 3.5
  # P(W = 0) = 1/64 <= .025 < P(W <= 1): the least and the largest mean.
  assert found.interval == (1, 6)
  assert found.p == pytest.approx(2 / 64)
  few = ranks.signed([1, 2], [0, 0], bounds=(-9, 9))
  assert few.interval == (-9, 9)


def test_the_interval_holds_the_shift_that_is_not_rejected():
  """Direction: a shift outside of the interval is rejected at 5 %."""
  rng = np.random.default_rng(3)
  a, b = rng.normal(0.5, 1, 20), rng.normal(0, 1, 20)
  low, high = ranks.signed(a, b, bounds=(-9, 9)).interval
  assert 0.5 * (low + high) > 0
  for shift, kept in (
    *((low - 0.01, False), (low + 0.01, True)),
    *((high - 0.01, True), (high + 0.01, False)),
  ):
    assert (ranks.signed(a - shift, b).p > 0.05) == kept
  other = ranks.signed(b, a, bounds=(-9, 9))
  assert other.interval == pytest.approx((-high, -low))


def test_pairs_that_are_all_alike_say_nothing():
  found = ranks.signed([0.3] * 8, [0.3] * 8)
  assert (found.shift, found.p, found.differ) == (0, 1, 0)


@pytest.mark.parametrize(('a', 'b'), [([], []), ([1], [1, 2])])
def test_values_must_be_paired(a, b):
  with pytest.raises(ValueError, match='values'):
    ranks.signed(a, b)


@pytest.mark.parametrize('n', [5, 12])
def test_spearman_is_that_of_scipy(n):
  rng = np.random.default_rng(n)
  x = rng.integers(0, 6, n)
  y = x + rng.integers(0, 6, n)
  found, wanted = ranks.spearman(x, y), sps.spearmanr(x, y)
  assert found.rho == pytest.approx(wanted.statistic)
  low, high = found.interval
  assert low < found.rho < high
  if n > 8:
    assert found.p == pytest.approx(wanted.pvalue)


def test_few_points_are_tested_over_all_orders():
  x, y = [1, 2, 3, 4, 5], [1, 2, 3, 5, 4]
  found = ranks.spearman(x, y)
  at_least = [
    abs(sps.spearmanr(x, order).statistic) >= 0.9 - 1e-9
    for order in itertools.permutations(y)
  ]
  assert found.rho == pytest.approx(0.9)
  assert found.p == pytest.approx(np.mean(at_least))


def test_the_same_order_is_not_certain():
  found = ranks.spearman([1, 2, 3, 4, 5], [2, 4, 6, 8, 9])
  assert found.rho == pytest.approx(1) and found.interval[1] == 1
  assert found.interval[0] < 0.9 and found.p == pytest.approx(2 / 120)
  other = ranks.spearman([1, 2, 3, 4, 5], [9, 8, 6, 4, 2])
  assert other.interval == pytest.approx((-1, -found.interval[0]))
  assert ranks.spearman([1, 2, 3], [1, 2, 3]).interval == (-1, 1)


def test_values_without_an_order_have_no_correlation():
  assert ranks.spearman([1, 1, 1, 1], [1, 2, 3, 4]) is None
  assert ranks.spearman([1, 2], [1, 2]) is None
  with pytest.raises(ValueError, match='values'):
    ranks.spearman([1], [1, 2])
