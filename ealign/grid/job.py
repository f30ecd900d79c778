"""A cell while it runs: what is written before, meanwhile and at its end."""

import dataclasses
import os
import socket
import threading
import time
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import ledger, prepare
from ealign.grid.cells import Cell
from ealign.grid.claims import Launch
from ealign.grid.progress import Watch
from ealign.runtime import atomic
from ealign.runtime.errors import Preempted, UserError, line
from ealign.workdir import done
from ealign.workdir import status as status_lib
from ealign.workdir.folder import Folder, usable


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A cell while it runs.

  config: the cell's with paths in the place of references. method, profile: as
  `train.run` takes them. pulse: held while STATUS.json is written, so that a
  late heartbeat cannot overwrite how the cell ended.
  """

  cell: Cell
  config: Config
  folder: Folder
  watch: Watch
  method: Any = None
  profile: tuple[int, int] | None = None
  pulse: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def make(launch: Launch, cell: Cell) -> Job:
  """The job of a cell whose lease this launcher holds."""
  config = ledger.resolved(cell, launch.folder)
  watch = Watch(cell.name, config.train.steps, launch.board)
  folder = launch.folder / cell.folder
  folder = dataclasses.replace(folder, ours=lambda: _theirs(folder) is None)
  method = launch.methods.get(config.method)
  return Job(cell, config, folder, watch, method, launch.command.profile)


def begin(launch: Launch, jobs: list[Job]) -> dict[str, str]:
  """Writes config and state, and makes or fetches what the cells start from.

  Returns:
    the one-line error of each cell that cannot start, by id. Its STATUS.json
    says so already.

  Raises:
    UserError: the work folder cannot be written.
  """
  errors = {}
  ready = lambda launch, job: prepared(launch, job.cell)
  for step, state in ((_claim, 'queued'), (ready, ''), (_hash, 'running')):
    for job in (job for job in jobs if job.cell.id not in errors):
      try:
        step(launch, job)
      except Preempted:
        raise
      except UserError as error:
        errors[job.cell.id] = line(error)
    if state:
      able = [job for job in jobs if job.cell.id not in errors]
      write_status(launch, able, state)
  for job in jobs:
    if job.cell.id in errors:
      end(launch, job, errors[job.cell.id], 0, 1)
  return errors


def _claim(launch: Launch, job: Job) -> None:
  """Moves aside what is not to be continued; writes the cell's config.json."""
  status = launch.states.get(job.cell.id)
  if status and _anew(launch, status, job.cell):
    with usable(launch.folder.shared):
      ledger.to_trash(launch.folder, job.cell)
    launch.states.pop(job.cell.id)
  elif status:
    status = dataclasses.replace(status, earlier_s=status.seconds)
    launch.states[job.cell.id] = status
  with usable(launch.folder.shared):
    (job.folder.local / 'DONE').unlink(missing_ok=True)
  if job.cell.folder:  # the work folder itself has it from `ledger.find`
    text = config_lib.to_json(job.cell.config)
    with usable(launch.folder.shared):
      atomic.write(job.folder.shared / 'config.json', text)


def _anew(launch: Launch, status: status_lib.Status, cell: Cell) -> bool:
  """Whether a cell must start from nothing instead of its last checkpoint.

  Raises:
    UserError: it should continue, but its inputs have changed since this launch
      began.
  """
  if launch.retry == 'all' and status.started < launch.began:
    return True
  if not launch.grid.swept:
    return False
  changed = ', '.join(ledger.differing(status, cell, launch.folder))
  if status.state == 'failed':
    return bool(changed or not status.hashes)
  if changed:
    message = f'began with other {changed}; --retry=failed begins anew'
    raise UserError(f'{cell.folder}: {message}')
  return False


def prepared(launch: Launch, cell: Cell) -> None:
  """Runs prepare() for this cell, and downloads all that it starts from."""
  stopped = launch.stopped('while it prepared')
  with launch.stop.at_once(stopped), usable(launch.folder.shared):
    prepare.ensure(launch, cell)
    prepare.pull(cell, launch.folder)


