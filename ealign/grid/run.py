"""The launcher of a grid: takes cells by lease, runs them, tells of them.

Several launchers may do so in one work folder. What a killed one leaves is
another's: STATUS.json and checkpoints say how far it came.
"""

import dataclasses
import functools
import os
import shutil
import socket
import sys
import time
import traceback

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import cells as cells_lib
from ealign.grid import hashes, ledger, prepare
from ealign.grid.cells import Status
from ealign.grid.progress import Board, Watch
from ealign.grid.sweeps import Cell, Grid
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.runtime.folder import Folder
from ealign.runtime.hosts import Hosts

_POLL_S = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A cell that is run: its Config with paths, its folder, what is shown."""

  cell: Cell
  config: Config
  place: Folder
  watch: Watch


def groups(cells: list[Cell], arms: int) -> list[list[Cell]]:
  """The cells cut into those that run as one program.

  arms: the most cells of a group; 0: as many as pay.
  """
  del arms  # one cell a group, until cells can be stacked
  return [[cell] for cell in cells]


def run_group(jobs: list[Job], hosts: Hosts) -> list[str]:
  """Runs the cells of a group; of each its one-line error, '' if it is done.

  Raises:
    Preempted: SIGTERM came; all are saved.
  """
  from ealign import train

  (job,) = jobs
  try:
    train.run(
      *(job.config, job.place),
      name=job.cell.label,
      hosts=hosts,
      display=job.watch,
    )
  except Preempted:
    raise
  except NonFinite as error:
    return [_line(error)]
  except UserError as error:
    if hosts.count > 1:  # perhaps only here: all end
      raise
    return [_line(error)]
  except Exception as error:
    if hosts.count > 1:
      raise
    traceback.print_exc()
    return [_line(f'{type(error).__name__}: {error}')]
  return ['']


def _line(error) -> str:
  return ' '.join(str(error).split()) or 'failed'


def launch(grid: Grid, command, place: Folder, hosts: Hosts) -> None:
  """Runs what is left of a grid.

  Raises:
    UserError: the work folder is another's, or would mix what must not be.
    NonFinite: some cells failed; they are named.
    Preempted: a signal came; what ran is saved.
  """
  launched = time.time()
  chosen = choose(grid.cells, command.only)
  states = {}
  if hosts.writes:
    chosen = choose(ledger.open(place, grid), command.only)
    states = ledger.check(place, chosen, command.retry)
  hosts.gather(None)
  board = Board(quiet=not hosts.writes)
  runner = _Runner(grid, command, place, hosts, board, states, launched)
  with preempt.watch(alone=hosts.count == 1) as stop, board:
    try:
      runner.run(chosen, stop)
    finally:
      if hosts.writes:
        report(place)
  if failed := [c for c in chosen if runner.state(c) == 'failed']:
    lines = [f'  {c.folder}: {runner.states[c.id].error}' for c in failed]
    remedy = '--retry=failed runs them again'
    head = f'{len(failed)} of {len(chosen)} cells failed; {remedy}'
    raise NonFinite(head, *lines)


def choose(cells: list[Cell], only: tuple[str, ...]) -> list[Cell]:
  """The cells whose readable name or label matches one of the patterns."""
  import fnmatch

  if not only:
    return cells
  fits = lambda cell, pattern: any(
    fnmatch.fnmatchcase(name, pattern) for name in (cell.name, cell.label)
  )
  for pattern in only:
    if not any(fits(cell, pattern) for cell in cells):
      names = [cell.name for cell in cells]
      known = ', '.join(names[:4]) + (', ...' if len(names) > 4 else '')
      hint = config_lib.did_you_mean(pattern, names)
      raise UserError(f'--only={pattern}: no such cell (cells: {known}).{hint}')
  return [c for c in cells if any(fits(c, pattern) for pattern in only)]


def report(place: Folder) -> None:
  """Rebuilds the report from the files; a run does not end of it."""
  try:
    from ealign import report as report_lib

    place.pull()
    report_lib.write(place.local)
    place.push()
  except Exception as error:
    print(f'note: no report: {_line(error)}', file=sys.stderr)


class _Runner:
  """One launch: what it knows of the cells, and how it runs them."""

  def __init__(self, grid, command, place, hosts, board, states, launched):
    self.grid, self.command, self.place, self.hosts = (
      grid,
      command,
      place,
      hosts,
    )
    self.board, self.states, self.launched = board, states, launched

  def state(self, cell: Cell) -> str:
    status = self.states.get(cell.id)
    return status.state if status else 'missing'

  def run(self, chosen: list[Cell], stop: preempt.Stop) -> None:
    left = groups([c for c in chosen if self._wanted(c)], self.command.arms)
    self._count(chosen)
    skipped = len(chosen) - sum(map(len, left))
    if skipped and self.hosts.writes:
      self.board.say(f'{skipped} of {len(chosen)} cells are not run again')
    while left:
      if stop.requested:
        raise Preempted(f'{self._stopped()}; the same command continues')
      number, leases = self._take(left)
      number = self.hosts.gather(number)[0]
      if number is None:
        break
      if number < 0:
        left = [g for g in left if any(map(self._wanted, g))]
        continue
      group = left.pop(number)
      self._run_group(group, leases, stop)
      self._count(chosen)
      if self.command.fail_fast and any(
        self.state(c) == 'failed' for c in group
      ):
        break

  def _stopped(self) -> str:
    return f'{self.place.shared}: stopped between cells'

  def _wanted(self, cell: Cell) -> bool:
    """Whether a cell is to be run by this launch."""
    status, retry = self.states.get(cell.id), self.command.retry
    if status is None or status.state not in ('done', 'failed'):
      return True
    if status.finished >= self.launched:  # since then, here or elsewhere
      return False
    return retry == 'all' or (retry == status.state == 'failed')

  def _take(self, left):
    """The number of a group and its leases.

    None: nothing is left but what others run. -1: something has changed.
    """
    if not self.hosts.writes:
      return None, []
    waiting = []
    for number, group in enumerate(left):
      leases = []
      for cell in group:
        path = self.place.shared / cell.folder / 'LEASE'
        lease = cells_lib.take(path, exclusive=not self.place.copied)
        if lease is None:
          waiting.append(cells_lib.holder(path) or {'heartbeat': 0.0})
          break
        leases.append(lease)
      if len(leases) == len(group):
        self._read(group)
        if all(map(self._wanted, group)):
          return number, leases
        for lease in leases:
          lease.release()
        return -1, []
      for lease in leases:
        lease.release()
    silent = time.time() - min(x['heartbeat'] for x in waiting)
    if silent > 3 * cells_lib.BEAT_S:  # perhaps dead: its cell would be ours
      time.sleep(_POLL_S)
      self._read([cell for group in left for cell in group])
      return -1, []
    hosts = sorted({x.get('host', '?') for x in waiting})
    n = sum(map(len, left))
    self.board.say(f'{n} cells are run by others ({", ".join(hosts)})')
    return None, []

  def _read(self, cells) -> None:
    for cell in cells:
      try:
        found = cells_lib.read(self.place.shared / cell.folder)
      except UserError:
        if self.command.retry != 'failed':
          raise
        continue
      if found or self.command.retry != 'all':
        self.states[cell.id] = found

  def _run_group(self, group, leases, stop) -> None:
    jobs = [self._job(cell) for cell in group]
    tell = functools.partial(self._tell, jobs, 'running')
    compiled = provenance.compiles()
    with cells_lib.kept(leases, tell):
      self._begin(jobs, stop)
      self.hosts.gather(None)
      self.board.running = [job.watch for job in jobs]
      for job in jobs:
        job.place.pull()
        self.board.say(f'{job.cell.name}: in {job.place.shared}')
      try:
        errors = run_group(jobs, self.hosts)
      except (Preempted, KeyboardInterrupt):
        self._tell(jobs, 'preempted')
        raise
      except UserError as error:
        self._tell(jobs, 'failed', error=_line(error))
        raise
      compiled = provenance.compiles() - compiled
      for job, error in zip(jobs, errors, strict=True):
        self._end(job, error, compiled)
      self.board.running = []

  def _job(self, cell: Cell) -> Job:
    config = ledger.resolved(cell.config, self.place)
    watch = Watch(cell.name, config.train.steps, self.board)
    return Job(cell, config, self.place / cell.folder, watch)

  def _begin(self, jobs, stop) -> None:
    """Config, state and what the cells start from; of all hosts the first."""
    if not self.hosts.writes:
      return
    for job in jobs:
      status = self.states.get(job.cell.id)
      fresh = self.command.retry == 'all' or (
        status and ledger.differing(status, job.config, job.cell)
      )
      if fresh:
        ledger.to_trash(self.place, job.cell)
      path = job.place.shared / 'config.json'
      cells_lib.replace(path, config_lib.to_json(job.cell.config))
    self._tell(jobs, 'queued')
    said = f'{self.place.shared}: stopped while it prepared'
    with stop.at_once(Preempted(f'{said}; the same command continues')):
      for job in jobs:
        prepare.ensure(
          job.cell,
          *(self.grid.config, self.command.module),
          *(self.place, self.board.say),
        )
    for job in jobs:
      job.watch.began = time.time()
      found = {'config': job.cell.id} | hashes.of(job.config)
      self.states[job.cell.id] = Status('queued', hashes=found)
    self._tell(jobs, 'running')

  def _tell(self, jobs, state: str, **facts) -> None:
    if not self.hosts.writes:
      return
    for job in jobs:
      cell, watch = job.cell, job.watch
      old = self.states.get(cell.id) or Status(state)
      self.states[cell.id] = status = dataclasses.replace(
        Status(state),
        host=socket.gethostname(),
        pid=os.getpid(),
        heartbeat=time.time(),
        started=watch.began,
        step=watch.step,
        steps=watch.steps,
        step_time_s=round(watch.step_time_s, 4),
        stacked=len(jobs),
        overhead_s=round(watch.overhead_s, 3),
        hashes=old.hashes,
        **facts,
      )
      cells_lib.write(job.place.shared, status)

  def _end(self, job: Job, error: str, compiled: int) -> None:
    if not self.hosts.writes:
      return
    theirs = self._theirs(job)
    if theirs:  # in a bucket two may have run it: the first one stands
      self.states[job.cell.id] = theirs
      shutil.rmtree(job.place.local, ignore_errors=True)
      return
    if not error and job.config.train.export:
      from ealign import export

      form, folder = job.config.train.export, job.place.local
      export.export(folder, folder / 'export', form, overwrite=True)
    job.place.push()
    state = 'failed' if error else 'done'
    facts = {'error': error, 'compiles': compiled, 'finished': time.time()}
    self._tell([job], state, **facts)
    status = self.states[job.cell.id]
    took = f'in {status.seconds:.0f} s'
    said = f'failed: {error}' if error else f'done {took}'
    self.board.say(f'{job.cell.name}: {said}')
    if not error:
      self.board.seconds.append(status.seconds)
    report(self.place)

  def _theirs(self, job: Job) -> Status | None:
    """The status of another who was done first."""
    if not job.place.copied:
      return None
    found = cells_lib.read(job.place.shared)
    me = (socket.gethostname(), os.getpid())
    ours = found is None or (found.host, found.pid) == me
    return None if ours or found.state != 'done' else found

  def _count(self, chosen) -> None:
    """Cells by state for the board."""
    states = [self.state(cell) for cell in chosen]
    done, failed = states.count('done'), states.count('failed')
    self.board.counts = {'done': done, 'failed': failed}
    self.board.counts['left'] = len(states) - done - failed
