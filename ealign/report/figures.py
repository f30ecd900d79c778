"""Where the marks of the report's figures go: numbers only, no markup.

The template draws them, so that every text in a figure is escaped like any
other. Lengths are in SVG user units; shares become per cent.
"""

import dataclasses
from collections.abc import Sequence

from ealign.evals import counts, table

# The upper ends an axis of per cent may have, and the steps of its ticks.
_ENDS = {2: 0.5, 5: 1, 10: 2, 20: 5, 40: 10, 60: 20, 80: 20, 100: 20}

Series = tuple[str, int, list[tuple[int, counts.Share]]]


def axis_end(limits: Sequence[float]) -> float:
  """Per cent at which an axis ends that shows all these shares."""
  return next(end for end in _ENDS if end >= 100 * max(limits, default=0))


def ticks(end: float) -> list[tuple[float, str]]:
  """(per cent, its text) along an axis that ends where `axis_end` says."""
  step = _ENDS[end]
  values = [step * at for at in range(int(round(end / step)) + 1)]
  return [(value, f'{value:g}') for value in values]


def forest(lines: Sequence[tuple[str, int, counts.Share]]) -> dict:
  """Shares with their intervals, one line each, as (label, slot, share)."""
  left, right, top, pitch, width = 104, 60, 8, 30, 400
  limits = [(s.interval[1], s.clustered[1]) for _, _, s in lines]
  end = axis_end([high for pair in limits for high in pair])
  at = lambda value: round(
    left + (width - left - right) * min(value, end) / end, 2
  )
  bottom = top + pitch * len(lines)
  drawn = [
    {
      'label': label,
      'slot': slot,
      'y': top + pitch * (number + 0.5),
      'x': at(100 * share.value),
      'wilson': [at(100 * limit) for limit in share.interval],
      'clustered': [at(100 * limit) for limit in share.clustered],
      'value': f'{table.percent(share.value)} %',
      'hint': _hint(share),
    }
    for number, (label, slot, share) in enumerate(lines)
  ]
  return {
    'width': width,
    'height': bottom + 22,
    'top': top,
    'bottom': bottom,
    'left': left,
    'right': width - right,
    'ticks': [(at(value), text) for value, text in ticks(end)],
    'lines': drawn,
  }


def _hint(share: counts.Share) -> str:
  return (
    f'{share.count} of {share.total} answers; Wilson '
    f'{table.bracket(share.interval)}, clustered by prompt '
    f'{table.bracket(share.clustered)}'
  )


@dataclasses.dataclass(frozen=True)
class Frame:
  """Where steps and shares stand in a figure of curves, in user units.

  last: the step at its right end; low, high: the per cent at bottom and top.
  """

  left: int
  right: int  # of what is left free there
  top: int
  bottom: int
  width: int
  last: int
  low: float
  high: float
  digits: int

  def x(self, step: int) -> float:
    room = self.width - self.left - self.right
    return round(self.left + room * step / self.last, self.digits)

  def y(self, share: float) -> float:
    """A share beyond the top stands at the top."""
    up = min(100 * share, self.high) - self.low
    room = self.bottom - self.top
    return round(self.bottom - room * up / (self.high - self.low), self.digits)

  def path(self, line) -> str:
    """A polyline through (step, share), as SVG writes it."""
    return path([(self.x(step), self.y(share)) for step, share in line])

  def axes(self, steps, ticks) -> dict:
    """What the template needs to draw it empty; ticks: (per cent, text)."""
    return {
      'width': self.width,
      'left': self.left,
      'right': self.width - self.right,
      'top': self.top,
      'bottom': self.bottom,
      'xticks': [(self.x(step), str(step)) for step in steps],
      'yticks': [(self.y(value / 100), text) for value, text in ticks],
    }


def curves(series: Sequence[Series]) -> dict:
  """Shares over steps, one line per arm, as (name, slot, [(step, share)]).

  An arm with a single point (one that is not trained) is drawn as a level.
  """
  points = [point for _, _, line in series for point in line]
  # A wide band, of few answers, may be cut; the line itself never is.
  end = axis_end([min(s.interval[1], s.value + 0.12) for _, s in points])
  last = max([step for step, _ in points] + [1])
  frame = Frame(34, 10, 10, 186, 400, last, 0, end, digits=2)
  drawn = [_curve(frame, *line) for line in series]
  axes = frame.axes(step_ticks(last), ticks(end))
  return axes | {'height': frame.bottom + 34, 'series': drawn}


def _curve(frame, name, slot, line) -> dict:
  dots = [
    (frame.x(at), frame.y(s.value), f'{name}, step {at}: {_point(s)}')
    for at, s in line
  ]
  if len(line) == 1:
    y = dots[0][1]
    level = path([(frame.left, y), (frame.width - frame.right, y)])
    return {'slot': slot, 'level': True, 'path': level, 'band': '', 'dots': []}
  upper = [(step, share.interval[1]) for step, share in line]
  lower = [(step, share.interval[0]) for step, share in line]
  return {
    'slot': slot,
    'level': False,
    'path': frame.path([(step, share.value) for step, share in line]),
    'band': frame.path(upper + lower[::-1]),
    'dots': dots,
  }


def _point(share: counts.Share) -> str:
  return f'{table.percent(share.value)} % of {share.total} answers'


def path(points) -> str:
  """The points of a polyline as SVG writes them."""
  return ' '.join(f'{px:g},{py:g}' for px, py in points)


def step_ticks(last: int) -> list[int]:
  """Round numbers of steps from 0 to `last`, at most seven."""
  sizes = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
  size = next(size for size in sizes if last <= 6 * size)
  return list(range(0, last + 1, size))
