"""The launcher: takes cells by lease, runs them, tells of them.

Several launchers may do so in one work folder. What a killed one leaves is
another's: STATUS.json and checkpoints say how far it came.
"""

import dataclasses
import functools
import sys
import threading
import time

import jax

from ealign.grid import claims, ledger, program
from ealign.grid import job as job_lib
from ealign.grid import prepare as prepare_lib
from ealign.grid.cells import Grid, choose
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.plan import stack as stack_plan
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError, line
from ealign.runtime.hosts import Hosts
from ealign.stack import groups as groups_lib
from ealign.workdir import lease as lease_lib
from ealign.workdir.folder import Folder


def launch(
  grid: Grid, command, folder: Folder, hosts: Hosts, *, methods=None
) -> None:
  """Runs what is left of a grid, of arms, or of a single run.

  methods: `method.Method` by name, for cells that name another than the
  paper's.

  Raises:
    UserError: the work folder is another's, or would mix what must not be; a
      mistake that a run without sweeps has found.
    NonFinite: some cells failed; they are named.
    Preempted: a signal came; what ran is saved.
  """
  _check(grid, command, hosts)
  if hosts.writes:
    grid, record = ledger.find(folder, grid)
    ledger.check(folder, grid, command.retry, choose(grid, command.only))
    ledger.write(folder, grid, record)
  folders = hosts.gather({cell.id: cell.folder for cell in grid.cells})[0]
  grid = grid.moved(folders)
  chosen = choose(grid, command.only)
  # What an arm has failed at is tried again, as it always was.
  retry = command.retry or ('' if grid.swept else 'failed')
  board = Board(quiet=not hosts.writes, table=grid.swept)
  this = Launch(grid, folder, chosen, retry, board, methods or {})
  with preempt.watch(alone=hosts.count == 1) as stop, board:
    try:
      _loop(this, command, stop, hosts)
    except UserError:
      if hosts.writes and not grid.swept:
        ledger.leave(folder, grid)
      raise
    finally:
      if hosts.writes and grid.swept:
        report(folder, announce=True)
  if hosts.writes and not grid.swept:
    report(folder, announce=True, table=True)
  if failed := hosts.gather(_failed(this) if hosts.writes else None)[0]:
    raise NonFinite(*failed)


def _check(grid: Grid, command, hosts: Hosts) -> None:
  """Raises a UserError of flags and meshes that this launch cannot have."""
  cells = choose(grid, command.only)
  groups = max(cell.config.mesh.stack for cell in grid.cells)
  if hosts.count > 1 and groups > 1:
    message = 'several processes run one cell at a time; set mesh.stack=1'
    raise UserError(f'mesh.stack={groups}: {message}')
  first, end = command.profile or (0, 0)
  most = max(cell.config.train.steps for cell in cells)
  if end > most:
    message = f'must end by step {most}, that of train.steps'
    raise UserError(f'--profile={first}:{end}: {message}')
  if hosts.writes:
    for mesh in dict.fromkeys(cell.config.mesh for cell in grid.cells):
      mesh_lib.make(**dataclasses.asdict(mesh))  # refuses one that does not fit


def _failed(this: Launch) -> list[str]:
  """What is message of the cells that failed; [] if none did."""
  this.refresh(this.chosen)
  lines, left = [], 0
  for cell in this.chosen:
    state, where = this.state(cell), cell.folder or this.folder.shared
    if state == 'failed':
      lines.append(f'  {where}: {this.states[cell.id].error}')
    elif state == 'left' and (lost := this.lost(cell)):
      lines.append(f'  {where}: not run, {lost} failed')
    else:
      left += state == 'left'
  if not lines:
    return []
  swept = this.grid.swept
  what = 'cells' if swept else 'runs'
  more = f', {left} left' if left else ''
  again = '--retry=failed' if swept else 'the same command'
  head = f'{len(lines)} of {len(this.chosen)} {what} failed{more}'
  return [f'{head}; {again} runs them again', *lines]


def _loop(this: Launch, command, stop, hosts) -> None:
  left, due = [], 0.0
  if hosts.writes:
    _count(this)
    wanted = [cell for cell in this.chosen if this.wants(cell)]
    _say_what_is_left(this, wanted, command.profile)
    stack = command.stack if this.grid.swept and hosts.count == 1 else 1
    if not stack and wanted:
      stack = _auto(this, command.module, wanted[0], stop)
    left = groups_lib.groups(wanted, stack)
  while True:
    if stop.requested or hosts.stopping():
      message = 'stopped between cells; the same command continues'
      raise Preempted(f'{this.folder.shared}: {message}')
    message = 'stopped while it waited; the same command continues'
    with stop.at_once(Preempted(f'{this.folder.shared}: {message}')):
      group, leases = claims.take(this, left)
    picked = hosts.gather([cell.id for cell in group])[0]
    if not picked:
      return
    group = [cell for cell in this.chosen if cell.id in picked]
    failed = _run(this, command, group, leases, stop, hosts)
    if hosts.writes:
      _count(this)
      began = time.monotonic()
      if this.grid.swept and began >= due:  # a twentieth of the time at most
        report(this.folder)
        due = time.monotonic() + 20 * (time.monotonic() - began)
    if failed and command.fail_fast:
      return


def _say_what_is_left(this: Launch, wanted, profile) -> None:
  if this.grid.swept:
    this.board.say(f'{len(wanted)} of {len(this.chosen)} cells to run')
    return
  more = ', --profile traces nothing' if profile else ''
  for cell in this.chosen:
    if cell not in wanted:
      this.board.say(f'{_numbered(this, cell)}: done already{more}')


