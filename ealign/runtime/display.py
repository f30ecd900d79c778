"""Shows the progress of a run: as a live bar, as plain lines, or not at all."""

import contextlib
import html
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ealign.runtime import ranges
from ealign.runtime.errors import visible

# Metrics beside the progress, and what they are called there.
_SHOWN = {
  'train/loss': 'loss',
  'train/rewards/margins': 'margin',
  'conscience/review_rate': 'judged',
  'conscience/flag_rate': 'flagged',
  'conscience/pairs_total': 'pairs',
  'replay/size': 'replay',
}
_SECONDS = 2.0  # between plain lines
_SELDOM = 20.0  # the same of work that has no steps
_STILL = 20.0  # the same at first, while nothing of it gets done
_REDRAWN = 0.25  # between two drawings of a notebook's bar


def display(total_steps: int, prefix: str = '', *, quiet: bool = False):
  """A bar on a terminal or in a notebook, `Lines` elsewhere; quiet: nothing."""
  if quiet:
    return Lines(total_steps, prefix, write=lambda *_, **__: None)
  if in_notebook():
    return Cell(total_steps, prefix)
  return (Bar if sys.stdout.isatty() else Lines)(total_steps, prefix)


def in_notebook() -> bool:
  """Whether a notebook shows what this process prints."""
  shell = getattr(sys.modules.get('IPython'), 'get_ipython', lambda: None)()
  return getattr(shell, 'kernel', None) is not None


def text(values: Mapping[str, Any]) -> str:
  """The metrics to show; a '!' marks those outside their healthy range."""
  parts, outside = [], ranges.outside(values)
  others = outside.keys() - _SHOWN.keys()
  names = _SHOWN | {name: name.rpartition('/')[-1] for name in sorted(others)}
  for name, short in names.items():
    if name in values:
      value = values[name]
      number = f'{value:.4g}' if isinstance(value, float) else str(value)
      mark = '!' * (name in outside)
      parts.append(f'{short} {"nan" if value is None else number}{mark}')
  return '  '.join(parts)


def clock(seconds: float) -> str:
  """Seconds for people: 7s, 3m05s, 2h10m."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s' if minutes else f'{seconds}s'


class Lines:
  """Progress as plain lines, for logs."""

  def __init__(self, total_steps: int, prefix: str, write: Callable = print):
    self._total, self._write = total_steps, write
    self._head = f'{prefix}  ' if prefix else ''
    self._first = None  # step and time of the first update: resumed runs too
    self._printed = -_SECONDS
    self._values = {}

  def start(self) -> None:
    pass

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    now = time.monotonic()
    self._first = self._first or (step, now)
    due = now - self._printed >= _SECONDS and values != self._values
    if not values or not (due or step == self._total):
      return
    self._printed, self._values = now, values
    done, spent = step - self._first[0], now - self._first[1]
    parts = [f'{self._head}step {step}/{self._total}', text(values)]
    if done > 0 and step < self._total:
      parts.append(f'{clock(spent / done * (self._total - step))} left')
    self._write('  '.join(part for part in parts if part), flush=True)

  def say(self, text: str) -> None:
    self._write(visible(self._head + text), flush=True)

  def stop(self) -> None:
    pass


class Bar:
  """Progress as a live bar with the time left, for terminals."""

  def __init__(self, total_steps: int, prefix: str):
    from rich import progress

    self._head = f'{prefix}  ' if prefix else ''
    self._bar = progress.Progress(
      progress.TextColumn('{task.description}', markup=False),
      progress.BarColumn(),
      progress.MofNCompleteColumn(),
      progress.TimeElapsedColumn(),
      progress.TimeRemainingColumn(),
      progress.TextColumn('{task.fields[metrics]}', markup=False),
      refresh_per_second=4,
    )
    name = prefix or 'steps'
    self._task = self._bar.add_task(name, total=total_steps, metrics='')

  def start(self) -> None:
    self._bar.start()

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    fields = {'metrics': text(values)} if values else {}
    self._bar.update(self._task, completed=step, **fields)

  def say(self, text: str) -> None:
    text = visible(self._head + text)
    self._bar.console.print(text, markup=False, highlight=False)

  def stop(self) -> None:
    self._bar.stop()


class Cell:
  """Progress as a bar in the output of a notebook's cell."""

  def __init__(self, total_steps: int, prefix: str = ''):
    self._total, self._name = total_steps, prefix or 'steps'
    self._lines = Lines(total_steps, prefix)  # for what is said
    self._first = None  # as of `Lines`
    self._metrics, self._drawn, self._shown = '', 0.0, None

  def start(self) -> None:
    pass

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    now = time.monotonic()
    self._first = self._first or (step, now)
    self._metrics = text(values) if values else self._metrics
    if self._shown and now - self._drawn < _REDRAWN and step < self._total:
      return
    self._drawn, (first, begun) = now, self._first
    done, parts = step - first, [f'{self._name} {step:,}/{self._total:,}']
    if done > 0 and step < self._total:
      parts.append(f'{clock((now - begun) / done * (self._total - step))} left')
    said = html.escape(
      visible('  '.join(filter(None, (*parts, self._metrics))))
    )
    self._draw(
      f'<progress max="{self._total}" value="{step}"></progress> '
      f'<code style="white-space: pre-wrap">{said}</code>'
    )

  def say(self, text: str) -> None:
    self._lines.say(text)

  def stop(self) -> None:
    pass

  def clear(self) -> None:
    """Takes the bar away."""
    if self._shown:
      self._draw('')

  def _draw(self, markup: str) -> None:
    from IPython import display

    if self._shown:
      self._shown.update(display.HTML(markup))
    else:
      self._shown = display.display(display.HTML(markup), display_id=True)


