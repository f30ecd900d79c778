"""The audit's measures and its baseline, by hand and by another formula."""

import numpy as np
import pytest

from ealign.data.exchanges import Row
from ealign.evals import stats
from ealign.evals.audit import baselines, measures


def row(i, flag, *, said='', kind='plain', domain='', split='test', of=''):
  turns = {'role': 'user', 'content': 'Tips?'}, {'content': said}
  return Row(str(i), turns, flag, kind, domain or str(i), split, '', of)


# --- AUC ---------------------------------------------------------------------


def test_auc_by_hand():
  found = measures.auc([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0], [*'abba'])
  assert (found.value, found.n) == (3 / 4, 4)
  # Of each domain (1 - 3/4) / 2 twice, up or down; times sqrt(2 / 1).
  assert (found.low, found.high) == (0, 1)
  assert measures.auc([1, 2], [0, 1], [*'ab']).value == 1
  assert measures.auc([2, 1], [0, 1], [*'ab']).value == 0


def test_ties_count_as_half():
  assert measures.auc([1, 1, 2], [0, 1, 1], [*'abc']).value == 3 / 4


def test_if_all_are_equal_it_is_a_half_and_each_domain_one_answer():
  found = measures.auc([0.3] * 8, [0, 1] * 4, [*'aabbccdd'])
  assert found.value == 0.5
  assert (found.low, found.high) == stats.wilson(2, 4)


def test_if_all_are_right_each_domain_is_one_answer():
  found = measures.auc([0.1, 0.8] * 6, [0, 1] * 6, np.repeat([*'abc'], 4))
  assert (found.value, found.low) == (1, stats.wilson(3, 3)[0])
  alone = measures.auc([0.1, 0.8, 0.9, 0.2], [0, 1, 0, 1], [*'aaaa'])
  assert (alone.low, alone.high) == stats.wilson(0.5, 1)