def _numbered(this: Launch, cell) -> str:
  at = f'({this.chosen.index(cell) + 1}/{len(this.chosen)})'
  return f'{cell.name or this.folder.shared} {at}'


def _auto(this: Launch, module, cell, stop) -> int:
  """The number of --stack=auto; a broken cell is reported when it runs."""
  try:
    if jax.devices()[0].platform != 'cpu':  # the size of its model counts
      job_lib.prepared(this, module, [cell], stop)
    most, why = stack_plan.auto(ledger.resolved(cell, this.folder))
  except Preempted:
    raise
  except UserError as error:
    most, why = 1, line(error)
  this.board.say(f'--stack=auto: {most} in a program ({why})')
  return most


def _count(this: Launch) -> None:
  this.refresh(this.chosen)
  states = [this.state(cell) for cell in this.chosen]
  names = ('done', 'running', 'failed', 'left')
  this.board.counts = {name: states.count(name) for name in names}
  this.board.seconds = [
    status.seconds / status.stacked
    for cell in this.chosen
    if (status := this.states[cell.id]) and status.state == 'done'
  ]


def _run(this: Launch, command, group, leases, stop, hosts) -> bool:
  """Runs the leased cells and writes their STATUS.json; True if any failed."""
  jobs = [job_lib.make(this, cell, command.profile) for cell in group]
  if not this.grid.swept:
    this.board.say(f'{_numbered(this, group[0])}: in {jobs[0].folder.shared}')
  beat = functools.partial(job_lib.beat, this, jobs) if leases else lambda: None
  begun, able, failed = provenance.compiles(), jobs, {}
  # Of several hosts an error may be one's alone; of arms a mistake ends all.
  strict = hosts.count > 1 or not this.grid.swept
  with lease_lib.kept(leases, beat) as hush:
    try:
      if hosts.writes:
        failed = _begin(this, command.module, jobs, stop)
      failed = hosts.gather(failed)[0]
      able = [job for job in jobs if job.cell.id not in failed]
      if failed and command.fail_fast:
        errors = [Preempted('another failed')] * len(able)
      else:
        errors = _together(this, command, able, begun, stop, hosts, strict)
    except (Exception, KeyboardInterrupt) as error:
      hush()
      stopped = isinstance(error, Preempted | KeyboardInterrupt)
      alone = stopped or strict or not isinstance(error, UserError)
      if hosts.writes and alone:
        left = [job for job in jobs if not job_lib.ended(this, job)]
        why = {} if stopped else {'error': line(error)}
        job_lib.tell(this, left, 'preempted' if stopped else 'failed', **why)
      if alone:
        raise
      errors = [line(error)] * len(able)
    finally:
      this.board.running = []
    hush()
    if hosts.writes:
      _end(this, able, errors, provenance.compiles() - begun)
  return _any_failed(failed, errors, stop, command.fail_fast)


def _any_failed(failed, errors, stop, fail_fast: bool) -> bool:
  """Whether one failed; raises the Preempted of those that a signal stopped."""
  stopped = [error for error in errors if isinstance(error, Preempted)]
  bad = bool(failed) or any(x for x in errors if x not in stopped)
  # Those that stop because another failed are not stopped by a signal.
  if stopped and (stop.requested or not (bad and fail_fast)):
    raise stopped[0]
  return bad


def _begin(this: Launch, module, jobs, stop) -> dict[str, str]:
  """As `job.begin`; those that cannot start have ended."""
  failed = job_lib.begin(this, module, jobs, stop)
  for job in jobs:
    if job.cell.id in failed:
      job_lib.end(this, job, failed[job.cell.id], 0, 1)
  _count(this)
  return failed


def _together(this, command, jobs, begun, stop, hosts, strict) -> list:
  """Runs jobs as one program; each ends as soon as its lane has ended.

  Returns:
    as `program.run`.
  """
  this.board.running = [job.watch for job in jobs]
  one_by_one = threading.Lock()

  def ended(job, error) -> bool:
    # An export reads the model once more: it waits until the others are done.
    if isinstance(error, Preempted) or (job.config.train.export and not error):
      return False
    with one_by_one:
      running = [watch for watch in this.board.running if watch != job.watch]
      this.board.running = running
      compiled = provenance.compiles() - begun
      job_lib.end(this, job, error, compiled, len(jobs))
      _count(this)
    return bool(error) and command.fail_fast

  for job in jobs:
    prepare_lib.pull(job.cell, this.folder)
    job.folder.pull()
  return program.run(jobs, hosts, stop, ended, strict=strict) if jobs else []


def _end(this: Launch, jobs, errors, compiled) -> None:
  """Says how those ended that have not message it yet."""
  ended = list(zip(jobs, errors, strict=True))
  left = [job for job, error in ended if isinstance(error, Preempted)]
  job_lib.tell(this, left, 'preempted', stacked=len(jobs))
  for job, error in ended:
    if job not in left and not job_lib.ended(this, job):
      job_lib.end(this, job, error, compiled, len(jobs))


def report(folder: Folder, *, announce: bool = False, table=False) -> None:
  """Rebuilds the report from the files; no run ends of one that cannot be.

  announce: whether it prints where it is; table: and what it says.
  """
  from ealign import report as report_lib

  try:
    folder.pull()
    # What is the shared folder's own is not pulled.
    for path in folder.shared.glob('cells/*/STATUS.json'):
      if folder.copied:
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
