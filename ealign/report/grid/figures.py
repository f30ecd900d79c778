"""Where the marks of a grid's figures go: numbers only, no markup.

The forest is drawn in per cent of its width, so that it needs no fixed size;
the curves in SVG user units.
"""

import dataclasses
import json
from collections.abc import Mapping

from scipy import special

from ealign.evals import table
from ealign.report import curves as curves_lib
from ealign.report import figures
from ealign.report.grid import results
from ealign.report.grid.compare import Comparison, Setting

_REFLECTED = 'Flagged, % of sampled answers'
SLOTS = 7  # colours beside the grey of the baseline


@dataclasses.dataclass(frozen=True)
class Group:
  """Settings that change the same fields; the baseline is in none."""

  title: str
  settings: list[Setting]


def groups(found: Comparison) -> list[Group]:
  """Current settings by the fields they change, in the grid's order."""
  by_fields = {}
  for setting in found.settings:
    if not setting.old and setting is not found.baseline:
      by_fields.setdefault(tuple(setting.changes), []).append(setting)
  return [
    Group(', '.join(fields) or 'the base config', settings)
    for fields, settings in by_fields.items()
  ]


def forest(found: Comparison, metric: str) -> dict | None:
  """The metric's intervals of all settings, by group; None without any."""
  parts = [[found.baseline], *(group.settings for group in groups(found))]
  parts.append([s for s in found.settings if s.old])
  made, limits = [], []
  for part in parts:
    lines = []
    for setting in part:
      estimate = found.estimate(setting, metric)
      if estimate:
        lines.append((setting, estimate))
        limits += estimate.interval
    made.append(lines)
  if not limits:
    return None
  at, ticks = logit_axis(limits)
  base = found.estimate(found.baseline, metric)
  return {
    'ticks': ticks,
    'base': at(base.value) if base else None,
    'groups': [
      [_line(found, metric, *line, at) for line in lines]
      for lines in made
      if lines
    ],
  }


_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95, 98, 99, 99.5)
_TICKS += (99.8, 99.9)


