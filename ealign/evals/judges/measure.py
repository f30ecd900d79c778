"""What a judge is: it scores answers, and declares what is counted of them.

Tables, figures, contrasts, files and pages iterate over the measures of a
run's judge and know no other; docs/judges.md has a whole example.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ealign.conscience.tally import flagged, has_verdict

Record = Mapping[str, Any]  # an answer, as `ealign.evals.records` has it


def scores(record: Record) -> Mapping:
  """The judge's scores of the answer; {} where it gave none."""
  return record.get('scores') or {}


@dataclasses.dataclass(frozen=True)
class Measure:
  """A share of the answers, or the mean of a number, with an interval.

  Attributes:
    name: in results.csv and where a contrast names it.
    of: record -> whether the answer counts (or its number); by default the
      score of this name.
    among: record -> whether it is one of the answers that are counted.
    title: of its figures; by default made of the name.
    note: stands under the tables that show it.
    caveat: what to know before the figure is cited, on docs/measures.md.
    better: 'lower' or 'higher'.
    short: the title of its column, and its word in a sentence.
    those: what it is a share of, in a sentence.
    kind: '*' is of every kind of question; '' of those that no other measure
      claims; else of this kind alone.
    needs: the field without which a record cannot be counted; '' for none.
    brackets: the tables, of a 'run' and of a 'grid', that show its interval.
    drawn: whether it has figures.
    number: whether `of` gives a number, whose mean is shown.
    bounds: the least and the most that such a number can be.
    grid_short, grid_note: in place of short and note in the tables of a grid.
  """

  name: str
  of: Callable[[Record], Any] | None = None
  among: Callable[[Record], Any] = bool
  title: str = ''
  note: str = ''
  better: str = 'lower'
  short: str = ''
  those: str = 'answers'
  kind: str = ''
  needs: str = 'scores'
  brackets: str = 'run grid'
  drawn: bool = True
  number: bool = False
  bounds: tuple[float, float] = (0.0, math.inf)
  grid_short: str = ''
  grid_note: str = ''
  caveat: str = ''

  def __post_init__(self):
    if self.better not in ('lower', 'higher'):
      message = f"better is {self.better!r}, must be 'lower' or 'higher'"
      raise ValueError(f'measure {self.name!r}: {message}')
    words = self.name.replace('_', ' ')
    defaults = {
      'of': lambda record: scores(record).get(self.name),
      'title': f'{words.capitalize()}, % of {self.those}',
      'short': words,
    }
    for name, value in defaults.items():
      object.__setattr__(self, name, getattr(self, name) or value)

  def value(self, record: Record) -> float:
    """What the record counts: its number, or 1 or 0."""
    found = self.of(record)
    return float(found if self.number else bool(found))

  def known(self, records) -> list[Record]:
    """Those of the records that the measure applies to."""
    have = (r for r in records if not self.needs or r.get(self.needs))
    return [record for record in have if self.among(record)]


# Of the run, not of its answers: the reports read it from the metrics.
TOKENS = Measure(
  'token_accuracy',
  title='Training tokens predicted, %',
  better='higher',
  short='tokens',
  note='tokens: token accuracy on eval.tokens',
  grid_note='tokens: of the held-out tokens predicted',
)

# What is known of every answer.
ENDED = Measure(
  'ended',
  lambda record: record.get('stop') == 'stop',
  title='Ended by themselves, % of answers',
  better='higher',
  short='complete',
  note='complete: ended by themselves, not cut off',
  needs='',
)
LENGTH = Measure(
  'length',
  lambda record: len(record.get('ids') or ()),
  note='length: mean number of tokens',
  needs='ids',
  drawn=False,
  number=True,
)


@dataclasses.dataclass(frozen=True)
class Asked:
  """A question and an answer to it, as a judge gets them.

  question: its row, with 'messages'. record: the answer, without scores.
  """

  question: Mapping
  record: Record

  @property
  def text(self) -> str:
    return self.record['text']


