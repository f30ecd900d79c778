"""What cells start from and no file holds yet: prepare() of the config file."""

import inspect
import pathlib
import time

from ealign.config import file as config_file
from ealign.grid import ledger
from ealign.grid.cells import Cell
from ealign.runtime.errors import UserError
from ealign.workdir import lease as lease_lib
from ealign.workdir.folder import Folder

_POLL_S = 2.0


def problems(module, cells: list[Cell]) -> list[str]:
  """Why 'grid:' names could not be made."""
  names = sorted({n for cell in cells for n in ledger.prepared(cell.config)})
  found = [
    f"'grid:{name}': must be a plain name, such as 'grid:base_0'"
    for name in names
    if not name.replace('_', '').replace('-', '').isalnum()
  ]
  make = getattr(module, 'prepare', None)
  if names and not callable(make):
    message = 'is made by prepare(folder, config) of the config file; write one'
    found.append(f"'grid:{names[0]}': {message}")
  elif names:
    try:
      inspect.signature(make).bind('folder', 'config')
    except TypeError:
      found.append('prepare: write prepare(folder, config)')
  return found


def ensure(cell: Cell, base, module, folder: Folder, say) -> None:
  """Has all that a cell starts from; who comes second waits for the first.

  prepare(folder, config) is called once for each name, with an empty folder
  called '<name>.partial', which becomes prepared/<name> when it returns.

  Raises:
    UserError: prepare() left nothing there.
  """
  for name in ledger.prepared(cell.config):
    path = folder.shared / 'prepared' / f'{name}.LEASE'
    announced = False
    while not _ready(folder, name):
      lease = lease_lib.take(path, exclusive=not folder.copied)
      if lease:
        with lease_lib.kept([lease]):
          if not _ready(folder, name):
            say(f'preparing {name} for {cell.name}')
            _make(folder, name, base, module)
        continue
      if not announced:
        host = (lease_lib.holder(path) or {}).get('host', '?')
        say(f'{cell.name} waits for {name}, which {host} prepares')
        announced = True
      time.sleep(_POLL_S)


def _ready(folder: Folder, name: str) -> bool:
  if folder.copied:  # a folder appears there file by file
    return (folder.shared / 'prepared' / f'{name}.READY').exists()
  return (folder.shared / 'prepared' / name).exists()


def pull(cell: Cell, folder: Folder) -> None:
  """Copies what a cell starts from to this host, where it is elsewhere."""
  for name in ledger.prepared(cell.config):
    (folder / 'prepared' / name).pull()
  for need in cell.needs.values():
    (folder / need.folder).pull()


def _make(folder: Folder, name: str, base, module) -> None:
  partial = folder.local / 'prepared' / f'{name}.partial'
  if partial.exists():  # of a start that was killed
    stamp = time.strftime('%Y%m%d-%H%M%S')
    aside = folder.local / 'trash' / f'{partial.name}.{stamp}'
    aside.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(aside)
  partial.mkdir(parents=True)
  try:
    module.prepare(pathlib.Path(partial), base)
  except UserError:
    raise
  except Exception as error:
    message = config_file.in_file(module.__spec__.origin, error)
    raise UserError(f'prepare: {message}') from error
  if not any(partial.iterdir()):
    message = f'left nothing in its folder for {name!r}'
    raise UserError(f'prepare: {message}; write the files there')
  partial.rename(partial.with_name(name))
  if folder.copied:
    (folder / 'prepared' / name).push()
    (folder.shared / 'prepared' / f'{name}.READY').write_text('')
