"""Metrics as JSON lines, in TensorBoard on request, and live on the screen.

Names are written as Hugging Face reporters write TRL's, so that curves overlay
on existing runs: 'loss' becomes 'train/loss', 'rewards/margins' becomes
'train/rewards/margins'; eval/, test/ and our own conscience/, replay/, gen/,
perf/ and those of methods stay as they are.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ealign.runtime import atomic
from ealign.runtime.display import display
from ealign.runtime.errors import UserError

_SPACES = ('train/', 'eval/', 'test/', 'conscience/', 'replay/', 'gen/')
_SPACES += ('perf/', 'iteralign/', 'mistakes/')


def jsonl_truncate(path: str | os.PathLike, step: int) -> int:
  """Drops the rows after `step` from a JSONL file; returns how many.

  A run that is killed after its checkpoint has written rows that it will write
  again. A half-written last line is dropped as well. No file: nothing to do.

  Raises:
    UserError: a line before the last one is not a JSON object with a 'step'.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return 0
  lines = path.read_bytes().splitlines(keepends=True)
  steps = [_step_of(line) for line in lines]
  if None in steps[:-1]:
    message = 'is no JSON object with a "step"; mend or delete that line'
    raise UserError(f'{path}:{steps.index(None) + 1}: {message}')
  kept = [
    line
    for line, at in zip(lines, steps, strict=True)
    if at is not None and at <= step
  ]
  if len(kept) < len(lines):
    atomic.write(path, b''.join(kept))
  return len(lines) - len(kept)


def _step_of(line: bytes) -> int | None:
  if not line.endswith(b'\n'):
    return None
  try:
    step = json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return None
  return step if isinstance(step, int) else None


def _plain(value: Any) -> float | int | str | bool | None:
  """A scalar as JSON knows it: nan and inf become null."""
  if value is None or isinstance(value, str | bool | int):
    return value
  number = float(value)
  if not math.isfinite(number):
    return None
  return int(number) if 'int' in str(getattr(value, 'dtype', '')) else number


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
  full = lambda name: name if name.startswith(_SPACES) else 'train/' + name
  return {full(name): _plain(value) for name, value in values.items()}


class Metrics:
  """Writes <folder>/metrics.jsonl and shows how far the run is.

  A context manager. `prefix`, such as an arm's name, opens each line shown;
  `quiet` shows nothing; `shown` stands for the display of `runtime.display`.
  TensorBoard files go to <folder>/tensorboard; `after` is the step that a run
  continues from: TensorBoard hides what an earlier start wrote later.

  Raises:
    UserError: tensorboard is True and tensorboardX is not installed.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    total_steps: int,
    tensorboard: bool = False,
    prefix: str = '',
    *,
    quiet: bool = False,
    shown=None,
    after: int = 0,
  ):
    self._path = pathlib.Path(folder) / 'metrics.jsonl'
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = None
    self._board = None
    self._writer_class = _tensorboard() if tensorboard else None
    self._after = after
    self._said = set()  # kinds of remarks
    self._display = shown or display(total_steps, prefix, quiet=quiet)

  def __enter__(self) -> 'Metrics':
    self._display.start()
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def write(self, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Appends one line, and returns it with the names it has there.

    values: scalars; nan and inf are written null.
    """
    if self._file is None:
      self._file = self._path.open('a', encoding='utf-8')
    row = _named(values)
    self._file.write(json.dumps({'step': int(step)} | row) + '\n')
    self._file.flush()  # a killed process loses nothing that was written
    if self._writer_class is not None:
      self._to_board(step, row)
    return row

  def _to_board(self, step, row):
    if self._board is None:
      folder = str(self._path.parent / 'tensorboard')
      purge = self._after + 1 if self._after else None
      self._board = self._writer_class(folder, purge_step=purge)
    for name, value in row.items():
      if isinstance(value, int | float):
        self._board.add_scalar(name, value, step)

  def progress(
    self, step: int, values: Mapping[str, Any] | None = None
  ) -> None:
    """Shows that `step` steps are done, with a few of the newest metrics.

    May be called at every step with the same values. A terminal shows a live
    bar; otherwise new values print a line, at most one every two seconds.
    """
    self._display.update(int(step), _named(values or {}))

  def say(self, text: str) -> None:
    """Prints a line without disturbing the bar."""
    self._display.say(text)

  def once(self, remarks: Mapping[str, str]) -> None:
    """Says those whose kind has not been said."""
    for kind, text in remarks.items():
      if kind not in self._said:
        self.say(text)
    self._said |= remarks.keys()

  def close(self) -> None:
    """Ends the display and closes the files; may be called twice."""
    self._display.stop()
    for writer in (self._file, self._board):
      if writer is not None:
        writer.close()
    self._file = self._board = None


def _tensorboard():
  try:
    import tensorboardX  # several seconds where torch is installed
  except ImportError:
    message = "tensorboardX is missing; pip install 'ealign[tensorboard]'"
    raise UserError(f'log.tensorboard=True: {message}') from None
  return tensorboardX.SummaryWriter
