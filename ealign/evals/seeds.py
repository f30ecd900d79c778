"""Statistics over seeds: settings, their spread, and the primary contrasts.

A rate is compared on the logit scale, where the spread between seeds depends
less on the rate. A seed's logit is the empirical one, log((k + 1/2) / (n - k +
1/2)): half an answer is added on both sides, which keeps 0 of n and n of n
finite (Haldane 1956; Anscombe 1956; Cox and Snell 1989, Analysis of Binary
Data, 2.1.6). No interval is narrower than the answers alone allow, so seeds
that agree exactly give the binomial interval, and nothing gives NaN.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import special
from scipy import stats as sps

from ealign.evals import stats
from ealign.evals.counts import Mean, Share
from ealign.evals.stats import Interval

MOST_CONTRASTS = 6
FEWEST_SEEDS = 5  # of a contrast that is tested


@dataclasses.dataclass(frozen=True)
class Spread:
  """Standard deviation between seeds, and its degrees of freedom."""

  sd: float
  freedom: int


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Mean over seeds, its 95 % interval, and what the width is made of.

  basis: 'seeds' (their own spread), 'pooled' (a spread pooled over settings)
  or 'prompts' (one seed and no spread: it says nothing about other seeds).
  """

  value: float
  interval: Interval
  basis: str


@dataclasses.dataclass(frozen=True)
class Contrast:
  """a - b, paired by replicate: difference, odds ratio, and the test.

  p is two-sided and not adjusted; `holm` does that.
  """

  value: float
  interval: Interval
  odds: float
  odds_interval: Interval
  t: float
  freedom: int
  p: float


def logit(count: float, total: float) -> float:
  """The empirical logit: half an answer added on both sides."""
  return math.log((count + 0.5) / (total - count + 0.5))


def pooled(groups: Iterable[Sequence[float]]) -> Spread | None:
  """The deviation within groups (seeds of a setting), pooled over groups.

  The sum of squares about each group's mean over the sum of (size - 1). None
  where no group has two values. Of one group: its own standard deviation.
  """
  groups = [np.asarray(group, float) for group in groups if len(group) > 1]
  freedom = sum(len(group) - 1 for group in groups)
  if not freedom:
    return None
  squares = sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
  return Spread(math.sqrt(squares / freedom), freedom)


def rate(
  shares: Sequence[Share], spread: Spread | None = None
) -> Estimate | None:
  """A rate over seeds: Student-t on the logit scale, of own or given spread.

  Never narrower than the binomial interval of all answers together (Wilson's;
  at 0 and 1 the exact one). One seed: than its interval clustered by prompt,
  which is all there is without a spread. None: no seed has any answer.
  """
  shares = [share for share in shares if share.total]
  if not shares:
    return None
  value = float(np.mean([share.value for share in shares]))
  floor = stats.wilson(*_together(shares))
  if len(shares) == 1:
    floor = shares[0].clustered
  logits = [logit(share.count, share.total) for share in shares]
  basis = 'pooled' if spread else 'seeds'
  spread = spread or pooled([logits])
  if spread is None:
    return Estimate(value, floor, 'prompts')
  half = stats.t_quantile(spread.freedom) * spread.sd / math.sqrt(len(shares))
  middle = np.mean(logits)
  low, high = special.expit((middle - half, middle + half))
  low, high = min(low, floor[0], value), max(high, floor[1], value)
  return Estimate(value, (float(low), float(high)), basis)


def average(means: Sequence[Mean]) -> Estimate | None:
  """The mean of a number over seeds; of one seed, the interval of its own."""
  if not means:
    return None
  if len(means) == 1:
    interval = means[0].interval or (math.nan, math.nan)
    return Estimate(means[0].value, interval, 'prompts')
  values = [mean.value for mean in means]
  value, *interval = stats.student_t(values, bounds=(0.0, math.inf))
  return Estimate(value, tuple(interval), 'seeds')


def contrast(a: Sequence[Share], b: Sequence[Share]) -> Contrast | None:
  """a - b for two settings whose shares are in the order of replicates.

  The test is Student's on the paired differences of the logits, exp of which
  is the odds ratio. Its standard error is never smaller than that of the
  answers taken together (1/k + 1/(n - k) on both sides, with the halves), so
  seeds that agree exactly have a finite t. The difference of the rates and
  its interval are computed alike on the scale of shares. None: fewer than
  two pairs with answers.
  """
  pairs = [(x, y) for x, y in zip(a, b, strict=True) if x.total and y.total]
  if len(pairs) < 2:
    return None
  sums = [*map(_together, zip(*pairs, strict=True))]
  logits = [logit(x.count, x.total) - logit(y.count, y.total) for x, y in pairs]
  least = sum(1 / (k + 0.5) + 1 / (n - k + 0.5) for k, n in sums)
  middle, error = _paired(logits, least)
  points = [x.value - y.value for x, y in pairs]
  even = [((k + 0.5) / (n + 1), n) for k, n in sums]
  least = sum(share * (1 - share) / n for share, n in even)
  value, spread = _paired(points, least)
  freedom = len(pairs) - 1
  quantile = stats.t_quantile(freedom)
  around = lambda at, by: (at - quantile * by, at + quantile * by)
  low, high = around(value, spread)
  t = middle / error
  return Contrast(
    value=value,
    interval=(max(-1.0, low), min(1.0, high)),
    odds=_exp(middle),
    odds_interval=tuple(map(_exp, around(middle, error))),
    t=t,
    freedom=freedom,
    p=float(2 * sps.t.sf(abs(t), freedom)),
  )


def _together(shares: Iterable[Share]) -> tuple[int, int]:
  """Count and total of all answers."""
  return sum(s.count for s in shares), sum(s.total for s in shares)


def _paired(differences, least: float) -> tuple[float, float]:
  """Mean of the differences and its standard error, at least sqrt(least)."""
  own = np.var(differences, ddof=1) / len(differences)
  return float(np.mean(differences)), math.sqrt(max(own, least))


def _exp(x: float) -> float:
  return math.exp(min(x, 700.0))  # two seeds may ask for more than a float


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """Adjusted p-values in the given order (Holm 1979).

  None: declared, but could not be tested. It counts as 1, so that a contrast is
  judged alike before and after it.
  """
  adjusted, least = [None] * len(p_values), 0.0
  known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
  for place, (p, at) in enumerate(known):
    least = max(least, min(1.0, (len(p_values) - place) * p))
    adjusted[at] = least
  return adjusted


def least_t(seeds: int, comparisons: int) -> float:
  """|t| that Holm's first step asks for: why exploratory cells have no p."""
  return float(sps.t.isf(0.05 / (2 * comparisons), seeds - 1))
