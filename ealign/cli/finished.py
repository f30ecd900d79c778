"""The finished runs of a folder: of one run, of its arms, or of a grid."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Finished:
  """A run that has ended.

  name: of the arm, or of a grid's cell, its replicate included. arm: without
  it, as two seeds of a setting are one arm. root: the folder of all of them.
  cells: setting -> folder of a grid's cells at the same replicate. seed: of a
  grid's cell.
  """

  name: str
  arm: str
  folder: pathlib.Path
  root: pathlib.Path
  cells: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  seed: str = ''

  def path(self, name: str) -> str:
    """A path of the run's config, where it is a reference the folder itself."""
    kind, _, rest = name.partition(':')
    if kind == 'grid':
      return str(self.root / 'prepared' / rest)
    return str(self.cells.get(rest, name)) if kind == 'cell' else name


def runs(path: str, flag: str = 'run') -> list[Finished]:
  """The finished runs of a folder, in the order of its config or grid.

  Of a grid these are its cells, but those that are no longer in its sweeps.

  Raises:
    UserError: it is no such folder, or nothing in it is finished; flag: the one
      that gave it.
  """
  root = pathlib.Path(path).expanduser()
  if (root / 'grid.json').is_file():
    found, what = _cells(read(root / 'grid.json', path, flag), root), 'cells'
    if not found:
      message = 'grid.json has no cell of its present sweeps'
      raise UserError(f'--{flag}={path}: {message}; run the grid first')
  else:
    arms = read(root / 'config.json', path, flag).get('arms') or {}
    found, what = [Finished(x, x, root / x, root) for x in arms], 'arms'
  if not found:
    name = root.resolve().name
    found, what = [Finished(name, name, root, root.parent)], ''
  done = [one for one in found if (one.folder / 'DONE').exists()]
  if not done and what:
    raise UserError(f'--{flag}={path}: none of its {what} is finished')
  if not done:
    message = 'is not finished: the command that began it continues it'
    raise UserError(f'--{flag}={path}: {message}')
  return done


def _cells(grid: dict, root) -> list[Finished]:
  """The cells of a grid.json; what is none is passed over."""
  rows = grid.get('cells') if isinstance(grid.get('cells'), list) else []
  found, beside = [], {}
  for row in rows:
    row = row if isinstance(row, dict) and row.get('current') else {}
    folder, label = str(row.get('folder', '')), str(row.get('label', ''))
    at = pathlib.PurePath(folder).parts
    if len(at) == 2 and at[0] == 'cells' and at[1] != '..':
      name = at[1].rpartition('-')[0] or at[1]
      seed = str(row.get('seed', ''))
      own = beside.setdefault(seed, {})
      own[label or name] = root / folder
      of = label or name, root / folder, root, own, seed
      found.append(Finished(name, *of))
  return found


def text(path: pathlib.Path, given: str, flag: str = 'run') -> str:
  """The text of a file that holds a JSON object.

  Raises:
    UserError: it does not; the folder that was given is named.
  """
  try:
    found = path.read_text('utf-8')
    if isinstance(json.loads(found), dict):
      return found
  except (OSError, ValueError, RecursionError):
    pass
  message = f'is no folder of a run: it has no readable {path.name}'
  raise UserError(f'--{flag}={given}: {message}')


def read(path: pathlib.Path, given: str, flag: str = 'run') -> dict:
  """The JSON object itself; see `text`."""
  return json.loads(text(path, given, flag))
