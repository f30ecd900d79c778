"""Errors that end a run with one message and an exit code, no traceback."""


class UserError(Exception):
  """A mistake in a config, a file or a flag: names it, its value, its remedy.

  Several problems found at once are several arguments, one line each.
  """

  exit_code = 2

  def __str__(self) -> str:
    return '\n'.join(str(arg) for arg in self.args)


class NonFinite(UserError):
  """The loss became nan or inf; the last good checkpoint is kept."""

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
  text = ' '.join(str(error).split())
  if isinstance(error, UserError):
    return text
  return f'{type(error).__name__}: {text}' if text else type(error).__name__
