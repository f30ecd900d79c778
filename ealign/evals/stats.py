"""Intervals for shares and means: small, exact at the edges, never NaN.

Within one run the answers to one prompt are alike, so `clustered` is the
honest interval of a share; between runs the variance sits in the base model,
so the headline over seeds is `student_t`, with differences `paired` by base.
"""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy import stats as sps

Interval = tuple[float, float]
Estimate = tuple[float, float, float]


def wilson(k: float, n: float, *, level: float = 0.95) -> Interval:
  """Wilson's score interval of the share k/n (Wilson 1927).

  0/n and n/n get the exact (Clopper-Pearson) bound instead: 0/100 is not
  '0 %' but 'at most 3.6 %'. Without any answer the share is in (0, 1).
  """
  if not 0 <= k <= n:
    raise ValueError(f'k={k}, n={n}: needs 0 <= k <= n')
  return _score(k, n, sps.norm.ppf((1 + level) / 2), level)


def _score(k, n, quantile, level) -> Interval:
  if n == 0:
    return 0.0, 1.0
  edge = ((1 - level) / 2) ** (1 / n)
  if k == 0:
    return 0.0, 1 - edge
  if k == n:
    return edge, 1.0
  share, square = k / n, quantile**2 / n
  middle = (share + square / 2) / (1 + square)
  spread = share * (1 - share) / n + square / (4 * n)
  half = quantile * math.sqrt(spread) / (1 + square)
  return float(max(0, middle - half)), float(min(1, middle + half))


def clustered(
  values: Sequence[float],
  clusters: Sequence[Hashable],
  *,
  level: float = 0.95,
) -> Estimate:
  """Share, low and high of 0/1 values that come in clusters (prompts).

  The cluster-robust variance of the ratio mean, with its G/(G-1) for G
  clusters, says how many independent answers the sample is worth; the score
  interval is taken at that number with Student's t on G-1 degrees. Never
  narrower than for independent answers. Where the variance says nothing (one
  cluster, or all values 0 or all 1) each cluster counts as one answer.
  """
  values_N = np.asarray(values, float)
  if not len(values_N) or len(values_N) != len(clusters):
    raise ValueError(f'{len(values_N)} values, {len(clusters)} clusters')
  if values_N.min() < 0 or values_N.max() > 1:
    raise ValueError('a share is made of values between 0 and 1')
  share, n = float(values_N.mean()), len(values_N)
  sums = {}
  for value, cluster in zip(values_N - share, clusters, strict=True):
    sums[cluster] = sums.get(cluster, 0.0) + value
  groups, plain = len(sums), share * (1 - share) / n
  if groups == 1 or plain == 0:
    lo, hi = wilson(share * groups, groups, level=level)
    return share, lo, hi
  squares = sum(total**2 for total in sums.values())
  variance = groups / (groups - 1) * squares / n**2
  size = n * min(1.0, plain / variance) if variance else n
  quantile = sps.t.ppf((1 + level) / 2, groups - 1)
  lo, hi = _score(share * size, size, quantile, level)
  return share, lo, hi


def student_t(
  values: Sequence[float],
  *,
  level: float = 0.95,
  bounds: Interval = (-math.inf, math.inf),
) -> Estimate:
  """Mean, low and high over seeds; cut off at `bounds` ((0, 1) for rates).

  Equal values give an interval of no width: true of the sample, too sure of
  the world, so print the binomial interval beside it. One value alone has no
  interval and gets the bounds.
  """
  values_N = np.asarray(values, float)
  if not len(values_N):
    raise ValueError('no values')
  mean = float(values_N.mean())
  if len(values_N) == 1:
    return mean, *bounds
  error = values_N.std(ddof=1) / math.sqrt(len(values_N))
  half = float(sps.t.ppf((1 + level) / 2, len(values_N) - 1) * error)
  return mean, max(bounds[0], mean - half), min(bounds[1], mean + half)


def paired(
  a: Sequence[float], b: Sequence[float], *, level: float = 0.95
) -> Estimate:
  """Mean, low and high of a - b, paired in order (by base or by seed)."""
  if len(a) != len(b):
    raise ValueError(f'{len(a)} values against {len(b)}: pairs are needed')
  return student_t(np.subtract(a, b), level=level)


def between_within(
  values_by_base: Mapping[Hashable, Sequence[float]],
) -> tuple[float | None, float | None]:
  """Standard deviations between and within bases, one-way random effects.

  The usual analysis of variance, also for unequal numbers of runs. A negative
  estimate of the variance between bases counts as 0. None where the runs
  cannot tell: between needs two bases; within needs a base with two runs,
  without which `between` is the plain deviation over bases.
  """
  groups = [np.asarray(v, float) for v in values_by_base.values() if len(v)]
  total, count = sum(map(len, groups)), len(groups)
  freedom = total - count
  rest = sum(float(((v - v.mean()) ** 2).sum()) for v in groups)
  within = rest / freedom if freedom else None
  if count < 2:
    return None, None if within is None else math.sqrt(within)
  grand = sum(float(v.sum()) for v in groups) / total
  mean_square = sum(len(v) * (v.mean() - grand) ** 2 for v in groups)
  mean_square = float(mean_square) / (count - 1)
  if within is None:
    return math.sqrt(mean_square), None
  runs = (total - sum(len(v) ** 2 for v in groups) / total) / (count - 1)
  between = max(0.0, (mean_square - within) / runs)
  return math.sqrt(between), math.sqrt(within)
