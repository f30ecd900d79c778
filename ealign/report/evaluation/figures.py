"""The figures of an evaluation, in SVG user units; the template draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals.judges import scale
from ealign.evals.judges.measure import scores
from ealign.evals.records import grouped
from ealign.report import figures
from ealign.report.evaluation import groups, tables
from ealign.report.evaluation.groups import Part
from ealign.report.excerpts import draw

DOTS = 300  # of a model in a scatter


def forests(part: Part, slots: Mapping[str, int]) -> list[dict[str, Any]]:
  """One forest for each group; those of one measure have one scale."""
  made = []
  of_measure = grouped(part.heads, part.first_of)
  for measure, own in of_measure.items():
    if measure is None:
      continue
    lines = {group.name: _lines(measure, group, slots) for group in own}
    every = [x[4] for many in lines.values() for x in many]
    for name, many in lines.items():
      title = f'{name}: {_title(measure)}' if len(part.heads) > 1 else ''
      made.append(_forest(title or _title(measure), many, axis(every)))
  return [figure for figure in made if figure['lines']]


def _lines(measure, group, slots) -> list[tuple]:
  """(model, slot, value, low, high, the same in words, counts behind it)."""
  unit, made = 1 if measure.number else 100, []
  for model, found in tables.rates(measure, group).items():
    low, high = tables.limits(found) or (found.value, found.value)
    points = [unit * x for x in (found.value, low, high)]
    cell = tables.cell(measure, found)
    made.append((model, slots[model], *points, str(cell), cell.hint))
  return made


def _forest(title, lines, scale_) -> dict[str, Any]:
  end, ticks = scale_
  frame = figures.Frame(170, 424, 8, 8 + 26 * len(lines), end)
  return {'title': title, 'frame': frame, 'ticks': ticks, 'lines': lines}


def _title(measure) -> str:
  if not measure.number:
    return measure.title
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
      own = groups.numbered(records)
      pairs = [(r, *map(scores(r).get, scale.ASPECTS)) for r in own]
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
  sizes = (size * x for x in (0.2, 0.5, 1, 2))
  step = next(x for x in sizes if (high - low) / x <= 6)
  first = step * math.floor(low / step)
  return first, step, math.ceil((high - first) / step)
