"""Errors that end a run with one message and an exit code, no traceback."""

import re

# All but tab and line feed, what turns the direction of a text around, and half
# characters, which no terminal takes.
_CONTROL = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)


def visible(text: str) -> str:
  """Text for a terminal: its control characters are shown, not sent to it."""
  return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(Exception):
  """A mistake in a config, a file or a flag: names it, its value, its remedy.

  Several problems found at once are several arguments, one line each.
  """

  exit_code = 2

  def __str__(self) -> str:
    return visible('\n'.join(str(arg) for arg in self.args))


class NonFinite(UserError):
  """The loss became nan or inf; the last good checkpoint is kept."""

  exit_code = 1


class Collapsed(UserError):
  """The answers of the policy have collapsed; the run is saved."""

  exit_code = 1


class Mismatch(UserError):
  """What was written does not compute what it should; it is not kept."""

  exit_code = 1


class Unfit(UserError):
  """A plan that shows a run that would fail, or waste its chips."""

  exit_code = 1


class Preempted(UserError):
  """SIGTERM arrived and the run was saved; the same command continues it."""

  exit_code = 143


def line(error: Exception) -> str:
  """The error on one line, for a table or a STATUS.json."""
  text = visible(' '.join(str(error).split()))
  if isinstance(error, UserError):
    return text
  return f'{type(error).__name__}: {text}' if text else type(error).__name__


def quantity(n: int, what: str) -> str:
  """A number of things in words: '1 question', '2,000 questions'."""
  return f'{n:,} {what}{"s" * (n != 1)}'
