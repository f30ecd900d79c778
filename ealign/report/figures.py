"""Where the marks of the report's figures go: numbers only, no markup.

The template draws them, so that every text in a figure is escaped like any
other. Lengths are in SVG user units; shares become per cent.
"""

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


def curves(series: Sequence[Series]) -> dict:
  """Shares over steps, one line per arm, as (name, slot, [(step, share)]).

  An arm with a single point (one that is not trained) is drawn as a level.
  """
  left, right, top, bottom, width = 34, 10, 10, 186, 400
  points = [point for _, _, line in series for point in line]
  # A wide band, of few answers, may be cut; the line itself never is.
  end = axis_end([min(s.interval[1], s.value + 0.12) for _, s in points])
  last = max([step for step, _ in points] + [1])
  x = lambda step: round(left + (width - left - right) * step / last, 2)
  y = lambda value: round(
    bottom - (bottom - top) * min(100 * value, end) / end, 2
  )
  drawn = []
  for name, slot, line in series:
    dots = [
      (x(step), y(share.value), f'{name}, step {step}: {_point(share)}')
      for step, share in line
    ]
    level = len(line) == 1
    along = [(px, py) for px, py, _ in dots]
    if level:
      along = [(left, along[0][1]), (width - right, along[0][1])]
    upper = [(x(step), y(share.interval[1])) for step, share in line]
    lower = [(x(step), y(share.interval[0])) for step, share in line]
    drawn.append(
      {
        'slot': slot,
        'level': level,
        'path': path(along),
        'band': '' if level else path(upper + lower[::-1]),
        'dots': [] if level else dots,
      }
    )
  return {
    'width': width,
    'height': bottom + 34,
    'left': left,
    'right': width - right,
    'top': top,
    'bottom': bottom,
    'xticks': [(x(step), str(step)) for step in step_ticks(last)],
    'yticks': [(y(value / 100), text) for value, text in ticks(end)],
    'series': drawn,
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
