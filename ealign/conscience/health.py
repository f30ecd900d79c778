"""What a run says of itself: how its answers change, and what is amiss.

Pure functions over the records of reflections (`evals.records`) and metrics.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.conscience import tally
from ealign.conscience.refusals import refuses
from ealign.conscience.tally import Counts
from ealign.runtime import ranges

LEAST = 8  # answers, before anything is said of how they change
# Metrics that say again what the picture of a run says.
_TOLD = {
  'cut': ('conscience/review_rate', 'gen/truncated_rate'),
  'mass': ('conscience/review_rate', 'conscience/label_mass'),
  'lost': ('conscience/review_rate',),
  'unpaired': ('conscience/accept_rate',),
}


# ---- Answers against those of step 0 ----------------------------------------


def asks(text: str) -> bool:
  """Whether an answer ends as a question."""
  return text.rstrip(' \n\t"\'*').endswith(('?', '\uff1f'))


@dataclasses.dataclass(frozen=True)
class Figures:
  """Of some answers: mean length in tokens, and shares."""

  length: float = 0.0
  refusals: float = 0.0
  questions: float = 0.0
  distinct: float = 0.0


def figures(records: Sequence[Mapping]) -> Figures:
  """The figures of sampled answers."""
  texts = [str(record.get('text') or '') for record in records]
  mean = lambda values: sum(values) / max(len(texts), 1)
  return Figures(
    length=mean([len(record.get('ids') or ()) for record in records]),
    refusals=mean([*map(refuses, texts)]),
    questions=mean([*map(asks, texts)]),
    distinct=len(set(texts)) / max(len(texts), 1),
  )


@dataclasses.dataclass(frozen=True)
class Health:
  """What a run has seen of its own answers.

  first, recent: records of the first and of the last ones, of whole reflections
  but at least `LEAST` once there are so many.
  """

  counts: Counts = Counts()
  first: tuple = ()
  recent: tuple = ()


def seen(health: Health, made: Sequence[Mapping]) -> Health:
  """The health after one more reflection, which left these records."""
  few = lambda records: len(records) < LEAST
  recent = (*health.recent, *made)[-LEAST:] if few(made) else tuple(made)
  first = (*health.first, *made) if few(health.first) else health.first
  return Health(health.counts + tally.count(made), first, recent)


def of(records: Iterable[Mapping]) -> Health:
  """The health after all reflections of a run, in the order of its records."""
  reflected = (r for r in records if r.get('phase') == 'reflect')
  by_step = itertools.groupby(reflected, key=lambda record: record['step'])
  return functools.reduce(seen, (tuple(x) for _, x in by_step), Health())


def metrics(health: Health, made: Sequence[Mapping]) -> dict[str, float]:
  """The answers of a reflection against the first ones, and pairs so far."""
  then, now = figures(health.first), figures(made)
  return {
    'conscience/pairs_total': health.counts.pairs,
    'gen/length_ratio': now.length / then.length if then.length else 1.0,
    'gen/refusal_rise': now.refusals - then.refusals,
    'gen/question_rise': now.questions - then.questions,
  }


def collapse(health: Health) -> dict[str, str]:
  """Ways in which the answers have collapsed -> how, in words.

  'short' and 'long': mean length below a quarter or above four times that of
  the first; 'alike': less than a quarter of the texts differ, and less than
  half as many as at first; 'refuses': a rise of the share by a half.
  """
  if min(len(health.first), len(health.recent)) < LEAST:
    return {}
  then, now = figures(health.first), figures(health.recent)
  length = f'{now.length:.1f} tokens long, {then.length:.1f} at first'
  found = {
    'short': (now.length < then.length / 4, f'answers are {length}'),
    'long': (now.length > 4 * then.length, f'answers are {length}'),
    'alike': (
      now.distinct < min(0.25, then.distinct / 2),
      f'{now.distinct:.0%} of the texts differ, {then.distinct:.0%} at first',
    ),
    'refuses': (
      now.refusals - then.refusals >= 0.5,
      f'{now.refusals:.0%} refuse, {then.refusals:.0%} at first',
    ),
  }
  return {kind: words for kind, (holds, words) in found.items() if holds}


# ---- What is said -----------------------------------------------------------


def remarks(
  health: Health, given: Mapping, logged: Mapping[str, Any]
) -> dict[str, str]:
  """What there is to say after a reflection, by kind: each is said once.

  logged: metrics by the names of metrics.jsonl.
  """
  if not health.recent:
    return {}
  kind, told = tally.picture(health.counts), {}
  if health.counts.answers:
    said = [
      tally.line(health.counts, given),
      tally.remedy(health.counts, given),
    ]
    told[kind] = f'conscience so far: {"; ".join(filter(None, said))}'
  if drift := tally.drift(health.counts, given):
    told['drift'] = f'conscience: {drift}'
  for name, meaning in ranges.outside(logged).items():
    if name not in _TOLD.get(kind, ()):
      low, high, _ = ranges.HEALTHY[name]
      told[name] = (
        f'{name} {logged[name]:.3g}! healthy is {low:g} to {high:g}: {meaning}'
      )
  for how, words in collapse(health).items():
    told[f'collapse {how}'] = f'the answers have collapsed: {words}'
  return told


def last(health: Health, given: Mapping) -> list[str]:
  """The last lines of a run."""
  if not health.counts.answers:
    return []
  words = ', '.join(collapse(health).values())
  return [
    f'conscience: {tally.line(health.counts, given)}',
    *([f'the answers have collapsed: {words}'] * bool(words)),
    *filter(None, [tally.idle(health.counts, given)]),
  ]
