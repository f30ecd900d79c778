"""What the page of an evaluation shows, and the sentences of its results."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.evals import table
from ealign.evals.calibration import Calibration
from ealign.evals.suites.suite import Suite
from ealign.report import figures
from ealign.report.evaluation import about, bars, groups, tables
from ealign.report.evaluation import answers as answers_lib
from ealign.report.evaluation import corrected as corrected_lib
from ealign.report.evaluation import figures as drawn
from ealign.report.evaluation.groups import Part
from ealign.runtime.errors import quantity

_NAMED = 6  # models in a sentence


def collect(
  models: Mapping[str, Iterable[Mapping]],
  suites: Sequence[Suite],
  *,
  settings: Mapping[str, Any] | None = None,
  judge: Mapping[str, str] | None = None,
  judge_card: Calibration | None = None,
  files: Mapping[str, Sequence[tuple[str, str]]] | None = None,
  costs: Sequence[str] = (),
  benign: str | None = None,
  losses: Mapping[str, float] | None = None,
  remarks: Sequence[str] = (),
  cells: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
  """Everything on the page, as plain values without markup.

  Args:
    models: name -> its answer records, of all suites (their field `suite`).
    suites: that were asked, with what is counted of their answers.
    settings: name -> value, shown as they are: what was sampled and how.
    judge: who judged: name, model, prompt (hashes) and mode.
    judge_card: of its calibration; the rates are then corrected as well.
    files: name of a suite -> (file, sha256) of its questions.
    costs: sentences on what it took.
    benign: the model that others are compared with, tuned on something
      harmless; by default the first one.
    losses: model -> loss of the fine-tuning data, nats a token.
    remarks: what to know before any number, besides what the records show.
    cells: model -> (arm, seed) of the run that left it; arms are then compared
      over their seeds as well.

  Raises:
    ValueError: `benign` is none of the models.
  """
  models = {name: list(records) for name, records in models.items()}
  if benign and benign not in models:
    raise ValueError(f'benign={benign!r} is none of {", ".join(models)}')
  reference = benign or next(iter(models), '')
  slots = _slots([*models], reference)
  against = f'{reference} (benign SFT)' if benign else reference
  made, problems = [], [*remarks]
  for suite in suites:
    own = groups.of_suite(suite, models)
    parts = groups.parts(suite, own)
    problems += about.problems(suite, parts)
    shown = [
      _part(part, slots, reference, against, judge_card, judge or {}, cells)
      for part in parts
    ]
    problems += [x for part in shown for x in part.pop('warnings')]
    made.append(
      {
        'name': suite.name,
        'title': suite.title,
        'note': suite.judge.note,
        'asked': about.asked(suite, own),
        'files': list((files or {}).get(suite.name, ())),
        'loss': parts and drawn.against_loss(parts[0], losses or {}, slots),
        'parts': shown,
      }
    )
  return {
    'title': 'Evaluation',
    'models': [(name, slot) for name, slot in slots.items()],
    'slots': slots,
    'suites': made,
    'summary': [
      (suite['title'], said)
      for suite in made
      for part in suite['parts']
      for said in part['said']
    ],
    'problems': list(dict.fromkeys(problems)),
    'reference': against,
    'judge': [(k, str(v)) for k, v in (judge or {}).items() if v],
    'card': about.card_rows(judge_card),
    'settings': [(k, table.shown(v)) for k, v in (settings or {}).items()],
    'costs': list(costs),
  }


def _slots(names, reference) -> dict[str, int]:
  """The colour and mark of each model; 0, grey, is the reference."""
  others = [name for name in names if name != reference]
  own = {name: at % figures.SLOTS + 1 for at, name in enumerate(others)}
  return {name: own.get(name, 0) for name in names}


def _part(part: Part, slots, reference, against, card, judge, cells) -> dict:
  by = 'answers' if len(part.heads) > 1 else ''
  made = {
    'title': part.title,
    'said': _said(part, reference),
    'block': tables.counted(part, part.heads, part.title, by),
    'plain': None,
    'apart': [
      _taken(part, name, own, slots) for name, own in part.apart.items()
    ],
    'power': [
      (group.name if by else '', said)
      for group in part.heads
      if (said := tables.power(part, group, reference))
    ],
    'differences': tables.differing(part, reference, against, cells or {}),
    'forests': drawn.forests(part, slots),
    'scatters': drawn.scatters(part, slots),
    'most': drawn.DOTS,
    'bars': bars.by_question(part, slots),
    'cards': answers_lib.cards(part),
    'corrected': None,
    'warnings': [],
  }
  made['plain'] = tables.plainer(made['block'], part)
  if card and (found := corrected_lib.corrected(part, card, judge)):
    made['corrected'], made['warnings'] = found
  return made


def _taken(part: Part, name: str, own, slots) -> tuple:
  """The table of groups by which answers are taken apart, and its figure."""
  plain = next((g for g in part.heads if g.name == groups.PLAIN), None)
  plain = plain if part.first and len(part.heads) > 1 else None
  title = name.capitalize() if name == groups.OTHERS else f'By {name}'
  block = tables.counted(part, own, title, name, plain)
  if plain is None:  # its columns are those of the table above
    block = dataclasses.replace(block, note='')
  return block, bars.by_group(part, own, name, slots)


def _said(part: Part, reference: str) -> list[str]:
  """One sentence for each group: the figure of each model, the difference."""
  made = []
  for group in part.heads:
    measure = part.first_of(group)
    which = f', {group.name}' if len(part.heads) > 1 else ''
    where = f'({quantity(group.questions, "question")}{which})'
    if measure is None:
      made.append(f'{part.title} {where}: nothing could be counted.')
      continue
    found = tables.rates(measure, group)
    unit = '' if measure.number else ' %'
    figures_ = []
    for model, share in [*found.items()][:_NAMED]:
      interval = tables.bracket(measure, tables.limits(share))
      value = f'{model} {tables.figure(measure, share.value)}{unit}'
      figures_.append(f'{value} {interval}'.strip())
    more = len(found) - len(figures_)
    figures_ += [f'{more} more in the table'] * (more > 0)
    name = measure.title.removesuffix(', %')
    if measure.number:
      name = f'{measure.short[:1].upper()}{measure.short[1:]}, mean'
    made.append(f'{name} {where}: {"; ".join(figures_)}.')
    made[-1] += _apart(measure, group, reference)
  return made


def _apart(measure, group, reference) -> str:
  """The difference of the model that is furthest from the reference."""
  base = group.answers.get(reference)
  if not base:
    return ''
  others = {m: own for m, own in group.answers.items() if m != reference}
  found = {m: tables.compare(measure, own, base) for m, own in others.items()}
  found = {m: d for m, d in found.items() if d}
  if not found:
    return ''
  model = max(found, key=lambda m: abs(found[m].value))
  best = found[model]
  low, high = best.interval
  ends = f'[{table.points(low)}, {table.points(high)}]'
  sure = '' if low > 0 or high < 0 else ', no clear difference'
  size = f'{table.points(best.value)} points {ends}'
  return f' {model} against {reference}, by question: {size}{sure}.'


def lines(content: Mapping[str, Any]) -> list[str]:
  """The results in sentences, for a terminal."""
  said = [': '.join(pair) for pair in content['summary']]
  for suite in content['suites']:
    for part in suite['parts']:
      said += [f'{part["title"]}: {text}' for _, text in part['power']]
  return said + [f'Note: {problem}' for problem in content['problems']]


def blocks(content: Mapping[str, Any]) -> list[table.Block]:
  """The tables for a terminal."""
  parts = [part for suite in content['suites'] for part in suite['parts']]
  made = [(p['plain'], p['differences'], p['corrected']) for p in parts]
  return [block for own in made for block in own if block]
