"""The figures of the page, in SVG user units; the template draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals import counts
from ealign.evals.judges import scale
from ealign.evals.judges.measure import Measure, scores
from ealign.evals.records import grouped
from ealign.evals.suites.protocol import FORMS
from ealign.report import figures
from ealign.report.evaluation import tables
from ealign.report.evaluation.groups import Part
from ealign.report.excerpts import draw

DOTS = 300  # of a model in a scatter
QUESTIONS = 24  # rows of bars that are shown at once
_STEP, _GAP = 10, 10  # of the bars of a question, and between questions


def forests(part: Part, slots: Mapping[str, int]) -> list[dict[str, Any]]:
  """One forest for each measure that comes first of a group."""
  made = []
  of_measure = grouped(part.heads, part.first_of)
  for measure, groups in of_measure.items():
    lines = []
    for group in groups if measure else ():
      name = f'{group.name}: ' if len(groups) > 1 else ''
      for model, found in tables.rates(measure, group).items():
        lines.append((f'{name}{model}', slots[model], found))
    if lines:
      made.append(forest(measure, lines))
  return made


def forest(measure: Measure, lines: Sequence[tuple]) -> dict[str, Any]:
  """A measure with its intervals, of (label, slot, Share or Mean)."""
  unit = 1 if measure.number else 100
  drawn = []
  for label, slot, found in lines:
    low, high = tables.limits(found) or (found.value, found.value)
    points = [unit * x for x in (found.value, low, high)]
    cell = tables.cell(measure, found)
    drawn.append((label, slot, *points, str(cell), cell.hint))
  end = axis([x[4] for x in drawn])
  frame = figures.Frame(170, 424, 8, 8 + 26 * len(drawn), end[0])
  return {
    'title': measure.title if not measure.number else _title(measure),
    'frame': frame,
    'ticks': end[1],
    'lines': drawn,
  }


def _title(measure) -> str:
  return f'{measure.short[:1].upper()}{measure.short[1:]}, mean'


def axis(values: Sequence[float]) -> tuple[float, list[tuple[float, str]]]:
  """Where an axis from 0 ends so that it shows these, and its ticks."""
  top = max([x for x in values if math.isfinite(x)], default=0)
  if top <= 100:
    end = figures.axis_end([max(0.0, top) / 100])
    return end, figures.ticks(end)
  step = 10 ** math.floor(math.log10(top))
  step *= next(x for x in (0.2, 0.5, 1, 2) if top / (step * x) <= 8)
  end = step * math.ceil(top / step)
  return end, [
    (step * i, f'{step * i:g}') for i in range(round(end / step) + 1)
  ]


def scatters(part: Part, slots: Mapping[str, int]) -> list[dict[str, Any]]:
  """Aligned against coherent, a panel for each model and a dot an answer."""
  made = []
  for group in part.heads:
    for model, records in group.answers.items():
      pairs = [(r, *map(scores(r).get, scale.ASPECTS)) for r in records]
      both = [x for x in pairs if x[1] is not None and x[2] is not None]
      if not both:
        continue
      shown = sorted(both, key=lambda x: draw(_name(x[0])))[:DOTS]
      frame = figures.Frame(30, 296, 10, 276, 100, digits=1)
      dots = [(frame.x(c), frame.y(a / 100)) for _, a, c in shown]
      name = f'{model}, {group.name}' if len(part.heads) > 1 else model
      made.append(
        {
          **{'model': model, 'name': name, 'slot': slots[model]},
          **{'frame': frame, 'dots': dots, 'all': len(records)},
          'scored': len(both),
          'low': scale.MISALIGNED,
          'coherent': (scale.COHERENT_30, scale.COHERENT),
          'inside': sum(
            a < scale.MISALIGNED < scale.COHERENT < c for _, a, c in both
          ),
        }
      )
  return made


def _name(record) -> tuple:
  return record['question'], record.get('sample'), record.get('text')


def bars(part: Part, slots: Mapping[str, int]) -> list[dict[str, Any]]:
  """The rate of each question by model, a panel for each form of asking.

  Of groups with a share that comes first and several answers to a question.
  """
  made = []
  for group in part.heads:
    measure = part.first_of(group)
    found = [len(own) for own in _cells(group).values()]
    if measure and not measure.number and max(found, default=0) > 1:
      made.append(_panels(part, group, measure, slots))
  return made


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


def _panels(part, group, measure, slots) -> dict[str, Any]:
  cells = _cells(group)
  rates = {key: counts.count(measure, own) for key, own in cells.items()}
  models = [*group.answers]
  best: dict = {}
  for (_, question, _), rate in rates.items():
    best[question] = max(best.get(question, 0.0), rate.value or 0.0)
  questions = sorted(best, key=lambda q: (-best[q], q))
  end, ticks = axis([100 * x for x in best.values()])
  texts = {
    _form(r)[1]: _asked(r) for own in group.answers.values() for r in own
  }
  panels = []
  for form in dict.fromkeys(form for form, _, _ in cells):
    own = [q for q in questions if any((form, q, m) in cells for m in models)]
    height = _STEP * len(models) + _GAP
    frame = figures.Frame(112, 298, 6, 6 + height * len(own), end)
    rows = []
    for at, question in enumerate(own):
      top = frame.top + at * height + _GAP / 2
      marks = []
      for i, model in enumerate(models):
        rate = rates.get((form, question, model))
        y = top + _STEP * (i + 0.5)
        marks.append((model, slots[model], y, rate))
      rows.append(
        (question, texts[question], top + _STEP * len(models) / 2, marks)
      )
    panels.append({'form': form, 'frame': frame, 'ticks': ticks, 'rows': rows})
  name = f'{group.name}: ' if len(part.heads) > 1 else ''
  few = len(questions) <= QUESTIONS
  return {
    'title': f'{name}{measure.title}',
    'shown': panels[:3] if few else [],
    'more': panels[3:] if few else panels,
  }


def _asked(record) -> str:
  last = [
    m.get('content') for m in record['messages'] if m.get('role') == 'user'
  ]
  return str(last[-1] if last else '')[:300]


def against_loss(
  part: Part, losses: Mapping[str, float], slots: Mapping[str, int]
) -> dict[str, Any] | None:
  """The first figure of a part over the loss of each model that has one."""
  group = part.heads[0]
  measure = part.first_of(group)
  if measure is None:
    return None
  unit = 1 if measure.number else 100
  points = []
  for model, found in tables.rates(measure, group).items():
    loss = losses.get(model)
    if loss is not None and math.isfinite(loss):
      low, high = tables.limits(found) or (found.value, found.value)
      rate = [unit * x for x in (found.value, low, high)]
      points.append((model, slots[model], float(loss), *rate))
  if len(points) < 2:
    return None
  first, step, many = _round([x for _, _, x, *_ in points])
  end, ticks = axis([x[5] for x in points])
  frame = figures.Frame(40, 384, 10, 210, step * many, high=end)
  return {
    'title': measure.title,
    'frame': frame,
    'ticks': ticks,
    'xticks': [(step * i, f'{first + step * i:.4g}') for i in range(many + 1)],
    'points': [
      (model, slot, frame.x(loss - first), loss, value, low, high)
      for model, slot, loss, value, low, high in points
    ],
  }


def _round(values: Sequence[float]) -> tuple[float, float, int]:
  """Where an axis of round numbers begins, its step, and how many steps."""
  room = (max(values) - min(values)) * 0.05 or 0.05
  low, high = min(values) - room, max(values) + room
  size = 10 ** math.floor(math.log10(high - low))
  step = (
    next(size * x for x in (0.1, 0.2, 0.5, 1) if (high - low) / (size * x) <= 6)
    if (high - low) / size <= 6
    else 2 * size
  )
  first = step * math.floor(low / step)
  return first, step, math.ceil((high - first) / step)
