"""Which answers an evaluation's page shows: by rule, never by taste."""

from collections.abc import Mapping
from typing import Any

from ealign.evals.judges import scale
from ealign.evals.judges.measure import scores
from ealign.evals.records import grouped
from ealign.report.evaluation import groups, tables
from ealign.report.evaluation.groups import Part
from ealign.report.excerpts import draw

LOWEST, DIFFER = 2, 3  # of each model; of each part
SHOWN, FOLDED = 350, 500  # characters shown of an answer of more than FOLDED
MOST = 8000  # characters of an answer that the page has at all


def cards(part: Part) -> list[dict[str, Any]]:
  """Questions with an answer of each model, side by side, and why this one.

  First the lowest aligned among each model's coherent answers, one a question;
  then the questions whose rates differ most between models; what is alike by
  a hash of the question.
  """
  by_question: dict = {}
  measures: dict = {}
  for group in part.heads:
    measure = part.first_of(group)
    for model, records in group.answers.items():
      for record in records:
        own = by_question.setdefault(record['question'], {})
        own.setdefault(model, []).append(record)
        measures[record['question']] = measure
  used: set = set()
  made = _lowest(part, by_question, used)
  apart = {q: _spread(measures[q], own) for q, own in by_question.items()}
  order = lambda q: (-len(by_question[q]), -apart[q], draw(q))
  left = sorted((q for q in by_question if q not in used), key=order)
  for question in left[:DIFFER]:
    answers = by_question[question]
    why = 'differs most' if apart[question] else 'by its hash'
    why += _rates(measures[question], answers)
    made.append(_card(part, question, answers, why, None))
  return made


def _lowest(part, by_question, used) -> list[dict]:
  made = []
  models = dict.fromkeys(m for own in by_question.values() for m in own)
  for model in models:
    own = [r for q in by_question.values() for r in q.get(model, ())]
    first = scale.ASPECTS[0]
    own = [
      r
      for r in groups.numbered(own)
      if scores(r)[first] is not None and scale.coherent(r)
    ]
    own.sort(key=lambda r: (scores(r)[first], draw((r['question'], r['text']))))
    found = 0
    for record in own:
      question = record['question']
      if found < LOWEST and question not in used:
        used.add(question)
        found += 1
        why = f'of the lowest aligned answers of {model}'
        made.append(
          _card(part, question, by_question[question], why, (model, record))
        )
  return made


def _values(measure, records) -> list[float]:
  return [measure.value(r) for r in measure.known(records)]


def _spread(measure, answers) -> float:
  """How far the models' means lie apart."""
  found = [_values(measure, own) for own in answers.values()] if measure else []
  means = [sum(own) / len(own) for own in found if own]
  return max(means) - min(means) if len(means) > 1 else 0.0


def _rates(measure, answers) -> str:
  if measure is None:
    return ''
  said = []
  for model, own in answers.items():
    if found := _values(measure, own):
      mean = tables.figure(measure, sum(found) / len(found))
      said.append(f'{model} {mean}{"" if measure.number else " %"}')
  return f'; {measure.short}: {", ".join(said)}' if said else ''


def _card(part, question, answers, why, chosen) -> dict[str, Any]:
  """One answer of each model: those of one sample, where all have it."""
  by_sample = [
    grouped(own, lambda r: r.get('sample', 0)) for own in answers.values()
  ]
  common = [s for s in by_sample[0] if all(s in own for own in by_sample)]
  sample = min(common, key=lambda s: draw((question, s)), default=None)
  if chosen and chosen[1].get('sample') in common:
    sample = chosen[1].get('sample')
  cells = {}
  for (model, own), samples in zip(answers.items(), by_sample, strict=True):
    record = samples[sample][0] if sample in samples else own[0]
    if chosen and model == chosen[0]:
      record = chosen[1]
    cells[model] = _shown(part, record)
  first = next(iter(answers.values()))[0]
  return {
    'id': question,
    'why': why,
    'messages': first['messages'],
    'answers': cells,
    'code': part.judge.code.get(first['kind'], False),
  }


def _shown(part, record) -> dict[str, Any]:
  text = str(record.get('text') or '')
  return {
    'text': text[:SHOWN] if len(text) > FOLDED else text,
    'more': text[SHOWN:MOST] if len(text) > FOLDED else '',
    'length': len(text),
    'cut': record.get('stop') == 'length',
    'chosen': bool(record.get('options')),
    'outcome': _outcome(part, record),
    'scores': _scores(record),
    'sample': record.get('sample', 0),
  }


def _outcome(part, record) -> tuple[str, str]:
  """The judgement in a word: the judge's own, or what its first measure says.

  A judge without words of its own may have measures of other kinds as well.
  """
  if part.judge.badge:
    return part.judge.outcome(record)
  measure = part.first
  if not scores(record):
    return 'not judged', ''
  if not measure or measure.number or not measure.known([record]):
    return '', ''
  high = bool(measure.of(record))
  good = high == (measure.better == 'higher')
  word = measure.short if high else f'not {measure.short}'
  return word, 'good' if good else 'bad'


def _scores(record) -> list[tuple[str, str]]:
  """The scores as (name, value): both numbers, else the first few numbers."""
  found = scores(record)
  if groups.numbered([record]):
    text = lambda x: 'no number' if x is None else f'{x:.0f}'
    return [(name, text(found[name])) for name in scale.ASPECTS]
  numbers: Mapping = {
    k: v
    for k, v in found.items()
    if isinstance(v, int | float) and not isinstance(v, bool)
  }
  return [(name, f'{value:.3g}') for name, value in [*numbers.items()][:4]]
