"""Intervals for shares and means: small, exact at the edges, never NaN.

Within one run the answers to one prompt are alike, so `clustered` is the
honest interval of a share; between runs the variance sits in the base model,
so the headline over seeds is `student_t`.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats as sps

Interval = tuple[float, float]
_UPPER = 0.975  # the upper end of all intervals, which are of 95 %


def wilson(k: float, n: float) -> Interval:
  """Wilson's score interval of the share k/n (Wilson 1927).

  0/n and n/n get the exact (Clopper-Pearson) bound instead: 0/100 is not
  '0 %' but 'at most 3.6 %'. Without any answer the share is in (0, 1).
  """
  if not 0 <= k <= n:
    raise ValueError(f'k={k}, n={n}: needs 0 <= k <= n')
  return score(k, n, sps.norm.ppf(_UPPER))


def score(k, n, quantile) -> Interval:
  if n == 0:
    return 0.0, 1.0
  edge = (1 - _UPPER) ** (1 / n)
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
  values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[float, float, float]:
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
  share = float(values_N.mean())
  size, freedom = worth(values_N, clusters)
  return share, *score(share * size, size, t_quantile(freedom))


def worth(
  values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[float, float]:
  """How many independent answers 0/1 values in clusters are worth.

  And the degrees of freedom of that: clusters less one. Where the variance says
  nothing each cluster counts as one answer, and the degrees are infinite.
  """
  values_N = np.asarray(values, float)
  share, n = float(values_N.mean()), len(values_N)
  sums = {}
  for value, cluster in zip(values_N - share, clusters, strict=True):
    sums[cluster] = sums.get(cluster, 0.0) + value
  groups, plain = len(sums), share * (1 - share) / n
  if groups == 1 or plain == 0:
    return groups, math.inf
  squares = float(sum(total**2 for total in sums.values()))
  variance = groups / (groups - 1) * squares / n**2
  size = n * min(1.0, plain / variance) if variance else n
  return size, groups - 1


def t_quantile(freedom: float) -> float:
  """How many standard errors a 95 % interval of Student's t reaches."""
  return float(sps.t.ppf(_UPPER, freedom))


def student_t(
  values: Sequence[float], *, bounds: Interval = (-math.inf, math.inf)
) -> tuple[float, float, float]:
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
  half = t_quantile(len(values_N) - 1) * float(error)
  return mean, max(bounds[0], mean - half), min(bounds[1], mean + half)
