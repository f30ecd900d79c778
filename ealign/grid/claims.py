"""Which cells a launcher may run next, of all that share the work folder."""

import dataclasses
import time
from collections.abc import Sequence

from ealign.grid import cells as cells_lib
from ealign.grid import lease as lease_lib
from ealign.grid.cells import Status
from ealign.grid.lease import Lease
from ealign.grid.progress import Board
from ealign.grid.sweeps import Cell
from ealign.runtime.folder import Folder

_POLL_S = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Launch:
  """One start of a launcher: what it was asked for, and what it knows.

  retry: '', 'failed' or 'all'. began: Unix time. states: id -> status.
  """

  place: Folder
  retry: str
  began: float
  board: Board
  states: dict[str, Status | None] = dataclasses.field(default_factory=dict)

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
  """The first group of `left` that is free, and its leases; it leaves the list.

  Nothing, if others run all that is left. One of them that has been silent for
  long is waited for: it lives after all, or its cell is ours.
  """
  while left:
    busy = []
    for group in list(left):
      leases = _all(launch, group, busy)
      if leases is None:
        continue
      left.remove(group)
      launch.refresh(group)  # another may have run it since
      if all(map(launch.wants, group)):
        return group, leases
      for lease in leases:
        lease.release()
      still = [cell for cell in group if launch.wants(cell)]
      left += [still] if still else []
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


def _all(launch, group, busy) -> list[Lease] | None:
  """The leases of all cells of a group; or None, and who has one of them."""
  leases = []
  for cell in group:
    path = launch.place.shared / cell.folder / 'LEASE'
    lease = lease_lib.take(path, exclusive=not launch.place.copied)
    if lease is None:
      now = {'host': '?', 'heartbeat': time.time()}
      busy.append(lease_lib.holder(path) or now)
      for each in leases:
        each.release()
      return None
    leases.append(lease)
  return leases
