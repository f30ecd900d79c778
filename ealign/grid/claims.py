"""Which cells a launcher may run next, of those in a shared work folder."""

import dataclasses
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ealign.grid import ledger
from ealign.grid.cells import Cell, Grid, choose
from ealign.grid.progress import Board
from ealign.runtime.errors import Preempted
from ealign.runtime.hosts import Hosts
from ealign.runtime.preempt import Stop
from ealign.workdir import lease as lease_lib
from ealign.workdir import status as status_lib
from ealign.workdir.folder import Folder, usable

_POLL_S = 5.0
_STATES = ('done', 'running', 'failed', 'left')


@dataclasses.dataclass(frozen=True, eq=False)
class Launch:
  """One start of a launcher: what it is to do, and what it knows.

  command: a `cli.command.Command`. hosts, stop: as `train.run` takes them; a
  plan has neither. methods: `method.Method` by name. began: Unix time. states:
  the newest status that was read of each cell, by id.
  """

  grid: Grid
  folder: Folder
  command: Any
  board: Board
  hosts: Hosts | None = None
  stop: Stop | None = None
  methods: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  began: float = dataclasses.field(default_factory=time.time)
  states: dict[str, status_lib.Status | None] = dataclasses.field(
    default_factory=dict
  )

  @functools.cached_property
  def chosen(self) -> list[Cell]:
    """The cells that --only leaves."""
    return choose(self.grid, self.command.only)

  @property
  def retry(self) -> str:
    """'', 'failed' or 'all'; arms that failed are always tried again."""
    return self.command.retry or ('' if self.grid.swept else 'failed')

  def stopped(self, when: str) -> Preempted:
    """What to raise once a signal has come."""
    message = f'stopped {when}; the same command continues'
    return Preempted(f'{self.folder.shared}: {message}')

  def state(self, cell: Cell) -> str:
    """done, running, failed, or left: it is to be run and nobody runs it."""
    status = self.states.get(cell.id)
    if status is None or status.ended:
      return 'left' if self.wants(cell) else status.state
    alive = time.time() - status.heartbeat < lease_lib.STALE_S
    return 'running' if alive and status.state != 'preempted' else 'left'

  def counts(self, cells: Iterable[Cell]) -> dict[str, int]:
    """How many of the cells are in each state."""
    states = [self.state(cell) for cell in cells]
    return {state: states.count(state) for state in _STATES}

  def wants(self, cell: Cell) -> bool:
    """Whether the cell is still to be run, by any launcher."""
    status = self.states.get(cell.id)
    if status is None or not status.ended:
      return True
    if status.finished >= self.began:  # since then, here or elsewhere
      return False
    return self.retry == 'all' or self.retry == status.state == 'failed'

  def ready(self, cell: Cell) -> bool:
    """Whether all that the cell starts from is done and stays as it is."""
    mine = {cell.id for cell in self.chosen}
    return all(
      (status := self.states.get(need.id))
      and status.state == 'done'
      and not (need.id in mine and self.wants(need))
      for need in cell.needs.values()
    )

  def lost(self, cell: Cell) -> str:
    """The name of a failed cell that this one starts from, or ''."""
    for need in cell.needs.values():
      if self.state(need) == 'failed':
        return need.name
      if name := self.lost(need):
        return name
    return ''

  def refresh(self, cells: Iterable[Cell]) -> None:
    """Reads the status of cells, and of those that they start from."""
    for cell in cells:
      self.refresh(cell.needs.values())
      path = self.folder.shared / cell.folder
      damaged = ledger.assumed(self.grid)
      self.states[cell.id] = status_lib.read(path, damaged=damaged)


def take(
  launch: Launch, left: list[list[Cell]]
) -> tuple[list[Cell], list[lease_lib.Lease]]:
  """Claims the free cells of the first group that has some, and their leases.

  The group leaves `left`; those of its cells that others run, or that wait for
  another cell, stay there. Returns ([], []) if others run the rest, or what the
  rest starts from. It waits for a launcher that has been silent for long, until
  that one shows that it lives, or its lease ends and its cell can be taken.

  Raises:
    UserError: the work folder cannot be written.
  """
  board = launch.board
  while left:
    busy, before = [], sum(map(len, left))
    for group in list(left):
      with usable(launch.folder.shared):
        free, others = _free(launch, group, busy)
      left.remove(group)
      left += [others] if others else []
      if free:
        return [cell for cell, _ in free], [lease for _, lease in free]
    number = sum(map(len, left))
    if not busy and number < before:
      continue  # others ended some meanwhile, which the rest may start from
    if not busy:
      break  # what they start from has failed, or is not done elsewhere
    silent = time.time() - min(holder['heartbeat'] for holder in busy)
    if silent < 3 * lease_lib.BEAT_S:
      hosts = ', '.join(sorted({holder['host'] for holder in busy}))
      cells = f'{number} cell is' if number == 1 else f'{number} cells are'
      board.say(f'{cells} left to others ({hosts})')
      break
    board.say(f'waiting for {busy[0]["host"]}, silent for {silent:.0f} s')
    time.sleep(_POLL_S)
  return [], []


def _free(
  launch, group, busy
) -> tuple[list[tuple[Cell, lease_lib.Lease]], list[Cell]]:
  """The free cells of a group, each with a lease on it; and the other cells.

  busy: a list, to which the holders of the others' leases are appended.
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
