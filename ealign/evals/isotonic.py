"""A monotone map from a judge's scores to the share of labels they go with."""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Map:
  """Knots (score, P), in the order of scores; between them a line.

  Below the first and above the last it stays. P never falls, or never rises.
  """

  knots: tuple[tuple[float, float], ...]

  def __call__(self, score: float) -> float:
    scores, shares = zip(*self.knots, strict=True)
    return float(np.interp(score, scores, shares))


def fit(
  scores: Sequence[float], flags: Sequence[bool], *, falls: bool = False
) -> Map:
  """The monotone map nearest to the labels, by least squares.

  Neighbours that violate the order are pooled until none does (Ayer and others
  1955). Answers of one score are one block from the start. falls: a low score
  is what flags. The map is exact 0 or 1 at scores where the labels are: that is
  what was seen, not a limit.

  Raises:
    ValueError: no scores, or one is not finite.
  """
  x = np.asarray(scores, float)
  y = np.asarray(flags, float)
  if not len(x) or len(x) != len(y) or not np.isfinite(x).all():
    raise ValueError(
      f'{len(x)} scores, {len(y)} labels: finite ones are needed'
    )
  sign = -1 if falls else 1
  blocks: list[list[float]] = []  # sum of labels, answers, first, last score
  for at in np.unique(sign * x):
    same = y[sign * x == at]
    blocks.append([float(same.sum()), len(same), at, at])
    while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
      total, count, _, last = blocks.pop()
      before = blocks[-1]
      blocks[-1] = [before[0] + total, before[1] + count, before[2], last]
  knots = [
    (float(sign * at), _mean(block))
    for block in blocks
    for at in dict.fromkeys(block[2:])
  ]
  return Map(tuple(sorted(knots)))


def _mean(block) -> float:
  return block[0] / block[1]


def cross_fitted(
  scores: Sequence[float],
  flags: Sequence[bool],
  clusters: Sequence[Hashable],
  *,
  falls: bool = False,
  folds: int = FOLDS,
) -> list[float] | None:
  """P of each score by the map of the other folds, to report on these answers.

  Clusters are dealt to the folds in the order in which they come, so that no
  answer is mapped by what was seen of its own question. None: one cluster.
  """
  names = list(dict.fromkeys(clusters))
  folds = min(folds, len(names))
  if folds < 2:
    return None
  fold = {name: at % folds for at, name in enumerate(names)}
  own = np.array([fold[cluster] for cluster in clusters])
  x, y = np.asarray(scores, float), np.asarray(flags, bool)
  out = [math.nan] * len(x)
  for at in range(folds):
    made = fit(x[own != at], y[own != at], falls=falls)
    for i in np.flatnonzero(own == at):
      out[i] = made(x[i])
  return out
