"""Which cells a launcher may run next, of all that share the work folder."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ealign.grid import ledger
from ealign.grid.cells import Cell, Grid
from ealign.grid.progress import Board
from ealign.workdir import folder as folder_lib
from ealign.workdir import lease as lease_lib
from ealign.workdir import status as status_lib
from ealign.workdir.folder import Folder
from ealign.workdir.lease import Lease
from ealign.workdir.status import Status

_POLL_S = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Launch:
  """One start of a launcher: what it was asked for, and what it knows.

  chosen: the cells that --only leaves. retry: '', 'failed' or 'all'. methods:
  name -> `method.Method`. began: Unix time. states: id -> status.
  """

  grid: Grid
  folder: Folder
  chosen: list[Cell]
  retry: str
  board: Board
  methods: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  began: float = dataclasses.field(default_factory=time.time)
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

  def ready(self, cell: Cell) -> bool:
    """Whether what the cell starts from is done, and not to be done anew."""
    mine = {cell.id for cell in self.chosen}
    return all(
      (status := self.states.get(need.id))
      and status.state == 'done'
      and not (need.id in mine and self.wants(need))
      for need in cell.needs.values()
    )

  def lost(self, cell: Cell) -> str:
    """Which of the cells that it starts from failed, '' if none did."""
    for need in cell.needs.values():
      if self.state(need) == 'failed':
        return need.name
      if name := self.lost(need):
        return name
    return ''

  def refresh(self, cells: Iterable[Cell]) -> None:
    """Reads the states of cells, and of what they start from."""
    for cell in cells:
      self.refresh(cell.needs.values())
      self.states[cell.id] = status_lib.read(
        self.folder.shared / cell.folder, damaged=ledger.damaged_is(self.grid)
      )


def take(
  launch: Launch, left: list[list[Cell]]
) -> tuple[list[Cell], list[Lease]]:
  """Claims the free cells of the first group that has some, and their leases.

  The group leaves `left`; those of its cells that others run, or that wait for
  another cell, stay there. Returns ([], []) if others run all that is left, or
  what it starts from. A launcher that has been silent for long is waited for:
  it lives after all, or its cell is ours.

  Raises:
    UserError: the work folder cannot be written.
  """
  while left:
    busy, before = [], sum(map(len, left))
    for group in list(left):
      with folder_lib.usable(launch.folder.shared):
        free, others = _free(launch, group, busy)
      left.remove(group)
      left += [others] if others else []
      if free:
        return [cell for cell, _ in free], [lease for _, lease in free]
    if not busy and sum(map(len, left)) == before:
      break  # what they start from has failed, or is not done elsewhere
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

  busy: gets the holders of the leases of others.
  """
  free, others = [], []
  launch.refresh(need for cell in group for need in cell.needs.values())
  for cell in group:
    if not launch.ready(cell):
      others.append(cell)
      continue
    path = launch.folder.shared / cell.folder / 'LEASE'
    lease = lease_lib.take(path, exclusive=not launch.folder.copied)
    if lease is None:
      now = {'host': '?', 'heartbeat': time.time()}
      busy.append(lease_lib.holder(path) or now)
      others.append(cell)
      continue
    launch.refresh([cell])
    if launch.wants(cell):  # another may have run it since
      free.append((cell, lease))
    else:
      lease.release()
  return free, others
