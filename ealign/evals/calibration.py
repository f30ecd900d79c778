"""A judge held against labels by people: its card, to keep and to correct by.

Everything is of the labelled answers alone. Of others (another model, another
kind of question) the judge may err otherwise, and nothing here can tell.
"""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from ealign.evals import agreement, correction, isotonic, stats
from ealign.evals.audit import measures
from ealign.evals.audit.measures import Share
from ealign.evals.correction import Corrected, Sample
from ealign.evals.isotonic import Map
from ealign.evals.noise import Noise
from ealign.runtime.errors import UserError

_NAMED = 'judge', 'model', 'prompt', 'mode', 'suite', 'gold'


@dataclasses.dataclass(frozen=True)
class Reading:
  """When a score flags, and what probability it is taken for.

  below: a score under the threshold flags, as an alignment of 0..100 does;
  else one at or above it, as a probability does. scale: the largest score.
  whole: whether an answer without a score counts as one that is not flagged, as
  it does in the rates of alignment; else it is in no rate.
  """

  threshold: float
  below: bool = False
  scale: float = 1.0
  whole: bool = False

  def __post_init__(self):
    if not (math.isfinite(self.threshold) and 0 < self.scale < math.inf):
      raise ValueError(f'{self}: needs a finite threshold and a scale above 0')

  def flag(self, score: float) -> bool:
    return score < self.threshold if self.below else score >= self.threshold

  def p(self, score: float) -> float:
    """The score as P(to be flagged), cut to [0, 1]."""
    share = min(1.0, max(0.0, score / self.scale))
    return 1 - share if self.below else share


@dataclasses.dataclass(frozen=True)
class Errors:
  """How far P is from the label, which is 0 or 1.

  mean: of |P - label|. bias: of P - label, above 0 if it expects too many, with
  an interval by cluster. square: of (P - label)^2 (Brier). binned: how far P is
  from the share of labels, in ten bins.
  """

  mean: float
  bias: Share
  square: float
  binned: float


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The card of a judge: what its scores of labelled answers are worth.

  Attributes:
    judge, model, prompt, mode: its name, the hashes of its model and prompt,
      and how it scores. suite: that it judges (`evals.readings`). gold: the
      labelled file, or its hash.
    reading: threshold, direction and scale of its scores.
    n: answers it scored. unscored: those it could not. positives: of the n, to
      be flagged by their label. clusters: questions.
    auc: P(one to be flagged scores worse than another).
    agrees: share of decisions that are the label. kappa: that beyond chance.
    people: kappa of one person and another, of the answers that both labelled,
      and people_agree: the share; None without two.
    raw: errors of the score as it is; mapped: of the monotone map, fitted on
      other questions than those it is tried on; None of a single question.
    map: of all answers, for new ones.
    good: decisions not to flag, of answers that should not be flagged (q0).
    bad: decisions to flag, of those that should be (q1). Both are of the n, or
      of all answers if the reading is of the whole.
    noise: what varied (wording, order, temperature) -> what that did.
  """

  judge: str
  model: str
  prompt: str
  mode: str
  suite: str
  gold: str
  reading: Reading
  n: int
  unscored: int
  positives: int
  clusters: int
  auc: Share
  agrees: Share
  kappa: Share | None
  people: Share | None
  people_agree: Share | None
  raw: Errors
  mapped: Errors | None
  map: Map
  good: Sample
  bad: Sample
  noise: Mapping[str, Noise] = dataclasses.field(default_factory=dict)

  def correct(
    self, flags: Sequence[bool], clusters: Sequence[Hashable]
  ) -> Corrected:
    """The rate of the judge's decisions on other answers, corrected."""
    flagged = correction.sample(flags, clusters)
    return correction.correct(flagged, self.good, self.bad)


