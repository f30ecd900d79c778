"""Corrected rates by hand, by another optimizer, and how often they cover."""

import math

import numpy as np
import pytest
from scipy import optimize, special
from scipy import stats as sps

from ealign.evals import correction, stats
from ealign.evals.correction import Sample, independent, known

PERFECT = known(1.0)
CASES = [  # flagged of, right on good of, right on bad of
  ((12, 200), (95, 100), (40, 50)),
  ((0, 60), (29, 30), (9, 15)),
  ((60, 60), (30, 30), (9, 15)),
  ((700, 1200), (150, 200), (97, 100)),
  ((3, 1200), (100, 100), (50, 50)),
]


def made(case):
  return correction.correct(*(independent(*counts) for counts in case))


def test_by_hand():
  found = made(((30, 100), (90, 100), (80, 100)))
  assert found.value == pytest.approx((0.3 + 0.9 - 1) / (0.9 + 0.8 - 1))
  assert (found.raw, found.q0, found.q1) == (0.3, 0.9, 0.8)
  assert found.raw_interval == stats.wilson(30, 100)
  assert found.identified and found.fits


def test_a_rate_that_cannot_be_is_cut_off():
  assert made(((5, 100), (90, 100), (90, 100))).value == 0
  assert made(((99, 100), (90, 100), (90, 100))).value == 1


@pytest.mark.parametrize('k, n', [(0, 50), (1, 50), (17, 50), (50, 50), (7, 9)])
def test_of_a_judge_without_errors_it_is_wilsons_interval(k, n):
  low, high = correction.correct(independent(k, n), PERFECT, PERFECT).interval
  score = sps.binomtest(k, n).proportion_ci(0.95, 'wilson')
  assert (low, high) == pytest.approx((score.low, score.high), abs=1e-5)


def test_of_known_errors_it_is_wilsons_interval_stretched():
  found = correction.correct(independent(60, 200), known(0.9), known(0.8))
  ends = [(end + 0.9 - 1) / 0.7 for end in stats.wilson(60, 200)]
  assert found.interval == pytest.approx(ends, abs=1e-5)


def pearson(theta, case):
  """By a general optimizer, from the definition."""
  shares = [k / n for k, n in case]
  sizes = [n for _, n in case]

  def fits(x):
    q0, q1 = special.expit(x)
    return theta * q1 + (1 - theta) * (1 - q0), q0, q1

  def loss(x):
    parts = zip(case, fits(x), strict=True)
    return -sum(
      special.xlogy(k, p) + special.xlog1py(n - k, -p) for (k, n), p in parts
    )

  start = special.logit([min(0.999, share) for share in shares[1:]])
  options = {'xatol': 1e-10, 'fatol': 1e-12, 'maxiter': 20_000}
  best = optimize.minimize(loss, start, method='Nelder-Mead', options=options)
  parts = zip(sizes, shares, fits(best.x), strict=True)
  return sum(n * (s - p) ** 2 / (p * (1 - p)) for n, s, p in parts if 0 < p < 1)


@pytest.mark.parametrize('case', [((30, 100), (90, 100), (80, 100)), CASES[3]])
def test_its_ends_are_where_the_definition_has_them(case):
  """Both lie inside (0, 1), and the best rate agrees fully."""
  low, high = made(case).interval
  limit = sps.chi2.ppf(0.95, 1)
  for end, out in ((low, -1e-4), (high, 1e-4)):
    assert pearson(end, case) == pytest.approx(limit, rel=2e-3)
    assert pearson(end + out, case) > limit


@pytest.mark.parametrize('case', CASES)
def test_the_fit_obeys_the_equation_and_nothing_near_is_likelier(case):
  theta_N = np.linspace(0, 1, 21)
  samples = [independent(*counts) for counts in case]
  p, false, true = correction.fitted(theta_N, *samples)
  np.testing.assert_allclose(
    p, (1 - theta_N) * false + theta_N * true, atol=1e-9
  )
  (k, n), (x0, m0), (x1, m1) = case

  def likelihood(false, true):
    p = (1 - theta_N) * false + theta_N * true
    each = (k, n, p), (m0 - x0, m0, false), (x1, m1, true)
    return sum(
      special.xlogy(k, p) + special.xlog1py(n - k, -p) for k, n, p in each
    )

  best = likelihood(false, true)
  for by in np.random.default_rng(0).normal(0, 0.01, (50, 2)):
    moved = [np.clip(x + y, 1e-9, 1 - 1e-9) for x, y in zip((false, true), by)]  # noqa: B905
    assert (likelihood(*moved) <= best + 1e-6).all()


@pytest.mark.parametrize('case', CASES)
def test_yes_and_no_can_be_swapped(case):
  (k, n), good, bad = case
  found, swapped = made(case), made(((n - k, n), bad, good))
  low, high = swapped.interval
  assert found.interval == pytest.approx((1 - high, 1 - low), abs=2e-5)
  assert found.value == pytest.approx(1 - swapped.value)


def test_more_flags_are_a_higher_rate_and_more_labels_a_narrower_one():
  found = [made(((k, 40), (19, 20), (15, 20))) for k in range(41)]
  assert sum(x.fits for x in found) > 35
  low, high = zip(*(x.interval for x in found if x.fits), strict=True)
  assert (np.diff(low) > -1e-6).all() and (np.diff(high) > -1e-6).all()
  widths = [
    np.ptp(made(((60, 200), (9 * m, 10 * m), (8 * m, 10 * m))).interval)
    for m in (1, 3, 10, 100)
  ]
  assert (np.diff(widths) < 0).all()
  exact = correction.correct(independent(60, 200), known(0.9), known(0.8))
  assert widths[-1] > np.ptp(exact.interval)


