"""What is known of a cell: its STATUS.json."""

import dataclasses
import json

from etils import epath

from ealign.runtime import atomic
from ealign.runtime.errors import UserError

STATES = ('queued', 'running', 'done', 'failed', 'preempted')
# What training leaves; STATUS.json stands there before it begins.
_COMPUTED = ('checkpoints', 'answers.jsonl')


@dataclasses.dataclass(frozen=True)
class Status:
  """A cell's STATUS.json; times are Unix seconds.

  error: one line. stacked: cells in its program. overhead_s: from its start to
  its first step. compiles: programs compiled, or fetched, meanwhile.
  earlier_s: of the starts before its last one. hashes: of what its result
  depends on (`grid.hashes`).
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

  @property
  def seconds(self) -> float:
    """Of all its starts, of each as far as it is known; queues left out."""
    last = (self.finished or self.heartbeat) - self.started
    return self.earlier_s + (max(last, 0.0) if self.state != 'queued' else 0.0)


def read(folder, *, damaged: Status | None = None) -> Status | None:
  """The status in a cell's folder; None where it has none yet.

  Where something was computed and STATUS.json is gone, it counts as damaged:
  nobody knows any more with what inputs.

  Raises:
    UserError: STATUS.json is damaged, and `damaged` does not stand for it.
  """
  path, fault = epath.Path(folder) / 'STATUS.json', 'damaged'
  try:
    found = json.loads(path.read_text())
    known = {field.name for field in dataclasses.fields(Status)}
    status = Status(**{k: v for k, v in found.items() if k in known})
    sound = status.state in STATES and isinstance(status.hashes, dict)
    sound &= bool(status.hashes) or status.state != 'done'
    times = status.seconds + status.heartbeat + status.step_time_s
    sound &= isinstance(times + status.step + status.steps, float)
    sound &= status.stacked >= 1
  except NotADirectoryError:
    return None
  except FileNotFoundError:
    if (path.parent / 'DONE').exists():  # all that older versions wrote
      return Status('done')
    if not computed(folder):
      return None
    sound, fault = False, 'missing'
  except (OSError, ValueError, TypeError, AttributeError):
    sound = False
  if not sound and damaged:
    return dataclasses.replace(damaged, error=f'{path} is {fault}')
  if not sound:
    message = f'is {fault}; --retry=failed runs the cell again'
    raise UserError(f'{path}: {message}')
  return status


def computed(folder) -> bool:
  """Whether training has left something in a cell's folder."""
  folder = epath.Path(folder)
  # In a bucket each question is a request: most folders are not there yet.
  return folder.exists() and any((folder / n).exists() for n in _COMPUTED)


def write(folder, status: Status) -> None:
  """Writes STATUS.json at once: a reader sees the old one or the new one."""
  text = json.dumps(dataclasses.asdict(status), indent=2) + '\n'
  atomic.write(epath.Path(folder) / 'STATUS.json', text)
