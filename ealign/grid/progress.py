"""Shows how far a grid is: a live table on a terminal, else plain lines."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from ealign.runtime import display

_SECONDS = 10.0  # between plain lines


class Watch:
  """The display of one cell for `train.run`; keeps what STATUS.json needs.

  overhead_s: seconds from the cell's start to its first step. step_time_s: mean
  seconds of a step so far, with reflections, curve and saving.
  """

  def __init__(self, name: str, steps: int, board: 'Board'):
    self.name, self.steps = name, steps
    self.step, self.values = 0, {}
    self.began = time.time()
    self.overhead_s = self.step_time_s = 0.0
    self._board, self._first = board, None
    self._own = board.display(steps, name)

  def start(self) -> None:
    self.overhead_s = time.time() - self.began
    if self._own:
      self._own.start()

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    now = time.monotonic()
    self._first = self._first or (step, now)
    self.step, self.values = step, dict(values) or self.values
    if step > self._first[0]:
      self.step_time_s = (now - self._first[1]) / (step - self._first[0])
    if self._own:
      self._own.update(step, values)
    else:
      self._board.refresh()

  def say(self, text: str) -> None:
    if self._own:
      self._own.say(text)
    else:
      self._board.say(f'{self.name}: {text}')

  def stop(self) -> None:
    if self._own:
      self._own.stop()


class Board:
  """The table of a grid, shown within its `with` block.

  table: if false, each run has a display of its own instead. counts: cells of
  all launchers by state. seconds: what each finished cell took, as its share of
  its program. running: the cells that this launcher runs now, as one program.
  """

  def __init__(self, *, quiet: bool = False, table: bool = True):
    self.counts: dict[str, int] = {}
    self.seconds: list[float] = []
    self.running: list[Watch] = []
    self._quiet, self._printed, self._live = quiet, 0.0, None
    self._tabled = table

  def display(self, steps: int, name: str):
    """The display of a single run; None where the table shows it."""
    if self._tabled:
      return None
    return display.display(steps, name, quiet=self._quiet)

  def __enter__(self) -> 'Board':
    if self._tabled and not self._quiet and sys.stdout.isatty():
      from rich import live

      self._live = live.Live(get_renderable=self._table, refresh_per_second=2)
      self._live.start()
    return self

  def __exit__(self, *error) -> None:
    if self._live:
      self._live.stop()
      self._live = None

  def say(self, text: str) -> None:
    """Prints a line, above the table where there is one."""
    if self._live:
      self._live.console.print(text, markup=False, highlight=False)
    elif not self._quiet:
      print(f'{text}\n', end='', flush=True)  # arms are threads

  def refresh(self) -> None:
    """Called at each step; prints a plain line every ten seconds."""
    now = time.monotonic()
    if self._quiet or self._live or now - self._printed < _SECONDS:
      return
    self._printed = now
    cells = [
      f'{w.name} {_step(w)}  {display.text(w.values)}' for w in self.running
    ]
    self.say('  '.join([self.head(), *(cell.rstrip() for cell in cells)]))

  def head(self) -> str:
    """How many cells are in each state, and the time left."""
    counts = '  '.join(f'{n} {state}' for state, n in self.counts.items())
    left = self.left_s()
    return counts if left is None else f'{counts}  {display.clock(left)} left'

  def left_s(self) -> float | None:
    """Seconds until all cells are done, estimated; None if nothing is known."""
    here = [w for w in self.running if w.step_time_s]
    now = max([(w.steps - w.step) * w.step_time_s for w in here], default=0.0)
    mean = sum(self.seconds) / len(self.seconds) if self.seconds else 0.0
    if not mean and here:
      mean = max(w.steps * w.step_time_s for w in here) / len(here)
    others = max(self.counts.get('running', 0) - len(self.running), 0)
    total = (now + mean * self.counts.get('left', 0)) / (1 + others)
    return total or None

  def _table(self):
    from rich import box, console, table, text

    grid = table.Table(box=box.SIMPLE_HEAD)
    for name in ('cell', 'step', 'metrics'):
      grid.add_column(name)
    for w in self.running:
      rows = (w.name, _step(w), display.text(w.values))
      grid.add_row(*map(text.Text, rows))
    return console.Group(text.Text(self.head()), grid)


def _step(watch: Watch) -> str:
  return f'{watch.step}/{watch.steps}'
