"""A judge's own noise: one answer scored under several wordings or orders."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ealign.evals import stats
from ealign.evals.stats import Interval


@dataclasses.dataclass(frozen=True)
class Noise:
  """How much of the scores is the answers', and how much is the asking's.

  Attributes:
    items: answers that every variant scored. variants: how often each was.
    dropped: answers that a variant gave no score.
    sd_items: standard deviation of the answers' true scores.
    sd_variants: by how much a variant moves all scores alike.
    sd_rest: what is left: it moves this answer so and that one otherwise.
    same: share of the variance of a score that is the answer's.
    flips: share of the answers that some variants flag and others do not.
    flips_interval: of that share; answers count as independent.
    pairs: how often two variants, drawn at random, disagree on an answer.
    rates: share flagged by the variant that flags least and most.
  """

  items: int
  variants: int
  dropped: int
  sd_items: float
  sd_variants: float
  sd_rest: float
  same: float | None
  flips: float
  flips_interval: Interval
  pairs: float
  rates: Interval


def noise(
  scores: Mapping[str, Sequence[float | None]],
  flag: Callable[[float], bool],
) -> Noise | None:
  """The variance components of a judge's scores: answers, variants, the rest.

  Two crossed random effects, one score a cell, by mean squares; a component
  below 0 is 0. (Two components or more of three variants are rough figures.)

  Args:
    scores: name of the variant -> its scores of the same answers, in the same
      order; None where it gave none.
    flag: score -> whether it flags the answer.

  Returns:
    None: fewer than two variants, or than two answers that all have scored.

  Raises:
    ValueError: variants have different numbers of answers.
  """
  columns = [list(column) for column in scores.values()]
  if len({len(column) for column in columns}) > 1:
    sizes = {name: len(column) for name, column in scores.items()}
    raise ValueError(f'variants score different answers: {sizes}')
  rows = [*zip(*columns, strict=True)]
  is_score = lambda x: x is not None and math.isfinite(x)
  full = [row for row in rows if all(map(is_score, row))]
  if len(columns) < 2 or len(full) < 2:
    return None
  x = np.array(full, float)
  items, variants = x.shape
  by_item, by_variant = x.mean(1), x.mean(0)
  rest = x - by_item[:, None] - by_variant + x.mean()
  left = float((rest**2).sum()) / (items - 1) / (variants - 1)
  of_items = max(0.0, float(np.var(by_item, ddof=1)) - left / variants)
  of_variants = max(0.0, float(np.var(by_variant, ddof=1)) - left / items)
  whole = of_items + of_variants + left
  flags = np.array([[bool(flag(score)) for score in row] for row in full])
  yes = flags.sum(1)
  flipped = (yes > 0) & (yes < variants)
  apart = 2 * yes * (variants - yes) / (variants * (variants - 1))
  return Noise(
    items=items,
    variants=variants,
    dropped=len(rows) - items,
    sd_items=math.sqrt(of_items),
    sd_variants=math.sqrt(of_variants),
    sd_rest=math.sqrt(left),
    same=of_items / whole if whole > 0 else None,
    flips=float(flipped.mean()),
    flips_interval=stats.wilson(int(flipped.sum()), items),
    pairs=float(apart.mean()),
    rates=(float(flags.mean(0).min()), float(flags.mean(0).max())),
  )
