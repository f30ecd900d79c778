"""When a server is asked again, and how long after."""

import email.utils
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from ealign.evals.judges.endpoint import replies
from ealign.runtime.errors import UserError

T = TypeVar('T')

FIRST_S, LONGEST_S = 1.0, 60.0  # between two tries
PATIENCE_S = 300.0  # that a server may ask to wait
_AGAIN = (408, 409, 429)  # and 5xx
_SPENT = ('insufficient_quota', 'billing_hard_limit_reached')
_REMEDIES = {
  401: 'check OPENAI_API_KEY',
  403: 'check what OPENAI_API_KEY may use',
  404: 'check the name of the model and OPENAI_BASE_URL',
}


class Again(Exception):
  """It failed as something that passes; after: seconds the server asks for."""

  def __init__(self, why: str, after: float | None = None):
    super().__init__(why)
    self.after = after


class Filtered(Exception):
  """The server does not let this prompt through to the model."""


class Stopped(Exception):
  """Somebody else failed while this one waited for its next try."""


def failure(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
  """What an HTTP error means: `Again`, `Filtered`, or a UserError: the end."""
  said = f'HTTP {status}: {replies.shown(body)}'
  code = replies.error_code(body)
  if status == 400 and code == 'content_filter':
    return Filtered()
  if code in _SPENT:
    return UserError(f'{said}; its account has nothing left to spend')
  if status in _AGAIN or status >= 500:
    return Again(said, asked_to_wait(headers))
  remedy = _REMEDIES.get(status)
  return UserError(f'{said}; {remedy}' if remedy else said)


def asked_to_wait(
  headers: Mapping[str, str], now: float | None = None
) -> float | None:
  """Seconds by Retry-After, a number or a date; None: nothing that is sound."""
  headers = {name.lower(): value for name, value in headers.items()}
  now = time.time() if now is None else now
  for name, unit in (('retry-after-ms', 1e-3), ('retry-after', 1.0)):
    text = headers.get(name, '').strip()
    try:
      seconds = float(text) * unit
    except ValueError:
      try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
      except (ValueError, TypeError, OverflowError):
        continue
    if math.isfinite(seconds):
      return max(0.0, seconds)
  return None


def pause(attempt: int, after: float | None, draw: float) -> float:
  """Seconds to wait after the attempt 0, 1, ...

  Twice as long each time, of which `draw` from [0, 1) takes up to a half, so
  that those who failed together do not come back together; never less than
  the server asks for.
  """
  back = min(LONGEST_S, FIRST_S * 2.0**attempt) * (1.0 - draw / 2)
  return back if after is None else after + min(back, FIRST_S)


def persist(
  call: Callable[[], T],
  *,
  tries: int,
  wait: Callable[[float], bool],
  note: Callable[[str], None] = lambda _: None,
  draw: Callable[[], float] = random.random,
) -> T:
  """The result of the call, which is tried again as long as it raises `Again`.

  Args:
    tries: calls at most.
    wait: waits for seconds; whether it was called off meanwhile.
    note: is told of each failure that is tried again.
    draw: of `pause`.

  Raises:
    UserError: the last try failed, or the server asks to wait for too long.
    Stopped: `wait` was called off.
  """
  for attempt in range(tries):
    try:
      return call()
    except Again as error:
      why, after = str(error), error.after
    if (after or 0) > PATIENCE_S:
      raise UserError(f'{why}; it asks to wait for {after:,.0f} s')
    if attempt + 1 == tries:
      break
    seconds = pause(attempt, after, draw())
    note(f'{why}; next try in {seconds:.1f} s')
    if wait(seconds):
      raise Stopped
  raise UserError(f'{why}; this was try {tries} of {tries}')
