"""The launcher: takes cells by lease, runs them, and writes the report.

Several launchers may share a work folder. Another one, or a later start,
continues what a killed one leaves, from its STATUS.json and checkpoints.
"""

import dataclasses
import functools
import sys
import threading
import time

import jax

from ealign.grid import claims, ledger, prepare, program
from ealign.grid import job as job_lib
from ealign.grid.cells import Cell, Grid, choose
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.plan import stack as stack_plan
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError, line
from ealign.runtime.hosts import Hosts
from ealign.stack import groups as groups_lib
from ealign.workdir import lease
from ealign.workdir.folder import Folder


def run(
  grid: Grid, command, folder: Folder, hosts: Hosts, *, methods=None
) -> None:
  """Runs what is left of a grid, of arms, or of a single run.

  methods: `method.Method` by name, for cells that name another than the
  paper's.

  Raises:
    UserError: the work folder belongs to something else or ran with other
      inputs; or an arm or single run has found a mistake.
    NonFinite: some cells failed; the message names them.
    Preempted: a signal came; what ran is saved.
  """
  _check(grid, command, hosts)
  if hosts.writes:
    grid = ledger.find(folder, grid, command, write=True)
  grid = grid.moved(hosts.gather({c.id: c.folder for c in grid.cells})[0])
  board = Board(quiet=not hosts.writes, table=grid.swept)
  with preempt.watch(alone=hosts.count == 1) as stop, board:
    launch = Launch(grid, folder, command, board, hosts, stop, methods or {})
    try:
      _loop(launch)
    except UserError:
      if hosts.writes and not grid.swept:
        ledger.leave(folder, grid)
      raise
    finally:
      if hosts.writes and grid.swept:
        report(folder, announce=True)
  if hosts.writes and not grid.swept:
    report(folder, announce=True, table=True)
  if failed := hosts.gather(_failed(launch) if hosts.writes else None)[0]:
    raise NonFinite(*failed)


def _check(grid: Grid, command, hosts: Hosts) -> None:
  """Raises a UserError of flags and meshes that do not fit the cells."""
  groups = max(cell.config.mesh.stack for cell in grid.cells)
  if hosts.count > 1 and groups > 1:
    message = 'several processes run one cell at a time; set mesh.stack=1'
    raise UserError(f'mesh.stack={groups}: {message}')
  first, end = command.profile or (0, 0)
  most = max(c.config.train.steps for c in choose(grid, command.only))
  if end > most:
    message = f'must end by step {most}, that of train.steps'
    raise UserError(f'--profile={first}:{end}: {message}')
  if hosts.writes:
    for mesh in dict.fromkeys(cell.config.mesh for cell in grid.cells):
      mesh_lib.make(**dataclasses.asdict(mesh))  # refuses one that does not fit


def _failed(launch: Launch) -> list[str]:
  """The lines of the last message: which cells failed; [] if none did."""
  launch.refresh(launch.chosen)
  lines, left = [], 0
  for cell in launch.chosen:
    state, where = launch.state(cell), cell.folder or launch.folder.shared
    if state == 'failed':
      lines.append(f'  {where}: {launch.states[cell.id].error}')
    elif state == 'left' and (lost := launch.lost(cell)):
      lines.append(f'  {where}: not run, {lost} failed')
    else:
      left += state == 'left'
  if not lines:
    return []
  what, again = 'runs', 'the same command'
  if launch.grid.swept:
    what, again = 'cells', '--retry=failed'
  more = f', {left} left' if left else ''
  head = f'{len(lines)} of {len(launch.chosen)} {what} failed{more}'
  return [f'{head}; {again} runs them again', *lines]


def _loop(launch: Launch) -> None:
  """Runs one group of cells after another; host 0 chooses for all hosts."""
  hosts, stop, swept = launch.hosts, launch.stop, launch.grid.swept
  left, due = _groups(launch) if hosts.writes else [], 0.0
  while True:
    if stop.requested or hosts.stopping():
      arm = left and not swept and _numbered(launch, left[0][0])
      raise launch.stopped(f'before {arm}' if arm else 'between cells')
    with stop.at_once(launch.stopped('while it waited')):
      group, leases = claims.take(launch, left)
    picked = hosts.gather([cell.id for cell in group])[0]
    if not picked:
      return
    group = [cell for cell in launch.chosen if cell.id in picked]
    failed = _run_group(launch, group, leases)
    if hosts.writes:
      _count(launch)
      began = time.monotonic()
      if swept and began >= due:  # a twentieth of the time at most
        report(launch.folder)
        due = time.monotonic() + 20 * (time.monotonic() - began)
    if failed and launch.command.fail_fast:
      return


def _groups(launch: Launch) -> list[list[Cell]]:
  """The cells to run, grouped by program; prints how many there are."""
  command, chosen = launch.command, launch.chosen
  _count(launch)
  wanted = [cell for cell in chosen if launch.wants(cell)]
  if not launch.grid.swept:
    more = ', --profile traces nothing' if command.profile else ''
    for cell in chosen:
      if cell not in wanted:
        launch.board.say(f'{_numbered(launch, cell)}: done already{more}')
    return groups_lib.groups(wanted, 1)
  launch.board.say(f'{len(wanted)} of {len(chosen)} cells to run')
  stack = command.stack if launch.hosts.count == 1 else 1
  if not stack and wanted:
    stack = _auto(launch, wanted[0])
  return groups_lib.groups(wanted, stack)


