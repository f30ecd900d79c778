"""The work folder of a grid: grid.json, and what must not be mixed in it."""

import dataclasses
import hashlib
import json
import shutil
import time
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import hashes
from ealign.grid.sweeps import Cell, Grid, identity
from ealign.runtime import atomic
from ealign.runtime.errors import UserError
from ealign.workdir import folder as folder_lib
from ealign.workdir import status as cells_lib
from ealign.workdir.folder import Folder
from ealign.workdir.status import Status

FILE = 'grid.json'
_OWN = (FILE, 'cells', 'prepared', 'trash', 'report.md', 'report.html')
_OWN += ('results.csv', 'plan.json', 'hosts')


def resolved(config: Config, place: Folder) -> Config:
  """The config with the paths of its 'grid:' names."""

  def path(name: str) -> str:
    if not name.startswith('grid:'):
      return name
    return str(place.local / 'prepared' / name.removeprefix('grid:'))

  names = ('path', 'adapter', 'frozen_adapter')
  own = {name: path(getattr(config.model, name)) for name in names}
  return dataclasses.replace(
    config, model=dataclasses.replace(config.model, **own)
  )


def prepared(config: Config) -> list[str]:
  """What prepare() of the config file must have made: 'grid:<name>/...'."""
  model = config.model
  named = (model.path, model.adapter, model.frozen_adapter)
  names = [x[5:].partition('/')[0] for x in named if x.startswith('grid:')]
  return list(dict.fromkeys(names))


def find(place: Folder, grid: Grid) -> tuple[list[Cell], dict[str, Any]]:
  """The grid's cells where they lie, and what its grid.json is to say.

  Raises:
    UserError: the work folder cannot be read, or belongs to something else.
  """
  with folder_lib.usable(place.shared):
    old = _read(place)
    found = _folders(place)
  cells = [
    dataclasses.replace(c, folder=found.get(c.id, c.folder)) for c in grid.cells
  ]
  began = any(_began(place / folder) for folder in found.values())
  if old and began:
    _check_base(place, old, grid)
  return cells, _told(grid, cells, old, late=began)


def write(place: Folder, told: dict[str, Any]) -> None:
  """Writes grid.json.

  Raises:
    UserError: the work folder cannot be written.
  """
  with folder_lib.usable(place.shared):
    atomic.write(place.shared / FILE, json.dumps(told, indent=1) + '\n')


def _read(place: Folder) -> dict[str, Any]:
  """grid.json, {} in a new folder."""
  path = place.shared / FILE
  where = f'--workdir={place.shared}'
  if path.exists():
    try:
      old = json.loads(path.read_text())
      old['config'], [(c['id'], c['folder']) for c in old['cells']]
    except (ValueError, TypeError, KeyError):
      said = 'is damaged; restore it, or delete it: cells of --sweep are '
      said += 'found, contrasts count as declared late'
      raise UserError(f'{path}: {said}') from None
    return old
  there = place.shared.iterdir() if place.shared.exists() else ()
  names = sorted(item.name for item in there)
  if 'config.json' in names:
    said = 'is the folder of a run without --sweep; use another'
    raise UserError(f'{where}: {said}')
  foreign = [n for n in names if n not in _OWN and not n.startswith('.')]
  if foreign:
    listed = ', '.join(foreign[:3]) + (', ...' if len(foreign) > 3 else '')
    said = f'is not empty ({listed}) and has no {FILE}; use another'
    raise UserError(f'{where}: {said}')
  return {}


def _began(place: Folder) -> bool:
  """Whether a cell has made a step, or may have."""
  status = cells_lib.read(place.shared, damaged=Status('running'))
  early = status is None or status.state in ('queued', 'failed')
  return not early or bool(status and status.step)


def _check_base(place, old, grid) -> None:
  try:
    lines = config_lib.differences(old['config'], grid.config)
  except AttributeError:
    lines = ['config: damaged']
  if lines:
    said = 'belongs to a grid with another base config; use another folder'
    text = '\n'.join(f'  {line}' for line in lines)
    raise UserError(f'--workdir={place.shared}: {said}\n{text}')


def _folders(place: Folder) -> dict[str, str]:
  """The cells that have a folder: id -> 'cells/<name>-<id>'."""
  root = place.shared / 'cells'
  if not root.exists():
    return {}
  names = [p.name for p in root.iterdir() if (p / 'config.json').exists()]
  return {name.rpartition('-')[2]: f'cells/{name}' for name in names}


