"""Variance components by hand and of data made of known ones."""

import math

import numpy as np
import pytest

from ealign.evals import stats
from ealign.evals.noise import noise


def test_by_hand():
  # Items 10 and 30, variants 5 apart, nothing left.
  found = noise({'a': [10, 30], 'b': [15, 35]}, lambda s: s < 20)
  assert (found.items, found.variants, found.dropped) == (2, 2, 0)
  assert found.sd_rest == 0
  assert found.sd_items == pytest.approx(math.sqrt(200))
  assert found.sd_variants == pytest.approx(math.sqrt(12.5))
  assert found.same == pytest.approx(200 / 212.5)
  assert (found.flips, found.pairs, found.rates) == (0, 0, (0.5, 0.5))


def test_what_is_left_by_hand():
  # Means 2, 10 and 5, 7; left are 1, -1, -1, 1, of one degree of freedom.
  found = noise({'a': [0, 10], 'b': [4, 10]}, lambda s: s > 3)
  assert found.sd_rest == pytest.approx(2)
  assert found.sd_items == pytest.approx(math.sqrt(32 - 4 / 2))
  assert found.sd_variants == pytest.approx(math.sqrt(2 - 4 / 2))


def test_flips_by_hand():
  # Of three variants the first item is flagged by 0, the others by 1, 2 and 3.
  scores = {'a': [0, 1, 1, 1], 'b': [0, 0, 1, 1], 'c': [0, 0, 0, 1]}
  found = noise(scores, lambda s: s > 0.5)
  assert found.flips == 0.5
  assert found.flips_interval == stats.wilson(2, 4)
  assert found.pairs == pytest.approx((2 / 3 + 2 / 3) / 4)
  assert found.rates == (0.25, 0.75)


def test_components_of_made_data():
  rng = np.random.default_rng(0)
  item, variant = rng.normal(0, 20, 600), rng.normal(0, 8, 40)
  x = 50 + item[:, None] + variant + rng.normal(0, 5, (600, 40))
  found = noise({str(j): x[:, j] for j in range(40)}, lambda s: s < 30)
  assert found.sd_items == pytest.approx(20, rel=0.1)
  assert found.sd_variants == pytest.approx(np.std(variant, ddof=1), rel=0.1)
  assert found.sd_rest == pytest.approx(5, rel=0.05)
  assert found.same == pytest.approx(400 / (400 + 64 + 25), abs=0.05)


def test_a_variant_that_moves_all_alike_is_no_rest():
  rng = np.random.default_rng(1)
  x = rng.normal(50, 10, 30)
  found = noise({'a': x, 'b': x + 7, 'c': x - 7}, lambda s: s < 50)
  assert found.sd_rest == pytest.approx(0, abs=1e-9)
  assert found.sd_variants == pytest.approx(7)


def test_answers_that_a_variant_did_not_score_are_dropped():
  scores = {'a': [1, 2, None, 4], 'b': [1, 2, 3, math.nan]}
  found = noise(scores, lambda s: s > 1)
  assert (found.items, found.dropped) == (2, 2)


def test_without_two_of_each_there_is_none():
  flag = lambda s: s > 1
  assert noise({'a': [1, 2]}, flag) is None
  assert noise({'a': [1, 2], 'b': [1, None]}, flag) is None
  assert noise({}, flag) is None
  with pytest.raises(ValueError, match="'a': 2, 'b': 1"):
    noise({'a': [1, 2], 'b': [1]}, flag)


def test_of_equal_scores_nothing_is_shared():
  found = noise({'a': [3, 3], 'b': [3, 3]}, lambda s: s > 1)
  assert (found.same, found.flips, found.rates) == (None, 0, (1, 1))
