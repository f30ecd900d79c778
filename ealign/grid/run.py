"""The launcher of a grid: takes cells by lease, runs them, tells of them.

Several launchers may do so in one work folder. What a killed one leaves is
another's: STATUS.json and checkpoints say how far it came.
"""

import dataclasses
import fnmatch
import functools
import sys
import threading
import time

import jax

from ealign import config as config_lib
from ealign.grid import claims, ledger, prepare, program
from ealign.grid import job as job_lib
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.grid.sweeps import Cell, Grid
from ealign.plan import stack as stack_plan
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import preempt, provenance
from ealign.runtime.errors import NonFinite, Preempted, UserError, line
from ealign.runtime.hosts import Hosts
from ealign.stack import groups as groups_lib
from ealign.workdir import lease as lease_lib
from ealign.workdir.folder import Folder


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
      listed = '; '.join(known[:4]) + ('; ...' if len(known) > 4 else '')
      hint = config_lib.did_you_mean(rest[0], known)
      raise UserError(f'--only={rest[0]}: no such cell ({listed}).{hint}')
    patterns.append(pattern)
    rest = rest[joined[pattern] :]
  fits = lambda cell: any(fnmatch.filter(names(cell), p) for p in patterns)
  return [cell for cell in cells if not only or fits(cell)]


def launch(
  grid: Grid, command, place: Folder, hosts: Hosts, *, methods=None
) -> None:
  """Runs what is left of a grid.

  methods: `method.Method` by name, for cells that name another than the
  paper's.

  Raises:
    UserError: the work folder is another's, or would mix what must not be.
    NonFinite: some cells failed; they are named.
    Preempted: a signal came; what ran is saved.
  """
  this = Launch(
    *(place, command.retry, time.time()),
    Board(quiet=not hosts.writes),
    methods=methods or {},
  )
  cells = grid.cells
  arms = max(cell.config.mesh.arm for cell in cells)
  if hosts.count > 1 and arms > 1:
    said = 'several processes run one cell at a time; set mesh.arm=1'
    raise UserError(f'mesh.arm={arms}: {said}')
  if hosts.writes:
    for mesh in dict.fromkeys(cell.config.mesh for cell in cells):
      mesh_lib.make(**dataclasses.asdict(mesh))  # refuses one that does not fit
    cells, told = ledger.find(place, grid)
    chosen = choose(cells, command.only)
    ledger.check(place, cells, command.retry, chosen)
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
  open_ = sum(this.state(cell) == 'left' for cell in chosen)
  if failed := hosts.gather(failed)[0]:
    left = f', {open_} left' if open_ else ''
    said = '--retry=failed runs them again'
    head = f'{len(failed)} of {len(chosen)} cells failed{left}; {said}'
    raise NonFinite(head, *failed)


def _loop(this: Launch, grid, command, chosen, stop, hosts) -> None:
  left, due = [], 0.0
  if hosts.writes:
    _count(this, chosen)
    wanted = [cell for cell in chosen if this.wants(cell)]
    this.board.say(f'{len(wanted)} of {len(chosen)} cells to run')
    arms = 1 if hosts.count > 1 else command.arms
    if not arms and wanted:
      arms = _auto(this, grid, command.module, wanted[0], stop)
    left = groups_lib.groups(wanted, arms)
  while True:
    if stop.requested or hosts.stopping():
      said = 'stopped between cells; the same command continues'
      raise Preempted(f'{this.place.shared}: {said}')
    said = 'stopped while it waited; the same command continues'
    with stop.at_once(Preempted(f'{this.place.shared}: {said}')):
      group, leases = claims.take(this, left)
    picked = hosts.gather([cell.id for cell in group])[0]
    if not picked:
      return
    group = [cell for cell in chosen if cell.id in picked]
    failed = _run(this, grid, command, chosen, group, leases, stop, hosts)
    if hosts.writes:
      _count(this, chosen)
      began = time.monotonic()
      if began >= due:  # a twentieth of the time at most
        report(this.place)
        due = time.monotonic() + 20 * (time.monotonic() - began)
    if failed and command.fail_fast:
      return