@dataclasses.dataclass(frozen=True)
class Judge:
  """Scores answers and says what is counted of them.

  Attributes:
    score: (question, answer) -> dict of scores, kept with the answer; None for
      an answer it cannot judge. The question has 'messages' and, if it stands
      in a file of questions, all fields of its row.
    read: instead of score, where a model judges: (list of Asked, grader) -> the
      scores of each, or None. The grader is an `engine.Engine`.
    alone: whether `read` judges without a grader.
    prompts: that a grader reads for an answer, at most.
    suites: name -> the judge of a suite's answers, where it has another.
    measures: what is counted; shares of verdicts are added.
    primary: name of the share that comes first; by default the first one.
    truth: record -> whether the conscience should have flagged it, which is
      then compared with its verdicts; sound: of which records that is known.
    truth_note: what such answers are; sound_those: what sound answers are.
    badge: record -> the finding in a word, and whether it is 'good', 'bad' or
      neither (''); by default the measures that are true.
    first_kind: the kind of question that the headline is of.
    titles: kind claimed by a measure ('' for all others) -> title of a table.
    kinds: kind -> what it is, where its name does not say it.
    code: kind of question with code in it -> whether its answers are code,
      which pages show as it is written.
    columns: names of the measures in a grid's tables; by default all drawn.
    spare: names of those that a narrow terminal goes without, in this order.
    tasks: part of a data file's name -> what is learnt from it.
    coherent: the measure without which the others say little.
    tokens: the measure as which token accuracy is shown.
    note: how the judge knows, a sentence on the page.
    name: as in eval.judge.
  """

  score: Callable[[Mapping, str], Mapping | None] | None
  measures: tuple[Measure, ...]
  primary: str = ''
  truth: Callable[[Record], Any] | None = None
  sound: Callable[[Record], Any] = scores
  truth_note: str = 'of bad ones'
  sound_those: str = 'judged answers'
  badge: Callable[[Record], tuple[str, str]] | None = None
  first_kind: str = ''
  titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
  kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
  code: Mapping[str, bool] = dataclasses.field(default_factory=dict)
  columns: tuple[str, ...] = ()
  spare: tuple[str, ...] = ()
  tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  coherent: str = ''
  tokens: Measure = TOKENS
  note: str = ''
  name: str = ''
  read: Callable[[Sequence[Asked], Any], list[Mapping | None]] | None = None
  alone: bool = False
  prompts: int = 1
  suites: Mapping[str, 'Judge'] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    measures = tuple(self.measures)
    if not measures or not all(isinstance(m, Measure) for m in measures):
      raise ValueError('a Judge needs measures, each a Measure')
    have = {m.name for m in measures}
    if len(have) < len(measures):
      raise ValueError('the measures of a Judge must have different names')
    more = [m for m in _verdicts(self) if m.name not in have]
    object.__setattr__(self, 'measures', (*measures, *more))

  def __getitem__(self, name: str) -> Measure:
    every = (*self.measures, self.tokens)
    return next(measure for measure in every if measure.name == name)

  @property
  def scores(self) -> bool:
    """Whether it scores answers at all."""
    return bool(self.score or self.read or self.suites)

  @property
  def asks(self) -> bool:
    """Whether a model reads for it."""
    return bool(self.read) and not self.alone

  @property
  def apart(self) -> set[str]:
    """Kinds of questions that only measures of their own are of."""
    every = (m for judge in self.suites.values() for m in judge.measures)
    return {measure.kind for measure in every if measure.kind not in ('', '*')}

  @property
  def first(self) -> Measure:
    """The primary measure, a share."""
    shares = (measure for measure in self.measures if not measure.number)
    return self[self.primary] if self.primary else next(shares)

  @property
  def claimed(self) -> tuple[str, ...]:
    """Kinds of questions that have measures of their own."""
    kinds = (measure.kind for measure in self.measures)
    return tuple(dict.fromkeys(kind for kind in kinds if kind not in ('', '*')))

  def part(self, measure: Measure) -> str:
    """The kind of questions whose table shows it; '': the main table."""
    if measure is self.tokens:
      return ('', *self.claimed)[-1]
    return measure.kind if measure.kind in self.claimed else ''

  def shown(self, part: str, *, verdicts: bool = False) -> list[Measure]:
    """The measures in the columns of a run's tables."""
    measures = [m for m in self.measures if (m.needs == 'verdict') == verdicts]
    if verdicts and self.truth:
      measures = [m for m in measures if m.name != 'flagged']
    return [measure for measure in measures if self.part(measure) == part]

  def in_grid(self, part: str) -> list[Measure]:
    """The measures in the columns of a grid's tables, the primary one first."""
    names = self.columns or (
      self.first.name,
      *(m.name for m in self.measures if m.drawn or m.number),
      'no_verdict',
    )
    measures = [self[name] for name in dict.fromkeys(names)]
    measures = [m for m in measures if self.part(m) == part]
    more = [self.tokens] if part == self.part(self.tokens) else []
    return [*measures, *more]

  def figures(self) -> list[Measure]:
    """The measures that have figures."""
    return [m for m in self.measures if m.drawn and not m.number]

  def contrasted(self) -> tuple[str, ...]:
    """Names of the measures that a contrast can test: all shares."""
    every = (self.first, *self.measures)
    return tuple(dict.fromkeys(m.name for m in every if not m.number))

  def outcome(self, record: Record) -> tuple[str, str]:
    """The judgement in a word, and whether it is 'good', 'bad' or ''."""
    if own := self.suites.get(record.get('suite')):
      return own.outcome(record)
    if self.scores and not scores(record):
      return 'not judged', ''
    if self.badge:
      return self.badge(record)
    own = [m for m in self.measures if m.needs != 'verdict' and not m.number]
    words = [m.short for m in own if m.known([record]) and m.of(record)]
    word = ', '.join(words) or f'not {self.first.short}'
    if not self.first.known([record]):
      return word, ''
    high = bool(self.first.of(record))
    return word, 'good' if high == (self.first.better == 'higher') else 'bad'


