"""Runs jobs on a few threads; all that counts or writes stays on the caller's.

The threads are daemons: whoever presses Ctrl-C waits for no server.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

PARTING_S = 10.0  # that replies on their way are waited for after a failure


def each(
  jobs: Iterable[Any],
  work: Callable[[Any], Any],
  take: Callable[[Any, Any], None],
  *,
  workers: int,
  stop: threading.Event,
  admit: Callable[[Any], None] = lambda _: None,
) -> None:
  """Calls take(job, work(job)) for each job, in the order of arrival.

  Args:
    jobs: handed out in this order, each when a thread is free. The first one
      runs alone: what fails for all fails once, and shows what others cost.
    work: runs on the threads.
    take: runs here, and so does what follows.
    stop: is set when one fails, so that others that wait stop waiting.
    admit: may raise instead of letting a job begin.

  Raises:
    whatever work, take or admit raised first. Results that were under way are
    taken before: those that arrive within `PARTING_S`, or, after Ctrl-C, have
    arrived.
  """
  todo: queue.SimpleQueue = queue.SimpleQueue()
  found: queue.SimpleQueue = queue.SimpleQueue()
  flying, begun = 0, False

  def labour():
    for job in iter(todo.get, None):
      try:
        found.put(((job, work(job)), None))
      except BaseException as error:
        found.put((None, error))

  def land():
    nonlocal flying
    arrived, error = found.get()
    flying -= 1
    if error:
      raise error
    take(*arrived)

  threads = [
    threading.Thread(target=labour, daemon=True) for _ in range(workers)
  ]
  for thread in threads:
    thread.start()
  try:
    for job in jobs:
      if flying == workers:
        land()
      admit(job)
      flying += 1
      todo.put(job)
      if not begun:
        begun = True
        land()
    while flying:
      land()
  except BaseException as error:
    stop.set()
    patient = isinstance(error, Exception)
    _part(found, take, flying, PARTING_S if patient else 0.0)
    raise
  finally:
    for _ in threads:
      todo.put(None)


def _part(found, take, flying: int, seconds: float) -> None:
  """Takes what still arrives; what fails now is no news."""
  until = time.monotonic() + seconds
  for _ in range(flying):
    try:
      left = max(0.0, until - time.monotonic())
      arrived, error = found.get(timeout=left) if left else found.get_nowait()
    except queue.Empty:
      return
    if not error:
      take(*arrived)