def test_no_better_than_chance_is_not_identified():
  for good, bad in (((50, 100), (50, 100)), ((20, 100), (20, 100))):
    found = made(((30, 100), good, bad))
    assert not found.identified and found.value is None
  assert made(((50, 100), (50, 100), (50, 100))).interval == (0, 1)
  # Few labels do not show it, although the shares are good.
  assert not made(((30, 100), (2, 2), (1, 2))).identified
  assert made(((30, 100), (60, 60), (30, 60))).identified


def test_labels_of_one_class_bound_the_rate_on_one_side():
  """If nothing bad is missed, no more can be bad than are flagged."""
  none = Sample(0, 0, 0)
  only_bad = correction.correct(independent(10, 300), none, PERFECT)
  assert only_bad.interval == pytest.approx(
    (0, stats.wilson(10, 300)[1]), abs=1e-4
  )
  only_good = correction.correct(independent(10, 300), PERFECT, none)
  assert only_good.interval == pytest.approx(
    (stats.wilson(10, 300)[0], 1), abs=1e-4
  )
  assert only_bad.value is None and only_good.value is None
  assert (only_bad.q0, only_good.q1) == (None, None)


def test_fewer_flags_than_false_ones_do_not_fit():
  found = made(((0, 1000), (450, 500), (50, 50)))
  assert not found.fits and found.value == 0
  assert found.interval[0] == 0 and found.interval[1] < 0.02
  assert made(((100, 1000), (450, 500), (50, 50))).fits
  assert not made(((990, 1000), (50, 50), (450, 500))).fits


def test_no_answers_are_refused():
  with pytest.raises(ValueError, match='no answers'):
    correction.correct(Sample(0, 0, 0), PERFECT, PERFECT)


# --- Clusters ----------------------------------------------------------------


def test_answers_that_repeat_others_tell_nothing_new():
  flags = np.arange(40) % 4 == 0
  once = correction.sample(flags, range(40))
  thrice = correction.sample(np.repeat(flags, 3), np.repeat(range(40), 3))
  assert (once.count, once.total, thrice.total) == (10, 40, 120)
  assert thrice.size == pytest.approx(once.size) == pytest.approx(39)
  assert once.freedom == thrice.freedom == 39
  both = [correction.correct(x, PERFECT, PERFECT) for x in (once, thrice)]
  assert both[0].interval == pytest.approx(both[1].interval)


def test_the_raw_interval_is_that_of_the_tables():
  flags, names = [1, 1, 0, 0, 0, 0, 1, 1, 0], [*'aabbccdde']
  sample = correction.sample(flags, names)
  found = correction.correct(sample, PERFECT, PERFECT)
  assert (found.raw, *found.raw_interval) == stats.clustered(flags, names)
  assert found.interval == pytest.approx(found.raw_interval, abs=1e-4)


def test_alike_decisions_count_once_a_cluster():
  sample = correction.sample([False] * 50, np.arange(50) // 10)
  assert (sample.size, sample.freedom) == (5, math.inf)
  assert correction.sample([], []) == Sample(0, 0, 0)


def test_few_clusters_of_the_labels_widen_it_too():
  flagged, bad = independent(60, 200), independent(80, 100)
  wide = correction.correct(flagged, Sample(90, 100, 100, 3), bad)
  narrow = correction.correct(flagged, Sample(90, 100, 100, 99), bad)
  assert np.ptp(wide.interval) > 1.05 * np.ptp(narrow.interval)


def test_few_clusters_of_what_hardly_matters_do_not():
  """Of a rate of 2 % the misses move p by a fiftieth of what they are."""
  flagged, turned = independent(87, 5000), independent(4913, 5000)
  exact, unsure = known(0.999), lambda freedom: Sample(80, 100, 100, freedom)
  for value, make in (
    (0.0205, lambda few: correction.correct(flagged, exact, unsure(few))),
    (0.9795, lambda few: correction.correct(turned, unsure(few), exact)),
  ):
    few, many = make(3), make(99)
    assert few.value == pytest.approx(value, abs=1e-3)
    assert 1 < np.ptp(few.interval) / np.ptp(many.interval) < 1.04


# --- Coverage ----------------------------------------------------------------


@pytest.mark.parametrize(
  'theta, q0, q1', [(0.05, 0.95, 0.8), (0.007, 0.98, 0.9)]
)
def test_it_covers_where_errors_taken_for_known_do_not(theta, q0, q1):
  """Of 200 resamples at 95 %: 186 is what 1 in 20 fair intervals falls to."""
  rng = np.random.default_rng(0)
  n, m, covered, plugged = 400, 100, 0, 0
  for _ in range(200):
    k = rng.binomial(n, theta * q1 + (1 - theta) * (1 - q0))
    good, bad = rng.binomial(m, q0), rng.binomial(m, q1)
    found = made(((k, n), (good, m), (bad, m)))
    covered += found.interval[0] <= theta <= found.interval[1]
    ends = np.array(stats.wilson(k, n))
    low, high = (ends + good / m - 1) / (good / m + bad / m - 1)
    plugged += low <= theta <= high
  assert covered >= 186
  assert plugged < 180
