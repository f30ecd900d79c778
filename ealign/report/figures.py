"""The figures of runs, and what those of a grid share: scales and ticks.

All is in SVG user units. The templates draw, so that every text in a figure is
escaped like any other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals import counts
from ealign.evals.judges.measure import Judge
from ealign.report import curves as curves_lib

SLOTS = 7  # colours beside the grey of what others are compared with
_REFLECTED = 'Flagged while training, % of answers with a verdict'

# The upper ends an axis of per cent may have, and the steps of its ticks.
_ENDS = {2: 0.5, 5: 1, 10: 2, 20: 5, 40: 10, 60: 20, 80: 20, 100: 20}


def axis_end(limits: Sequence[float]) -> float:
  """The per cent at which an axis ends so that it shows all these shares."""
  return next(end for end in _ENDS if end >= 100 * max(limits, default=0))


def ticks(end: float) -> list[tuple[float, str]]:
  """(per cent, label) of the ticks of an axis with this `axis_end`."""
  step = _ENDS[end]
  values = [step * at for at in range(int(round(end / step)) + 1)]
  return [(value, f'{value:g}') for value in values]


@dataclasses.dataclass(frozen=True)
class Frame:
  """Maps steps and shares to the coordinates between a figure's four edges.

  last: the step at the right edge; low, high: the per cent at bottom and top.
  """

  left: int
  right: int
  top: int
  bottom: int
  last: float
  low: float = 0
  high: float = 100
  digits: int = 2

  def x(self, step: float) -> float:
    """The place of a step; what lies beyond the right edge is put on it."""
    room = (self.right - self.left) * min(step, self.last)
    return round(self.left + room / self.last, self.digits)

  def y(self, share: float) -> float:
    """The place of a share; what lies beyond the top is put on it."""
    up = min(100 * share, self.high) - self.low
    room = self.bottom - self.top
    return round(self.bottom - room * up / (self.high - self.low), self.digits)

  def point(self, step: float, share: float) -> str:
    """A point of a polyline, as SVG writes it."""
    return f'{self.x(step):g},{self.y(share):g}'

  def path(self, line) -> str:
    """A polyline through (step, share)."""
    return ' '.join(self.point(step, share) for step, share in line)


def forests(rows, kind: str, judge: Judge, slots: Mapping) -> list[tuple]:
  """(title, forest) of each measure with figures, a line for each arm.

  rows: of `counts.rows`. kind: of the questions that no measure claims. slots:
  arm -> its colour and mark.
  """
  made = []
  for measure in judge.figures():
    by_arm = counts.headline(rows, judge.part(measure) or kind)
    found = counts.shares(by_arm, measure.name).items()
    if lines := [(arm, slots[arm], share) for arm, share in found]:
      made.append((measure.title, forest(lines)))
  return made


def panels(answers, kind: str, judge: Judge, slots: Mapping) -> list[tuple]:
  """(title, curves) of shares over steps; those without a line are left out."""
  made = []
  found = curves_lib.panels(answers, kind, judge, arms=True)
  for name, (measure, among) in found.items():
    series = []
    for arm, slot in slots.items():
      own = [record for record in among if record['arm'] == arm]
      if line := curves_lib.line(measure, own):
        series.append((arm, slot, line))
    if any(len(line) > 1 for _, _, line in series):
      title = _REFLECTED if name == curves_lib.REFLECTED else measure.title
      made.append((title, curves(series)))
  return made


def forest(lines: Sequence[tuple[str, int, counts.Share]]) -> dict[str, Any]:
  """Shares with their intervals, one line each, as (label, slot, share)."""
  end = axis_end([max(s.interval[1], s.clustered[1]) for _, _, s in lines])
  frame = Frame(104, 340, top=8, bottom=8 + 30 * len(lines), last=end)
  return {'frame': frame, 'ticks': ticks(end), 'lines': lines}


def curves(series: Sequence[tuple[str, int, list]]) -> dict[str, Any]:
  """Shares over steps, one line per arm, as (name, slot, [(step, share)])."""
  points = [point for _, _, line in series for point in line]
  # A wide band, of few answers, may be cut; the line itself never is.
  end = axis_end([min(s.clustered[1], s.value + 0.12) for _, s in points])
  last = max([step for step, _ in points] + [1])
  return {
    'frame': Frame(34, 390, 10, 186, last, high=end),
    'xticks': step_ticks(last),
    'yticks': ticks(end),
    'series': series,
  }


def step_ticks(last: int) -> list[int]:
  """Round numbers of steps from 0 to `last`, at most seven."""
  sizes = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
  size = next(size for size in sizes if last <= 6 * size)
  return list(range(0, last + 1, size))
