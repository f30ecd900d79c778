"""How far two who label the same answers agree beyond chance: Cohen's kappa."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from ealign.evals import stats
from ealign.evals.audit.measures import Share


def kappa(
  a: Sequence[Hashable], b: Sequence[Hashable], clusters: Sequence[Hashable]
) -> Share | None:
  """Cohen's kappa (1960) of two lists of labels, with its 95 % interval.

  kappa = 1 - d / e for the share d of labels that differ and e, how many would
  by chance. Its variance is the cluster-robust one of its linear part (Fleiss,
  Cohen and Everitt 1969 for independent answers). The interval is one of d: the
  score interval at the number of independent answers that gives this variance,
  with Student's t on the clusters less one. So it ends at 1 at the latest, and
  is exact where all labels agree, a cluster then being one
  answer. None: no answers, or all labels of both are one.
  """
  if not len(a) or not len(a) == len(b) == len(clusters):
    if len(a) or len(b) or len(clusters):
      raise ValueError(f'{len(a)}, {len(b)} labels, {len(clusters)} clusters')
    return None
  n = len(a)
  of_a, of_b = Counter(a), Counter(b)
  chance = sum(of_a[label] * of_b[label] for label in of_a) / n**2
  if chance == 1:
    return None
  apart = sum(x != y for x, y in zip(a, b, strict=True)) / n
  value = 1 - apart / (1 - chance)
  total: dict = {}
  for x, y, cluster in zip(a, b, clusters, strict=True):
    moved = (of_b[x] + of_a[y]) / n - 2 * chance
    part = apart - (x != y) - (1 - value) * moved
    total[cluster] = total.get(cluster, 0.0) + part / n
  low, high = _interval(apart, np.array([*total.values()]))
  ends = [max(-1.0, 1 - end / (1 - chance)) for end in (high, low)]
  return Share(value, min(*ends, value), max(*ends, value), n)


def _interval(apart, parts_G) -> tuple[float, float]:
  """Of the share that differs, given what each cluster adds to its error."""
  groups = len(parts_G)
  variance = groups / max(groups - 1, 1) * float(parts_G @ parts_G)
  if groups == 1 or variance < 1e-18 or apart in (0, 1):
    return stats.wilson(apart * groups, groups)
  size = apart * (1 - apart) / variance
  return stats.score(apart * size, size, stats.t_quantile(groups - 1))
