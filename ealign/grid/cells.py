"""What a command runs: cells, each one run in a folder of its own.

The arms of a config are cells, the combinations of a grid's sweeps are
(`sweeps.read`), and a config without either is one: the work folder itself. A
cell may start from another one, and runs once that one is done.
"""

import dataclasses
import fnmatch
from collections.abc import Iterator
from typing import Any

from ml_collections import config_dict

from ealign import config as config_lib
from ealign.fields import Config
from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
  """One run: an arm, or a setting at one replicate.

  config: as in its config.json, with references as they are written. folder:
  below the work folder, '' for the work folder itself. needs: the cells it
  starts from, by the reference in its config ('arm:sft', 'cell:lam=0').
  """

  id: str
  folder: str
  setting: dict[str, Any]
  replicate: dict[str, Any]
  label: str
  seed: str
  config: Config
  needs: dict[str, 'Cell'] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """What --only matches: an arm's, or the folder's without the hash."""
    if self.folder == self.label:
      return self.label
    return self.folder.removeprefix('cells/').rpartition('-')[0]

  def moved(self, folders: dict[str, str]) -> 'Cell':
    """The cell, and what it needs, in the folders that are found by id."""
    return dataclasses.replace(
      self,
      folder=folders.get(self.id, self.folder),
      needs={name: cell.moved(folders) for name, cell in self.needs.items()},
    )


@dataclasses.dataclass(frozen=True)
class Grid:
  """All cells of a command line, and what they come from.

  config: of all cells together; with arms it is the ConfigDict. text: that of
    --sweep, '' for arms and for single runs.
  notes: problems that may be of this machine only, where nothing is to run;
    contrasts that cannot be tested.
  """

  config: Config | config_dict.ConfigDict
  text: str
  sweeps: dict[str, list[dict[str, Any]]]
  cells: list[Cell]
  contrasts: list[dict[str, Any]]
  notes: tuple[str, ...] = ()

  @property
  def swept(self) -> bool:
    """Whether it is a grid of sweeps: then its cells must stay comparable."""
    return bool(self.text)

  @property
  def kind(self) -> str:
    """What messages call a cell."""
    return 'cell' if self.swept else 'arm'

  @property
  def axes(self) -> dict[str, list[str]]:
    """Each sweep that is no replicate, with the fields it sets."""
    return {
      name: list(dict.fromkeys(field for level in levels for field in level))
      for name, levels in self.sweeps.items()
      if not is_replicate(name)
    }

  def moved(self, folders: dict[str, str]) -> 'Grid':
    """The grid with its cells in the folders that are found by id."""
    cells = [cell.moved(folders) for cell in self.cells]
    return dataclasses.replace(self, cells=cells)


def is_replicate(sweep: str) -> bool:
  """Whether a sweep repeats settings, by its name."""
  return sweep == 'seeds' or sweep.endswith('_seeds')


def references(config: Config) -> list[str]:
  """Where the model and its adapters come from, as the config names them."""
  model = config.model
  return [model.path, model.adapter, model.frozen_adapter]


def of_arms(command) -> Grid:
  """The cells of a command without --sweep: its arms, or the config itself.

  Raises:
    UserError: all that is wrong with flags and config, each once.
  """
  config, problems = command.config, config_lib.validate(command.config)
  if command.print_launch:  # what only this machine may lack
    return Grid(config, '', {}, [], [], tuple(problems))
  if command.problems or problems:
    raise UserError(*command.problems, *problems)
  cells = {}
  for name, arm in (config_lib.arms(config) or {'': config}).items():
    frozen = config_lib.freeze(arm)
    needs = {x: cells[x[4:]] for x in references(frozen) if x[:4] == 'arm:'}
    setting = config_lib.flatten(config.arms[name]) if name else {}
    named = {'id': name, 'folder': name, 'label': name, 'seed': ''}
    cells[name] = Cell(
      **named, setting=setting, replicate={}, config=frozen, needs=needs
    )
  return Grid(config, '', {}, list(cells.values()), [])


def choose(grid: Grid, only: tuple[str, ...]) -> list[Cell]:
  """The cells whose name, setting or replicate matches one of the patterns.

  only: what --only has between commas. Names have commas too: as many parts as
  match a name together are one pattern.
  """
  names = lambda cell: (cell.name, cell.label, cell.seed)
  known = [name for cell in grid.cells for name in names(cell) if name]
  known = list(dict.fromkeys(known))
  patterns, rest = [], list(only)
  while rest:
    ends = range(len(rest), 0, -1)
    joined = {','.join(rest[:end]): end for end in ends}
    pattern = next((p for p in joined if fnmatch.filter(known, p)), None)
    if pattern is None:
      listed = '; '.join(known[:4]) + ('; ...' if len(known) > 4 else '')
      hint = config_lib.did_you_mean(rest[0], known)
      message = f'no such {grid.kind} ({listed or "there are none"}).{hint}'
      raise UserError(f'--only={rest[0]}: {message}')
    patterns.append(pattern)
    rest = rest[joined[pattern] :]
  fits = lambda cell: any(fnmatch.filter(names(cell), p) for p in patterns)
  return [cell for cell in grid.cells if not only or fits(cell)]


def hidden(grid: Grid, cells: list[Cell], changed) -> Iterator[str]:
  """Which fields of the command line cells do not take from there, and why."""
  for field in changed:
    own = [c for c in cells if field in {**c.setting, **c.replicate}]
    if not grid.swept:
      for arm in own:
        message = f'arm {arm.name!r} sets {field}={arm.setting[field]!r} itself'
        yield f'--config.{field} does not reach it: {message}'
    elif len(own) == len(cells):
      sets = lambda levels, field=field: any(field in x for x in levels)
      names = [repr(name) for name, ls in grid.sweeps.items() if sets(ls)]
      message = f'sweep {", ".join(names)} sets it in each cell'
      yield f'--config.{field} does not reach the cells: {message}'