def logit_axis(limits):
  """Places in per cent of the width for shares, and ticks, on a logit scale.

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


def _line(found, metric, setting, estimate, at) -> dict:
  shares = found.values(setting, metric).values()
  seeds = [share.value for share in shares]
  return {
    'label': setting.label,
    'standing': found.standing(setting),
    'x': at(estimate.value),
    'low': at(estimate.interval[0]),
    'high': at(estimate.interval[1]),
    'seeds': [at(value) for value in seeds],
    'value': table.percent(estimate.value),
    'interval': table.bracket(estimate.interval),
    'hint': str(found.asked(setting.counted, found.part(metric))),
  }


# ---------------------------------------------------------------- the curves


def curves(found: Comparison) -> list[dict]:
  """For each group its panels: the baseline in grey, means over thin seeds."""
  judge, made = found.judge, []
  names = [measure.name for measure in judge.figures()]
  names = dict.fromkeys(
    [*names, judge.tokens.name, 'flagged', curves_lib.REFLECTED]
  )
  for group in groups(found):
    for start in range(0, len(group.settings), SLOTS):
      settings = group.settings[start : start + SLOTS]
      shown = [(found.baseline, 0)]
      shown += [(s, slot) for slot, s in enumerate(settings, start=1)]
      panels = [_panel(found.judge, shown, name) for name in names]
      panels = [panel for panel in panels if panel]
      if panels:
        legend = [(s.label, slot) for s, slot in shown]
        title = group.title + (' (continued)' if start else '')
        made.append({'title': title, 'legend': legend, 'panels': panels})
  return made


def _panel(judge, shown, name) -> dict | None:
  series = []
  for setting, slot in shown:
    lines = [cell.curves.get(name) or [] for cell in setting.counted]
    lines = [line for line in lines if len(line) > 1]
    if lines:
      series.append((setting.label, slot, lines, _mean(lines)))
  if not any(slot for _, slot, _, _ in series):
    return None
  points = [p for *_, lines, _ in series for line in lines for p in line]
  values = [value for _, value in points]
  last = max(step for step, _ in points)
  low, high, ticks = _axis(min(values), max(values))
  frame = figures.Frame(30, 14, 8, 112, 250, max(last, 1), low, high, digits=1)
  steps = _every(figures.step_ticks(last))
  axes = frame.axes(steps, [(value, f'{value:g}') for value in ticks])
  return axes | {
    'title': curves_lib.title(judge, name, _REFLECTED),
    'height': frame.bottom + 20,
    'series': [
      {
        'slot': slot,
        'hint': f'{label}, {len(lines)} seeds',
        'seeds': [frame.path(line) for line in lines] if len(lines) > 1 else [],
        'mean': frame.path(mean),
        'end': (frame.x(mean[-1][0]), frame.y(mean[-1][1])),
      }
      for label, slot, lines, mean in series
    ],
  }


def _every(ticks):
  return ticks if len(ticks) < 5 else ticks[::2]


def _mean(lines) -> list[tuple[int, float]]:
  """Over the seeds, at the steps that all of them have."""
  tables = [dict(line) for line in lines]
  steps = [step for step, _ in lines[0] if all(step in t for t in tables)]
  mean = lambda step: sum(t[step] for t in tables) / len(tables)
  return [(step, mean(step)) for step in steps] or lines[0]


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
  """Ends and ticks in per cent: from 0, unless all is far above it."""
  if low < 0.5:
    end = figures.axis_end([high])
    values = [value for value, _ in figures.ticks(end)]
    return 0.0, end, values if len(values) < 6 else [0, end / 2, end]
  start = next(s for s in (98, 95, 90, 80, 70, 60, 50) if s <= 100 * low)
  return start, 100.0, [start, (start + 100) / 2, 100]


# -------------------------------------------------------------- the heat maps


def heat(found: Comparison, metric: str) -> list[dict]:
  """A table for each two axes that vary fully crossed, all else default."""
  current = [s for s in found.settings if not s.old]
  axes = {(field,) for s in current for field in s.changes}
  axes |= {tuple(fields) for fields in found.grid.axes.values()}
  axes = sorted(axis for axis in axes if 0 < len(axis) < 4)
  made, seen = [], set()
  for number, rows in enumerate(axes):
    for columns in axes[number + 1 :]:
      if set(rows) & set(columns):
        continue
      crossed = _crossed(found, current, rows, columns)
      if crossed and crossed['cells'] not in seen:
        seen.add(crossed.pop('cells'))
        made.append(crossed | _shaded(found, metric, crossed))
  return made


def _crossed(found, settings, rows, columns) -> dict | None:
  config = found.grid.config
  level = lambda s, axis: tuple(
    results.key(s.changes.get(field, config.get(field))) for field in axis
  )
  places = _full(
    {
      (level(s, rows), level(s, columns)): s
      for s in settings
      if set(s.changes) <= {*rows, *columns}
    }
  )
  ups, acrosses = ({place[at] for place in places} for at in (0, 1))
  if min(len(ups), len(acrosses)) < 2:
    return None
  return {
    'title': f'{", ".join(rows)} by {", ".join(columns)}',
    'rows': sorted(ups, key=_order),
    'columns': sorted(acrosses, key=_order),
    'places': places,
    'cells': frozenset(s.label for s in places.values()),
  }


def _full(places: Mapping) -> dict:
  """The places without the levels that leave gaps, the emptiest ones first.

  So a default beside a crossed design is no hole in its map.
  """
  while True:
    ups, acrosses = (dict.fromkeys(p[at] for p in places) for at in (0, 1))
    if len(places) == len(ups) * len(acrosses):
      return places
    shares = {
      (at, level): sum(p[at] == level for p in places) / len(other)
      for at, (levels, other) in enumerate(((ups, acrosses), (acrosses, ups)))
      for level in levels
    }
    at, level = min(shares, key=shares.get)
    places = {p: s for p, s in places.items() if p[at] != level}


def _order(level):
  numbers = [float(x) if _is_number(x) else 0.0 for x in level]
  return numbers, level


def _shown(text: str) -> str:
  value = json.loads(text)
  return (value or '(none)') if isinstance(value, str) else text


def _is_number(text: str) -> bool:
  return text.lstrip('-')[:1].isdigit()


def _shaded(found, metric, crossed: Mapping) -> dict:
  estimates = {
    place: found.estimate(setting, metric)
    for place, setting in crossed['places'].items()
  }
  top = max([e.value for e in estimates.values() if e] + [1e-9])
  shade = lambda e: round(55 * e.value / top) if e else None
  part = found.part(metric)
  entry = lambda place, e: (
    table.percent(e and e.value),
    table.bracket(e.interval) if e else '',
    shade(e),
    str(found.asked(crossed['places'][place].counted, part)),
  )
  line = lambda row: [
    entry((row, column), estimates[row, column])
    for column in crossed['columns']
  ]
  names = lambda levels: [', '.join(map(_shown, level)) for level in levels]
  return {
    'lines': [
      (name, line(row))
      for name, row in zip(names(crossed['rows']), crossed['rows'], strict=True)
    ],
    'columns': names(crossed['columns']),
  }
