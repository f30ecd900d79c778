"""What a grid's figures show; the template draws it.

The forest is drawn in per cent of its width, so that it needs no fixed size;
the curves in SVG user units.
"""

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from scipy import special

from ealign.evals import table
from ealign.evals.records import grouped
from ealign.report import figures
from ealign.report.curves import REFLECTED
from ealign.report.grid import results
from ealign.report.grid.compare import Comparison, Setting

_REFLECTED = 'Flagged while training, % of answers with a verdict'


def groups(compared: Comparison) -> dict[str, list[Setting]]:
  """Current settings, without the baseline, by the fields they change."""
  others = (s for s in compared.settings if s is not compared.baseline)
  title = lambda setting: ', '.join(setting.changes) or 'the base config'
  return grouped((s for s in others if not s.old), title)


def forest(compared: Comparison, metric: str) -> dict[str, Any] | None:
  """The metric's intervals of all settings, by group; None without any."""
  parts = [[compared.baseline], *groups(compared).values()]
  parts.append([s for s in compared.settings if s.old])
  pairs = lambda part: [(s, compared.estimate(s, metric)) for s in part]
  made = [[(s, e) for s, e in pairs(part) if e] for part in parts]
  limits = [x for lines in made for _, e in lines for x in e.interval]
  if not limits:
    return None
  at, ticks = logit_axis(limits)
  base = compared.estimate(compared.baseline, metric)
  return {
    'metric': metric,
    'at': at,
    'ticks': ticks,
    'base': base and at(base.value),
    'groups': [lines for lines in made if lines],
  }


_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 99, 99.5)
_TICKS += (99.8, 99.9)


def logit_axis(limits):
  """A logit scale: maps shares to per cent of the width; and its ticks.

  A linear one would squeeze all settings of a few per cent where one has half.
  Shares under 0.1 % or over 99.9 % stand at the edge.
  """
  low = max([t for t in _TICKS if t <= 100 * min(limits)] or [_TICKS[0]])
  high = min([t for t in _TICKS if t >= 100 * max(limits)] or [_TICKS[-1]])
  if low == high:
    low, high = _TICKS[0], _TICKS[-1]
  start, end = special.logit(low / 100), special.logit(high / 100)

  def at(share):
    share = min(max(share, low / 100), high / 100)
    return round(100 * float((special.logit(share) - start) / (end - start)), 2)

  ticks = []
  for tick in (t for t in _TICKS if low <= t <= high):
    place = at(tick / 100)
    if not ticks or place - ticks[-1][0] >= 9:
      ticks.append((place, f'{tick:g}'))
  return at, ticks


# ---------------------------------------------------------------- the curves


def curves(compared: Comparison) -> list[dict[str, Any]]:
  """For each group its panels: the baseline in grey, means over thin seeds."""
  judge, made = compared.judge, []
  names = [measure.name for measure in judge.figures()]
  names += [judge.tokens.name, 'flagged', REFLECTED]
  for title, group in groups(compared).items():
    for start in range(0, len(group), figures.SLOTS):
      shown = [compared.baseline, *group[start : start + figures.SLOTS]]
      panels = [_panel(judge, shown, name) for name in dict.fromkeys(names)]
      if panels := [panel for panel in panels if panel]:
        legend = [(s.label, slot) for slot, s in enumerate(shown)]
        part = title + (' (continued)' if start else '')
        made.append({'title': part, 'legend': legend, 'panels': panels})
  return made


def _panel(judge, shown, name) -> dict[str, Any] | None:
  series = []
  for slot, setting in enumerate(shown):
    lines = [cell.curves.get(name, ()) for cell in setting.counted]
    if lines := [line for line in lines if len(line) > 1]:
      series.append((setting.label, slot, lines, _mean(lines)))
  if not any(slot for _, slot, _, _ in series):
    return None
  points = [p for *_, lines, _ in series for line in lines for p in line]
  steps, values = zip(*points, strict=True)
  low, high, ticks = _axis(min(values), max(values))
  last = max(steps)
  xticks = figures.step_ticks(last)
  title = _REFLECTED if name == REFLECTED else judge[name].title
  return {
    'title': title,
    'frame': figures.Frame(30, 236, 8, 112, max(last, 1), low, high, digits=1),
    'xticks': xticks if len(xticks) < 5 else xticks[::2],
    'yticks': ticks,
    'series': series,
  }


