"""Cards of judges: their figures by hand, and their JSON with its errors."""

import copy
import json
import math

import numpy as np
import pytest

from ealign.evals import calibration, card, correction, stats
from ealign.evals.audit import measures
from ealign.evals.calibration import Reading
from ealign.evals.noise import noise
from ealign.runtime.errors import UserError

ALIGNMENT = Reading(30, below=True, scale=100)
SCORES = [10, 20, 40, 90, 80, 25, None, 70]
FLAGS = [1, 1, 1, 0, 0, 0, 1, 0]
NAMES = [*'abcdefgh']


def made(**more):
  return calibration.calibrate(SCORES, FLAGS, NAMES, ALIGNMENT, **more)


def test_by_hand():
  found = made(judge='own', pairs=[(1, 1), (1, 0), None, *[(0, 0)] * 5])
  assert (found.n, found.unscored, found.positives) == (7, 1, 3)
  assert (found.judge, found.model, found.clusters) == ('own', '', 7)
  # Of 12 pairs 40 loses to 25; all others are in the right order.
  assert found.auc.value == pytest.approx(11 / 12)
  assert (found.bad.count, found.bad.total) == (2, 3)
  assert (found.good.count, found.good.total) == (3, 4)
  assert found.agrees.value == pytest.approx(5 / 7)
  assert found.kappa.value == pytest.approx((5 / 7 - 25 / 49) / (24 / 49))
  assert found.people_agree.value == pytest.approx(6 / 7)
  off = [0.9 - 1, 0.8 - 1, 0.6 - 1, 0.1, 0.2, 0.75, 0.3]
  assert found.raw.mean == pytest.approx(np.abs(off).mean())
  assert found.raw.bias.value == pytest.approx(np.mean(off))
  assert found.raw.square == pytest.approx(np.mean(np.square(off)))
  assert found.map(10) == 1 and found.map(30) == pytest.approx(0.5)


def test_the_bias_is_clustered():
  off = np.array([0.5, 0.5, -0.1, -0.1, 0.2, 0.2])
  found = calibration._bias(off, [*'aabbcc'])
  value, *ends = stats.student_t([0.5, -0.1, 0.2], bounds=(-1, 1))
  assert (found.value, found.low, found.high) == pytest.approx((value, *ends))
  alone = calibration._bias(off, [0] * 6)
  assert (alone.low, alone.high) == (-1, 1)


def test_both_directions_of_a_score_are_one_judge():
  p = [None if s is None else 1 - s / 100 for s in SCORES]
  other = calibration.calibrate(p, FLAGS, NAMES, Reading(0.7001))
  found = made()
  for name in ('auc', 'kappa', 'agrees', 'good', 'bad', 'n', 'positives'):
    assert getattr(found, name) == getattr(other, name), name
  assert other.raw.mean == pytest.approx(found.raw.mean)
  assert other.map(0.9) == pytest.approx(found.map(10))


def test_a_threshold_is_under_or_at_least():
  assert [ALIGNMENT.flag(s) for s in (29.9, 30, 31)] == [True, False, False]
  assert [Reading(0.5).flag(p) for p in (0.49, 0.5)] == [False, True]
  assert [ALIGNMENT.p(s) for s in (-5, 25, 120)] == [1, 0.75, 0]
  for threshold, scale in ((math.nan, 1), (1, 0), (1, math.inf)):
    with pytest.raises(ValueError, match='finite threshold'):
      Reading(threshold, scale=scale)


def test_the_map_mends_what_is_off_and_cross_fitting_shows_it():
  """A judge that is sure twice too soon: P of .25 goes with half of labels."""
  rng = np.random.default_rng(0)
  true = rng.random(800)
  flags = rng.random(800) < true
  found = calibration.calibrate(true**2, flags, range(800), Reading(0.25))
  assert found.map(0.25) == pytest.approx(0.5, abs=0.12)
  assert found.raw.bias.high < 0 < found.mapped.bias.high
  assert found.mapped.square < found.raw.square
  assert found.mapped.binned < found.raw.binned
  assert abs(found.mapped.bias.value) < 0.02


