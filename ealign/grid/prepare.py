"""What cells start from and no file holds yet: prepare() of the config file."""

import inspect
import pathlib
import time

from ealign.grid import cells as cells_lib
from ealign.grid import ledger
from ealign.grid.sweeps import Cell
from ealign.runtime.errors import UserError
from ealign.runtime.folder import Folder

_POLL_S = 2.0


def problems(module, cells: list[Cell]) -> list[str]:
  """Why 'grid:' names could not be made."""
  names = sorted({n for cell in cells for n in ledger.prepared(cell.config)})
  told = [
    f"'grid:{name}': must be a plain name, such as 'grid:base_0'"
    for name in names
    if not name.replace('_', '').replace('-', '').isalnum()
  ]
  make = getattr(module, 'prepare', None)
  if names and not callable(make):
    said = 'is made by prepare(folder, config) of the config file; write one'
    told.append(f"'grid:{names[0]}': {said}")
  elif names:
    try:
      inspect.signature(make).bind('folder', 'config')
    except TypeError:
      told.append('prepare: write prepare(folder, config)')
  return told


def ensure(cell: Cell, base, module, place: Folder, say) -> None:
  """Has all that a cell starts from; who comes second waits for the first.

  prepare(folder, config) is called once for each name, with an empty folder
  called '<name>.partial', which becomes prepared/<name> when it returns.

  Raises:
    UserError: prepare() left nothing there.
  """
  for name in ledger.prepared(cell.config):
    done = place.shared / 'prepared' / name
    told = False
    while not done.exists():
      lease = cells_lib.take(
        done.with_name(f'{name}.LEASE'), exclusive=not place.copied
      )
      if lease:
        with cells_lib.kept([lease]):
          if not done.exists():
            say(f'preparing {name} for {cell.name}')
            _make(place, name, base, module)
      elif not told:
        who = cells_lib.holder(done.with_name(f'{name}.LEASE')) or {}
        say(f'waiting for {name}, which {who.get("host", "?")} prepares')
        told = True
      if not lease:
        time.sleep(_POLL_S)


def _make(place: Folder, name: str, base, module) -> None:
  partial = place.local / 'prepared' / f'{name}.partial'
  if partial.exists():  # of a start that was killed
    stamp = time.strftime('%Y%m%d-%H%M%S')
    aside = place.local / 'trash' / f'{partial.name}.{stamp}'
    aside.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(aside)
  partial.mkdir(parents=True)
  module.prepare(pathlib.Path(partial), base)
  if not any(partial.iterdir()):
    said = f'left nothing in its folder for {name!r}'
    raise UserError(f'prepare: {said}; write the files there')
  made = partial.rename(partial.with_name(name))
  if place.copied:
    _upload(made, place.shared / 'prepared' / name)


def _upload(made: pathlib.Path, target) -> None:
  """Into a bucket; what tells that it is whole, config.json, goes last."""
  files = sorted(p for p in made.rglob('*') if p.is_file())
  for file in sorted(files, key=lambda p: p.name == 'config.json'):
    there = target / file.relative_to(made).as_posix()
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(file.read_bytes())
