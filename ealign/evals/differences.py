"""Differences of two models' rates, paired by question, and what can be seen.

Questions differ far more than models do, so the difference is taken question by
question and its error is that of a mean over questions, by Student's t (arXiv
2411.00640; the normal law needs some hundred questions, 2503.01747). Where
there are seeds it is taken by question and seed, and both are drawn: the
variance is that of two crossed random effects.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy import optimize
from scipy import stats as sps

from ealign.evals import stats
from ealign.evals.records import grouped
from ealign.evals.stats import Interval
from ealign.runtime.errors import quantity

LEVEL, POWER = 0.05, 0.8  # two-sided
FEW = 10  # questions that differ, below which their mean is far from normal


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was found of an answer (0, 1 or a share), and what it answers.

  question: what the two models are paired by; cluster: questions that are
  alike (paraphrases of one) share it. seed: of the run, paired as well.
  """

  value: float
  question: Hashable
  seed: Hashable = 0
  cluster: Hashable = None

  @property
  def unit(self) -> Hashable:
    return self.question if self.cluster is None else self.cluster


@dataclasses.dataclass(frozen=True)
class Difference:
  """a - b, each question counting alike.

  Attributes:
    value: mean over questions and seeds that both models have.
    interval: 95 %.
    questions, seeds: how many of them are paired; a question is a cluster.
    unpaired: answers left out, as the other model has none of the kind.
    t, p: Student's t and its two-sided p, not adjusted; None where the basis
      is of counts.
    basis: 'questions', 'questions and seeds'; with 'and counts' where fewer
      than ten questions differ, as with rates of 1 %: Student's t is then too
      narrow, and the interval is no narrower than that made of those of the
      two rates. 'counts' where all differences are alike: that one alone.
  """

  value: float
  interval: Interval
  questions: int
  seeds: int
  unpaired: int
  t: float | None
  p: float | None
  basis: str


def paired(a: Iterable[Answer], b: Iterable[Answer]) -> Difference | None:
  """The difference of two models; None where they share no question and seed.

  One `Answer` an answer: the mean of several would count as one.
  """
  cells_a, cells_b = _cells(a), _cells(b)
  both = [cell for cell in cells_a if cell in cells_b]
  if not both:
    return None
  lost = [*(set(cells_a) - set(both)), *(set(cells_b) - set(both))]
  unpaired = sum(len((cells_a | cells_b)[cell]) for cell in lost)
  units = list(dict.fromkeys(unit for unit, _ in both))
  seeds = list(dict.fromkeys(seed for _, seed in both))
  grid = np.full((len(units), len(seeds)), np.nan)
  for unit, seed in both:
    mean = np.mean(cells_a[unit, seed]) - np.mean(cells_b[unit, seed])
    grid[units.index(unit), seeds.index(seed)] = mean
  shape = len(units), len(seeds), unpaired
  sides = [_by_question(cells, both, units) for cells in (cells_a, cells_b)]
  value = float(np.nanmean(np.nanmean(grid, axis=1)))
  counted = _from_counts(*sides, sum(len(cells_a[c]) for c in both))
  error, freedom = _error(grid)
  if not error:
    return Difference(value, counted, *shape, None, None, 'counts')
  half = stats.t_quantile(freedom) * error
  low, high = max(-1.0, value - half), min(1.0, value + half)
  basis = 'questions and seeds' if len(seeds) > 1 else 'questions'
  if np.count_nonzero(sides[0] != sides[1]) < FEW:
    ends = min(low, counted[0]), max(high, counted[1])
    return Difference(value, ends, *shape, None, None, f'{basis} and counts')
  t = value / error
  p = float(2 * sps.t.sf(abs(t), freedom))
  return Difference(value, (low, high), *shape, t, p, basis)


def _cells(answers) -> dict[tuple, list[float]]:
  """(question, seed) -> the values of its answers."""
  cells = grouped(answers, lambda answer: (answer.unit, answer.seed))
  return {cell: [float(x.value) for x in own] for cell, own in cells.items()}


def _by_question(cells, of, units) -> np.ndarray:
  """The mean of each question over the seeds in some cells."""
  own = grouped(of, lambda cell: cell[0])
  mean = lambda cell: float(np.mean(cells[cell]))
  return np.array([np.mean([*map(mean, own[unit])]) for unit in units])


def _error(grid) -> tuple[float, float]:
  """Standard error of the mean of (questions, seeds), degrees of freedom.

  Mean squares of questions and of seeds less that of what is left, over the
  number of cells; never less than of either alone. Degrees by Satterthwaite
  (1946). 0 where there is no spread to be seen.
  """
  questions, seeds = grid.shape
  rows, columns = np.nanmean(grid, axis=1), np.nanmean(grid, axis=0)
  middle = rows.mean()
  by = []
  for means in (rows, columns):
    if len(means) > 1:
      by.append((float(np.var(means, ddof=1)) / len(means), len(means) - 1))
  if not by or max(variance for variance, _ in by) < 1e-18:
    return 0.0, math.inf
  rest = 0.0
  if len(by) == 2:
    left = grid - rows[:, None] - columns + middle
    freedom = (questions - 1) * (seeds - 1)
    rest = float(np.nansum(left**2)) / freedom / (questions * seeds)
  most = max(by)
  whole = max(sum(variance for variance, _ in by) - rest, most[0])
  if whole == most[0]:
    return math.sqrt(whole), most[1]
  freedom = whole**2 / sum(variance**2 / free for variance, free in by)
  return math.sqrt(whole), max(1.0, freedom)


