"""`--plan` of a grid: what is done, what is left, and how long it may take."""

import contextlib
import dataclasses

import rich.box
import rich.table
import rich.text

from ealign import config as config_lib
from ealign.grid import ledger
from ealign.grid.cells import Cell, Grid, choose
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.plan import run as plan_lib
from ealign.plan import show
from ealign.runtime import display
from ealign.runtime.errors import Unfit, UserError
from ealign.stack import groups as groups_lib
from ealign.workdir import folder as folder_lib
from ealign.workdir.folder import Folder

_STATES = ('done', 'running', 'failed', 'left')


def plan(grid: Grid, command, folder: Folder, methods) -> None:
  """Prints the grid, and the plan of the most demanding program of a launch.

  methods: `method.Method` by name.

  Raises:
    UserError: the work folder is another's, or cannot be written; or as
      `ealign.plan.run.plan`.
    Unfit: that cell would fail, or waste its chips.
  """
  folder.pull()
  grid, _ = ledger.find(folder, grid)
  chosen = choose(grid, command.only)
  ledger.check(folder, grid, command.retry, chosen)
  this = Launch(grid, folder, chosen, command.retry, Board(quiet=True))
  this.refresh(chosen)
  screen = show.console()
  if len(chosen) > 1 or grid.swept:
    _show(this, screen)
  wanted = [cell for cell in chosen if this.wants(cell)] or chosen
  cell, count = _heaviest(grid, wanted, command.stack, screen)
  config = _at_hand(grid, cell, folder, screen)
  with folder_lib.usable(folder.shared):
    folder.local.mkdir(parents=True, exist_ok=True)
  try:
    plan_lib.plan(
      *(config, folder),
      slice_name=command.topology,
      name=cell.name,
      arms=count,
      auto=grid.swept and not command.stack,
      method=methods[config.method],
    )
  except Unfit:
    folder.push()
    raise
  except BaseException:
    with contextlib.suppress(OSError):  # not ours alone: it is not empty
      folder.local.rmdir()
    raise
  folder.push()


def _show(this: Launch, screen) -> None:
  """What is done and what is left, and what each setting changes."""
  states = [this.state(cell) for cell in this.chosen]
  found = {name: states.count(name) for name in _STATES}
  found['expected'] = _expected(this, this.chosen)
  head = f'grid {this.grid.text}' if this.grid.swept else 'arms'
  show.pairs(screen, f'{head}: {len(this.chosen)} cells', found)
  screen.print(_table(this))


def _heaviest(grid: Grid, cells, number: int, screen) -> tuple[Cell, int]:
  """Of the programs that a launch makes the largest one: a cell, and how many.

  Full fine-tuning counts as larger than LoRA, though it is never stacked: that
  there are larger stacks is printed.
  """
  most = (number or groups_lib.MOST) if grid.swept else 1
  groups = groups_lib.groups(cells, most)
  demand = lambda cell, n: plan_lib.demand(cell.config, n)
  largest = lambda group: max(demand(cell, len(group)) for cell in group)
  group = max(groups, key=largest)
  cell = max(group, key=lambda cell: demand(cell, len(group)))
  if len(cells) > 1 or grid.swept:
    message = 'of all the largest by what it trains on and samples'
    screen.print(f'planning {grid.kind} {cell.name}: {message}', soft_wrap=True)
  larger = max(map(len, groups))
  if number and larger > len(group):
    message = f'other programs hold up to {larger} cells: to plan one of them,'
    screen.print(f'{message} choose its settings with --only', soft_wrap=True)
  return cell, len(group)


def _expected(this: Launch, cells: list[Cell]) -> str:
  """The time that is left; before any cell ran, how to learn it."""
  left = expected_s(this, cells)
  if left is not None:
    return display.clock(left)
  one = f"--only='{cells[0].name}'"
  return f'not known before a cell ran: run one with {one}, then --plan again'


def expected_s(this: Launch, cells: list[Cell]) -> float | None:
  """Seconds of what is left, on one launcher; None if no time is known.

  A cell takes as long as those of its setting did, or as all did on average.
  """
  known = {}
  for cell in cells:
    status = this.states[cell.id]
    if status and status.state == 'done':
      seconds = status.seconds / status.stacked
      known.setdefault(cell.label, []).append(seconds)
    elif status and status.step_time_s:
      seconds = status.steps * status.step_time_s / status.stacked
      known.setdefault(cell.label, []).append(seconds)
  every = [seconds for found in known.values() for seconds in found]
  if not every:
    return None
  mean = lambda found: sum(found) / len(found)
  total = 0.0
  for cell in cells:
    status, state = this.states[cell.id], this.state(cell)
    if state in ('left', 'running'):
      begun = status and status.steps and status.state not in ('done', 'failed')
      rest = 1 - status.step / status.steps if begun else 1.0
      total += rest * mean(known.get(cell.label, every))
  return total


def _table(this: Launch):
  """One line a setting: how it differs from the base, and its replicates."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=0)
  for name in ('setting', 'differs from the base config', 'cells'):
    table.add_column(name)
  settings = {}
  for cell in this.chosen:
    settings.setdefault(cell.label, []).append(cell)
  for label, same in settings.items():
    own = set(same[0].setting)
    lines = config_lib.differences(this.grid.config, same[0].config)
    kept = [line for line in lines if line.partition(':')[0] in own]
    states = [this.state(cell) for cell in same]
    counts = ', '.join(f'{states.count(s)} {s}' for s in _STATES if s in states)
    row = (label, '\n'.join(kept) or 'nothing', counts)
    table.add_row(*map(rich.text.Text, row))
  return table


def _at_hand(grid: Grid, cell: Cell, folder: Folder, screen):
  """The cell's Config; for a base that is not made, the base config's own."""
  config = ledger.resolved(cell, folder)
  if not cell.config.model.path.startswith('grid:') or ledger.exists(
    config.model.path
  ):
    return config
  path = grid.config.model.path
  if path.startswith('grid:'):
    message = 'is made when the grid first runs; until then there is no plan'
    raise UserError(
      f'model.path={cell.config.model.path!r}: {message} of a cell'
    )
  message = f'{cell.config.model.path} is not made yet: the plan is for {path}'
  screen.print(message)
  model = dataclasses.replace(config.model, path=path)
  return dataclasses.replace(config, model=model)