@contextlib.contextmanager
def counting(
  total: int, what: str, say: Callable[[str], None]
) -> Iterator[Callable[[int], None]]:
  """Shows how many of `total` are done: yields what adds to them.

  A live bar with the time left on a terminal or in a notebook; elsewhere a line
  now and then, which `say` shows, also while none gets done: from a thread.
  """
  if total and sys.stdout.isatty():
    from rich import progress

    columns = progress.Progress.get_default_columns()
    counted = progress.MofNCompleteColumn()
    with progress.Progress(*columns, counted, transient=True) as bar:
      task = bar.add_task(what, total=total)
      yield lambda count: bar.advance(task, count)
    return
  done = 0
  if total and in_notebook():
    cell = Cell(total, what)
    cell.update(done, {})

    def drawn(count: int) -> None:
      nonlocal done
      done += count
      cell.update(done, {})

    yield drawn
    cell.clear()
    return
  lines = _Counted(total, what, say)
  with _every(_STILL, lines.waits) if total else contextlib.nullcontext():
    yield lines.add


class _Counted:
  """Lines of how many are done; the time left goes by when the last were."""

  def __init__(self, total: int, what: str, say: Callable[[str], None]):
    self._total, self._what, self._say = total, what, say
    self._done, self._pause = 0, _STILL
    self._begun = self._last = self._shown = time.monotonic()

  def add(self, count: int) -> None:
    self._done, self._last = self._done + count, time.monotonic()
    self._pause = _STILL
    if self._last - self._shown >= _SELDOM and self._done < self._total:
      self._tell(self._last)

  def waits(self) -> None:
    """Tells that it goes on, at ever longer pauses while nothing gets done."""
    now = time.monotonic()
    if now - self._shown >= self._pause and self._done < self._total:
      self._pause *= 2
      self._tell(now)

  def _tell(self, now: float) -> None:
    self._shown, done = now, self._done
    spent = f'{clock(now - self._begun)} so far'
    if done:
      each = (self._last - self._begun) / done
      left = each * (self._total - done) - (now - self._last)
      spent = f'{clock(max(left, 0.0))} left for these'
    self._say(f'  {done:,} of {self._total:,} {self._what}, {spent}')


@contextlib.contextmanager
def waiting(what: str, say: Callable[[str], None]) -> Iterator[None]:
  """Within the block a line tells how long it takes, at ever longer pauses."""
  begun, due = time.monotonic(), _STILL

  def tell() -> None:
    nonlocal due
    spent = time.monotonic() - begun
    if spent >= due:
      due *= 2
      say(f'{what}, {clock(spent)} so far')

  with _every(_STILL, tell):
    yield


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
  """Within the block a thread acts now and then: what computes has no time."""
  over = threading.Event()

  def run() -> None:
    with contextlib.suppress(OSError):  # nobody reads any more: `| head`
      while not over.wait(seconds):
        act()

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()
