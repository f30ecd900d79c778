"""The launcher of a grid: takes cells by lease, runs them, tells of them.

Several launchers may do so in one work folder. What a killed one leaves is
another's: STATUS.json and checkpoints say how far it came.
"""

import dataclasses
import fnmatch
import functools
import sys
import time
import traceback

from ealign import config as config_lib
from ealign.grid import claims, ledger, prepare
from ealign.grid import job as job_lib
from ealign.grid import lease as lease_lib
from ealign.grid.claims import Launch
from ealign.grid.job import Job
from ealign.grid.progress import Board
from ealign.grid.sweeps import Cell, Grid
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.runtime.folder import Folder
from ealign.runtime.hosts import Hosts


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
    return [job_lib.line(error)]
  except Exception as error:
    if hosts.count > 1:  # perhaps here alone: all end
      raise
    if isinstance(error, UserError):
      return [job_lib.line(error)]
    traceback.print_exc()
    return [job_lib.line(f'{type(error).__name__}: {error}')]
  return ['']


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
  jobs = [job_lib.make(this, cell) for cell in group]
  beat = functools.partial(job_lib.tell, this, jobs) if leases else lambda: None
  compiled = provenance.compiles()
  with lease_lib.kept(leases, beat) as hush:
    try:
      if hosts.writes:
        job_lib.begin(this, grid, module, jobs, stop)
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
        job_lib.tell(this, jobs, 'preempted')
      raise
    except UserError as error:
      if hosts.count > 1:
        raise
      errors = [job_lib.line(error)] * len(jobs)
    finally:
      this.board.running = []
    hush()
    if hosts.writes:
      compiled = provenance.compiles() - compiled
      for job, error in zip(jobs, errors, strict=True):
        job_lib.end(this, job, error, compiled, len(jobs))
  return any(errors)


def report(place: Folder, *, told: bool = False) -> None:
  """Rebuilds the report from the files; no run ends of one that cannot be."""
  from ealign import report as report_lib

  try:
    place.pull()
    path = report_lib.write(place.local)
  except Exception as error:
    if told:
      print(f'note: no report: {job_lib.line(error)}', file=sys.stderr)
    return
  for name in ('report.html', 'report.md', 'results.csv'):
    if place.copied and (place.local / name).exists():
      (place.shared / name).write_bytes((place.local / name).read_bytes())
  if told:
    print(f'report: {path}')