def _auto(this: Launch, grid, module, cell, stop) -> int:
  """The number of --arms=auto; what is wrong with the cell it is told later."""
  try:
    if jax.devices()[0].platform != 'cpu':  # the size of its model counts
      job_lib.prepared(this, grid, module, [cell], stop)
    arms, why = stack_plan.auto(ledger.resolved(cell.config, this.place))
  except Preempted:
    raise
  except UserError as error:
    arms, why = 1, line(error)
  this.board.say(f'--arms=auto: {arms} in a program ({why})')
  return arms


def _count(this: Launch, chosen) -> None:
  this.refresh(chosen)
  states = [this.state(cell) for cell in chosen]
  names = ('done', 'running', 'failed', 'left')
  this.board.counts = {name: states.count(name) for name in names}
  this.board.seconds = [
    status.seconds / status.stacked
    for cell in chosen
    if (status := this.states[cell.id]) and status.state == 'done'
  ]


def _run(this, grid, command, chosen, group, leases, stop, hosts) -> bool:
  """Runs a group that is ours, up to STATUS.json; whether a cell failed."""
  jobs = [job_lib.make(this, cell) for cell in group]
  beat = functools.partial(job_lib.beat, this, jobs) if leases else lambda: None
  begun, able, failed = provenance.compiles(), jobs, {}
  with lease_lib.kept(leases, beat) as hush:
    try:
      if hosts.writes:
        failed = job_lib.begin(this, grid, command.module, jobs, stop)
        for job in jobs:
          if job.cell.id in failed:
            job_lib.end(this, job, failed[job.cell.id], 0, 1)
        _count(this, chosen)
      failed = hosts.gather(failed)[0]
      able = [job for job in jobs if job.cell.id not in failed]
      if failed and command.fail_fast:
        errors = [Preempted('another failed')] * len(able)
      else:
        errors = _together(this, command, chosen, able, begun, stop, hosts)
    except (Preempted, KeyboardInterrupt):
      hush()
      if hosts.writes:
        left = [job for job in jobs if not job_lib.ended(this, job)]
        job_lib.tell(this, left, 'preempted')
      raise
    except UserError as error:
      if hosts.count > 1:
        raise
      errors = [line(error)] * len(able)
    finally:
      this.board.running = []
    hush()
    if hosts.writes:
      _end(this, able, errors, provenance.compiles() - begun)
  stopped = [error for error in errors if isinstance(error, Preempted)]
  bad = bool(failed) or any(x for x in errors if x not in stopped)
  # Those that stop because another failed are not stopped by a signal.
  if stopped and (stop.requested or not (bad and command.fail_fast)):
    raise stopped[0]
  return bad


def _together(this, command, chosen, jobs, begun, stop, hosts) -> list:
  """Runs jobs as one program; each ends as soon as its arm has ended.

  Returns:
    as `arms.run`.
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
      _count(this, chosen)
    return bool(error) and command.fail_fast

  for job in jobs:
    prepare.pull(job.cell, this.place)
    job.place.pull()
  return program.run(jobs, hosts, stop, ended) if jobs else []


def _end(this, jobs, errors, compiled) -> None:
  """Says how those ended that have not said it yet."""
  ended = list(zip(jobs, errors, strict=True))
  left = [job for job, error in ended if isinstance(error, Preempted)]
  job_lib.tell(this, left, 'preempted', stacked=len(jobs))
  for job, error in ended:
    if job not in left and not job_lib.ended(this, job):
      job_lib.end(this, job, error, compiled, len(jobs))


def report(place: Folder, *, told: bool = False) -> None:
  """Rebuilds the report from the files; no run ends of one that cannot be."""
  from ealign.report.grid import page

  try:
    place.pull()
    if place.copied:  # what is the shared folder's own is not pulled
      for path in place.shared.glob('cells/*/STATUS.json'):
        here = place.local / 'cells' / path.parent.name / path.name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(path.read_bytes())
    page.write(place.local)
  except Exception as error:
    if told:
      print(f'note: no report: {line(error)}', file=sys.stderr)
    return
  for name in ('report.html', 'report.md', 'results.csv'):
    if place.copied and (place.local / name).exists():
      (place.shared / name).write_bytes((place.local / name).read_bytes())
  if told:
    print(f'report: {place.shared / "report.html"}')
