"""`--plan` of a grid: what is done, what is left, and how long it may take."""

import contextlib
import dataclasses
import statistics

import rich.box
import rich.table
import rich.text

from ealign import config as config_lib
from ealign.grid import ledger
from ealign.grid.cells import Cell, Grid
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.plan import run, show
from ealign.runtime import display
from ealign.runtime.errors import UserError
from ealign.stack import groups as groups_lib
from ealign.workdir.folder import Folder, usable


def plan(grid: Grid, command, folder: Folder, methods) -> None:
  """Prints the grid, and the plan of the most demanding program of a launch.

  methods: `method.Method` by name.

  Raises:
    UserError: the work folder is another's or cannot be written; and as
      `ealign.plan.run.plan`.
    Unfit: the planned program would fail, or waste its chips.
  """
  folder.pull()
  grid = ledger.find(folder, grid, command)
  launch = Launch(grid, folder, command, Board(quiet=True))
  chosen = launch.chosen
  launch.refresh(chosen)
  screen = show.console()
  if several := len(chosen) > 1 or grid.swept:
    _show(launch, screen)
  wanted = [cell for cell in chosen if launch.wants(cell)] or chosen
  cell, count, largest = _heaviest(grid, wanted, command.stack)
  if several:
    why = 'of all the largest by what it trains on and samples'
    screen.print(f'planning {grid.kind} {cell.name!r}: {why}', soft_wrap=True)
  if command.stack and largest > count:
    why = f'other programs hold up to {largest} cells: to plan one of them,'
    screen.print(f'{why} choose its settings with --only', soft_wrap=True)
  config = _at_hand(grid, cell, folder, screen)
  with usable(folder.shared):
    folder.local.mkdir(parents=True, exist_ok=True)
  try:
    run.plan(
      *(config, folder),
      slice_name=command.topology,
      name=cell.name,
      arms=count,
      auto=grid.swept and not command.stack,
      method=methods[config.method],
      price=command.chip_price,
    )
  finally:
    with contextlib.suppress(OSError):  # it is not empty: there is a plan
      folder.local.rmdir()
    folder.push()


def _show(launch: Launch, screen) -> None:
  """Prints what is done and what is left, and what each setting changes."""
  chosen, text = launch.chosen, launch.grid.text
  left = expected_s(launch, chosen)
  one = f"--only='{chosen[0].name}'"
  learn = f'not known before a cell ran: run one with {one}, then --plan again'
  expected = learn if left is None else display.clock(left)
  found = launch.counts(chosen) | {'expected': expected}
  head = f'grid {text}' if text else 'arms'
  show.pairs(screen, f'{head}: {len(chosen)} cells', found)
  screen.print(_table(launch))


def _heaviest(grid: Grid, cells, number: int) -> tuple[Cell, int, int]:
  """The largest of the programs that a launch makes, by one of its cells.

  Full fine-tuning counts as larger than LoRA, though it is never stacked.

  Returns:
    the cell, the number of cells in its program, and the most in any program.
  """
  groups = groups_lib.groups(cells, number or groups_lib.MOST)
  if not grid.swept:
    groups = [[cell] for cell in cells]
  _, cell, count = max(
    (
      (run.demand(cell.config, len(group)), cell, len(group))
      for group in groups
      for cell in group
    ),
    key=lambda found: found[0],
  )
  return cell, count, max(map(len, groups))


def expected_s(launch: Launch, cells: list[Cell]) -> float | None:
  """Seconds that one launcher needs for the rest; None if no time is known.

  A cell takes as long as those of its setting did, or as all did on average.
  """
  known = {}
  for cell in cells:
    status = launch.states[cell.id]
    done = status and status.state == 'done'
    if done or (status and status.step_time_s):
      seconds = status.seconds if done else status.steps * status.step_time_s
      known.setdefault(cell.label, []).append(seconds / status.stacked)
  every = [seconds for found in known.values() for seconds in found]
  if not every:
    return None
  total = 0.0
  for cell in cells:
    status = launch.states[cell.id]
    if launch.state(cell) in ('left', 'running'):
      begun = status and status.steps and not status.ended
      rest = 1 - status.step / status.steps if begun else 1.0
      total += rest * statistics.mean(known.get(cell.label, every))
  return total


def _table(launch: Launch):
  """A row for each setting: how it differs from the base, and its cells."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=0)
  for name in ('setting', 'differs from the base config', 'cells'):
    table.add_column(name)
  settings = {}
  for cell in launch.chosen:
    settings.setdefault(cell.label, []).append(cell)
  for label, same in settings.items():
    own = set(same[0].setting)
    lines = config_lib.differences(launch.grid.config, same[0].config)
    kept = [line for line in lines if line.partition(':')[0] in own]
    counts = launch.counts(same).items()
    counts = ', '.join(f'{n} {state}' for state, n in counts if n)
    row = (label, '\n'.join(kept) or 'nothing', counts)
    table.add_row(*map(rich.text.Text, row))
  return table


def _at_hand(grid: Grid, cell: Cell, folder: Folder, screen):
  """The cell's Config; with the base config's model if its own is not made."""
  config, named = ledger.resolved(cell, folder), cell.config.model.path
  if not named.startswith('grid:') or ledger.exists(config.model.path):
    return config
  path = grid.config.model.path
  if path.startswith('grid:'):
    message = 'is made when the grid first runs; until then there is no plan'
    raise UserError(f'model.path={named!r}: {message} of a cell')
  screen.print(f'{named} is not made yet: the plan is for {path}')
  model = dataclasses.replace(config.model, path=path)
  return dataclasses.replace(config, model=model)