def _hash(launch: Launch, job: Job) -> None:
  """Records when the job began and the hashes of its inputs in its status."""
  job.watch.began = time.time()
  found = ledger.inputs(job.cell, job.config, launch.grid)
  status = launch.states.get(job.cell.id) or status_lib.Status('queued')
  launch.states[job.cell.id] = dataclasses.replace(status, hashes=found)


def write_status(launch: Launch, jobs, state: str = '', **facts) -> None:
  """Writes the STATUS.json of each job.

  state='' keeps the current state; only the main thread updates `states`.
  """
  for job in jobs:
    old, watch = (
      launch.states.get(job.cell.id) or status_lib.Status('queued'),
      job.watch,
    )
    status = status_lib.Status(
      state or old.state,
      host=socket.gethostname(),
      pid=os.getpid(),
      heartbeat=time.time(),
      started=watch.began,
      step=watch.step,
      steps=watch.steps,
      step_time_s=round(watch.step_time_s, 4),
      overhead_s=round(watch.overhead_s, 3),
      earlier_s=round(old.earlier_s, 3),
      hashes=old.hashes,
      **({'stacked': len(jobs)} | facts),
    )
    if state:
      launch.states[job.cell.id] = status
    with usable(launch.folder.shared):
      status_lib.write(job.folder.shared, status)


def beat(launch: Launch, jobs) -> None:
  """Renews the heartbeats of the jobs that have not ended.

  In a stack one job may end while the others go on. How it ended is never
  overwritten, nor is the status of a cell that another launcher has finished.
  """
  for job in jobs:
    with job.pulse:
      if not ended(launch, job) and _theirs(job.folder) is None:
        write_status(launch, [job], stacked=len(jobs))


def ended(launch: Launch, job: Job) -> bool:
  """Whether STATUS.json says how the job ended."""
  status = launch.states.get(job.cell.id)
  return status is not None and status.ended


def end(launch: Launch, job: Job, error: str, compiled: int, stacked) -> None:
  """Exports and uploads what the cell left; writes how it ended.

  error: one line, '' if it is done. compiled: how many programs. stacked: how
  many cells the program held.
  """
  name, say = job.cell.name or job.folder.shared, launch.board.say
  # In a bucket two launchers may run a cell: the first result stands.
  if theirs := _theirs(job.folder):
    launch.states[job.cell.id] = theirs
    say(f'{name}: done already by {theirs.host}')
    return
  error = (error or _export(launch, job)).replace(f'{job.folder.local}: ', '')
  with usable(launch.folder.shared):
    sealed = '' if error else done.write(job.folder.local)
    job.folder.push()
  facts = {'error': error, 'compiles': compiled, 'stacked': stacked}
  facts['sealed'] = sealed
  with job.pulse:
    state = 'failed' if error else 'done'
    write_status(launch, [job], state, finished=time.time(), **facts)
  if error:
    say(f'{name}: failed: {error}')
  elif launch.grid.swept:  # a run alone has shown its last step
    say(f'{name}: done in {launch.states[job.cell.id].seconds:.0f} s')


def _export(launch: Launch, job: Job) -> str:
  """Exports the model as `train.export` says; returns the error, or ''."""
  from ealign.export import write as export

  form, folder = job.config.train.export, job.folder.local
  stopped = launch.stopped('while it exported')
  try:
    if form:
      with launch.stop.at_once(stopped):
        made = export.export(folder, folder / 'export', form, overwrite=True)
      launch.board.say(str(made))
  except Preempted:
    raise
  except UserError as error:
    return line(error)
  return ''


def _theirs(folder: Folder) -> status_lib.Status | None:
  """The status by another launcher that has finished the cell, if one has."""
  if not folder.copied:
    return None
  found = status_lib.read(folder.shared, damaged=status_lib.Status('failed'))
  me = (socket.gethostname(), os.getpid())
  ours = found is None or (found.host, found.pid) == me
  return None if ours or found.state != 'done' else found
