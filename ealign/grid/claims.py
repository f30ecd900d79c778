"""Which cells a launcher may run next, of all that share the work folder."""

import dataclasses
import time
from collections.abc import Sequence

from ealign.grid.progress import Board
from ealign.grid.sweeps import Cell
from ealign.workdir import folder as folder_lib
from ealign.workdir import lease as lease_lib
from ealign.workdir import status as cells_lib
from ealign.workdir.folder import Folder
from ealign.workdir.lease import Lease
from ealign.workdir.status import Status

_POLL_S = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Launch:
  """One start of a launcher: what it was asked for, and what it knows.

  retry: '', 'failed' or 'all'. began: Unix time. states: id -> status.
  methods: name -> `method.Method`.
  """

  place: Folder
  retry: str
  began: float
  board: Board
  states: dict[str, Status | None] = dataclasses.field(default_factory=dict)
  methods: dict = dataclasses.field(default_factory=dict)

  def state(self, cell: Cell) -> str:
    """'left' for a cell that this launch may run, and nobody runs now."""
    status = self.states.get(cell.id)
    if status is None or status.state in ('done', 'failed'):
      return 'left' if self.wants(cell) else status.state
    alive = time.time() - status.heartbeat < lease_lib.STALE_S
    return 'running' if alive and status.state != 'preempted' else 'left'

  def wants(self, cell: Cell) -> bool:
    """Whether the cell is to be run, by whomever."""
    status = self.states.get(cell.id)
    if status is None or status.state not in ('done', 'failed'):
      return True
    if status.finished >= self.began:  # since then, here or elsewhere
      return False
    return self.retry == 'all' or self.retry == status.state == 'failed'

  def refresh(self, cells: Sequence[Cell]) -> None:
    """Reads the cells' states; a damaged one is that of a failed cell."""
    for cell in cells:
      self.states[cell.id] = cells_lib.read(
        self.place.shared / cell.folder, damaged=Status('failed')
      )


def take(
  launch: Launch, left: list[list[Cell]]
) -> tuple[list[Cell], list[Lease]]:
  """What is free of the first such group of `left`, and its leases.

  It leaves the list, where what others run of the group stays. Nothing, if they
  run all that is left. One of them that has been silent for long is waited for:
  it lives after all, or its cell is ours.

  Raises:
    UserError: the work folder cannot be written.
  """
  while left:
    busy = []
    for group in list(left):
      with folder_lib.usable(launch.place.shared):
        free, theirs = _free(launch, group, busy)
      left.remove(group)
      left += [theirs] if theirs else []
      # Another may have run one since.
      launch.refresh([cell for cell, _ in free])
      ours = []
      for cell, lease in free:
        if launch.wants(cell):
          ours.append((cell, lease))
        else:
          lease.release()
      if ours:
        return [cell for cell, _ in ours], [lease for _, lease in ours]
    if not busy:
      continue
    silent = time.time() - min(holder['heartbeat'] for holder in busy)
    if silent < 3 * lease_lib.BEAT_S:
      hosts = ', '.join(sorted({holder['host'] for holder in busy}))
      number = sum(map(len, left))
      cells = f'{number} cell is' if number == 1 else f'{number} cells are'
      launch.board.say(f'{cells} left to others ({hosts})')
      break
    launch.board.say(
      f'waiting for {busy[0]["host"]}, silent for {silent:.0f} s'
    )
    time.sleep(_POLL_S)
  return [], []


def _free(launch, group, busy) -> tuple[list[tuple[Cell, Lease]], list[Cell]]:
  """[(cell, its lease)] of those of a group that are free, and the others.

  busy: gets who has them.
  """
  free, theirs = [], []
  for cell in group:
    path = launch.place.shared / cell.folder / 'LEASE'
    lease = lease_lib.take(path, exclusive=not launch.place.copied)
    if lease is None:
      now = {'host': '?', 'heartbeat': time.time()}
      busy.append(lease_lib.holder(path) or now)
      theirs.append(cell)
    else:
      free.append((cell, lease))
  return free, theirs