def _mean(lines) -> list[tuple[int, float]]:
  """The mean over seeds, at the steps that all of them have."""
  tables = [dict(line) for line in lines]
  steps = [step for step, _ in lines[0] if all(step in t for t in tables)]
  mean = lambda step: sum(t[step] for t in tables) / len(tables)
  return [(step, mean(step)) for step in steps] or lines[0]


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
  """Ends and ticks in per cent; starts at 0 unless all shares are far above."""
  if low < 0.5:
    end = figures.axis_end([high])
    values = [value for value, _ in figures.ticks(end)]
    return 0.0, end, values if len(values) < 6 else [0, end / 2, end]
  start = next(s for s in (98, 95, 90, 80, 70, 60, 50) if s <= 100 * low)
  return start, 100.0, [start, (start + 100) / 2, 100]


# -------------------------------------------------------------- the heat maps


def heat(compared: Comparison, metric: str) -> list[dict[str, Any]]:
  """A map for each pair of axes that is fully crossed, all else default."""
  current = [s for s in compared.settings if not s.old]
  axes = {(field,) for s in current for field in s.changes}
  axes |= {tuple(fields) for fields in compared.grid.axes.values()}
  axes = sorted(axis for axis in axes if 0 < len(axis) < 4)
  made = {}
  for pair in itertools.combinations(axes, 2):
    places = _crossed(compared.grid.config, current, *pair)
    cells = frozenset(s.label for s in places.values())
    if places and cells not in made:
      made[cells] = _drawn(compared, metric, pair, places)
  return [*made.values()]


def _crossed(config, settings, rows, columns) -> dict[tuple, Setting]:
  """(level of rows, level of columns) -> setting; {} if not fully crossed."""
  if set(rows) & set(columns):
    return {}
  own = [s for s in settings if set(s.changes) <= {*rows, *columns}]
  value = lambda s, field: results.key(s.changes.get(field, config.get(field)))
  level = lambda s, axis: tuple(value(s, field) for field in axis)
  places = _full({(level(s, rows), level(s, columns)): s for s in own})
  return places if min(map(len, _levels(places))) > 1 else {}


def _levels(places) -> list[dict]:
  """The levels of the rows, and of the columns."""
  return [dict.fromkeys(place[at] for place in places) for at in (0, 1)]


def _full(places: Mapping) -> dict:
  """The places without the levels that leave gaps, the emptiest ones first.

  So a default beside a crossed design is no hole in its map.
  """
  while True:
    levels = _levels(places)
    if len(places) == math.prod(map(len, levels)):
      return places
    filled = {
      (at, level): sum(p[at] == level for p in places) / len(levels[1 - at])
      for at in (0, 1)
      for level in levels[at]
    }
    at, level = min(filled, key=filled.get)
    places = {p: s for p, s in places.items() if p[at] != level}


def _drawn(compared, metric, axes, places) -> dict[str, Any]:
  rows, columns = (sorted(levels, key=_order) for levels in _levels(places))
  pair = lambda s: (s, compared.estimate(s, metric))
  cells = {place: pair(setting) for place, setting in places.items()}
  return {
    'title': ' by '.join(map(', '.join, axes)),
    'metric': metric,
    'columns': [*map(_named, columns)],
    'lines': [(_named(row), [cells[row, x] for x in columns]) for row in rows],
    'top': max([e.value for _, e in cells.values() if e] + [1e-9]),
  }


def _order(level):
  is_number = lambda text: text.lstrip('-')[:1].isdigit()
  return [float(x) if is_number(x) else 0.0 for x in level], level


def _named(level) -> str:
  return ', '.join(table.shown(json.loads(text)) for text in level)
