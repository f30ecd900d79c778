"""SIGTERM and SIGINT: at once where nothing can be lost, else at a good moment.

JAX's own preemption sync never fires in a run of one process, hence this.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from ealign.runtime.errors import Preempted, UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 3.0  # for Python to act on a signal, before the process is ended


class _Signal(BaseException):
  """Leaves a block of `at_once`; no `except Exception` in it is in the way."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
  """What a signal does: raise the error; end a process that is stuck."""

  error: Exception | None = None
  raises: bool = False
  ends: bool = False


class Stop:
  """Whether a signal asked to stop; `signal` is its number or None.

  What happens then depends on the innermost block: `at_once` raises its error,
  `later` does nothing, so that its code asks `requested` when it suits.
  """

  def __init__(self):
    self.signal: int | None = None
    self._own = threading.local()
    self._first = self._blocks

  @property
  def requested(self) -> bool:
    return self.signal is not None

  @contextlib.contextmanager
  def at_once(self, error: Exception, *, ends: bool = True) -> Iterator[None]:
    """Within the block a signal raises `error`.

    It comes to the main thread; other threads ask for it with `check`. It is
    raised at the end of the block, too, if code in it caught it.

    ends: whether nothing is lost if the process ends in the block. It then
      does, 3 s after a signal that Python could not act on: it was inside a
      library, compiling or waiting for a disk.
    """
    with contextlib.suppress(_Signal):
      if not self.requested:
        ends = ends or self._blocks[-1].ends  # it holds for all inside
        with self._block(_Block(error, True, ends)):
          yield
    if self.requested:
      raise error

  def later(self, error: Exception | None = None):
    """Within the block a signal only sets `signal`, whatever is around it.

    error: if given, nothing is lost if the process ends in the block. It does,
      with this error, if the block lasts 3 s more.
    """
    return self._block(_Block(error, False, error is not None))

  def check(self) -> None:
    """Raises this thread's error of `at_once`, once a stop was requested."""
    if self.requested and self._blocks[-1].raises:
      raise self._blocks[-1].error

  @property
  def _blocks(self) -> list[_Block]:
    """Those that this thread is in."""
    return vars(self._own).setdefault('blocks', [_Block()])

  @contextlib.contextmanager
  def _block(self, block: _Block) -> Iterator[None]:
    blocks, depth = self._blocks, len(self._blocks)
    blocks.append(block)
    try:
      yield
    finally:
      del blocks[depth:]

  def _act(self, number: int) -> None:
    """In the main thread, when a signal came."""
    self.signal = number
    if self._blocks[-1].raises:
      raise _Signal

  def _stuck(self) -> Exception | None:
    """In another thread: waits; the error to end the process with, if any.

    Where `_act` raised an error, its block is left within moments.
    """
    blocks = list(self._first)
    if not blocks[-1].ends:
      return None
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until:
      time.sleep(0.05)
      if self._first != blocks:
        return None
    return blocks[-1].error


@contextlib.contextmanager
def watch(*, alone: bool = True) -> Iterator[Stop]:
  """Within the block the first signal is left to the `Stop` that it yields.

  A second one acts as if this were not here (Ctrl-C twice ends at once). The
  handlers found on entry are put back at the end; if one of them belongs to an
  outer `watch`, its flag is set too. A `Preempted` that leaves the block has
  the exit code of the signal: 143, or 130 of Ctrl-C.

  Outside the main thread, where Python allows no handlers, the flag is never
  set; nor is it with `alone` False, for one of several hosts: they stop
  together (`hosts.Hosts.stopping`).
  """
  stop = Stop()
  if not alone or threading.current_thread() is not threading.main_thread():
    yield stop
    return
  previous = {number: signal.getsignal(number) for number in SIGNALS}

  def handle(number, frame):
    outer = previous[number]
    if getattr(outer, 'sets_a_flag', False):
      outer(number, frame)
    elif stop.requested:
      _default(number)
    stop._act(number)

  handle.sets_a_flag = True
  with _quiet(), _waiting(stop):
    for number in SIGNALS:
      signal.signal(number, handle)
    try:
      yield stop
    except Preempted as error:
      if stop.requested:
        error.exit_code = 128 + stop.signal
      raise
    finally:
      for number, handler in previous.items():
        # None: a handler installed from C, which Python cannot put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def command(run: Callable[[], None], stopped: Preempted | None = None) -> int:
  """Runs a command that a signal may stop at any moment; its exit code.

  stopped: what is then said; its arguments may change while the command runs.
  """
  try:
    with watch() as stop, stop.at_once(stopped or Preempted('stopped')):
      run()
      sys.stdout.flush()
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  except BrokenPipeError:
    return unread()
  return 0


def unread() -> int:
  """The exit code where nobody reads what is printed any more: `| head`."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return 128 + signal.SIGPIPE


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Within the block a signal that came in a finalizer is not printed."""
  before = sys.unraisablehook

  def hook(found):
    if found.exc_type is not _Signal:  # `at_once` sees that it came
      before(found)

  sys.unraisablehook = hook
  try:
    yield
  finally:
    sys.unraisablehook = before


@contextlib.contextmanager
def _waiting(stop: Stop) -> Iterator[None]:
  """Within the block a thread ends the process where Python cannot act.

  The wakeup descriptor is written as soon as a signal comes, even while the
  main thread is inside a library.
  """
  ours, theirs = socket.socketpair()
  theirs.setblocking(False)
  outer = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
  with ours, theirs:
    thread = threading.Thread(target=_wait, args=(stop, ours), daemon=True)
    thread.start()
    try:
      yield
    finally:
      signal.set_wakeup_fd(outer, warn_on_full_buffer=False)
      theirs.close()  # the thread reads the end of it
      thread.join()


def _wait(stop: Stop, wakeups: socket.socket) -> None:
  while numbers := wakeups.recv(16):
    if any(number in SIGNALS for number in numbers):
      if error := stop._stuck():
        sys.stderr.write(f'{error}\n')
        sys.stderr.flush()
        os._exit(128 + numbers[-1])


def _default(number: int) -> None:
  interrupt = signal.default_int_handler
  ours = interrupt if number == signal.SIGINT else signal.SIG_DFL
  signal.signal(number, ours)
  signal.raise_signal(number)