def _from_counts(a_Q, b_Q, answers: int) -> Interval:
  """Newcombe's interval from those of two rates, for pairs (1998, method 10).

  Each is the score interval at the number of answers that the spread between
  questions leaves. A rate of 0 or 1 has no spread: it gets that of the other;
  if both are, a question is one answer, and their bounds are exact.
  """
  sizes = [_size(means, answers) for means in (a_Q, b_Q)]
  ends = []
  for means, own, other in zip((a_Q, b_Q), sizes, sizes[::-1], strict=True):
    share, size = float(means.mean()), own or other
    if size:
      quantile = stats.t_quantile(len(means) - 1)
      ends.append((share, *stats.score(share * size, size, quantile)))
    else:
      ends.append((share, *stats.wilson(share * len(means), len(means))))
  (at_a, low_a, high_a), (at_b, low_b, high_b) = ends
  alike = 0.0
  if a_Q.std() > 1e-12 and b_Q.std() > 1e-12:
    alike = max(0.0, float(np.corrcoef(a_Q, b_Q)[0, 1]))
  arm = lambda x, y: math.sqrt(max(0.0, x * x - 2 * alike * x * y + y * y))
  value = at_a - at_b
  down = arm(at_a - low_a, high_b - at_b)
  up = arm(high_a - at_a, at_b - low_b)
  return max(-1.0, value - down), min(1.0, value + up)


def _size(means_Q, answers: int) -> float | None:
  """How many independent answers a rate is worth; None if it has no spread."""
  share, questions = float(means_Q.mean()), len(means_Q)
  if questions < 2 or share in (0, 1):
    return None
  variance = float(np.var(means_Q, ddof=1)) / questions
  return min(answers, share * (1 - share) / max(variance, 1e-12))


@dataclasses.dataclass(frozen=True)
class Spread:
  """Of what a rate, or a difference of two, is made, by variances.

  between: of the questions' true values. share: the rate of the model that the
  other is compared with. questions, samples: how many were seen, samples of a
  question on the average. paired: whether between is that of differences.
  """

  between: float
  share: float
  questions: int
  samples: float
  paired: bool


def spread(
  a: Sequence[Answer], b: Sequence[Answer] | None = None
) -> Spread | None:
  """The variances of a rate, or of the difference of two models.

  Between: the variance of the questions' means (of their differences) less what
  answers of one question differ by, p (1 - p) / (n - 1) of each model, not
  below 0. None: fewer than two questions, or none has two answers.
  """
  sides = [grouped(side, lambda x: x.unit) for side in (a, b) if side]
  units = [unit for unit in sides[0] if all(unit in side for side in sides)]
  if len(units) < 2:
    return None
  values = [[[x.value for x in side[u]] for u in units] for side in sides]
  means = np.array([[np.mean(v) for v in side] for side in values])
  within = [
    sum(np.var(side[i]) / (len(side[i]) - 1) for side in values)
    for i in range(len(units))
    if all(len(side[i]) > 1 for side in values)
  ]
  if not within:
    return None
  seen = np.var(means[0] - (means[1] if len(sides) > 1 else 0), ddof=1)
  between = max(0.0, float(seen - np.mean(within)))
  samples = np.mean([len(v) for side in values for v in side])
  share = float(means[-1].mean())
  return Spread(between, share, len(units), float(samples), len(sides) > 1)


def visible_difference(
  of: Spread, questions: int | None = None, samples: float | None = None
) -> float:
  """The least difference that a test at 5 % finds in 80 % of the cases.

  Of two models that answer the same questions, by Student's t over questions
  (noncentral t). The one model has the share seen; of the other's, which is
  larger (smaller, where that cannot be), the variance of single answers is
  taken where it then is. Of a single model, a question's values in the two are
  taken to be unrelated. inf: no difference would be seen.
  """
  questions, samples = questions or of.questions, samples or of.samples
  if questions < 2:
    return math.inf
  between = of.between * (1 if of.paired else 2)
  share = min(of.share, 1 - of.share)
  limit = sps.t.ppf(1 - LEVEL / 2, questions - 1)

  def power(by):
    single = share * (1 - share) + (share + by) * (1 - share - by)
    error = math.sqrt(max((between + single / samples) / questions, 1e-300))
    found = sps.nct.sf(limit, questions - 1, min(by / error, 30.0))
    return float(found) - POWER

  most = 1 - share
  if power(most) < 0:
    return math.inf
  return float(optimize.brentq(power, 1e-9, most, xtol=1e-7))


def power_line(
  of: Spread, questions: int | None = None, samples: float | None = None
) -> str:
  """What a comparison of this size can show, in a sentence."""
  questions, samples = questions or of.questions, samples or of.samples
  found = visible_difference(of, questions, samples)
  size = f'With {quantity(questions, "question")} x '
  size += f'{samples:.4g} sample{"s" * (samples != 1)}'
  how = f'({POWER:.0%} power, {LEVEL:.0%} two-sided)'.replace('%', ' %')
  if math.isinf(found):
    return f'{size} no difference would be seen {how}.'
  least = '' if of.between else 'at least '
  return (
    f'{size} a difference of {least}{100 * found:.2g} points would be seen '
    f'{how}.'
  )
