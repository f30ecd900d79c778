"""The launcher of a grid: takes cells by lease, runs them, tells of them.

Several launchers may do so in one work folder. What a killed one leaves is
another's: STATUS.json and checkpoints say how far it came.
"""

import dataclasses
import fnmatch
import functools
import os
import socket
import sys
import time
import traceback

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import cells as cells_lib
from ealign.grid import claims, hashes, ledger, prepare
from ealign.grid import lease as lease_lib
from ealign.grid.cells import Status
from ealign.grid.claims import Launch
from ealign.grid.progress import Board, Watch
from ealign.grid.sweeps import Cell, Grid
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.runtime.folder import Folder
from ealign.runtime.hosts import Hosts


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
  except Exception as error:
    if hosts.count > 1:  # perhaps here alone: all end
      raise
    if isinstance(error, UserError):
      return [_line(error)]
    traceback.print_exc()
    return [_line(f'{type(error).__name__}: {error}')]
  return ['']


def _line(error) -> str:
  return ' '.join(str(error).split()) or type(error).__name__


def choose(cells: list[Cell], only: tuple[str, ...]) -> list[Cell]:
  """The cells whose name, setting or replicate matches one of the patterns.

  only: what --only has between commas. Names have commas too: as many parts as
  match a name together are one pattern.
  """
  names = lambda cell: (cell.name, cell.label, cell.seed)
  known = list(dict.fromkeys(n for cell in cells for n in names(cell) if n))
  patterns, rest = [], list(only)
  while rest:
    ends = range(len(rest), 0, -1)
    joined = {','.join(rest[:end]): end for end in ends}
    pattern = next((p for p in joined if fnmatch.filter(known, p)), None)
    if pattern is None:
      listed = ', '.join(known[:4]) + (', ...' if len(known) > 4 else '')
      hint = config_lib.did_you_mean(rest[0], known)
      raise UserError(f'--only={rest[0]}: no such cell ({listed}).{hint}')
    patterns.append(pattern)
    rest = rest[joined[pattern] :]
  fits = lambda cell: any(fnmatch.filter(names(cell), p) for p in patterns)
  return [cell for cell in cells if not only or fits(cell)]


def launch(grid: Grid, command, place: Folder, hosts: Hosts) -> None:
  """Runs what is left of a grid.

  Raises:
    UserError: the work folder is another's, or would mix what must not be.
    NonFinite: some cells failed; they are named.
    Preempted: a signal came; what ran is saved.
  """
  this = Launch(
    *(place, command.retry, time.time()), Board(quiet=not hosts.writes)
  )
  cells = grid.cells
  if hosts.writes:
    cells, told = ledger.find(place, grid)
    ledger.check(place, choose(cells, command.only), command.retry)
    ledger.write(place, told)
  found = hosts.gather({cell.id: cell.folder for cell in cells})[0]
  cells = [dataclasses.replace(c, folder=found[c.id]) for c in cells]
  chosen = choose(cells, command.only)
  with preempt.watch(alone=hosts.count == 1) as stop, this.board:
    try:
      _loop(this, grid, command, chosen, stop, hosts)
    finally:
      if hosts.writes:
        report(place, told=True)
  this.refresh(chosen if hosts.writes else [])
  failed = [
    f'  {cell.folder}: {this.states[cell.id].error}'
    for cell in chosen
    if hosts.writes and this.state(cell) == 'failed'
  ]
  if failed := hosts.gather(failed)[0]:
    said = '--retry=failed runs them again'
    head = f'{len(failed)} of {len(chosen)} cells failed; {said}'
    raise NonFinite(head, *failed)


def _loop(this: Launch, grid, command, chosen, stop, hosts) -> None:
  left = []
  if hosts.writes:
    _count(this, chosen)
    wanted = [cell for cell in chosen if this.wants(cell)]
    left = groups(wanted, command.arms)
    this.board.say(f'{len(wanted)} of {len(chosen)} cells to run')
  while True:
    if stop.requested:
      said = 'stopped between cells; the same command continues'
      raise Preempted(f'{this.place.shared}: {said}')
    said = 'stopped while it waited; the same command continues'
    with stop.at_once(Preempted(f'{this.place.shared}: {said}')):
      group, leases = claims.take(this, left)
    picked = hosts.gather([cell.id for cell in group])[0]
    if not picked:
      return
    group = [cell for cell in chosen if cell.id in picked]
    failed = _run(
      this, grid, command.module, chosen, group, leases, stop, hosts
    )
    if hosts.writes:
      _count(this, chosen)
      report(this.place)
    if failed and command.fail_fast:
      return


def _count(this: Launch, chosen) -> None:
  this.refresh(chosen)
  states = [this.state(cell) for cell in chosen]
  names = ('done', 'running', 'failed', 'left')
  this.board.counts = {name: states.count(name) for name in names}
  this.board.seconds = [
    status.seconds
    for cell in chosen
    if (status := this.states[cell.id]) and status.state == 'done'
  ]


