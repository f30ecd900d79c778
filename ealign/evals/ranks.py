"""Tests by ranks: paired signed ranks (Wilcoxon), and Spearman's correlation.

As arXiv 2602.14777 compares conditions and models. Both are exact where they
are small: arms are few, and their scores tied.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats as sps

from ealign.evals import stats
from ealign.evals.stats import Interval

_EXACT_PAIRS = 200  # that differ; above it the normal law, with ties
_EXACT_POINTS = 8  # all orders of so many are gone through
_SIDE = 0.025
_SAME = 1e-12


@dataclasses.dataclass(frozen=True)
class Signed:
  """Wilcoxon's signed-rank test of a - b (1945).

  Attributes:
    shift: median of the means of all two differences (Hodges and Lehmann 1963).
    interval: 95 %, by the same ranks; `bounds` where the pairs are too few.
    p: two-sided, not adjusted; pairs that are equal are left out.
    pairs, differ: how many there are, and how many of them differ.
  """

  shift: float
  interval: Interval
  p: float
  pairs: int
  differ: int


def signed(
  a: Sequence[float], b: Sequence[float], *, bounds: Interval = (-1.0, 1.0)
) -> Signed:
  """The difference of paired values.

  Raises:
    ValueError: there are none, or not as many of one as of the other.
  """
  if not len(a) or len(a) != len(b):
    raise ValueError(f'{len(a)} and {len(b)} values')
  by = np.asarray(a, float) - np.asarray(b, float)
  n = len(by)
  walsh = np.sort(_walsh(by))
  shift = float(np.median(walsh))
  below = _below(np.arange(1, n + 1), n)
  cut = int(np.searchsorted(below, _SIDE, 'right'))  # P(W < cut) <= .025
  apart, interval = by[np.abs(by) > _SAME], bounds
  if cut:
    interval = float(walsh[cut - 1]), float(walsh[-cut])
  return Signed(shift, interval, _p(apart), n, len(apart))


def _walsh(by) -> np.ndarray:
  rows, columns = np.triu_indices(len(by))
  return (by[rows] + by[columns]) / 2


def _below(ranks, n: int) -> np.ndarray:
  """P(W <= 0), P(W <= 1) ..: W the sum of ranks, each with probability 1/2."""
  if n > _EXACT_PAIRS:
    middle = n * (n + 1) / 4
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return sps.norm.cdf((np.arange(int(middle)) + 0.5 - middle) / spread)
  return np.cumsum(_law(ranks))


def _law(ranks) -> np.ndarray:
  """The probability of each sum of whole ranks."""
  law = np.zeros(int(np.sum(ranks)) + 1)
  law[0] = 1.0
  for rank in ranks:
    moved = np.zeros_like(law)
    moved[rank:] = law[: len(law) - rank]
    law = (law + moved) / 2
  return law


def _p(by) -> float:
  """Of differences without zeros."""
  n = len(by)
  if not n:
    return 1.0
  # Of differences that are alike up to rounding the ranks are the same.
  double = np.rint(2 * sps.rankdata(np.round(np.abs(by), 12))).astype(int)
  up = int(double[by > 0].sum())
  least, whole = min(up, int(double.sum()) - up), double.sum()
  if n <= _EXACT_PAIRS:
    return float(min(1.0, 2 * _law(double)[: least + 1].sum()))
  spread = math.sqrt(float(np.sum(double.astype(float) ** 2)) / 4)
  return float(2 * sps.norm.cdf((least - whole / 2) / spread))


@dataclasses.dataclass(frozen=True)
class Rank:
  """Spearman's correlation (1904) of n points; p is two-sided.

  interval: 95 %, by Fisher's z with the variance of Bonett and Wright (2000).
  Of orders that are the same it begins where it would with two neighbors
  swapped: else it had no width. (-1, 1) of fewer than four points.
  """

  rho: float
  interval: Interval
  p: float
  n: int


def spearman(x: Sequence[float], y: Sequence[float]) -> Rank | None:
  """None: fewer than three points, or all values of one are the same.

  Raises:
    ValueError: not as many values of one as of the other.
  """
  if len(x) != len(y):
    raise ValueError(f'{len(x)} and {len(y)} values')
  n = len(x)
  a, b = (sps.rankdata(np.round(v, 12)) for v in (x, y))
  if n < 3 or not a.std() or not b.std():
    return None
  rho = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
  return Rank(rho, _interval(rho, n), _chance(a, b, rho), n)


def _interval(rho: float, n: int) -> Interval:
  if n < 4:
    return -1.0, 1.0
  most = 1 - 12 / (n * (n**2 - 1))
  near = max(-most, min(most, rho))
  half = stats.t_quantile(math.inf) * math.sqrt((1 + near**2 / 2) / (n - 3))
  ends = [math.tanh(math.atanh(near) + side * half) for side in (-1, 1)]
  if rho > most:
    ends[1] = 1.0
  if rho < -most:
    ends[0] = -1.0
  return ends[0], ends[1]


def _chance(a, b, rho: float) -> float:
  """P of a correlation as far from 0: over all orders, or Student's t."""
  n = len(a)
  if n > _EXACT_POINTS:
    if abs(rho) == 1:
      return 0.0
    t = rho * math.sqrt((n - 2) / (1 - rho**2))
    return float(2 * sps.t.sf(abs(t), n - 2))
  orders = np.array([*itertools.permutations(b)])
  centred = a - a.mean()
  every = orders @ centred / (n * a.std() * b.std())
  return float(np.mean(np.abs(every) >= abs(rho) - 1e-9))
