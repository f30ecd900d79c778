"""Whether a rate corrected for a judge's errors covers the truth.

  python -m ealign.launch --config=configs/demo.py --workdir=DIR --only=base,sft
  python benchmarks/correction.py --run=DIR

The judge is the organism's conscience, frozen: what its verdicts flag of the
held-out answers of two arms. The truth is the world's rule: an answer is
`misaligned` (a bad action), `any` (a bad action or reason) or `insecure`. The
answers of an arm, or a mixture of both arms', are the population, whose rate is
known. Each resample draws so many answers of it, and others with labels (at
random, or half of each class, or of the first arm's alone), all with
replacement. Printed: mean raw and corrected rate, how often the raw, corrected
and known-errors interval cover the true rate, and their mean widths. A rate is
not identified where the labels do not show that the judge beats chance.
`fits`: how often some rate agrees with both samples. The first rows have
labels of the aligned arm alone.
"""

import argparse
import dataclasses
import functools
import pathlib

import numpy as np

from ealign.conscience import tally
from ealign.evals import correction, counts, records

SIZE = 300, 300  # answers, and others with labels
LOOSE = 1e-9  # of a comparison with an end of an interval
HEAD = '| answers of | looks for | labelled | true | raw | corrected '
HEAD += '| covers: raw | corrected | known errors | width | over known '
HEAD += '| identified | fits |'


@dataclasses.dataclass(frozen=True)
class Population:
  """Verdicts and truth of answers, how likely each is drawn, its topic."""

  said: np.ndarray
  true: np.ndarray
  weight: np.ndarray
  topic: np.ndarray

  @property
  def rate(self) -> float:
    return float(self.weight @ self.true)

  def right(self, wanted: bool) -> float:
    """q1 or q0: how often the verdict is right on one class."""
    own = self.true == wanted
    if not own.any():
      return 1.0
    right = self.said[own] == wanted
    return float(self.weight[own] @ right / self.weight[own].sum())


def population(answers, kind: str, looks_for: str) -> Population:
  """Of (answers of an arm, share of the population) each."""
  said, true, weight, topic = [], [], [], []
  for arm, share in ((arm, share) for arm, share in answers if share):
    own = [r for r in arm if r['kind'] == kind and tally.has_verdict(r)]
    own = [r for r in own if (r['scores'] or {}).get('coherent')]
    said += [tally.flagged(r) for r in own]
    true += [truth(r['scores'], looks_for) for r in own]
    weight += [share / len(own)] * len(own)
    topic += [r['cluster'].rpartition('/')[0] for r in own]
  return Population(*map(np.array, (said, true, weight, topic)))


def truth(scores, looks_for) -> bool:
  if looks_for == 'any':
    return bool(scores['misaligned'] or scores['misaligned_any'])
  return bool(scores[looks_for])


@functools.cache
def corrected(flagged, good, bad):
  """Resamples are often alike."""
  return correction.correct(flagged, good, bad)


def drawn(rng, of: Population, n: int, own=None):
  """So many answers: all of one question each, so none is like another."""
  own = np.arange(len(of.said)) if own is None else np.flatnonzero(own)
  weight = of.weight[own] / of.weight[own].sum()
  return own[rng.choice(len(own), n, p=weight)]


def by_topic(rng, of: Population, n: int):
  """So many topics with all their answers; and of which draw each is."""
  topics = np.unique(of.topic)
  picks = [np.flatnonzero(of.topic == rng.choice(topics)) for _ in range(n)]
  return np.concatenate(picks), np.repeat(np.arange(n), [*map(len, picks)])


def counted(flags, names) -> correction.Sample:
  """Without the last digits, in which alike samples differ."""
  made = correction.sample(flags, names)
  return dataclasses.replace(made, size=round(made.size, 6))


