"""The answers to a suite, taken apart for a page.

A suite has a part for each table of its judge, and a part has groups: the
answers whose rate is a figure of its own (the 24 questions of the first plot;
safe requests; the plain form), and others by which the rate is taken apart (the
form in which a question stands, the dimension of a self-report).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals import counts
from ealign.evals.judges import factual, harm, scale, self_report
from ealign.evals.judges.measure import Judge, Measure, scores
from ealign.evals.records import grouped
from ealign.evals.suites import contextual
from ealign.evals.suites.suite import Suite

PLAIN = 'plain'
_OTHER_FORM = 'in a context'
_ALL, OTHERS = 'all', 'other questions'
# Kind whose splits are conditions of one figure -> what the conditions are.
_CONDITIONS = {
  contextual.KIND: 'form',
  factual.KIND: 'system turn',
  harm.KIND: 'field',
  self_report.INTENTION: 'dimension',
  self_report.KIND: 'dimension',
  self_report.SAMPLED: 'dimension',
  self_report.FRAMED: 'framing',
}

_BY_FORMAT = self_report.KIND, self_report.SAMPLED, self_report.FRAMED


@dataclasses.dataclass(frozen=True)
class Group:
  """Answers of each model that are counted together.

  name: what they have in common. answers: model -> its records; no entry for a
  model without any. kind: of their questions.
  """

  name: str
  kind: str
  answers: Mapping[str, Sequence[Mapping]]

  @property
  def questions(self) -> int:
    found = (r for own in self.answers.values() for r in own)
    return len({record['question'] for record in found})


@dataclasses.dataclass(frozen=True)
class Part:
  """One table of a suite.

  Attributes:
    title: of the table. judge: of the suite. measures: its columns, those of
      which something was counted.
    heads: the groups whose figures are the results.
    apart: by what the answers are taken apart -> the groups.
  """

  title: str
  judge: Judge
  measures: tuple[Measure, ...]
  heads: tuple[Group, ...]
  apart: Mapping[str, tuple[Group, ...]]

  @property
  def first(self) -> Measure | None:
    """The measure that is the result; None where it counts nothing."""
    named = [m for m in self.measures if m.name == self.judge.primary]
    drawn = [m for m in self.measures if m.drawn]
    return (*named, *drawn, None)[0]

  def first_of(self, group: Group) -> Measure | None:
    """The measure that is the result of a group; None as above."""
    order = ([self.first] if self.first else []) + [
      m for m in self.measures if m.drawn
    ]
    found = (m for m in order if any(_total(m, group.answers)))
    return next(found, None)


def _total(measure: Measure, answers: Mapping[str, Any]):
  return (len(measure.known(own)) for own in answers.values())


def of_suite(
  suite: Suite, models: Mapping[str, Sequence[Mapping]]
) -> dict[str, list[Mapping]]:
  """Model -> its answers to the suite's questions, each once."""
  own = {
    name: [r for r in records if r.get('suite') == suite.name]
    for name, records in models.items()
  }
  return {name: counts.final(records) for name, records in own.items()}


def parts(suite: Suite, answers: Mapping[str, Sequence[Mapping]]) -> list[Part]:
  """The parts of a suite that have answers."""
  judge, made = suite.judge, []
  for part in ('', *judge.claimed):
    mine = lambda r, part=part: (
      (r['kind'] if r['kind'] in judge.claimed else '') == part
    )
    own = {name: [*filter(mine, rs)] for name, rs in answers.items()}
    own = {name: records for name, records in own.items() if records}
    if not own:
      continue
    heads, apart = _apart(part or judge.first_kind, own)
    known = [
      m
      for m in judge.shown(part)
      if m.needs != 'verdict' and any(_total(m, own))
    ]
    title = judge.titles.get(part) or part or suite.title
    made.append(Part(title, judge, tuple(known), heads, apart))
  return made


def _apart(kind, answers) -> tuple[tuple[Group, ...], dict]:
  """(groups whose figures are results, by what others are taken apart)."""
  every = [record for own in answers.values() for record in own]
  splits = grouped(every, lambda r: (r['kind'], str(r.get('split') or '')))
  if kind == contextual.KIND:
    plain = lambda record: record.get('form') == PLAIN
    heads = [_picked(PLAIN, kind, answers, plain)]
    other = lambda record: not plain(record)
    heads.append(_picked(_OTHER_FORM, kind, answers, other))
    heads = [group for group in heads if group.answers]
  elif kind in _CONDITIONS:
    heads = [Group(_ALL, kind, answers)]
  else:
    return _by_split(kind, answers, splits)
  conditions = [
    _picked(split, kind, answers, lambda r, s=split: r.get('split') == s)
    for _, split in splits
  ]
  apart = {_CONDITIONS[kind]: tuple(conditions)}
  if kind in _BY_FORMAT:
    formats = dict.fromkeys(scores(r).get('format') for r in every)
    apart['format'] = tuple(
      _picked(
        form,
        kind,
        answers,
        lambda r, form=form: scores(r).get('format') == form,
      )
      for form in formats
      if form
    )
  return tuple(heads), apart


def _by_split(kind, answers, splits):
  """Each split is a result, or `test` where there is one, of the first kind."""
  kinds = list(dict.fromkeys(own for own, _ in splits))
  first = kind if kind in kinds else kinds[0]
  own = [split for k, split in splits if k == first]
  heads = ['test'] if 'test' in own else own
  made: tuple[list, list] = [], []
  for one, split in splits:
    words = [one] * (len(kinds) > 1) + [split] * bool(split)
    same = lambda r, one=one, split=split: (
      r['kind'] == one and str(r.get('split') or '') == split
    )
    group = _picked(', '.join(words) or _ALL, one, answers, same)
    made[one != first or split not in heads].append(group)
  others = {OTHERS: tuple(made[1])} if made[1] else {}
  return tuple(made[0]), others


def _picked(name, kind, answers, which) -> Group:
  own = {model: [*filter(which, rs)] for model, rs in answers.items()}
  return Group(name, kind, {model: rs for model, rs in own.items() if rs})


def numbered(records: Sequence[Mapping]) -> list[Mapping]:
  """Those that a judge of numbers read; a number may still be missing."""
  return [
    record
    for record in records
    if all(
      name in scores(record) and not isinstance(scores(record)[name], bool)
      for name in scale.ASPECTS
    )
  ]