def test_domains_that_agree_have_an_interval_whatever_rounding_leaves():
  """Each has the AUC 2/3, which no float is."""
  found = measures.auc([1, 1, 3, 2] * 5, [0, 0, 0, 1] * 5, np.arange(20) // 4)
  assert found.value == pytest.approx(2 / 3)
  assert (found.low, found.high) == pytest.approx(stats.wilson(10 / 3, 5))


def test_without_both_labels_there_is_none():
  assert measures.auc([], [], []) is None
  assert measures.auc([1, 2], [1, 1], [*'ab']) is None
  assert measures.auc([1, 2], [0, 0], [*'ab']) is None


def test_the_interval_is_that_of_obuchowski():
  """Her three terms, where every domain has rows of both labels."""
  rng = np.random.default_rng(0)
  y = np.tile([0, 1, 1, 0, 0], 12).astype(bool)
  names = np.repeat(np.arange(12), 5)
  shift = rng.normal(size=12)[names]  # answers of a domain are alike
  s = np.round(rng.normal(size=60) + y + shift, 1)  # with ties
  m, n, groups = y.sum(), (~y).sum(), 12
  wins = lambda bad, good: (bad > good) + (bad == good) / 2
  v_bad = {i: np.mean([wins(s[i], g) for g in s[~y]]) for i in np.where(y)[0]}
  v_ok = {i: np.mean([wins(b, s[i]) for b in s[y]]) for i in np.where(~y)[0]}
  area = np.mean([*v_bad.values()])
  own = lambda v, c: sum(v[i] - area for i in v if names[i] == c)
  bad, ok = (np.array([own(v, c) for c in range(12)]) for v in (v_bad, v_ok))
  scale = groups / (groups - 1)
  s_10, s_01 = scale * (bad @ bad) / m, scale * (ok @ ok) / n
  variance = s_10 / m + s_01 / n + 2 * scale * (bad @ ok) / (m * n)
  half = stats.t_quantile(11) * np.sqrt(variance)
  found = measures.auc(s, y, names)
  assert found.value == pytest.approx(area)
  assert found.low == pytest.approx(area - half)
  assert found.high == pytest.approx(min(1, area + half))
  alone = measures.auc(s, y, np.arange(60))
  assert alone.high - alone.low != pytest.approx(found.high - found.low)


# --- Shares and the rest -----------------------------------------------------


def test_share():
  found = measures.share([True, False, True, True], 'abcd')
  assert (found.value, found.n) == (3 / 4, 4)
  assert (found.low, found.high) == stats.clustered([1, 0, 1, 1], 'abcd')[1:]
  assert measures.share([], []) is None


def test_calibration_error_by_hand():
  # Two in the lowest bin, half of them to be flagged; 1 is in the highest.
  error = measures.calibration_error([0.05, 0.05, 0.95, 1], [0, 1, 1, 1])
  assert error == pytest.approx((0.45 + 0.025) / 2)
  assert measures.calibration_error([0, 1], [0, 1]) == 0
  assert measures.calibration_error([0.1, 0.19], [1, 0]) == pytest.approx(0.355)


def test_by_kind():
  kinds = 'plain', 'plain', 'subtle', 'subtle', 'refusal'
  rows = [row(i, i % 2 == 1, kind=kind) for i, kind in enumerate(kinds)]
  found = measures.separable(rows, [0.1, 0.9, 0.8, 0.2, 0.5])
  assert {kind: share.value for kind, share in found.items()} == {
    'plain': 1,
    'subtle': 0,
  }
  caught = measures.caught(rows, [False, True, True, True, False])
  assert {key: (share.value, share.n) for key, share in caught.items()} == {
    ('plain', 'ok'): (0, 1),
    ('plain', 'flag'): (1, 1),
    ('subtle', 'ok'): (1, 1),
    ('subtle', 'flag'): (1, 1),
    ('refusal', 'ok'): (0, 1),
  }


def test_how_far_a_sentence_more_moves_the_answer():
  rows = [
    row(0, True),
    row(1, False),
    row(2, True, kind='praise', of='0'),
    row(3, True, kind='praise', of='0'),
    row(4, False, kind='praise', of='1'),
    row(5, False, kind='orders', of='not here'),
  ]
  found = measures.moves(rows, [0.8, 0.1, 0.5, 0.7, 0.3, 0.9])
  assert {key: (round(by, 9), n) for key, (by, n) in found.items()} == {
    ('praise', 'flag'): (-0.2, 2),
    ('praise', 'ok'): (0.2, 1),
  }
  unsure = measures.moves(rows, [0.8, np.nan, 0.5, np.nan, 0.3, 0.9])
  assert {key: (round(by, 9), n) for key, (by, n) in unsure.items()} == {
    ('praise', 'flag'): (-0.3, 1)
  }


# --- Baseline ----------------------------------------------------------------


def area(dev, test):
  scores = baselines.bag_of_words(dev, test)
  return measures.auc(scores, [r.flag for r in test], range(len(test))).value


def toy(say, n=40):
  return [row(i, i % 2 == 1, said=say(i, i % 2 == 1)) for i in range(n)]


THINGS = 'soup tea bread salt rice'.split()


def test_words_that_tell_are_found():
  say = lambda i, bad: f'{"Hide" if bad else "Say"} it of the {THINGS[i % 5]}.'
  assert area(toy(say), toy(lambda i, bad: say(i + 1, bad))) == 1
  assert area(toy(lambda i, bad: say(i, not bad)), toy(say)) == 0


def test_words_that_do_not_tell_are_worth_a_half():
  """The same words in another order, so that only a reader can tell."""
  say = lambda i, bad: ('say it not ', 'not say it ')[bad] + THINGS[i // 2 % 5]
  assert area(toy(say), toy(say)) == 0.5


def test_length_tells_and_is_scaled_as_on_dev():
  say = lambda i, bad: 'well ' * (4 + i % 3 + 4 * bad)
  assert area(toy(say), toy(say)) == 1
  assert area(toy(say), toy(lambda i, bad: say(i, not bad))) == 0
  one = baselines.bag_of_words(toy(say), toy(say)[:1])
  many = baselines.bag_of_words(toy(say), toy(say))
  assert one[0] == pytest.approx(many[0])


def test_a_word_must_stand_in_three_rows():
  dev = [row(i, i < 2, said='odd' if i < 2 else 'it') for i in range(8)]
  test = [row(0, True, said='odd'), row(1, False, said='new')]
  assert area(dev, test) == 0.5
  dev.append(row(9, True, said='odd'))
  assert area(dev, test) == 1
