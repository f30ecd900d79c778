"""Runs programs that a model wrote against their tests, locked in.

Only where the user has said so: what the locks are worth depends on the system,
and each outcome says which of them were proved to hold. `locks` has them;
`inside` says why no program passes by a trick. A program has the standard
library and pure computation: no files, threads, processes, sockets, packages.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from ealign.evals.sandbox import locks
from ealign.runtime.errors import UserError, visible

FLAG = '--confirm_run_unsafe_code'
OUTPUT = 4096  # bytes of what a program prints that are kept
START = 60.0  # seconds that two interpreters may take to start
ROOT = pathlib.Path(__file__).parents[3]
_LAUNCH = (
  'import sys; sys.path.append(sys.argv.pop(1));'
  'from ealign.evals.sandbox import inside; sys.path.pop();'
  'inside.main(sys.argv[1], *map(int, sys.argv[2:]))'
)


@dataclasses.dataclass(frozen=True)
class Program:
  """Code, and what tests it.

  Attributes:
    code: what a model wrote, whole.
    entry: the function in it that the tests call.
    test: Python that calls it as `candidate`, or by its name, with values of
      Python's plain types; it has passed if its end is reached.
    before: Python that the tests need, run before them without the code.
  """

  code: str
  entry: str
  test: str
  before: str = ''


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a program.

  Attributes:
    status: 'passed', 'failed', 'timeout', or 'error' (of the tests or of the
      sandbox: it says nothing about the program).
    reason: the first line of why not; hostile text, made visible.
    output: the start of what it printed, likewise.
    seconds: that it ran.
    isolation: those of `locks.FACTS` that were proved before it ran.
  """

  status: str
  reason: str = ''
  output: str = ''
  seconds: float = 0.0
  isolation: tuple[str, ...] = ()

  @property
  def missing(self) -> tuple[str, ...]:
    """What was only hindered: code that knows how gets round it."""
    return tuple(f for f in locks.FACTS if f not in self.isolation)


@dataclasses.dataclass(frozen=True)
class Limits:
  """seconds: of wall time and of CPU time. mib: of memory. python: interpreter.

  without: locks that stay open, for tests of the others.
  """

  seconds: float = 10.0
  mib: int = 1024
  python: str = sys.executable
  without: tuple[str, ...] = ()


def check(confirmed: bool) -> None:
  """Raises UserError unless the user has allowed that such code runs."""
  if confirmed is not True:
    raise UserError(
      'code that a model wrote would run on this machine: pass '
      f'{FLAG} to allow it (it is locked in, which no lock makes safe)'
    )


def run(
  programs: Sequence[Program],
  *,
  confirmed: bool,
  limits: Limits | None = None,
  workers: int | None = None,
  done: Callable[[int], None] | None = None,
) -> list[Outcome]:
  """The outcome of each program, in their order.

  Args:
    confirmed: whether the user allows it; there is no default.
    workers: programs at a time; by default one a CPU, 8 at most.
    done: is told how many are done.

  Raises:
    UserError: not confirmed, or this system has no such processes.
  """
  check(confirmed)
  if os.name != 'posix':
    raise UserError(f'{FLAG}: programs are locked in on Linux and macOS alone')
  limits = limits or Limits()
  workers = workers or min(8, os.cpu_count() or 1)
  results = []
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for outcome in pool.map(lambda p: _one(p, limits), programs):
      results.append(outcome)
      if done:
        done(len(results))
  return results


def isolation(limits: Limits | None = None) -> tuple[str, ...]:
  """What is proved on this machine, found by running a program of our own."""
  own = Program('def one():\n  return 1', 'one', 'assert candidate() == 1')
  return _one(own, limits or Limits()).isolation


def remark(facts: Sequence[str]) -> str:
  """One line on how programs are locked in, for the user."""
  missing = [fact for fact in locks.FACTS if fact not in facts]
  kept = ', '.join(facts) or 'nothing'
  text = f'code of the model runs in a sandbox; refused by the kernel: {kept}'
  if missing:
    text += f'; NOT refused, only hindered: {", ".join(missing)}'
  return text


def _one(program: Program, limits: Limits) -> Outcome:
  folder = tempfile.mkdtemp(prefix='ealign-sandbox-')
  began = time.monotonic()
  try:
    if os.geteuid() == 0:
      os.chown(folder, locks.NOBODY, locks.NOBODY)
    return _watched(program, limits, folder)
  except OSError as error:
    seconds = time.monotonic() - began
    return Outcome('error', f'the sandbox: {error}', seconds=seconds)
  finally:
    _remove(folder)


def _remove(folder: str) -> None:
  """A program may have left what cannot be removed in the plain way."""
  try:
    shutil.rmtree(folder, ignore_errors=True)
  except RecursionError:  # folders in folders
    subprocess.run(['rm', '-rf', folder], check=False, capture_output=True)


