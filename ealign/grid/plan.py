"""`--plan` of a grid: what is done, what is left, and how long it may take."""

import contextlib
import dataclasses
import time

import rich.box
import rich.table
import rich.text

from ealign import config as config_lib
from ealign.grid import ledger
from ealign.grid import run as run_lib
from ealign.grid.claims import Launch
from ealign.grid.progress import Board
from ealign.grid.sweeps import Cell, Grid
from ealign.plan import run as plan_lib
from ealign.plan import show
from ealign.runtime import display
from ealign.runtime.errors import Unfit, UserError
from ealign.stack import groups as groups_lib
from ealign.workdir import folder as folder_lib
from ealign.workdir.folder import Folder

_STATES = ('done', 'running', 'failed', 'left')


def plan(grid: Grid, command, place: Folder, methods: dict) -> None:
  """Prints the grid, and the plan of the most demanding program of a launch.

  methods: `method.Method` by name.

  Raises:
    UserError: the work folder is another's, or cannot be written; or as
      `ealign.plan.run.plan`.
    Unfit: that cell would fail, or waste its chips.
  """
  place.pull()
  cells, _ = ledger.find(place, grid)
  chosen = run_lib.choose(cells, command.only)
  ledger.check(place, cells, command.retry, chosen)
  this = Launch(place, command.retry, time.time(), Board(quiet=True))
  this.refresh(chosen)
  screen = show.console()
  states = [this.state(cell) for cell in chosen]
  found = {name: states.count(name) for name in _STATES}
  found['expected'] = _expected(this, chosen)
  show.pairs(screen, f'grid {grid.text}: {len(chosen)} cells', found)
  screen.print(_table(this, grid, chosen))
  wanted = [cell for cell in chosen if this.wants(cell)] or chosen
  cell, arms = _heaviest(wanted, command.arms, screen)
  config = _at_hand(grid, cell, place, screen)
  with folder_lib.usable(place.shared):
    place.local.mkdir(parents=True, exist_ok=True)
  try:
    plan_lib.plan(
      *(config, place),
      slice_name=command.topology,
      name=cell.name,
      arms=arms,
      auto=not command.arms,
      method=methods[config.method],
    )
  except Unfit:
    place.push()
    raise
  except BaseException:
    with contextlib.suppress(OSError):  # not ours alone: it is not empty
      place.local.rmdir()
    raise
  place.push()


def _heaviest(cells: list[Cell], arms: int, screen) -> tuple[Cell, int]:
  """Of the programs that a launch makes the largest one: a cell, and how many.

  Full fine-tuning counts as larger than LoRA, though it has no arms: that there
  are larger stacks is told.
  """
  groups = groups_lib.groups(cells, arms or groups_lib.MOST)
  demand = lambda cell, n: plan_lib.demand(cell.config, n)
  most = lambda group: max(demand(cell, len(group)) for cell in group)
  group = max(groups, key=most)
  cell = max(group, key=lambda cell: demand(cell, len(group)))
  said = 'of all the largest by what it trains on and samples'
  screen.print(f'planning cell {cell.name}: {said}', soft_wrap=True)
  most_arms = max(map(len, groups))
  if arms and most_arms > len(group):
    said = f'other programs hold up to {most_arms} cells: to plan one of them,'
    screen.print(f'{said} choose its settings with --only', soft_wrap=True)
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


def _table(this: Launch, grid: Grid, cells: list[Cell]):
  """One line a setting: how it differs from the base, and its replicates."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=0)
  for name in ('setting', 'differs from the base config', 'cells'):
    table.add_column(name)
  settings = {}
  for cell in cells:
    settings.setdefault(cell.label, []).append(cell)
  for label, same in settings.items():
    own = set(same[0].setting)
    lines = config_lib.differences(grid.config, same[0].config)
    kept = [line for line in lines if line.partition(':')[0] in own]
    states = [this.state(cell) for cell in same]
    told = ', '.join(f'{states.count(s)} {s}' for s in _STATES if s in states)
    row = (label, '\n'.join(kept) or 'nothing', told)
    table.add_row(*map(rich.text.Text, row))
  return table


def _at_hand(grid: Grid, cell: Cell, place: Folder, screen):
  """The cell's Config; for a base that is not made, the base config's own."""
  config = ledger.resolved(cell.config, place)
  if not cell.config.model.path.startswith('grid:') or ledger.exists(
    config.model.path
  ):
    return config
  path = grid.config.model.path
  if path.startswith('grid:'):
    said = 'is made when the grid first runs; until then there is no plan'
    raise UserError(f'model.path={cell.config.model.path!r}: {said} of a cell')
  said = f'{cell.config.model.path} is not made yet: the plan is for {path}'
  screen.print(said)
  model = dataclasses.replace(config.model, path=path)
  return dataclasses.replace(config, model=model)
