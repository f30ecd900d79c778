"""How far a grid is: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from ealign.runtime import display

_SECONDS = 10.0  # between plain lines


class Watch:
  """What `train.run` shows of one cell: kept, for the table and STATUS.json."""

  def __init__(self, name: str, steps: int, board: 'Board'):
    self.name, self.steps = name, steps
    self.step, self.values = 0, {}
    self.began = time.time()
    self.overhead_s = self.step_time_s = 0.0
    self._board, self._first = board, None

  def start(self) -> None:
    self.overhead_s = time.time() - self.began

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    now = time.monotonic()
    self._first = self._first or (step, now)
    self.step, self.values = step, dict(values) or self.values
    if step > self._first[0]:
      self.step_time_s = (now - self._first[1]) / (step - self._first[0])
    self._board.refresh()

  def say(self, text: str) -> None:
    self._board.say(f'{self.name}: {text}')

  def stop(self) -> None:
    pass


class Board:
  """The table of a grid. A context manager.

  counts: cells by state, of all launchers. seconds: those of finished cells.
  """

  def __init__(self, *, quiet: bool = False):
    self.counts: dict[str, int] = {}
    self.seconds: list[float] = []
    self.running: list[Watch] = []
    self._quiet, self._printed = quiet, 0.0

  def __enter__(self) -> 'Board':
    return self

  def __exit__(self, *error) -> None:
    pass

  def say(self, text: str) -> None:
    if not self._quiet:
      print(text, flush=True)

  def refresh(self) -> None:
    now = time.monotonic()
    if self._quiet or now - self._printed < _SECONDS:
      return
    self._printed = now
    counts = '  '.join(f'{n} {state}' for state, n in self.counts.items())
    parts = [counts, *(_line(watch) for watch in self.running)]
    left = self.left_s()
    if left is not None:
      parts.append(f'{display.clock(left)} left')
    print('  '.join(parts), flush=True)

  def left_s(self) -> float | None:
    """Seconds until all is done, from steps and cells so far; None: unknown."""
    now = sum(
      (w.steps - w.step) * w.step_time_s for w in self.running if w.step
    )
    mean = sum(self.seconds) / len(self.seconds) if self.seconds else 0.0
    if not mean:
      mean = max((w.steps * w.step_time_s for w in self.running), default=0.0)
    others = max(self.counts.get('running', 0) - len(self.running), 0)
    total = (now + mean * self.counts.get('left', 0)) / (1 + others)
    return total or None


def _line(watch: Watch) -> str:
  text = display.text(watch.values)
  return f'{watch.name} step {watch.step}/{watch.steps}  {text}'.rstrip()
