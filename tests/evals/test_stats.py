"""Intervals against numbers by hand, scipy's own, and what must always hold."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as sps

from ealign.evals import stats

COUNTS = [(k, n) for n in (1, 2, 7, 100) for k in range(n + 1)]


def test_wilson_golden():
  # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), by hand.
  np.testing.assert_allclose(
    stats.wilson(10, 100), (0.0552291, 0.1743657), atol=1e-6
  )
  assert stats.wilson(0, 0) == (0.0, 1.0)


def test_no_bad_answer_in_a_hundred_is_not_zero_per_cent():
  lo, hi = stats.wilson(0, 100)
  assert lo == 0 and hi == pytest.approx(1 - 0.025**0.01)
  assert hi == pytest.approx(0.036217, abs=1e-6)
  assert stats.wilson(100, 100) == pytest.approx((1 - hi, 1))


@pytest.mark.parametrize('k, n', COUNTS)
def test_wilson_against_scipy(k, n):
  method = 'exact' if k in (0, n) else 'wilson'
  known = sps.binomtest(k, n).proportion_ci(0.95, method)
  np.testing.assert_allclose(stats.wilson(k, n), known, atol=1e-12)


def test_wilson_rises_with_the_count_and_mirrors():
  for (k, n), (next_k, same_n) in itertools.pairwise(COUNTS):
    if n == same_n:
      lower = np.array(stats.wilson(k, n))
      assert (lower <= stats.wilson(next_k, n)).all()
  lo, hi = stats.wilson(3, 20)
  assert stats.wilson(17, 20) == pytest.approx((1 - hi, 1 - lo))


def test_impossible_counts_are_refused():
  with pytest.raises(ValueError, match='k=3, n=2'):
    stats.wilson(3, 2)


def test_clustered_golden():
  # Four prompts, each with two equal answers: worth three answers (the
  # variance is 4/3 * 4/64 = 1/12 against 1/32), t on 3 degrees = 3.182446.
  values = [1, 1, 0, 0, 0, 0, 1, 1]
  mean, lo, hi = stats.clustered(values, list('aabbccdd'))
  assert mean == 0.5
  assert (lo, hi) == pytest.approx((0.060837, 0.939163), abs=1e-5)


def test_asking_a_prompt_twice_tells_nothing_new():
  rng = np.random.default_rng(0)
  values = (rng.random(60) < 0.3).astype(float)
  clusters = list(rng.integers(0, 20, 60))
  once = stats.clustered(values, clusters)
  twice = stats.clustered(np.tile(values, 2), clusters * 2)
  if once[2] - once[1] > np.ptp(stats.wilson(values.sum(), 60)):
    assert twice == pytest.approx(once)
  alone = stats.clustered(values, range(60))
  assert stats.clustered(np.tile(values, 2), [*range(60)] * 2) == pytest.approx(
    alone
  )


@pytest.mark.parametrize('seed', range(8))
def test_clustered_is_never_narrower_than_independent_answers(seed):
  rng = np.random.default_rng(seed)
  values = (rng.random(40) < rng.random()).astype(float)
  clusters = rng.integers(0, 1 + rng.integers(1, 30), 40)
  mean, lo, hi = stats.clustered(values, clusters.tolist())
  low, high = stats.wilson(values.sum(), 40)
  assert 0 <= lo <= mean <= hi <= 1
  assert lo <= low + 1e-12 and hi >= high - 1e-12


def test_alike_answers_within_prompts_widen_the_interval():
  values = [1] * 10 + [0] * 30
  apart = stats.clustered(values, range(40))
  alike = stats.clustered(values, [i // 5 for i in range(40)])
  assert np.ptp(alike[1:]) > 1.5 * np.ptp(apart[1:])


def test_clusters_that_say_nothing_count_as_one_answer_each():
  none = stats.clustered([0] * 12, [i // 3 for i in range(12)])
  assert none == (0, *stats.wilson(0, 4))
  one = stats.clustered([1, 0], ['a', 'a'])
  assert one[0] == 0.5 and one[2] - one[1] > np.ptp(stats.wilson(1, 2))
  with pytest.raises(ValueError, match='0 values'):
    stats.clustered([], [])
  with pytest.raises(ValueError, match='between 0 and 1'):
    stats.clustered([2.0], ['a'])


def test_student_t_golden():
  # s = 1, t on 2 degrees = 4.302653, half = 4.302653 / sqrt(3).
  mean, lo, hi = stats.student_t([1, 2, 3])
  assert mean == 2
  assert (lo, hi) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
  assert stats.student_t([0.0, 0.1], bounds=(0, 1))[1] == 0


def test_student_t_has_no_nan():
  assert stats.student_t([0.0] * 5) == (0, 0, 0)
  assert stats.student_t([0.3]) == (0.3, -math.inf, math.inf)
  assert stats.student_t([0.3], bounds=(0, 1)) == (0.3, 0, 1)
  with pytest.raises(ValueError, match='no values'):
    stats.student_t([])