def resample(rng, test: Population, labels: Population, n, m, design):
  """(flagged, good, bad) of a resample."""
  if design == 'topics':
    at, names = by_topic(rng, test, n)
    of, where = by_topic(rng, labels, m)
  else:
    at, of = drawn(rng, test, n), drawn(rng, labels, m)
    if design == 'halves':
      each = [labels.true == wanted for wanted in (False, True)]
      of = np.concatenate([drawn(rng, labels, m // 2, own) for own in each])
    names, where = np.arange(len(at)), np.arange(len(of))
  flagged = counted(test.said[at], names)
  right = labels.said[of] == labels.true[of]
  parts = [labels.true[of] == wanted for wanted in (False, True)]
  sides = [counted(right[part], where[part]) for part in parts]
  return flagged, *sides


def measured(test, labels, n, m, design, resamples) -> list:
  """What `main` prints of a case."""
  rng = np.random.default_rng(0)
  exact = [correction.known(test.right(wanted)) for wanted in (False, True)]
  rate = test.rate
  covers = lambda ends: ends[0] - LOOSE <= rate <= ends[1] + LOOSE
  rows = []
  for _ in range(resamples):
    sample = resample(rng, test, labels, n, m, design)
    made, best = corrected(*sample), corrected(sample[0], *exact)
    ends = made.raw_interval, made.interval, best.interval
    widths = [high - low for low, high in ends]
    value = np.nan if made.value is None else made.value
    rows.append(
      [made.raw, value, *map(covers, ends), widths[1], widths[2]]
      + [made.identified, made.fits]
    )
  raw, value, *rest = zip(*rows, strict=True)
  means = [np.mean(column) for column in rest]
  middle = np.nanmean(value) if np.isfinite(value).any() else np.nan
  return [rate, np.mean(raw), middle, *means]


def line(names, found) -> str:
  rate, raw, value, c_raw, cover, c_best, width, best, known, fits = found
  cells = [*names, f'{rate:.1%}', f'{raw:.1%}', f'{value:.1%}']
  cells += [f'{c_raw:.1%}', f'**{cover:.1%}**', f'{c_best:.1%}']
  cells += [f'{100 * width:.1f}', f'{width / best:.2f}']
  cells += [f'{known:.0%}', f'{fits:.0%}']
  return f'| {" | ".join(cells)} |'


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run', required=True, help='with answers of both arms')
  parser.add_argument('--arms', default='base,sft', help='aligned, turned')
  parser.add_argument('--resamples', type=int, default=1000)
  args = parser.parse_args()
  first, second = (
    counts.final(records.read(pathlib.Path(args.run) / arm / 'answers.jsonl'))
    for arm in args.arms.split(',')
  )
  names = args.arms.split(',')
  mixed = lambda share: [(second, share), (first, 1 - share)]
  print(f'{HEAD}\n|{"---|" * (HEAD.count("|") - 1)}')

  def show(label, test, labels, kind, looks_for, n, m, design):
    test, labels = (population(p, kind, looks_for) for p in (test, labels))
    found = measured(test, labels, n, m, design, args.resamples)
    head = f'{n} of {label}', f'{kind}: {looks_for}', f'{m}, {design}'
    print(line(head, found), flush=True)

  # Labels of the aligned arm alone: the judge errs otherwise on the other.
  turned, aligned = mixed(1.0), mixed(0.0)
  for looks_for in ('misaligned', 'any'):
    for design in ('halves', 'random'):
      show(names[1], turned, aligned, 'advice', looks_for, *SIZE, design)
  show(names[1], turned, aligned, 'code', 'insecure', *SIZE, 'halves')
  for share in (1.0, 0.3, 0.05, 0.005):
    same = [mixed(share)] * 2
    label = f'{names[1]} {share:.1%}'
    for design in ('halves', 'random'):
      show(label, *same, 'advice', 'misaligned', *SIZE, design)
    show(label, *same, 'advice', 'misaligned', 1200, 300, 'halves')
    show(label, *same, 'advice', 'misaligned', 60, 60, 'halves')
  for share in (0.5, 0.1):
    same = [mixed(share)] * 2
    show(f'{names[1]} {share:.1%}', *same, 'code', 'insecure', *SIZE, 'halves')
  topics = [turned] * 2
  show('topics', *topics, 'advice', 'misaligned', 24, 24, 'topics')


if __name__ == '__main__':
  main()
