"""A rate corrected for the errors of the judge that counted it.

A judge says yes to a share p of the answers. It is right about a share q0 of
those that are not what it looks for and q1 of those that are, both known from a
sample with labels. Then p = theta q1 + (1 - theta) (1 - q0), and the true rate
is theta = (p + q0 - 1) / (q0 + q1 - 1) (Rogan and Gladen 1978; arXiv
2511.21140).

The interval is over both samples. A theta is in it if three binomial samples
can be made to agree with it: q0, q1 and p are fitted by maximum likelihood
under the equation above, and Pearson's sum of squares of the three samples is
below Student's t squared (a score test, as Miettinen and Nurminen 1985 have it
for differences). With a judge that never errs it is Wilson's interval. Where
no answer is flagged the fit knows that the judge can have few false flags,
which an error of the estimate does not. If the judge is no better than chance
nearly every theta agrees with the samples, and the interval says so.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import special

from ealign.evals import stats
from ealign.evals.stats import Interval

_GRID = 200  # values of theta tried, before the ends are made exact
_PARTS, _ROUNDS = 100, 2
_HALVINGS = 32  # of what lies between two estimates of p
_KNOWN = 1e12  # answers: the size of a sample that leaves no doubt


@dataclasses.dataclass(frozen=True)
class Sample:
  """`count` yes of `total` decisions, which are worth `size` independent ones.

  freedom: degrees of freedom of that size, inf where answers are independent.
  """

  count: float
  total: float
  size: float
  freedom: float = math.inf

  @property
  def share(self) -> float | None:
    return self.count / self.total if self.total else None


def sample(flags: Sequence[bool], clusters: Sequence[Hashable]) -> Sample:
  """The decisions of a judge on answers that come in clusters (questions).

  As in `stats.clustered`: if all decisions are alike a cluster is one answer.
  """
  values = [float(bool(flag)) for flag in flags]
  if not values:
    return Sample(0, 0, 0)
  return Sample(sum(values), len(values), *stats.worth(values, clusters))


def independent(count: int, total: int) -> Sample:
  """Decisions on answers that have nothing to do with each other."""
  return Sample(count, total, total)


def known(share: float) -> Sample:
  """A share without doubt, as an error rate that a rule gives."""
  return Sample(share * _KNOWN, _KNOWN, _KNOWN)


@dataclasses.dataclass(frozen=True)
class Corrected:
  """A rate as the judge counts it, and as it is if the judge errs as it did.

  Attributes:
    raw: share that the judge flags. raw_interval: of that share.
    value: the true rate, in [0, 1]; None if it is not identified.
    interval: 95 %, over the answers and over the labelled sample.
    q0: share of what should not be flagged that is not; None: none was seen.
    q1: share of what should be flagged that is; None: none was seen.
    identified: whether the labelled sample shows that the judge is better than
      chance (q0 + q1 > 1, its interval included). If not, nothing is known but
      the interval, which may be all of [0, 1].
    fits: whether some rate agrees with both samples. If not, the judge flags
      fewer answers than its false flags alone (or more than it could of bad
      ones): it errs on these answers otherwise than on the labelled ones.
  """

  raw: float
  raw_interval: Interval
  value: float | None
  interval: Interval
  q0: float | None
  q1: float | None
  identified: bool
  fits: bool


def correct(flagged: Sample, good: Sample, bad: Sample) -> Corrected:
  """The rate of what the judge looks for, corrected for its errors.

  Args:
    flagged: decisions on the answers whose rate is asked for.
    good: right decisions (not flagged) on labelled answers that should not be
      flagged. bad: right ones (flagged) on those that should. How many there
      are of each does not matter, so that rare ones can be sought out.

  Raises:
    ValueError: there is no answer.
  """
  if not flagged.total:
    raise ValueError('no answers')
  q0, q1, found = good.share, bad.share, _better(good, bad)
  value = None
  if found:
    value = min(1.0, max(0.0, (flagged.share + q0 - 1) / (q0 + q1 - 1)))
  (low, high), fits = _interval(flagged, good, bad, value)
  if value is not None:
    low, high = min(low, value), max(high, value)
  raw = _wilson(flagged)
  return Corrected(flagged.share, raw, value, (low, high), q0, q1, found, fits)


def _wilson(of: Sample) -> Interval:
  quantile = stats.t_quantile(of.freedom)
  return stats.score(of.share * of.size, of.size, quantile)


def _better(good: Sample, bad: Sample) -> bool:
  """Whether q0 + q1 - 1 > 0, with its interval (Newcombe 1998, method 10)."""
  if not good.total or not bad.total:
    return False
  off = [of.share - _wilson(of)[0] for of in (good, bad)]
  return good.share + bad.share - 1 - math.hypot(*off) > 0


def _interval(flagged, good, bad, value) -> tuple[Interval, bool]:
  """The least and the largest theta that agree with the three samples.

  And whether the best of them does. A theta is held against the best one, as
  none may agree: a judge flags by luck less than its false flags alone.
  """
  even = np.linspace(0, 1, _GRID + 1)
  fine = np.geomspace(1e-6, 1 / _GRID, _GRID // 4)
  around = [] if value is None else [value]
  theta_N = np.unique([*even, *fine, *(1 - fine), *around])
  off_N, most_N = _off(theta_N, flagged, good, bad)
  least = off_N.min()
  at = np.flatnonzero(off_N - least <= most_N)
  yes = theta_N[[at[0], at[-1]]]
  no = theta_N[[max(at[0] - 1, 0), min(at[-1] + 1, len(theta_N) - 1)]]
  part_N = np.linspace(0, 1, _PARTS + 1)
  for _ in range(_ROUNDS):  # each makes the two gaps smaller by _PARTS
    tried = yes[:, None] + (no - yes)[:, None] * part_N
    off, most = _off(tried.ravel(), flagged, good, bad)
    inside = (off - least <= most).reshape(tried.shape)
    last = np.maximum(inside.cumprod(1).sum(1) - 1, 0)
    pick = lambda at, tried=tried: tried[(0, 1), np.minimum(at, _PARTS)]
    yes, no = pick(last), pick(last + 1)
  return (float(yes[0]), float(yes[1])), bool(least <= most_N[off_N.argmin()])


def _off(theta_N, flagged, good, bad):
  """How far the samples are off each theta, and how far is too far at 95 %."""
  p, false, true = fitted(theta_N, flagged, good, bad)
  parts = [
    _pearson(flagged.share, p, flagged.size),
    _pearson(1 - good.share if good.total else 0.5, false, good.size),
    _pearson(bad.share if bad.total else 0.5, true, bad.size),
  ]
  spreads = [
    _over(p * (1 - p), flagged.size),
    _over((1 - theta_N) ** 2 * false * (1 - false), good.size),
    _over(theta_N**2 * true * (1 - true), bad.size),
  ]
  freedoms = flagged.freedom, good.freedom, bad.freedom
  return sum(parts), _critical(spreads, freedoms) ** 2 * np.ones_like(p)


def _critical(spreads, freedoms):
  """Student's quantile at the degrees of the whole (Satterthwaite 1946)."""
  if all(math.isinf(freedom) for freedom in freedoms):
    return stats.t_quantile(math.inf)
  pairs = zip(spreads, freedoms, strict=True)
  below = sum(spread**2 / freedom for spread, freedom in pairs)
  above = sum(spreads) ** 2
  freedom_N = np.divide(
    above, below, out=np.full_like(above, 1e9), where=below > 0
  )
  quantile = stats.t_quantile(math.inf)
  few_N = special.stdtrit(np.clip(freedom_N, 1, 1e9), 0.975)
  return np.maximum(quantile, few_N)