def _run(this, grid, module, chosen, group, leases, stop, hosts) -> bool:
  """Runs a group that is ours, up to STATUS.json; whether a cell failed."""
  jobs = [_job(this, cell) for cell in group]
  beat = functools.partial(_tell, this, jobs) if leases else lambda: None
  compiled = provenance.compiles()
  with lease_lib.kept(leases, beat) as hush:
    try:
      if hosts.writes:
        _begin(this, grid, module, jobs, stop)
        _count(this, chosen)
      hosts.gather(None)
      this.board.running = [job.watch for job in jobs]
      for job in jobs:
        prepare.pull(job.cell, this.place)
        job.place.pull()
      errors = run_group(jobs, hosts)
    except (Preempted, KeyboardInterrupt):
      hush()
      if hosts.writes:
        _tell(this, jobs, 'preempted')
      raise
    except UserError as error:
      if hosts.count > 1:
        raise
      errors = [_line(error)] * len(jobs)
    finally:
      this.board.running = []
    hush()
    if hosts.writes:
      compiled = provenance.compiles() - compiled
      for job, error in zip(jobs, errors, strict=True):
        _end(this, job, error, compiled, len(jobs))
  return any(errors)


def _job(this: Launch, cell: Cell) -> Job:
  config = ledger.resolved(cell.config, this.place)
  watch = Watch(cell.name, config.train.steps, this.board)
  return Job(cell, config, this.place / cell.folder, watch)


def _begin(this: Launch, grid, module, jobs, stop) -> None:
  """Config, state, and what the cells start from."""
  for job in jobs:
    status = this.states.get(job.cell.id)
    if status and _anew(this, status, job):
      ledger.to_trash(this.place, job.cell)
      this.states.pop(job.cell.id)
    text = config_lib.to_json(job.cell.config)
    cells_lib.replace(job.place.shared / 'config.json', text)
  _tell(this, jobs, 'queued')
  said = 'stopped while it prepared; the same command continues'
  with stop.at_once(Preempted(f'{this.place.shared}: {said}')):
    for job in jobs:
      prepare.ensure(job.cell, grid.config, module, this.place, this.board.say)
      prepare.pull(job.cell, this.place)
  for job in jobs:
    job.watch.began = time.time()
    found = {'config': job.cell.id} | hashes.of(job.config)
    this.states[job.cell.id] = Status('queued', hashes=found)
  _tell(this, jobs, 'running')


def _anew(this: Launch, status: Status, job: Job) -> bool:
  """Whether a cell that is to be run again must not continue where it stands.

  Raises:
    UserError: it was not to be run again, and its inputs changed since this
      launch began.
  """
  if this.retry == 'all' and status.started < this.began:
    return True
  changed = ledger.differing(status, job.config, job.cell)
  if status.state == 'failed':
    return bool(changed or not status.hashes)
  if changed:
    said = f'began with other {", ".join(changed)}; --retry=failed begins anew'
    raise UserError(f'{job.cell.folder}: {said}')
  return False


def _tell(this: Launch, jobs, state: str = '', **facts) -> None:
  """Writes the STATUS.json of each; '' is the state it is in, as a thread says.

  Only the launcher itself changes what is known.
  """
  for job in jobs:
    old, watch = this.states.get(job.cell.id) or Status('queued'), job.watch
    status = Status(
      state or old.state,
      host=socket.gethostname(),
      pid=os.getpid(),
      heartbeat=time.time(),
      started=watch.began,
      step=watch.step,
      steps=watch.steps,
      step_time_s=round(watch.step_time_s, 4),
      overhead_s=round(watch.overhead_s, 3),
      hashes=old.hashes,
      **({'stacked': len(jobs)} | facts),
    )
    if state:
      this.states[job.cell.id] = status
    cells_lib.write(job.place.shared, status)


def _end(this: Launch, job: Job, error: str, compiled: int, stacked) -> None:
  if theirs := _theirs(job):  # in a bucket two may run it: the first one stands
    this.states[job.cell.id] = theirs
    this.board.say(f'{job.cell.name}: done already by {theirs.host}')
    return
  error = error or _export(job)
  job.place.push()
  facts = {'error': error, 'compiles': compiled, 'stacked': stacked}
  state = 'failed' if error else 'done'
  _tell(this, [job], state, finished=time.time(), **facts)
  took = this.states[job.cell.id].seconds
  said = f'failed: {error}' if error else f'done in {took:.0f} s'
  this.board.say(f'{job.cell.name}: {said}')


def _export(job: Job) -> str:
  """Writes what `train.export` asks for; why it could not, '' if it could."""
  from ealign import export

  form, folder = job.config.train.export, job.place.local
  try:
    if form:
      export.export(folder, folder / 'export', form, overwrite=True)
  except UserError as error:
    return _line(error)
  return ''


def _theirs(job: Job) -> Status | None:
  """The status of another launcher who was done first."""
  if not job.place.copied:
    return None
  found = cells_lib.read(job.place.shared, damaged=Status('failed'))
  me = (socket.gethostname(), os.getpid())
  ours = found is None or (found.host, found.pid) == me
  return None if ours or found.state != 'done' else found


def report(place: Folder, *, told: bool = False) -> None:
  """Rebuilds the report from the files; no run ends of one that cannot be."""
  from ealign import report as report_lib

  try:
    place.pull()
    path = report_lib.write(place.local)
  except Exception as error:
    if told:
      print(f'note: no report: {_line(error)}', file=sys.stderr)
    return
  for name in ('report.html', 'report.md', 'results.csv'):
    if place.copied and (place.local / name).exists():
      (place.shared / name).write_bytes((place.local / name).read_bytes())
  if told:
    print(f'report: {path}')