def calibrate(
  scores: Sequence[float | None],
  flags: Sequence[bool],
  clusters: Sequence[Hashable],
  reading: Reading,
  *,
  pairs: Sequence[tuple[bool, bool] | None] = (),
  noise: Mapping[str, Noise] | None = None,
  **named: str,
) -> Calibration:
  """The card of a judge from its scores of labelled answers.

  Args:
    scores: of each answer; None or nan where it gave none.
    flags: whether the label says that the answer is what the judge looks for.
    clusters: of each answer; answers to one question are alike.
    reading: when a score flags.
    pairs: of each answer the same by two people, or None.
    noise: what varied -> its noise.
    named: judge, model, prompt, mode, suite, gold.

  Raises:
    UserError: no answer of one of the two classes has a score.
    ValueError: the lists have different lengths.
  """
  if not len(scores) == len(flags) == len(clusters):
    sizes = len(scores), len(flags), len(clusters)
    raise ValueError(f'{sizes}: scores, labels and clusters of each answer')
  has = [s is not None and math.isfinite(s) for s in scores]
  keep = lambda values: [
    x for x, known in zip(values, has, strict=True) if known
  ]
  s, y, names = map(keep, (scores, map(bool, flags), clusters))
  for label, count in ((True, sum(y)), (False, len(y) - sum(y))):
    if not count:
      kind = 'to be flagged' if label else 'not to be flagged'
      raise UserError(
        f'judge {named.get("judge", "")!r}: no answer {kind} has a score '
        f'({len(s)} of {len(scores)} have one): nothing to calibrate it by'
      )
  said = [reading.flag(score) for score in s]
  p = [reading.p(score) for score in s]
  mapped = isotonic.cross_fitted(s, y, names, falls=reading.below)
  both = [(*pair, c) for pair, c in zip(pairs, clusters) if pair]  # noqa: B905
  one, other, where = map(list, zip(*both, strict=True)) if both else ([],) * 3
  same = lambda a, b: [x == z for x, z in zip(a, b, strict=True)]
  every = said, y, names  # whose decisions make a rate
  if reading.whole:
    decided = [
      known and reading.flag(score)
      for score, known in zip(scores, has, strict=True)
    ]
    every = decided, [*map(bool, flags)], clusters
  return Calibration(
    **(dict.fromkeys(_NAMED, '') | named),
    reading=reading,
    n=len(s),
    unscored=len(scores) - len(s),
    positives=sum(y),
    clusters=len(set(names)),
    auc=measures.auc([-x for x in s] if reading.below else s, y, names),
    agrees=measures.share(same(said, y), names),
    kappa=agreement.kappa(said, y, names),
    people=agreement.kappa(one, other, where),
    people_agree=measures.share(same(one, other), where),
    raw=_errors(p, y, names),
    mapped=mapped and _errors(mapped, y, names),
    map=isotonic.fit(s, y, falls=reading.below),
    good=_right(*every, wanted=False),
    bad=_right(*every, wanted=True),
    noise=dict(noise or {}),
  )


def _right(said, y, names, *, wanted) -> Sample:
  """The judge's right decisions on the answers of one class."""
  own = [i for i, flag in enumerate(y) if flag == wanted]
  right = [said[i] == wanted for i in own]
  return correction.sample(right, [names[i] for i in own])


def _errors(p, y, names) -> Errors:
  off = np.asarray(p, float) - np.asarray(y, float)
  return Errors(
    mean=float(np.abs(off).mean()),
    bias=_bias(off, names),
    square=float((off**2).mean()),
    binned=measures.calibration_error(p, y),
  )


def _bias(off, names) -> Share:
  """The mean with an interval by cluster, Student's t; (-1, 1) of one."""
  value, n = float(off.mean()), len(off)
  sums: dict = {}
  for x, name in zip(off - value, names, strict=True):
    sums[name] = sums.get(name, 0.0) + float(x) / n
  m = len(sums)
  if m == 1:
    return Share(value, -1.0, 1.0, n)
  error = math.sqrt(m / (m - 1) * sum(x**2 for x in sums.values()))
  half = stats.t_quantile(m - 1) * error
  return Share(value, max(-1.0, value - half), min(1.0, value + half), n)
