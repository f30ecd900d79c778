"""Makes the models that cells start from, with the config file's prepare()."""

import inspect
import pathlib
import time

from ealign.config import file as config_file
from ealign.grid import ledger
from ealign.grid.cells import Cell
from ealign.grid.claims import Launch
from ealign.runtime.errors import UserError
from ealign.workdir import lease as lease_lib
from ealign.workdir.folder import Folder

_POLL_S = 2.0


def problems(module, cells: list[Cell]) -> list[str]:
  """Why what the cells name as 'grid:...' could not be made."""
  names = sorted({n for cell in cells for n in ledger.prepared(cell.config)})
  found = [
    f"'grid:{name}': must be a plain name, such as 'grid:base_0'"
    for name in names
    if not name.replace('_', '').replace('-', '').isalnum()
  ]
  if not names:
    return []
  try:
    inspect.signature(module.prepare).bind('folder', 'config')
  except (AttributeError, TypeError):
    message = 'is made by prepare(folder, config) of the config file; write one'
    found.append(f"'grid:{names[0]}': {message}")
  return found


def ensure(launch: Launch, cell: Cell) -> None:
  """Makes all that a cell starts from, or waits for a launcher that does.

  prepare(folder, config) is called once for each name, with an empty folder
  called '<name>.partial', which becomes prepared/<name> when it returns.

  Raises:
    UserError: prepare() failed, or left nothing there.
  """
  folder, say, announced = launch.folder, launch.board.say, set()
  for name in ledger.prepared(cell.config):
    path = folder.shared / 'prepared' / f'{name}.LEASE'
    while not _ready(folder, name):
      if lease := lease_lib.take(path, exclusive=not folder.copied):
        with lease_lib.kept([lease]):
          if not _ready(folder, name):
            say(f'preparing {name} for {cell.name}')
            _make(launch, name)
        continue
      if name not in announced:
        host = (lease_lib.holder(path) or {}).get('host', '?')
        say(f'{cell.name} waits for {name}, which {host} prepares')
        announced.add(name)
      time.sleep(_POLL_S)


def _ready(folder: Folder, name: str) -> bool:
  if folder.copied:  # a folder appears there file by file
    return (folder.shared / 'prepared' / f'{name}.READY').exists()
  return (folder.shared / 'prepared' / name).exists()


def pull(cell: Cell, folder: Folder) -> None:
  """Downloads what a cell starts from, where the work folder is a bucket."""
  for name in ledger.prepared(cell.config):
    (folder / 'prepared' / name).pull()
  for need in cell.needs.values():
    (folder / need.folder).pull()


def _make(launch: Launch, name: str) -> None:
  module, folder = launch.command.module, launch.folder / 'prepared'
  partial = folder.local / f'{name}.partial'
  if partial.exists():  # a start was killed that had made some of it
    ledger.aside(partial, launch.folder.local, list(partial.iterdir()))
    partial.rmdir()
  partial.mkdir(parents=True)
  try:
    module.prepare(pathlib.Path(partial), launch.grid.config)
  except UserError:
    raise
  except Exception as error:
    message = config_file.in_file(module.__spec__.origin, error)
    raise UserError(f'prepare: {message}') from error
  if not any(partial.iterdir()):
    message = f'left nothing in its folder for {name!r}; write the files there'
    raise UserError(f'prepare: {message}')
  partial.rename(folder.local / name)
  if folder.copied:
    (folder / name).push()
    (folder.shared / f'{name}.READY').write_text('')