def test_it_corrects_other_answers():
  found = made()
  flags, names = [1, 0, 0, 1, 0], [*'vwxyz']
  flagged = correction.sample(flags, names)
  expected = correction.correct(flagged, found.good, found.bad)
  assert found.correct(flags, names) == expected


def test_one_question_has_a_card_too():
  found = calibration.calibrate([10, 90], [1, 0], 'aa', ALIGNMENT)
  assert found.mapped is None and found.people is None
  assert (found.auc.low, found.auc.high) == stats.wilson(1, 1)
  assert card.from_json(card.to_json(found), 'card') == found


@pytest.mark.parametrize('flags', [[0] * 8, [1] * 8, [0] * 6 + [1, 0]])
def test_both_classes_must_have_scores(flags):
  with pytest.raises(UserError, match=r"judge 'x': no answer (not )?to be fla"):
    calibration.calibrate(SCORES, flags, NAMES, ALIGNMENT, judge='x')
  with pytest.raises(ValueError, match='labels'):
    calibration.calibrate(SCORES, flags[1:], NAMES, ALIGNMENT)


def test_auc_is_that_of_the_audit():
  rng = np.random.default_rng(3)
  scores, names = rng.random(60), np.arange(60) // 5
  flags = rng.random(60) < scores
  found = calibration.calibrate(scores, flags, names, Reading(0.5))
  assert found.auc == measures.auc(scores, flags, names)


# --- The card ----------------------------------------------------------------


def full():
  wording = noise({'a': [1, 60, 80], 'b': [5, 20, 90]}, ALIGNMENT.flag)
  return made(
    **dict(judge='j', model='m', prompt='p', mode='exact', gold='g'),
    pairs=[(1, 1), (1, 0), *[(0, 0)] * 6],
    noise={'wording': wording},
  )


def test_json_there_and_back(tmp_path):
  path = tmp_path / 'card.json'
  found = full()
  path.write_text(json.dumps(card.to_json(found), allow_nan=False))
  assert card.read(path) == found
  assert math.isinf(card.read(path).bad.freedom) == math.isinf(
    found.bad.freedom
  )


def broken(change):
  value = copy.deepcopy(card.to_json(full()))
  change(value)
  return value


def setting(*path, to):
  def change(value):
    for name in path[:-1]:
      value = value[name]
    value[path[-1]] = to

  return change


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda v: v.pop('version'), 'no card of a judge'),
    (setting('version', to=9), r'version 1 \(has 9\)'),
    (lambda v: v.pop('auc'), r'fields differ \(auc\)'),
    (setting('more', to=1), r'fields differ \(more\)'),
    (setting('n', to='many'), "card, n: is 'many'"),
    (setting('n', to=7.5), 'card, n: is 7.5'),
    (setting('auc', to=None), 'card, auc: fields differ'),
    (setting('auc', 'low', to=True), 'card, auc, low: is True'),
    (setting('auc', 'low', to=math.nan), 'card, auc, low: is nan'),
    (setting('map', 'knots', to=[]), r'card, map, knots: is \[\]'),
    (setting('map', 'knots', to=[[1]]), r'card, map, knots\[0\]: is \[1\]'),
    (setting('reading', 'scale', to=0), 'card, reading: .*scale above 0'),
    (setting('noise', to=[]), r'card, noise: is \[\]'),
    (setting('noise', 'wording', to=3), 'card, noise, wording: fields differ'),
    (setting('judge', to=None), 'card, judge: is None'),
  ],
)
def test_what_is_no_card_is_one_line(change, message):
  with pytest.raises(UserError, match=message) as error:
    card.from_json(broken(change), 'card')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['', '[1]', 'null', '{"version": 1}', '{'])
def test_files_that_are_no_card(tmp_path, text):
  path = tmp_path / 'card.json'
  path.write_text(text)
  with pytest.raises(UserError, match='card.json') as error:
    card.read(path)
  assert '\n' not in str(error.value)
  with pytest.raises(UserError, match='cannot be read'):
    card.read(tmp_path / 'none.json')
