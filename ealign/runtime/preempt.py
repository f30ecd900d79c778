"""SIGTERM and SIGINT as a flag that the loop reads at each step.

JAX's own preemption sync never fires in a run of one process, hence this.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
  """Whether a signal asked the run to stop; `signal` is its number or None."""

  def __init__(self):
    self.signal: int | None = None
    self._own = threading.local()

  @property
  def requested(self) -> bool:
    return self.signal is not None

  @contextlib.contextmanager
  def at_once(self, error: Exception) -> Iterator[None]:
    """Within the block, where nothing can be lost, a signal raises `error`.

    It comes to the main thread; other threads ask for it with `check`.
    """
    self._own.error = error
    try:
      self.check()
      yield
    finally:
      self._own.error = None

  def check(self) -> None:
    """Raises this thread's error of `at_once`, once a stop was requested."""
    error = getattr(self._own, 'error', None)
    if error and self.requested:
      raise error


@contextlib.contextmanager
def watch(*, alone: bool = True) -> Iterator[Stop]:
  """Within the block the first signal only sets the flag.

  A second one acts as if this were not here (Ctrl-C twice ends at once). The
  handlers found on entry are put back at the end; if one of them belongs to an
  outer `watch`, its flag is set too. Outside the main thread, where Python
  allows no handlers, the flag is never set; nor is it with `alone` False, for
  one of several hosts: they stop together (`hosts.Hosts.stopping`).
  """
  stop = Stop()
  if not alone or threading.current_thread() is not threading.main_thread():
    yield stop
    return
  previous = {number: signal.getsignal(number) for number in _SIGNALS}

  def handle(number, frame):
    outer = previous[number]
    if getattr(outer, 'sets_a_flag', False):
      outer(number, frame)
    elif stop.requested:
      _default(number)
    stop.signal = number
    stop.check()

  handle.sets_a_flag = True
  for number in _SIGNALS:
    signal.signal(number, handle)
  try:
    yield stop
  finally:
    for number, handler in previous.items():
      # None: a handler installed from C, which Python cannot put back.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _default(number: int) -> None:
  interrupt = signal.default_int_handler
  ours = interrupt if number == signal.SIGINT else signal.SIG_DFL
  signal.signal(number, ours)
  signal.raise_signal(number)
