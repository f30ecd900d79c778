"""Paired differences by hand, against scipy's tests, and what power is."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as sps

from ealign.evals import differences, stats
from ealign.evals.differences import Answer, Spread


def answers(grid, seeds=1):
  """Question -> its values, of one seed or dealt to several in turn."""
  return [
    Answer(value, question, at % seeds)
    for question, values in enumerate(grid)
    for at, value in enumerate(values)
  ]


def test_by_hand(monkeypatch):
  a = answers([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
  b = answers([[0, 0], [0, 0], [0, 0]])
  assert differences.paired(a, b).basis == 'questions and counts'
  monkeypatch.setattr(differences, 'FEW', 0)
  found = differences.paired(a, b)
  # .5, .25 and 0: mean .25, error .25 / sqrt 3, t of 2 degrees is 4.302653.
  assert found.value == 0.25
  half = 4.302653 * 0.25 / math.sqrt(3)
  assert found.interval == pytest.approx((0.25 - half, 0.25 + half), abs=1e-6)
  assert (found.questions, found.seeds, found.unpaired) == (3, 1, 0)
  assert found.basis == 'questions' and found.t == pytest.approx(math.sqrt(3))


def test_of_one_seed_it_is_the_paired_t_test():
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 24, 5)) < np.array([0.4, 0.2])[:, None, None]
  found = differences.paired(answers(a), answers(b))
  same = sps.ttest_rel(a.mean(1), b.mean(1))
  assert (found.t, found.p) == pytest.approx((same.statistic, same.pvalue))
  assert found.interval == pytest.approx(same.confidence_interval(0.95))
  back = differences.paired(answers(b), answers(a))
  assert back.interval == pytest.approx([-x for x in found.interval[::-1]])


def test_nothing_found_in_either_is_exact_and_not_zero():
  none = answers([[0] * 50] * 24)
  found = differences.paired(none, none)
  most = stats.wilson(0, 24)[1]
  assert (found.value, found.basis) == (0, 'counts')
  assert found.interval == pytest.approx((-most, most))
  assert (found.t, found.p) == (None, None)
  all_bad = differences.paired(answers([[1] * 50] * 24), none)
  assert all_bad.value == 1
  # Newcombe: the two exact bounds, 1 - most and most, are each `most` away.
  assert all_bad.interval == pytest.approx((1 - most * math.sqrt(2), 1))


def test_one_question_has_the_interval_of_counts():
  found = differences.paired(answers([[1, 0, 0, 1]]), answers([[0, 0, 0, 0]]))
  assert found.basis == 'counts' and found.questions == 1
  assert found.interval[0] <= 0 and found.interval[1] > 0.9


def test_only_what_both_have_is_compared():
  a = [*answers([[1], [0], [1]]), Answer(1, 'alone')]
  b = [*answers([[0], [0], [0]]), Answer(0, 0, seed=7)]
  found = differences.paired(a, b)
  assert (found.questions, found.unpaired) == (3, 2)
  assert found.value == pytest.approx(2 / 3)
  assert differences.paired([Answer(1, 'x')], [Answer(1, 'y')]) is None
  assert differences.paired([], []) is None


def test_paraphrases_of_a_question_count_as_one():
  make = lambda value, at: Answer(value, f'q{at}', cluster=at // 3)
  a = [make(at // 3 % 2, at) for at in range(12)]
  b = [make(0, at) for at in range(12)]
  found = differences.paired(a, b)
  assert found.questions == 4
  assert found.interval == differences.paired(a[::3], b[::3]).interval


def test_questions_that_are_hard_for_both_cost_nothing():
  """Paired, a shift that both share is not in the error."""
  hard = np.linspace(0, 0.8, 12)
  a = [Answer(x + 0.1 + 0.01 * (i % 2), i) for i, x in enumerate(hard)]
  b = [Answer(x, i) for i, x in enumerate(hard)]
  found = differences.paired(a, b)
  assert np.ptp(found.interval) < 0.01


# --- Seeds -------------------------------------------------------------------


def test_crossed_effects_by_hand():
  """Questions differ by .2 and .6, seeds by .4 and .4, and one cell by .2.

  Row means .2, .5 -> variance .045 / 2; column means .25, .45 -> .02 / 2; what
  is left is .05 each way: 4 * .0025 / 1 degree / 4 cells.
  """
  grid = np.array([[0.05, 0.35], [0.45, 0.55]])
  error, freedom = differences._error(grid)
  whole = 0.045 / 2 + 0.02 / 2 - 4 * 0.0025 / 4
  assert error == pytest.approx(math.sqrt(whole))
  by = whole**2 / (0.0225**2 + 0.01**2)
  assert freedom == pytest.approx(max(1, by))


def test_seeds_that_differ_widen_it_and_seeds_that_agree_do_not():
  rng = np.random.default_rng(1)
  by_question = rng.normal(0.3, 0.1, 12)

  def found(by_seed):
    a = [
      Answer(by_question[q] + by_seed[s] + rng.normal(0, 0.01), q, s)
      for q, s in itertools.product(range(12), range(4))
    ]
    return differences.paired(a, [Answer(0, x.question, x.seed) for x in a])

  agree, differ = found([0, 0, 0, 0]), found([-0.2, -0.1, 0.1, 0.2])
  assert agree.basis == differ.basis == 'questions and seeds'
  alone = 2.201 * by_question.std(ddof=1) / math.sqrt(12)
  assert np.ptp(agree.interval) / 2 == pytest.approx(alone, rel=0.2)
  assert np.ptp(differ.interval) > 2.5 * np.ptp(agree.interval)


def simulated(rates, sum_of, count):
  """(it covers, Student's t alone would) of 24 questions x 50 samples each."""
  rng = np.random.default_rng(2)
  rate = np.array(rates)[:, None]
  for _ in range(count):
    own = rng.beta(sum_of * rate, sum_of * (1 - rate), (2, 24))
    given = rng.random((2, 24, 50)) < own[..., None]
    a, b = given.mean(2)
    sides = [answers(side) for side in given]
    low, high = differences.paired(*sides).interval
    half = stats.t_quantile(23) * np.std(a - b, ddof=1) / math.sqrt(24)
    true = rates[0] - rates[1]
    yield low <= true <= high, abs(np.mean(a - b) - true) <= half


def test_it_covers():
  covers, alone = zip(*simulated((0.3, 0.1), 2, 200), strict=True)
  assert sum(covers) >= 184
  assert np.mean(np.equal(covers, alone)) > 0.95


def test_it_covers_where_rates_are_low_and_students_t_does_not():
  covers, alone = zip(*simulated((0.007, 0.001), 20, 200), strict=True)
  assert sum(covers) >= 184
  assert sum(alone) < 178


def test_few_questions_that_differ_by_hand():
  """One of 12 questions has 3 of 4 answers, the other model none."""
  a, b = answers([[1, 1, 1, 0]] + [[0] * 4] * 11), answers([[0] * 4] * 12)
  found = differences.paired(a, b)
  assert found.basis == 'questions and counts' and found.p is None
  share, variance = 0.75 / 12, 0.75**2 / 12 * (1 - 1 / 12) * 12 / 11 / 12
  size = share * (1 - share) / variance
  quantile = stats.t_quantile(11)
  low_a, high_a = stats.score(share * size, size, quantile)
  _, high_b = stats.score(0, size, quantile)
  # The lower arm joins that of a and all of b's; the upper one is a's alone.
  counted = share - math.hypot(share - low_a, high_b), high_a
  alone = share - quantile * 0.75 / 12, share + quantile * 0.75 / 12
  assert counted[0] < alone[0] and counted[1] > alone[1]
  assert found.interval == pytest.approx(counted)


# --- Power -------------------------------------------------------------------


def test_variances_by_hand():
  # Means .5, 1, 0: variance .25. Within: .25 / 1, 0, 0, on the average .25 / 3.
  found = differences.spread(answers([[1, 0], [1, 1], [0, 0]]))
  assert found.between == pytest.approx(0.25 - 0.25 / 3)
  assert (found.share, found.questions, found.samples) == (0.5, 3, 2)
  assert differences.spread(answers([[1, 0]])) is None
  assert differences.spread(answers([[1], [0], [1]])) is None


def test_what_would_be_seen_is_seen_in_four_of_five_cases():
  """Simulated: normal question effects, binary answers at both rates."""
  rng = np.random.default_rng(3)
  of = Spread(0.01, 0.2, 24, 50, paired=True)
  by = differences.visible_difference(of)
  assert 0.05 < by < 0.15
  effect = rng.normal(by, 0.1, (4000, 24))
  p = np.clip(0.2 + effect, 0, 1)
  a, b = (rng.binomial(50, q) / 50 for q in (p, np.full(p.shape, 0.2)))
  seen = np.mean(sps.ttest_rel(a, b, axis=1).pvalue < 0.05)
  assert seen == pytest.approx(0.8, abs=0.03)


def test_more_questions_and_samples_show_less():
  of = Spread(0.01, 0.2, 24, 50, paired=True)
  at = lambda **size: differences.visible_difference(of, **size)
  assert at(questions=96) == pytest.approx(at() / 2, rel=0.1)
  assert at() > at(samples=5000) > at(questions=48)
  single = Spread(0.01, 0.2, 24, 50, paired=False)
  assert differences.visible_difference(single) > at()
  mirrored = Spread(0.01, 0.8, 24, 50, paired=True)
  assert differences.visible_difference(mirrored) == pytest.approx(at())


def test_the_line():
  of = Spread(0.01, 0.2, 24, 50, paired=True)
  by = 100 * differences.visible_difference(of)
  assert differences.power_line(of) == (
    f'With 24 questions x 50 samples a difference of {by:.2g} points would be '
    'seen (80 % power, 5 % two-sided).'
  )
  nothing = Spread(0, 0, 24, 50, paired=True)
  # By (2.07 + .86)^2 / 1200 answers, as no question is known to differ.
  assert 'at least 0.7' in differences.power_line(nothing)
  few = Spread(0.2, 0.5, 2, 2, paired=True)
  assert 'no difference would be seen' in differences.power_line(few)
  assert differences.visible_difference(of, questions=1) == math.inf
  one = differences.power_line(of, questions=1, samples=1)
  assert one.startswith('With 1 question x 1 sample no difference would be')
