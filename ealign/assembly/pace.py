"""How long what is left of an evaluation takes, by what of it was computed.

Before anything runs nobody knows: it depends on the machine and on how long the
answers are. The first batch of each suite is no measure, since it compiles.
"""

import dataclasses
import time
from collections.abc import Callable

from ealign.engine import Backend
from ealign.runtime import display


class Pace:
  """The seconds of work that is counted in units, all suites together.

  what: the work, as in 'to sample'. say: shows a line, once there is a measure.
  """

  def __init__(self, what: str, say: Callable[[str], None]):
    self._what, self._say = what, say
    self._left = self._done = self._seconds = 0.0
    self._compiles, self._told = True, False

  def begin(self, left: float) -> str:
    """A suite begins, with so many units to its end and that of all others.

    Returns what to add to a line: the time for these, or '' if it is not known.
    """
    self._left, self._compiles = left, True
    return self._text('; ')

  def add(self, units: float, seconds: float) -> None:
    """So much has been computed."""
    self._left -= units
    if self._compiles:
      self._compiles = False
      return
    self._done += units
    self._seconds += seconds
    if not self._told:
      self._told = True
      self._say(self._text('  by the first batches '))

  def _text(self, before: str) -> str:
    if not self._done:
      return ''
    left = max(self._left, 0.0) * self._seconds / self._done
    return f'{before}{display.clock(left)} {self._what} all that is left'


def measured(backend: Backend, sampling: Pace, judging: Pace) -> Backend:
  """The backend with what it computes measured.

  sampling: in tokens, of each answer as many as it may have. judging: in
  prompts whose labels are read.
  """

  def timed(compute, pace, units):
    def computed(request):
      begun = time.monotonic()
      made = compute(request)
      pace.add(units(request), time.monotonic() - begun)
      return made

    return computed

  tokens = lambda request: len(request.prompts) * request.max_tokens
  prompts = lambda request: len(request.prompts)
  return dataclasses.replace(
    backend,
    generate=timed(backend.generate, sampling, tokens),
    label_logps=timed(backend.label_logps, judging, prompts),
  )
