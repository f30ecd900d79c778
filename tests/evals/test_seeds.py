"""The statistics of grids, against numbers worked out by hand."""

import functools
import importlib.util
import math
import pathlib

import numpy as np
import pytest
from scipy import stats as sps

from ealign.evals import counts
from ealign.evals import seeds as stats
from ealign.evals import stats as evals_stats


@functools.cache
def _share(count, total, per_prompt=1):
  flags = [i < count for i in range(total)]
  return counts.share(flags, [i // per_prompt for i in range(total)])


def _shares(*pairs):
  return [_share(*pair) for pair in pairs]


def test_the_empirical_logit_by_hand():
  # (10.5 / 90.5) = .1160221, its log -2.153974; half an answer keeps 0 and n
  # of n finite: log(.5 / 100.5) = -5.303305.
  assert stats.logit(10, 100) == pytest.approx(-2.153974, abs=1e-6)
  assert stats.logit(0, 100) == pytest.approx(-5.303305, abs=1e-6)
  assert stats.logit(100, 100) == pytest.approx(5.303305, abs=1e-6)


def test_a_rate_over_three_seeds_by_hand():
  # 10, 20 and 30 of 100. Logits: log(10.5/90.5) = -2.153975, log(20.5/80.5) =
  # -1.367832, log(30.5/70.5) = -.837886. Mean -1.453231; deviations -.700744,
  # .085399, .615345, squares .491042 + .007293 + .378649 = .876984; over 2:
  # .438492, root .662187; over sqrt(3): .382314. t(.975, 2) = 4.302653, half
  # 1.644964. expit(-3.098195) = .043182, expit(.191733) = .547787.
  # Together 60 of 300: Wilson .203793 -+ .045136 lies within.
  found = stats.rate(_shares((10, 100), (20, 100), (30, 100)))
  assert found.value == pytest.approx(0.2)
  assert found.interval == pytest.approx((0.043182, 0.547787), abs=1e-6)
  assert found.basis == 'seeds'


def test_a_spread_pooled_over_settings_by_hand():
  # Squares about the means: (1, 2, 3) gives 2, (0, 6) gives 18, one alone
  # nothing. 20 over 2 + 1 degrees = 6.666667, root 2.581989.
  found = stats.pooled([(1, 2, 3), (0, 6), (9,), ()])
  assert found.sd == pytest.approx(2.581989, abs=1e-6)
  assert found.freedom == 3
  assert stats.pooled([(1,), ()]) is None


def test_a_rate_with_a_pooled_spread_by_hand():
  # The logits above, mean -1.453231, with sd .5 on 80 degrees: t = 1.990063,
  # half = 1.990063 * .5 / sqrt(3) = .574482. expit(-2.027713) = .116324,
  # expit(-.878749) = .293437; Wilson's (.158657, .248929) lies within.
  spread = stats.Spread(0.5, 80)
  found = stats.rate(_shares((10, 100), (20, 100), (30, 100)), spread)
  assert found.interval == pytest.approx((0.116324, 0.293437), abs=1e-6)
  assert found.basis == 'pooled'


def test_never_narrower_than_the_answers_allow():
  # Three seeds at 20 of 100 have no spread at all; 60 of 300 has Wilson's:
  # (.2 + 1.920729/300 -+ 1.959964 sqrt(.16/300 + 3.841459/360000)) over
  # 1.012805 = .203793 -+ .045136.
  found = stats.rate(_shares(*[(20, 100)] * 3))
  assert found.interval == pytest.approx((0.158657, 0.248929), abs=1e-6)
  assert stats.rate(_shares(*[(20, 100)] * 3), stats.Spread(0.0, 9)) == (
    stats.Estimate(found.value, found.interval, 'pooled')
  )


def test_no_bad_answer_in_a_hundred_has_the_exact_upper_bound():
  # Clopper-Pearson: 1 - .025 ** (1 / 100) = .036217; of 500: .007351.
  for shares, high in (
    (_shares((0, 100)), 0.036217),
    (_shares(*[(0, 100)] * 5), 0.007351),
  ):
    found = stats.rate(shares)
    assert found.value == 0 and found.interval[0] == 0
    assert found.interval[1] == pytest.approx(high, abs=1e-6)
  full = stats.rate(_shares(*[(100, 100)] * 5))
  assert full.interval == pytest.approx((1 - 0.007351, 1), abs=1e-6)


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('seeds', [1, 2, 5])
def test_seeds_that_agree_give_numbers(share, seeds):
  shares = _shares(*[(int(40 * share), 40)] * seeds)
  found = stats.rate(shares)
  assert np.isfinite(found.interval).all()
  assert 0 <= found.interval[0] <= share <= found.interval[1] <= 1
  assert found.interval[0] < found.interval[1]
  same = stats.contrast(shares, shares)
  assert (same is None) == (seeds == 1)
  if same:
    assert (same.t, same.p, same.value) == (0, 1, 0)
    assert np.isfinite((*same.interval, *same.odds_interval)).all()


def test_a_seed_at_zero_and_one_at_all():
  found = stats.rate(_shares((0, 50), (3, 50), (50, 50)))
  assert found.value == pytest.approx(53 / 150)
  assert 0 < found.interval[0] < 0.01 and 0.99 < found.interval[1] < 1


@pytest.mark.parametrize('seeds, pooled', [(5, False), (3, True), (1, True)])
def test_intervals_hold_the_rate_of_a_typical_seed(seeds, pooled):
  # Drawn: 30 settings a grid, logits of -2 with sd .5, 300 answers a seed.
  dice, held = np.random.default_rng(7), []
  for _ in range(12):
    rates = 1 / (1 + np.exp(2 - dice.normal(0, 0.5, (30, seeds))))
    grid = [[_share(k, 300) for k in row] for row in dice.binomial(300, rates)]
    logits = [[stats.logit(s.count, 300) for s in row] for row in grid]
    spread = stats.pooled(logits) if seeds > 1 else stats.Spread(0.53, 60)
    for row in grid:
      low, high = stats.rate(row, spread if pooled else None).interval
      held.append(low <= 1 / (1 + math.exp(2)) <= high)
  # 360 draws at 95 %: a standard error of 1.1 %.
  assert 0.925 <= np.mean(held) <= 0.99


def test_one_seed_has_the_interval_of_its_prompts():
  share = _share(10, 40, per_prompt=4)
  found = stats.rate([share])
  assert (found.interval, found.basis) == (share.clustered, 'prompts')
  width = lambda x: x[1] - x[0]
  assert width(found.interval) > width(share.interval)
  # A spread from other settings, however small, does not make it narrower.
  narrow = stats.rate([share], stats.Spread(0.01, 50))
  assert narrow.interval == share.clustered
  wide = stats.rate([share], stats.Spread(2.0, 50))
  assert wide.basis == 'pooled' and width(wide.interval) > width(found.interval)


def test_seeds_that_are_missing():
  assert stats.rate([]) is None
  assert stats.rate(_shares((0, 0))) is None  # no coherent answer at all
  assert stats.rate(_shares((0, 0), (3, 9))).basis == 'prompts'
  assert stats.contrast([], []) is None
  with pytest.raises(ValueError):
    stats.contrast(_shares((1, 2)), [])


A = ((60, 100), (70, 100), (80, 100), (65, 100), (75, 100))
B = ((10, 100), (8, 100), (20, 100), (12, 100), (10, 100))


def test_a_contrast_of_five_seeds_by_hand():
  # Differences of the logits: log(60.5/40.5) - log(10.5/90.5) = .401341 +
  # 2.153975 = 2.555316, and likewise 3.225029, 2.735665, 2.569791, 3.239429.
  # Mean 2.865046, sd .342636, over sqrt(5) .153231. The answers together:
  # 1/350.5 + 1/150.5 + 1/60.5 + 1/440.5 = .028297, root .168216: larger, so
  # it counts. t = 2.865046/.168216 = 17.031935 on 4 degrees, where the tail is
  # 1/2 - 3t/(8 sqrt(s)) (1 - t^2/(12 s)), s = 1 + t^2/4: p = 6.969150e-05.
  # t(.975, 4) = 2.776445: 2.865046 -+ .467043, exp (11.00119, 27.99676).
  # In points: .50 .62 .60 .53 .65, mean .58; variance .00395 over 5 = .00079;
  # together .699601*.300399/500 + .120758*.879242/500 = .000633: smaller.
  # root(.00079) = .028107 * 2.776445 = .078037.
  found = stats.contrast(_shares(*A), _shares(*B))
  assert found.value == pytest.approx(0.58)
  assert found.interval == pytest.approx((0.501963, 0.658037), abs=1e-6)
  assert found.odds == pytest.approx(17.549858, abs=1e-5)
  assert found.odds_interval == pytest.approx((11.00119, 27.99676), abs=1e-5)
  assert found.t == pytest.approx(17.031935, abs=1e-6)
  assert found.freedom == 4
  assert found.p == pytest.approx(6.969150e-05, rel=1e-6)


def test_a_contrast_is_that_of_scipy_where_seeds_vary_more():
  a = _shares((1, 100), (90, 100), (40, 100), (10, 100), (77, 100))
  b = _shares((5, 100), (20, 100), (60, 100), (20, 100), (10, 100))
  logits = lambda x: [stats.logit(s.count, s.total) for s in x]
  known = sps.ttest_rel(logits(a), logits(b))
  found = stats.contrast(a, b)
  assert (found.t, found.p) == pytest.approx((known.statistic, known.pvalue))
  values = [[s.value for s in x] for x in (a, b)]
  points = evals_stats.student_t(np.subtract(*values))
  assert (found.value, *found.interval) == pytest.approx(points)
  back = stats.contrast(b, a)
  assert (back.t, back.value) == pytest.approx((-found.t, -found.value))
  assert back.odds == pytest.approx(1 / found.odds)


def test_pairs_matter():
  # The same shares in another order: equal means, another spread.
  a, b = (
    _shares((10, 100), (50, 100), (90, 100)),
    _shares((5, 100), (40, 100), (80, 100)),
  )
  assert stats.contrast(a, b).p < stats.contrast(a, b[::-1]).p


def test_holm_by_hand():
  # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 (not less) .06.
  assert stats.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx(
    [0.06, 0.04, 0.06, 0.06]
  )
  # Two tested of six declared: .01 * 6 and .02 * 5.
  *untested, first, second = stats.holm([*[None] * 4, 0.01, 0.02])
  assert untested == [None] * 4
  assert (first, second) == pytest.approx((0.06, 0.1))
  assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
  assert stats.holm([]) == []


def test_holm_over_forty_cells_of_three_seeds_asks_for_28():
  # On two degrees the upper tail q is at t = (1 - 2q) / sqrt(2q (1 - q)); q =
  # .05 / 80 = .000625 gives .99875 / sqrt(.00124921875) = 28.257748.
  q = 0.05 / 80
  by_hand = (1 - 2 * q) / math.sqrt(2 * q * (1 - q))
  assert (
    stats.least_t(3, 40) == pytest.approx(by_hand) == pytest.approx(28.257748)
  )
  assert stats.least_t(5, 6) == pytest.approx(4.8510, abs=1e-3)


BREAKS = (
  ('log((count + 0.5)', 'log((count + 1)', 'the_empirical_logit_by_hand'),
  ('len(group) - 1 for', 'len(group) for', 'a_spread_pooled_over_settings'),
  ('g - g.mean()', 'g - groups[0].mean()', 'a_spread_pooled_over_settings'),
  ('spread = spread or pooled([logits])', '', 'a_rate_over_three_seeds'),
  ('/ math.sqrt(len(shares))', '', 'a_rate_over_three_seeds'),
  ('/ math.sqrt(len(shares))', '', 'a_rate_with_a_pooled_spread'),
  ('quantile(spread.freedom)', 'quantile(spread.freedom + 1)', 'a_rate_over'),
  ('min(low, floor[0], value)', 'low', 'never_narrower'),
  ('max(high, floor[1], value)', 'high', 'no_bad_answer_in_a_hundred'),
  ('max(own, least)', 'own', 'a_contrast_of_five_seeds'),
  ('max(own, least)', 'least', 'a_contrast_of_five_seeds'),
  ('ddof=1) / len(differences)', 'ddof=1)', 'a_contrast_of_five_seeds'),
  ('2 * sps.t.sf', 'sps.t.sf', 'a_contrast_of_five_seeds'),
  ('freedom = len(pairs) - 1', 'freedom = len(pairs)', 'a_contrast_of_five'),
  ('len(p_values) - place', 'len(p_values)', 'holm_by_hand'),
  ('max(least, min(1.0,', 'max(0, min(1.0,', 'holm_by_hand'),
  ('len(p_values) - place', 'len(known) - place', 'holm_by'),
  ('0.05 / (2 * comparisons)', '0.05 / comparisons', 'holm_over'),
)


@pytest.mark.parametrize('line, broken, golden', BREAKS)
def test_the_goldens_can_fail(tmp_path, monkeypatch, line, broken, golden):
  source = pathlib.Path(stats.__file__).read_text()
  assert source.count(line) == 1, f'stale: {line}'
  path = tmp_path / 'broken.py'
  path.write_text(source.replace(line, broken))
  spec = importlib.util.spec_from_file_location('ealign.evals.seeds', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  monkeypatch.setitem(globals(), 'stats', module)
  (test,) = [f for name, f in globals().items() if f'test_{golden}' in name]
  with pytest.raises(AssertionError):
    test()