@contextlib.contextmanager
def _pipes(count: int):
  """Pairs (read, write), closed at the end where they are still open."""
  pipes = [os.pipe() for _ in range(count)]
  ends = {end for pipe in pipes for end in pipe}

  def close(*closed):
    for end in closed:
      ends.discard(end)
      os.close(end)

  try:
    yield pipes, close
  finally:
    close(*tuple(ends))


def _watched(program: Program, limits: Limits, folder: str) -> Outcome:
  with contextlib.ExitStack() as stack:
    (calls, values, outcome, prints), close = stack.enter_context(_pipes(4))
    of = limits, folder
    code = {'code': program.code, 'entry': program.entry}
    apart = {'before': program.before, 'test': program.test}
    ours = {'entry': program.entry, **apart}
    theirs = calls[0], values[1]
    mine = calls[1], values[0], outcome[1]
    first = stack.enter_context(
      _process('program', code, *of, (*theirs,), prints[1])
    )
    second = stack.enter_context(
      _process('tests', ours, *of, mine, subprocess.DEVNULL)
    )
    close(*theirs, *mine, prints[1])
    found = _Watch(outcome[0], prints[0]).until_done(limits.seconds)
    return _outcome(found, _signal_of(first), second)


@contextlib.contextmanager
def _process(role, task, limits: Limits, folder, pipes, prints):
  """A process in a group of its own, all of which is killed at the end."""
  here = {'HOME': folder, 'TMPDIR': folder, 'PATH': '/usr/bin:/bin'}
  task = task | {
    **{name: getattr(limits, name) for name in ('seconds', 'mib')},
    'without': limits.without,
    'parent': os.getpid(),
    'others': str(pathlib.Path(__file__).resolve()),
  }
  numbers = [str(pipe) for pipe in pipes] + ['-1'] * (3 - len(pipes))
  flags = ('-I', '-S', '-B', '-X', 'utf8')
  with tempfile.TemporaryFile() as given:
    given.write(json.dumps(task).encode())
    given.seek(0)
    process = subprocess.Popen(
      [limits.python, *flags, '-c', _LAUNCH, str(ROOT), role, *numbers],
      stdin=given,
      stdout=prints,
      stderr=subprocess.STDOUT,
      cwd=folder,
      env=here | {'LC_ALL': 'C.UTF-8'},
      pass_fds=pipes,
      start_new_session=True,
    )
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Watch:
  """Reads what the tests say and what the program prints, for some time."""

  def __init__(self, outcome: int, prints: int):
    self.content = {outcome: b'', prints: b''}
    self.outcome, self.prints = outcome, prints
    self.began, self.seconds, self.late = None, 0.0, False

  def until_done(self, seconds: float) -> '_Watch':
    start = time.monotonic()
    with selectors.DefaultSelector() as selector:
      for pipe in self.content:
        selector.register(pipe, selectors.EVENT_READ)
      while self.outcome in selector.get_map():
        began = self.began or start
        left = began + (seconds if self.began else START) - time.monotonic()
        if left <= 0:
          self.late = True
          break
        for key, _ in selector.select(left):
          self._take(selector, key.fd)
    self.seconds = time.monotonic() - (self.began or start)
    return self

  def _take(self, selector, pipe) -> None:
    part = os.read(pipe, 1 << 16)
    if not part:
      selector.unregister(pipe)
    room = OUTPUT if pipe == self.prints else 1 << 16
    self.content[pipe] = (self.content[pipe] + part)[:room]
    if self.began is None and self.messages():
      self.began = time.monotonic()

  def messages(self) -> list:
    """What the tests have said up to now."""
    content, found = self.content[self.outcome], []
    while len(content) >= 4:
      [size] = struct.unpack('>I', content[:4])
      if len(content) < 4 + size:
        break
      found.append(json.loads(content[4 : 4 + size]))
      content = content[4 + size :]
    return found


def _signal_of(process) -> int:
  """The signal that ended the program; 0 if it runs or ended otherwise."""
  try:
    return max(0, -process.wait(timeout=0.2))
  except subprocess.TimeoutExpired:
    return 0


def _outcome(found: _Watch, ended: int, tests) -> Outcome:
  said = dict(enumerate(found.messages()))
  kind, facts = said.get(0, ('refused', 'its processes did not start'))
  output = visible(found.content[found.prints].decode('utf-8', 'replace'))
  if kind != 'locked':
    return Outcome('error', visible(f'the sandbox: {facts}'), output)
  status, reason = said.get(1, ('error', 'the process of the tests ended'))
  if found.late or (ended == signal.SIGXCPU and status != 'passed'):
    status, reason = 'timeout', 'it took longer than allowed'
  elif ended and status == 'failed' and reason == 'it ended by itself':
    reason = f'it was ended by {signal.Signals(ended).name}'
  reason = visible(' '.join(reason.split()))
  return Outcome(status, reason, output, found.seconds, tuple(facts))
