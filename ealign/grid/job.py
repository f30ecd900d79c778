"""A cell that is run: what stands in its folder before, meanwhile and after."""

import dataclasses
import functools
import os
import socket
import threading
import time
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import hashes, ledger, prepare
from ealign.grid.claims import Launch
from ealign.grid.progress import Watch
from ealign.grid.sweeps import Cell
from ealign.runtime import atomic
from ealign.runtime.errors import Preempted, UserError, line
from ealign.workdir import folder as folder_lib
from ealign.workdir import status as cells_lib
from ealign.workdir.folder import Folder
from ealign.workdir.status import Status


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A cell that is run: its Config with paths, its folder, what is shown.

  pulse: held while its STATUS.json is written by a thread that may be late.
  """

  cell: Cell
  config: Config
  place: Folder
  watch: Watch
  method: Any = None  # a `method.Method`; None: the paper's
  pulse: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def make(this: Launch, cell: Cell) -> Job:
  """The job of a cell that is ours."""
  config = ledger.resolved(cell.config, this.place)
  watch = Watch(cell.name, config.train.steps, this.board)
  place = this.place / cell.folder
  place = dataclasses.replace(place, ours=lambda: _theirs(place) is None)
  return Job(cell, config, place, watch, this.methods.get(config.method))


def begin(this: Launch, grid, module, jobs, stop) -> dict[str, str]:
  """Config, state, and what the cells start from.

  Returns:
    the one-line error of each that cannot start, by id.

  Raises:
    UserError: the work folder cannot be written.
  """
  errors = {}

  def each(begun):
    for job in jobs:
      try:
        if job.cell.id not in errors:
          begun(job)
      except Preempted:
        raise
      except UserError as error:
        errors[job.cell.id] = line(error)
    return [job for job in jobs if job.cell.id not in errors]

  tell(this, each(functools.partial(_claim, this)), 'queued')
  each(lambda job: prepared(this, grid, module, [job.cell], stop))
  tell(this, each(functools.partial(_hash, this)), 'running')
  return errors


def _claim(this: Launch, job: Job) -> None:
  status = this.states.get(job.cell.id)
  if status and _anew(this, status, job):
    with folder_lib.usable(this.place.shared):
      ledger.to_trash(this.place, job.cell)
    this.states.pop(job.cell.id)
  elif status:
    status = dataclasses.replace(status, earlier_s=status.seconds)
    this.states[job.cell.id] = status
  text = config_lib.to_json(job.cell.config)
  with folder_lib.usable(this.place.shared):
    atomic.write(job.place.shared / 'config.json', text)


def _hash(this: Launch, job: Job) -> None:
  job.watch.began = time.time()
  found = {'config': job.cell.id} | hashes.of(job.config)
  status = this.states.get(job.cell.id) or Status('queued')
  this.states[job.cell.id] = dataclasses.replace(status, hashes=found)


def prepared(this: Launch, grid, module, cells, stop) -> None:
  """Has what the cells start from made, and fetched."""
  said = 'stopped while it prepared; the same command continues'
  stopped = Preempted(f'{this.place.shared}: {said}')
  with stop.at_once(stopped), folder_lib.usable(this.place.shared):
    for cell in cells:
      prepare.ensure(cell, grid.config, module, this.place, this.board.say)
      prepare.pull(cell, this.place)


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


def tell(this: Launch, jobs, state: str = '', **facts) -> None:
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
      earlier_s=round(old.earlier_s, 3),
      hashes=old.hashes,
      **({'stacked': len(jobs)} | facts),
    )
    if state:
      this.states[job.cell.id] = status
    with folder_lib.usable(this.place.shared):
      cells_lib.write(job.place.shared, status)


def beat(this: Launch, jobs) -> None:
  """Says that those live that have not ended, in the state that they are in.

  An arm ends while this goes on for the others: nothing overwrites its end,
  nor that of a cell which another has done meanwhile.
  """
  for job in jobs:
    with job.pulse:
      if not ended(this, job) and _theirs(job.place) is None:
        tell(this, [job], stacked=len(jobs))


def ended(this: Launch, job: Job) -> bool:
  """Whether STATUS.json says how it ended."""
  status = this.states.get(job.cell.id)
  return status is not None and status.state in ('done', 'failed')


def end(this: Launch, job: Job, error: str, compiled: int, stacked) -> None:
  """Keeps what a cell left, and says in STATUS.json how it ended."""
  # In a bucket two may run it: the first one stands.
  if theirs := _theirs(job.place):
    this.states[job.cell.id] = theirs
    this.board.say(f'{job.cell.name}: done already by {theirs.host}')
    return
  error = (error or _export(job)).replace(f'{job.place.local}: ', '')
  job.place.push()
  facts = {'error': error, 'compiles': compiled, 'stacked': stacked}
  state = 'failed' if error else 'done'
  with job.pulse:
    tell(this, [job], state, finished=time.time(), **facts)
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
    return line(error)
  return ''


def _theirs(place: Folder) -> Status | None:
  """The status of another launcher who was done first."""
  if not place.copied:
    return None
  found = cells_lib.read(place.shared, damaged=Status('failed'))
  me = (socket.gethostname(), os.getpid())
  ours = found is None or (found.host, found.pid) == me
  return None if ours or found.state != 'done' else found
