"""STATUS.json: how far a cell is, and what it ran with."""

import dataclasses
import json

from etils import epath

from ealign.runtime import atomic
from ealign.runtime.errors import UserError

STATES = ('queued', 'running', 'done', 'failed', 'preempted')
# What training leaves; STATUS.json is written before it begins.
_COMPUTED = ('checkpoints', 'answers.jsonl')


@dataclasses.dataclass(frozen=True)
class Status:
  """A cell's STATUS.json; times are Unix seconds.

  error: one line. stacked: how many cells its program holds. overhead_s: from
  its start to its first step. compiles: programs that were compiled, or
  loaded from the cache. earlier_s: seconds of the starts before the last one.
  hashes: of what its result depends on (`grid.hashes`). sealed: the hash of
  DONE, which holds those of what it left.
  """

  state: str
  host: str = ''
  pid: int = 0
  heartbeat: float = 0.0
  started: float = 0.0
  finished: float = 0.0
  error: str = ''
  step: int = 0
  steps: int = 0
  step_time_s: float = 0.0
  stacked: int = 1
  overhead_s: float = 0.0
  compiles: int = 0
  earlier_s: float = 0.0
  hashes: dict[str, str] = dataclasses.field(default_factory=dict)
  sealed: str = ''

  @property
  def ended(self) -> bool:
    """Whether it is done or has failed, and was not merely stopped."""
    return self.state in ('done', 'failed')

  @property
  def seconds(self) -> float:
    """Seconds of all its starts, as far as known, without time in a queue."""
    last = (self.finished or self.heartbeat) - self.started
    return self.earlier_s + (max(last, 0.0) if self.state != 'queued' else 0.0)


def read(folder, *, damaged: Status | None = None) -> Status | None:
  """The status in a cell's folder; None where it has none yet.

  A missing STATUS.json counts as damaged where something was computed: nobody
  knows any more with what inputs.

  Raises:
    UserError: STATUS.json is damaged, and `damaged`, to return then, is None.
  """
  path, fault, sound = epath.Path(folder) / 'STATUS.json', 'damaged', False
  try:
    found = json.loads(path.read_text())
    known = {field.name for field in dataclasses.fields(Status)}
    status = Status(**{k: v for k, v in found.items() if k in known})
    numbers = status.seconds + status.heartbeat + status.step_time_s
    numbers += status.step + status.steps
    sound = status.state in STATES and isinstance(status.hashes, dict)
    sound &= bool(status.hashes) or status.state != 'done'
    sound &= isinstance(numbers, float) and status.stacked >= 1
  except NotADirectoryError:
    return None
  except FileNotFoundError:
    done = path.parent / 'DONE'
    if done.exists() and not done.stat().length:  # of an older version
      return Status('done')
    if not computed(folder):
      return None
    fault = 'missing'
  except (OSError, ValueError, TypeError, AttributeError):
    sound = False
  if sound:
    return status
  if damaged:
    return dataclasses.replace(damaged, error=f'{path} is {fault}')
  raise UserError(f'{path}: is {fault}; --retry=failed runs the cell again')


def computed(folder) -> bool:
  """Whether training has left something in a cell's folder."""
  folder = epath.Path(folder)
  # In a bucket each `exists` is a request, and most folders are not there.
  return folder.exists() and any((folder / n).exists() for n in _COMPUTED)


def write(folder, status: Status) -> None:
  """Writes STATUS.json atomically: a reader sees the old or the new one."""
  text = json.dumps(dataclasses.asdict(status), indent=2) + '\n'
  atomic.write(epath.Path(folder) / 'STATUS.json', text)