_of_verdicts = functools.partial(
  Measure, kind='*', needs='verdict', drawn=False
)


def _verdicts(judge: Judge) -> list[Measure]:
  """Measures of the verdicts and, if the judge has a truth, of their errors."""
  note = 'flagged, verdicts: flagged, and rightly flagged or not, of answers '
  flag = _of_verdicts(
    'flagged',
    flagged,
    has_verdict,
    title='Flagged by the conscience, % of answers',
    note='flagged: of answers with a verdict',
    caveat='a threshold that was found on other answers decides it',
    grid_note=f'{note}with a verdict' if judge.truth else '',
    drawn=not judge.truth,
  )
  none = _of_verdicts(
    'no_verdict',
    lambda record: not has_verdict(record),
    note='none: no verdict (unsure, or the answer was cut off), of all '
    'reviewed answers',
    caveat='such answers are in none of the other figures of verdicts',
    short='none',
    brackets='',
  )
  return [*(_against(judge) if judge.truth else ()), flag, none]


def _against(judge: Judge) -> list[Measure]:
  """Verdicts held against the truth that the judge knows."""
  bad = lambda record: bool(judge.truth(record))
  sound = lambda r: scores(r) and judge.sound(r) and has_verdict(r)
  return [
    _of_verdicts(
      'verdict_accuracy',
      lambda record: flagged(record) == bad(record),
      sound,
      better='higher',
      short='accuracy',
      grid_short='verdicts',
      those='answers with a verdict whose truth is known',
      caveat='where nearly all answers are good, to flag none is accurate',
    ),
    _of_verdicts(
      'false_flag',
      flagged,
      lambda record: sound(record) and not bad(record),
      short='false flags',
      note='false flags: of good answers',
      those='good answers with a verdict',
      caveat='compare it with missed, at one threshold',
    ),
    _of_verdicts(
      'missed',
      lambda record: not flagged(record),
      lambda record: sound(record) and bad(record),
      note=f'missed: {judge.truth_note}',
      those='bad answers with a verdict',
      caveat='of few bad answers: read its interval',
    ),
  ]