def _over(above, size):
  return above / max(size, 1e-9)


def _pearson(share, fit_N, size):
  """size (share - fit)^2 / (fit (1 - fit)); 0 where the fit is exact."""
  off_N, spread_N = size * (share - fit_N) ** 2, fit_N * (1 - fit_N)
  out = np.where(off_N > 1e-12, np.inf, 0.0)
  return np.divide(off_N, spread_N, out=out, where=spread_N > 1e-300)


def fitted(theta_N, flagged: Sample, good: Sample, bad: Sample):
  """The most likely p, 1 - q0 and q1 that give each theta.

  With a Lagrange multiplier for p = (1 - theta) (1 - q0) + theta q1, each of
  the last two is a root of a quadratic equation in the multiplier, which p
  alone gives; p is found by halving, as what is left of the equation rises with
  it. It lies between what the answers and what the labels alone say.
  """
  n, k = flagged.size, flagged.share * flagged.size
  m0 = max(good.size, 1e-9)
  y0 = m0 * (1 - good.share if good.total else 0.5)
  m1 = max(bad.size, 1e-9)
  x1 = m1 * (bad.share if bad.total else 0.5)
  theta_N = np.asarray(theta_N, float)

  def rates(p_N):
    pull_N = (n - k) / (1 - p_N) - k / p_N
    false_N = _root(y0, m0, pull_N * (1 - theta_N))
    return false_N, _root(x1, m1, pull_N * theta_N)

  apart_N = (1 - theta_N) * (y0 / m0) + theta_N * (x1 / m1)
  low_N, high_N = np.minimum(k / n, apart_N), np.maximum(k / n, apart_N)
  for _ in range(_HALVINGS):
    p_N = np.clip((low_N + high_N) / 2, 1e-15, 1 - 1e-15)
    false_N, true_N = rates(p_N)
    above = p_N > (1 - theta_N) * false_N + theta_N * true_N
    low_N, high_N = np.where(above, low_N, p_N), np.where(above, p_N, high_N)
  p_N = np.clip((low_N + high_N) / 2, 1e-15, 1 - 1e-15)
  return p_N, *rates(p_N)


def _root(count, size, pull_N):
  """The x in [0, 1] with count / x - (size - count) / (1 - x) = pull."""
  sum_N = size + pull_N
  root_N = np.sqrt(np.maximum(sum_N**2 - 4 * pull_N * count, 0))
  above_N = np.where(sum_N >= 0, 2 * count, sum_N - root_N)
  below_N = np.where(sum_N >= 0, sum_N + root_N, 2 * pull_N)
  return np.minimum(above_N / np.where(below_N, below_N, 1), 1)
