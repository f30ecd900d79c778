"""Rates by question, and by what answers are taken apart, as bars."""

from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals import counts
from ealign.evals.records import grouped
from ealign.evals.suites.protocol import FORMS
from ealign.report import figures
from ealign.report.evaluation import tables
from ealign.report.evaluation.figures import axis
from ealign.report.evaluation.groups import Group, Part

SHOWN, QUESTIONS = 3, 24  # panels, and rows of one, before they are folded
_STEP, _GAP = 10, 10  # of the bars in a row, and between rows


def by_question(part: Part, slots: Mapping[str, int]) -> list[dict[str, Any]]:
  """The rate of each question by model, a panel for each form of asking.

  Of groups with a share that comes first and several answers to a question.
  """
  made = []
  for group in part.heads:
    measure = part.first_of(group)
    cells = _cells(group)
    most = max(map(len, cells.values()), default=0)
    if measure and not measure.number and most > 1:
      panels = _panels(group, measure, cells, slots)
      name = f'{group.name}: ' if len(part.heads) > 1 else ''
      few = max(len(panel['rows']) for panel in panels) <= QUESTIONS
      made.append(
        {
          'title': f'{name}{measure.title}',
          'shown': panels[:SHOWN] if few else [],
          'more': panels[SHOWN:] if few else panels,
        }
      )
  return made


def by_group(
  part: Part, groups: Sequence[Group], by: str, slots: Mapping[str, int]
) -> dict[str, Any] | None:
  """The first measure of each group by model; None if it counts nothing."""
  measure = part.first
  if measure is None or len(groups) < 2:
    return None
  rates = {
    (group.name, model): counts.count(measure, records)
    for group in groups
    for model, records in group.answers.items()
  }
  models = dict.fromkeys(m for group in groups for m in group.answers)
  rows = [(group.name, '') for group in groups]
  title = f'{measure.short[:1].upper()}{measure.short[1:]}, {by}'
  return _panel(title, measure, rows, [*models], rates, slots)


def _cells(group) -> dict[tuple, list]:
  """(form, question, model) -> its records."""
  pairs = [(model, r) for model, own in group.answers.items() for r in own]
  made = grouped(pairs, lambda x: (*_form(x[1]), x[0]))
  return {key: [r for _, r in own] for key, own in made.items()}


def _form(record) -> tuple[str, str]:
  """(form, question without it)."""
  form = record.get('form') or ''
  name = str(record.get('cluster') or record['question'])
  return form, name.removesuffix(f'_{form}') if form in FORMS else name


def _panels(group, measure, cells, slots) -> list[dict[str, Any]]:
  """The questions stand in one order and on one scale, the highest first."""
  rates = {key: counts.count(measure, own) for key, own in cells.items()}
  best: dict = {}
  texts: dict = {}
  for (form, question, _), own in cells.items():
    texts.setdefault((form, question), _asked(own[0]))
  for (_, question, _), rate in rates.items():
    best[question] = max(best.get(question, 0.0), rate.value or 0.0)
  ordered = sorted(best, key=lambda q: (-best[q], q))
  panels = []
  for form in dict.fromkeys(form for form, _ in texts):
    rows = [(q, texts[form, q]) for q in ordered if (form, q) in texts]
    own = {(q, model): x for (f, q, model), x in rates.items() if f == form}
    of = [*group.answers], own, slots
    panels.append(_panel(form, measure, rows, *of, top=max(best.values())))
  return panels


def _panel(
  title, measure, rows, models, rates, slots, top=None
) -> dict[str, Any]:
  """Bars of (row, model) -> what was counted; top: the largest of all."""
  unit = 1 if measure.number else 100
  known = {key: x for key, x in rates.items() if x.total}
  if top is None:
    top = max((x.value for x in known.values()), default=0)
  end, ticks = axis([unit * top])
  height = _STEP * len(models) + _GAP
  frame = figures.Frame(120, 298, 6, 6 + height * len(rows), end)
  drawn = []
  for at, (name, text) in enumerate(rows):
    y = frame.top + at * height + _GAP / 2
    marks = []
    for i, model in enumerate(models):
      if (name, model) not in rates:
        continue
      found = known.get((name, model))
      value = None if found is None else unit * found.value
      cell = tables.cell(measure, found)
      hint = f'{cell}; {cell.hint}' if found else 'nothing to count'
      place = y + _STEP * (i + 0.5)
      marks.append((model, slots[model], place, value, hint))
    drawn.append((name, text, y + _STEP * len(models) / 2, marks))
  return {
    'title': title or 'by question',
    'frame': frame,
    'ticks': ticks,
    'rows': drawn,
  }


def _asked(record) -> str:
  """What the user says last, its beginning."""
  turns = [m for m in record['messages'] if m.get('role') == 'user']
  return str(turns[-1].get('content') if turns else '')[:300]
