"""A cell that is run: what stands in its folder before, meanwhile and after."""

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
from ealign.workdir import folder as folder_lib
from ealign.workdir import status as status_lib
from ealign.workdir.folder import Folder
from ealign.workdir.status import Status


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A cell that is run: its Config with paths, its folder, what is shown.

  pulse: held while its STATUS.json is written by a thread that may be late.
  method, profile: as `train.run` takes them.
  """

  cell: Cell
  config: Config
  folder: Folder
  watch: Watch
  method: Any = None
  profile: tuple[int, int] | None = None
  pulse: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def make(launch: Launch, cell: Cell, profile=None) -> Job:
  """The job of a cell that is ours."""
  config = ledger.resolved(cell, launch.folder)
  watch = Watch(cell.name, config.train.steps, launch.board)
  folder = launch.folder / cell.folder
  folder = dataclasses.replace(folder, ours=lambda: _theirs(folder) is None)
  method = launch.methods.get(config.method)
  return Job(cell, config, folder, watch, method, profile)


def begin(launch: Launch, module, jobs, stop) -> dict[str, str]:
  """Writes config and state, and has made what the cells start from.

  module: the config file.

  Returns:
    the one-line error of each that cannot start, by id.

  Raises:
    UserError: the work folder cannot be written.
  """
  errors = {}

  def each(step, state=''):
    for job in jobs:
      try:
        if job.cell.id not in errors:
          step(job)
      except Preempted:
        raise
      except UserError as error:
        errors[job.cell.id] = line(error)
    able = [job for job in jobs if job.cell.id not in errors]
    if state:
      tell(launch, able, state)

  each(lambda job: _claim(launch, job), 'queued')
  each(lambda job: prepared(launch, module, [job.cell], stop))
  each(lambda job: _hash(launch, job), 'running')
  return errors


def _claim(launch: Launch, job: Job) -> None:
  status = launch.states.get(job.cell.id)
  if status and _anew(launch, status, job):
    with folder_lib.usable(launch.folder.shared):
      ledger.to_trash(launch.folder, job.cell)
    launch.states.pop(job.cell.id)
  elif status:
    status = dataclasses.replace(status, earlier_s=status.seconds)
    launch.states[job.cell.id] = status
  if job.cell.folder:  # the work folder itself has it from `ledger.write`
    text = config_lib.to_json(job.cell.config)
    with folder_lib.usable(launch.folder.shared):
      atomic.write(job.folder.shared / 'config.json', text)


def _hash(launch: Launch, job: Job) -> None:
  job.watch.began = time.time()
  found = ledger.inputs(job.cell, job.config, launch.grid)
  status = launch.states.get(job.cell.id) or Status('queued')
  launch.states[job.cell.id] = dataclasses.replace(status, hashes=found)


def prepared(launch: Launch, module, cells, stop) -> None:
  """Runs prepare() for what these cells start from, and fetches all of it."""
  message = 'stopped while it prepared; the same command continues'
  stopped = Preempted(f'{launch.folder.shared}: {message}')
  with stop.at_once(stopped), folder_lib.usable(launch.folder.shared):
    for cell in cells:
      prepare.ensure(
        *(cell, launch.grid.config, module, launch.folder, launch.board.say)
      )
      prepare.pull(cell, launch.folder)


def _anew(launch: Launch, status: Status, job: Job) -> bool:
  """Whether a cell that is to be run again must not continue where it stands.

  Raises:
    UserError: it was not to be run again, and its inputs changed since this
      launch began.
  """
  if launch.retry == 'all' and status.started < launch.began:
    return True
  if not launch.grid.swept:
    return False
  changed = ledger.differing(status, job.cell, launch.folder)
  if status.state == 'failed':
    return bool(changed or not status.hashes)
  if changed:
    message = (
      f'began with other {", ".join(changed)}; --retry=failed begins anew'
    )
    raise UserError(f'{job.cell.folder}: {message}')
  return False


def tell(launch: Launch, jobs, state: str = '', **facts) -> None:
  """Writes the STATUS.json of each.

  state='' keeps the current state; only the main thread updates `states`.
  """
  for job in jobs:
    old, watch = launch.states.get(job.cell.id) or Status('queued'), job.watch
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
      earlier_s=round(old.earlier_s, 3),
      hashes=old.hashes,
      **({'stacked': len(jobs)} | facts),
    )
    if state:
      launch.states[job.cell.id] = status
    with folder_lib.usable(launch.folder.shared):
      status_lib.write(job.folder.shared, status)


def beat(launch: Launch, jobs) -> None:
  """Renews the heartbeat of those that have not ended, in their state.

  One of a stack ends while this goes on for the others: nothing overwrites its
  end, nor that of a cell which another launcher has done meanwhile.
  """
  for job in jobs:
    with job.pulse:
      if not ended(launch, job) and _theirs(job.folder) is None:
        tell(launch, [job], stacked=len(jobs))


def ended(launch: Launch, job: Job) -> bool:
  """Whether STATUS.json says how it ended."""
  status = launch.states.get(job.cell.id)
  return status is not None and status.state in ('done', 'failed')


def end(launch: Launch, job: Job, error: str, compiled: int, stacked) -> None:
  """Keeps what a cell left, and says in STATUS.json how it ended."""
  name = job.cell.name or job.folder.shared
  # In a bucket two may run it: the first one stands.
  if theirs := _theirs(job.folder):
    launch.states[job.cell.id] = theirs
    launch.board.say(f'{name}: done already by {theirs.host}')
    return
  error = (error or _export(launch, job)).replace(f'{job.folder.local}: ', '')
  if not (error or launch.grid.swept):
    (job.folder.local / 'DONE').write_text('')  # for people, and for export
  job.folder.push()
  facts = {'error': error, 'compiles': compiled, 'stacked': stacked}
  state = 'failed' if error else 'done'
  with job.pulse:
    tell(launch, [job], state, finished=time.time(), **facts)
  took = launch.states[job.cell.id].seconds
  message = f'failed: {error}' if error else f'done in {took:.0f} s'
  launch.board.say(f'{name}: {message}')


def _export(launch: Launch, job: Job) -> str:
  """Writes what `train.export` asks for; why it could not, '' if it could."""
  from ealign import export

  form, folder = job.config.train.export, job.folder.local
  try:
    if form:
      done = export.export(folder, folder / 'export', form, overwrite=True)
      launch.board.say(str(done))
  except UserError as error:
    return line(error)
  return ''


def _theirs(folder: Folder) -> Status | None:
  """The status of another launcher who was done first."""
  if not folder.copied:
    return None
  found = status_lib.read(folder.shared, damaged=Status('failed'))
  me = (socket.gethostname(), os.getpid())
  ours = found is None or (found.host, found.pid) == me
  return None if ours or found.state != 'done' else found