def _told(grid: Grid, cells: list[Cell], old, late: bool) -> dict:
  """What grid.json says."""
  text = json.dumps(grid.contrasts, sort_keys=True)
  declared = hashlib.sha256(text.encode()).hexdigest()[:16]
  told = {
    'config': json.loads(config_lib.to_json(grid.config)),
    'sweep': grid.text,
    'sweeps': grid.sweeps,
    'axes': grid.axes,
    'contrasts': grid.contrasts,
    'contrasts_hash': declared,
    'declared': time.time(),
    'declared_late': late,
  }
  if old.get('contrasts_hash') == declared:
    told |= {k: old.get(k) for k in ('declared', 'declared_late')}
  names = ('folder', 'id', 'setting', 'replicate', 'label', 'seed')
  rows = {
    c.id: {name: getattr(c, name) for name in names} | {'current': True}
    for c in cells
  }
  for row in old.get('cells', []):
    rows.setdefault(row['id'], row | {'current': False})
  return told | {'cells': list(rows.values())}


# ---- What the cells hold ----------------------------------------------------


def check(
  place: Folder, cells: list[Cell], retry: str, chosen: list[Cell]
) -> None:
  """Refuses to mix: with other inputs, or with what is not as it was written.

  cells: all of the grid, also those that --only leaves out. With retry 'all'
  the chosen ones are moved to trash/, so they are not looked at; with 'failed'
  a damaged STATUS.json is that of a failed cell.

  Raises:
    UserError: names each such cell.
  """
  problems, changed = [], {}
  anew = {cell.id for cell in chosen if retry == 'all'}
  for cell in cells:
    if cell.id in anew:
      continue
    folder = place.shared / cell.folder
    damaged = Status('failed') if retry == 'failed' else None
    try:
      status = cells_lib.read(folder, damaged=damaged)
    except UserError as error:
      problems += error.args
      continue
    if status or (folder / 'config.json').exists():
      problems += _own_config(folder, cell)
    if status and status.state != 'failed':
      for name in differing(status, resolved(cell.config, place), cell):
        changed.setdefault(name, []).append(cell.folder)
  for name, folders in changed.items():
    more = f' and {len(folders) - 1} more' if len(folders) > 1 else ''
    said = f'ran with other {name}; restore it, use a new workdir, or '
    said += '--retry=all (what is there moves to trash/)'
    problems.append(f'{folders[0]}{more}: {said}')
  if problems:
    raise UserError(*problems)


def differing(status: Status, config: Config, cell: Cell) -> list[str]:
  """Which of data, template, model and code changed since a cell ran."""
  if not status.hashes:
    return []
  now = hashes.of(config)
  names = [n for n, value in now.items() if status.hashes.get(n) != value]
  # What prepare() has yet to make again cannot be compared.
  unmade = prepared(cell.config) and not exists(config.model.path)
  return [n for n in names if not (unmade and n in ('model', 'template'))]


def exists(path: str) -> bool:
  """Whether a model's folder is there."""
  from ealign.data import sources

  return sources.resolve(path).exists()


def _own_config(folder, cell: Cell) -> list[str]:
  path = folder / 'config.json'
  try:
    found = identity(config_lib.from_json(path.read_text()))
  except (OSError, UserError):
    found = 'nothing readable'
  if found == cell.id:
    return []
  said = f'hashes to {found}, not to {cell.id} as its folder says'
  return [f'{path}: {said}; restore it, or move the folder elsewhere']


def to_trash(place: Folder, cell: Cell) -> None:
  """Moves what a cell left aside; nothing of it is lost."""
  folder = place.shared / cell.folder
  if not folder.exists():
    return
  stamp = time.strftime('%Y%m%d-%H%M%S')
  target = place.shared / 'trash' / f'{folder.name}.{stamp}'
  number = 0
  while target.exists():
    number += 1
    target = target.with_name(f'{folder.name}.{stamp}.{number}')
  items = [p for p in folder.iterdir() if p.name not in ('LEASE', '.lock')]
  if items:
    target.mkdir(parents=True)
  # The lease is ours and stays. STATUS.json goes first: were this to end
  # half-way, what is left would not pass for what it was.
  for item in sorted(items, key=lambda item: item.name != 'STATUS.json'):
    item.rename(target / item.name)
  if place.copied:
    shutil.rmtree(place.local / cell.folder, ignore_errors=True)
