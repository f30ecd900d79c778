"""The monotone map by hand, against all monotone step functions, and folds."""

import itertools

import numpy as np
import pytest

from ealign.evals import isotonic


def test_by_hand():
  # 0, 1, 0 -> the last two are pooled; so are those that share a score.
  found = isotonic.fit([1, 2, 3, 4, 4], [0, 1, 0, 1, 1])
  assert found.knots == ((1, 0), (2, 0.5), (3, 0.5), (4, 1))
  assert [found(x) for x in (0, 1, 1.5, 2.5, 3.5, 9)] == [
    *(0, 0, 0.25, 0.5, 0.75, 1)
  ]


def test_a_low_score_may_be_what_flags():
  found = isotonic.fit([90, 80, 10, 20], [0, 0, 1, 1], falls=True)
  assert found.knots == ((10, 1), (20, 1), (80, 0), (90, 0))
  assert found(50) == 0.5


@pytest.mark.parametrize('seed', range(6))
def test_nothing_monotone_is_nearer(seed):
  """Against all monotone functions of six scores with values on a grid."""
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, 6, 9)
  flags = rng.integers(0, 2, 9)
  names = np.unique(scores)
  grid = np.linspace(0, 1, 7)
  best = min(
    np.sum((np.array(values)[np.searchsorted(names, scores)] - flags) ** 2)
    for values in itertools.combinations_with_replacement(grid, len(names))
  )
  found = isotonic.fit(scores, flags)
  mine = np.array([found(x) for x in scores])
  assert np.sum((mine - flags) ** 2) <= best + 1e-9
  assert mine.mean() == pytest.approx(flags.mean())  # pooling keeps sums
  assert (np.diff([found(x) for x in names]) >= 0).all()


def test_scores_without_order_give_the_share():
  found = isotonic.fit([5, 5, 5], [1, 0, 0])
  assert found.knots == ((5, pytest.approx(1 / 3)),)
  upside_down = isotonic.fit([1, 2, 3, 4], [1, 1, 0, 0])
  assert {p for _, p in upside_down.knots} == {0.5}


def test_no_answer_is_mapped_by_its_own_cluster():
  """Labels that only the own cluster tells are not learnt from the others."""
  rng = np.random.default_rng(0)
  scores, names = rng.random(200), np.arange(200) // 2
  flags = rng.integers(0, 2, 100)[names]
  p = np.array(isotonic.cross_fitted(scores, flags, names))
  own = isotonic.fit(scores, flags)
  seen = np.array([own(x) for x in scores])
  assert np.mean((seen - flags) ** 2) < 0.25 < np.mean((p - flags) ** 2)
  moved = flags.copy()
  moved[:2] = 1 - moved[:2]
  again = isotonic.cross_fitted(scores, moved, names)
  assert again[:2] == pytest.approx(p[:2])
  assert again != pytest.approx(p)


def test_one_cluster_cannot_be_cross_fitted():
  assert isotonic.cross_fitted([1, 2], [0, 1], 'aa') is None
  assert len(isotonic.cross_fitted([1, 2], [0, 1], 'ab')) == 2


def test_scores_must_be_numbers():
  for scores, flags in (([], []), ([float('nan')], [1]), ([1, 2], [1])):
    with pytest.raises(ValueError, match='finite ones are needed'):
      isotonic.fit(scores, flags)