def _numbered(launch: Launch, cell: Cell) -> str:
  at = f'({launch.chosen.index(cell) + 1}/{len(launch.chosen)})'
  return f'{cell.name or launch.folder.shared} {at}'


def _auto(launch: Launch, cell: Cell) -> int:
  """How many cells --stack=auto puts into a program; prints why.

  An error of the cell counts as one here: it is reported when the cell runs.
  """
  try:
    if jax.devices()[0].platform != 'cpu':  # the size of its model counts
      job_lib.prepared(launch, cell)
    most, why = stack_plan.auto(ledger.resolved(cell, launch.folder))
  except Preempted:
    raise
  except UserError as error:
    most, why = 1, line(error)
  launch.board.say(f'--stack=auto: {most} in a program ({why})')
  return most


def _count(launch: Launch) -> None:
  """Gives the board the states of the cells, and what the done ones took."""
  launch.refresh(launch.chosen)
  launch.board.counts = launch.counts(launch.chosen)
  found = [launch.states[cell.id] for cell in launch.chosen]
  launch.board.seconds = [
    s.seconds / s.stacked for s in found if s and s.state == 'done'
  ]


def _run_group(launch: Launch, group: list[Cell], leases) -> bool:
  """Runs the leased cells and writes their STATUS.json; True if any failed."""
  hosts, fail_fast = launch.hosts, launch.command.fail_fast
  jobs = [job_lib.make(launch, cell) for cell in group]
  if not launch.grid.swept:
    name = _numbered(launch, group[0])
    launch.board.say(f'{name}: in {jobs[0].folder.shared}')
  beat = functools.partial(job_lib.beat, launch, jobs if leases else [])
  begun, able, failed = provenance.compiles(), jobs, {}
  # On several hosts an error may be that of one host; a mistake in one arm is
  # most likely one in all.
  strict = hosts.count > 1 or not launch.grid.swept
  with lease.kept(leases, beat) as hush:
    try:
      if hosts.writes:
        failed = job_lib.begin(launch, jobs)
        _count(launch)
      failed = hosts.gather(failed)[0]
      able = [job for job in jobs if job.cell.id not in failed]
      if failed and fail_fast:
        errors = [Preempted('another failed')] * len(able)
      else:
        errors = _together(launch, able, begun, strict)
    except (Exception, KeyboardInterrupt) as error:
      hush()
      stopped = isinstance(error, Preempted | KeyboardInterrupt)
      if stopped or strict or not isinstance(error, UserError):
        if hosts.writes:
          left = [job for job in jobs if not job_lib.ended(launch, job)]
          state, why = ('preempted', '') if stopped else ('failed', line(error))
          job_lib.write_status(launch, left, state, error=why)
        raise
      errors = [line(error)] * len(able)
    finally:
      launch.board.running = []
    hush()
    if hosts.writes:
      _end(launch, able, errors, provenance.compiles() - begun)
  stopped = [error for error in errors if isinstance(error, Preempted)]
  bad = bool(failed) or any(x for x in errors if x not in stopped)
  # With --fail_fast a cell also stops because another has failed.
  if stopped and (launch.stop.requested or not (bad and fail_fast)):
    raise stopped[0]
  return bad


def _together(launch: Launch, jobs, begun: int, strict: bool) -> list:
  """Runs jobs as one program; writes how each ended as soon as it has.

  Returns:
    as `program.run`.
  """
  board, one_by_one = launch.board, threading.Lock()
  board.running = [job.watch for job in jobs]

  def ended(job, error) -> bool:
    # An export loads the model once more: it waits until the others are done.
    if isinstance(error, Preempted) or (job.config.train.export and not error):
      return False
    with one_by_one:
      board.running = [w for w in board.running if w != job.watch]
      compiled = provenance.compiles() - begun
      job_lib.end(launch, job, error, compiled, len(jobs))
      _count(launch)
    return bool(error) and launch.command.fail_fast

  if not jobs:
    return []
  for job in jobs:
    prepare.pull(job.cell, launch.folder)
    job.folder.pull()
  return program.run(jobs, launch.hosts, launch.stop, ended, strict=strict)


def _end(launch: Launch, jobs, errors, compiled: int) -> None:
  """Writes how the jobs ended, unless that is written already."""
  for job, error in zip(jobs, errors, strict=True):
    if isinstance(error, Preempted):
      job_lib.write_status(launch, [job], 'preempted', stacked=len(jobs))
    elif not job_lib.ended(launch, job):
      job_lib.end(launch, job, error, compiled, len(jobs))


def report(folder: Folder, *, announce: bool = False, table=False) -> None:
  """Rebuilds the report from the files; a report that fails ends no run.

  announce: whether to print where the report is. table: whether to print the
  table, too.
  """
  from ealign import report as report_lib

  try:
    folder.pull()
    if folder.copied:  # STATUS.json is never pulled
      for path in folder.shared.glob('cells/*/STATUS.json'):
        here = folder.local / 'cells' / path.parent.name / path.name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(path.read_bytes())
    if table:
      _show(folder.local)
    report_lib.write(folder.local)
  except Exception as error:
    if announce:
      print(f'note: no report: {line(error)}', file=sys.stderr)
    return
  for name in ('report.html', 'report.md', 'results.csv'):
    if folder.copied and (folder.local / name).exists():
      (folder.shared / name).write_bytes((folder.local / name).read_bytes())
  if announce:
    print(f'report: {folder.shared / "report.html"}')


def _show(path) -> None:
  from ealign.evals import table
  from ealign.report import page, runs

  table.show(page.collect(runs.read(path))['blocks'])
