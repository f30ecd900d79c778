"""What a command runs: cells, each of them a run in a folder of its own.

Each arm of a config is a cell, and so is each combination of a grid's sweeps
(`sweeps.read`). A config without arms and sweeps is one cell, whose folder is
the work folder. A cell may start from another one, and runs once that is done.
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

  config: as in its config.json, with references such as 'arm:sft' unresolved.
  folder: relative to the work folder, '' for the work folder itself. needs: the
  cells that it starts from, by the reference in its config ('arm:sft',
  'cell:lam=0').
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
    """What --only matches: the arm, or the folder without its hash."""
    if self.folder == self.label:
      return self.label
    return self.folder.removeprefix('cells/').rpartition('-')[0]

  def moved(self, folders: dict[str, str]) -> 'Cell':
    """The cell and what it needs, in the folders that are given by id."""
    return dataclasses.replace(
      self,
      folder=folders.get(self.id, self.folder),
      needs={name: cell.moved(folders) for name, cell in self.needs.items()},
    )


@dataclasses.dataclass(frozen=True)
class Grid:
  """All cells of a command line, and what they come from.

  config: what all cells have in common; with arms it is the ConfigDict. text:
  the value of --sweep, '' for arms and for single runs. notes: what to warn of:
  contrasts that cannot be tested, and where a script is only printed, problems
  that this machine alone may have.
  """

  config: Config | config_dict.ConfigDict
  text: str
  sweeps: dict[str, list[dict[str, Any]]]
  cells: list[Cell]
  contrasts: list[dict[str, Any]]
  notes: tuple[str, ...] = ()

  @property
  def swept(self) -> bool:
    """Whether --sweep made the cells, which must then stay comparable."""
    return bool(self.text)

  @property
  def kind(self) -> str:
    """What messages call a cell."""
    return 'cell' if self.swept else 'arm'

  @property
  def axes(self) -> dict[str, list[str]]:
    """The sweeps that are no replicates, each with the fields that it sets."""
    return {
      name: list(dict.fromkeys(field for level in levels for field in level))
      for name, levels in self.sweeps.items()
      if not is_replicate(name)
    }

  def moved(self, folders: dict[str, str]) -> 'Grid':
    """The grid with its cells in the folders that are given by id."""
    cells = [cell.moved(folders) for cell in self.cells]
    return dataclasses.replace(self, cells=cells)


def is_replicate(sweep: str) -> bool:
  """Whether a sweep of that name repeats settings, as seeds do."""
  return sweep == 'seeds' or sweep.endswith('_seeds')


def references(config: Config) -> list[str]:
  """The model and its adapters, as the config names them."""
  model = config.model
  return [model.path, model.adapter, model.frozen_adapter]


def of_arms(command) -> Grid:
  """The cells of a command without --sweep: its arms, or the config itself.

  Raises:
    UserError: all problems of flags and config, each once.
  """
  config, problems = command.config, config_lib.validate(command.config)
  if command.print_launch and not command.plan:  # run elsewhere
    return Grid(config, '', {}, [], [], tuple(problems))
  if command.problems or problems:
    raise UserError(*command.problems, *problems)
  cells = {}
  for name, arm in (config_lib.arms(config) or {'': config}).items():
    frozen = config_lib.freeze(arm)
    needs = {x: cells[x[4:]] for x in references(frozen) if x[:4] == 'arm:'}
    setting = config_lib.flatten(config.arms[name]) if name else {}
    cells[name] = Cell(name, name, setting, {}, name, '', frozen, needs)
  return Grid(config, '', {}, list(cells.values()), [])


def choose(grid: Grid, only: tuple[str, ...]) -> list[Cell]:
  """The cells whose name, setting or replicate matches one of the patterns.

  only: what --only has between commas. Names have commas too: as many parts as
  match a name together are one pattern.
  """
  names = lambda cell: filter(None, (cell.name, cell.label, cell.seed))
  known = list(dict.fromkeys(name for c in grid.cells for name in names(c)))
  patterns, rest = [], list(only)
  while rest:
    for end in range(len(rest), 0, -1):
      pattern = ','.join(rest[:end])
      if fnmatch.filter(known, pattern):
        break
    else:
      listed = '; '.join([*known[:4], *['...'] * (len(known) > 4)])
      hint = config_lib.did_you_mean(rest[0], known)
      why = f'no such {grid.kind} ({listed or "there are none"}).{hint}'
      raise UserError(f'--only={rest[0]}: {why}')
    patterns.append(pattern)
    rest = rest[end:]
  fits = lambda cell: any(fnmatch.filter(names(cell), p) for p in patterns)
  return [cell for cell in grid.cells if not only or fits(cell)]


def hidden(grid: Grid, cells: list[Cell], changed) -> Iterator[str]:
  """Notes on fields set on the command line that cells set themselves."""
  for field in changed:
    own = [c for c in cells if field in {**c.setting, **c.replicate}]
    no = f'--config.{field} does not reach'
    if not grid.swept:
      for arm in own:
        value = repr(arm.setting[field])
        yield f'{no} arm {arm.name!r}, which sets it to {value} itself'
    elif len(own) == len(cells):
      sets = [n for n, xs in grid.sweeps.items() if any(field in x for x in xs)]
      names = ', '.join(map(repr, sets))
      yield f'{no} the cells: sweep {names} sets it in each cell'
