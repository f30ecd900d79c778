"""The record of a work folder, and checks that only what fits is added to it.

The record of a grid is grid.json, that of arms and single runs config.json.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import hashes
from ealign.grid.cells import Cell, Grid, choose, references
from ealign.grid.names import identity
from ealign.runtime import atomic
from ealign.runtime.errors import UserError
from ealign.workdir import status as status_lib
from ealign.workdir.folder import Folder, usable

FILE = 'grid.json'
# What a start leaves whose run never began: nobody misses it.
_EARLY = ('config.json', 'plan.json', 'hosts', 'STATUS.json', 'LEASE', '.lock')
_OWN = (FILE, 'cells', 'prepared', 'trash', 'report.md', 'report.html')
_OWN += ('results.csv', 'plan.json', 'hosts')


def resolved(cell: Cell, folder: Folder) -> Config:
  """The cell's config with paths for 'arm:', 'cell:' and 'grid:' names."""

  def path(name: str) -> str:
    if name in cell.needs:
      return str(folder.local / cell.needs[name].folder)
    if name.startswith('grid:'):
      return str(folder.local / 'prepared' / name.removeprefix('grid:'))
    return name

  names = ('path', 'adapter', 'frozen_adapter')
  own = {name: path(getattr(cell.config.model, name)) for name in names}
  model = dataclasses.replace(cell.config.model, **own)
  return dataclasses.replace(cell.config, model=model)


def prepared(config: Config) -> list[str]:
  """The names that prepare() of the config file makes: 'grid:<name>/...'."""
  named = [name for name in references(config) if name.startswith('grid:')]
  return list(dict.fromkeys(name[5:].partition('/')[0] for name in named))


def find(folder: Folder, grid: Grid, command, *, write=False) -> Grid:
  """Checks the work folder; returns the grid with its cells where they lie.

  write: whether to write the record, once all is checked.

  Raises:
    UserError: the work folder cannot be read or written, belongs to something
      else, or holds what must not be mixed with this grid.
  """
  with usable(folder.shared):
    old = _read(folder, grid)
    found = _folders(folder) if grid.swept else {}
    if grid.swept:
      began = any(_began(folder / below) for below in found.values())
    else:  # a model's folder has a config.json, too
      began = 'conscience' not in old or not _untouched(folder.shared)
  if old and began:
    _check_base(folder, old, grid)
  grid = grid.moved(found)
  _check_cells(folder, grid, command.retry, choose(grid, command.only))
  if write:
    text = config_lib.to_json(grid.config)
    if grid.swept:
      text = json.dumps(_record(grid, old, late=began), indent=1) + '\n'
    with usable(folder.shared):
      atomic.write(_path(folder, grid), text)
  return grid


def _path(folder: Folder, grid: Grid):
  return folder.shared / (FILE if grid.swept else 'config.json')


def _read(folder: Folder, grid: Grid) -> dict[str, Any]:
  """The record, {} in a new folder."""
  path = _path(folder, grid)
  if path.exists():
    try:
      old = json.loads(path.read_text())
      if grid.swept:
        old['config'], [(c['id'], c['folder']) for c in old['cells']]
      config_lib.differences(old, {})  # it raises of what is no dict
    except (ValueError, TypeError, KeyError, AttributeError):
      remedy = 'mend it, delete it with the run, or use another workdir'
      if grid.swept:
        remedy = 'restore it, or delete it: cells of --sweep are found, '
        remedy += 'contrasts count as declared late'
      raise UserError(f'{path}: is damaged; {remedy}') from None
    return old
  there = folder.shared.iterdir() if folder.shared.exists() else ()
  names = sorted(item.name for item in there)
  if grid.swept and 'config.json' in names:
    raise folder.refused('is the folder of a run without --sweep; use another')
  if foreign := _foreign(names, _OWN if grid.swept else _EARLY):
    raise folder.refused(
      f'{foreign} and has no {path.name}; use another folder'
    )
  return {}


def _foreign(names, own) -> str:
  """Says which names in a folder are not in `own`; '' if all of them are."""
  foreign = [n for n in names if n not in own and not n.startswith('.')]
  listed = ', '.join(foreign[:3]) + (', ...' if len(foreign) > 3 else '')
  return f'is not empty ({listed})' if foreign else ''


def _began(folder: Folder) -> bool:
  """Whether a cell has made a step, or may have made one."""
  status = status_lib.read(folder.shared, damaged=status_lib.Status('running'))
  early = status is None or status.state in ('queued', 'failed')
  return not early or bool(status and status.step)


def _untouched(path) -> bool:
  """Whether no run in this folder got past its start: nothing can be lost."""
  if not path.exists():
    return True
  return all(
    item.name in _EARLY or (item.is_dir() and _untouched(item))
    for item in path.iterdir()
  )


def leave(folder: Folder, grid: Grid) -> None:
  """Removes what a failed start wrote, if no arm of the folder has begun."""
  with contextlib.suppress(OSError):
    leased = [folder.shared / cell.folder / 'LEASE' for cell in grid.cells]
    if not _untouched(folder.shared) or any(path.exists() for path in leased):
      return  # another launcher has begun
    for path in dict.fromkeys([*(c.folder for c in grid.cells), '']):
      for name in ('config.json', 'STATUS.json', '.lock'):
        (folder.shared / path / name).unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # not ours alone: it is not empty
        (folder.shared / path).rmdir()


def _check_base(folder: Folder, old, grid: Grid) -> None:
  kind, saved = 'a config that differs', old
  if grid.swept:
    kind, saved = 'a grid with another base config', old['config']
  try:
    lines = config_lib.differences(saved, grid.config)
  except AttributeError:
    lines = ['config: damaged']
  if lines:
    text = '\n  '.join([f'belongs to {kind}; use another folder', *lines])
    raise folder.refused(text)


def _folders(folder: Folder) -> dict[str, str]:
  """The cells that have a folder: id -> 'cells/<name>-<id>'."""
  root = folder.shared / 'cells'
  if not root.exists():
    return {}
  names = [p.name for p in root.iterdir() if (p / 'config.json').exists()]
  return {name.rpartition('-')[2]: f'cells/{name}' for name in names}


def _record(grid: Grid, old, late: bool) -> dict:
  """The content of grid.json.

  late: whether a cell had begun before the contrasts were declared.
  """
  text = json.dumps(grid.contrasts, sort_keys=True)
  declared = hashlib.sha256(text.encode()).hexdigest()[:16]
  record = {
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
    record |= {k: old.get(k) for k in ('declared', 'declared_late')}
  names = ('folder', 'id', 'setting', 'replicate', 'label', 'seed')
  rows = {
    c.id: {name: getattr(c, name) for name in names} | {'current': True}
    for c in grid.cells
  }
  for row in old.get('cells', []):
    rows.setdefault(row['id'], row | {'current': False})
  return record | {'cells': list(rows.values())}


# ---- What the cells hold ----------------------------------------------------


def _check_cells(folder: Folder, grid: Grid, retry: str, chosen) -> None:
  """Refuses cells that ran with other inputs, or whose folder was changed.

  It looks at all cells, also at those that --only leaves out; with retry='all'
  not at the chosen ones, which will be moved to trash/.

  Raises:
    UserError: all problems, by cell.
  """
  problems, changed, done = [], {}, set()
  mine = {cell.id for cell in chosen}
  damaged = assumed(grid) if retry == 'failed' or not grid.swept else None
  for cell in grid.cells:
    if retry == 'all' and cell.id in mine:
      continue
    path = folder.shared / cell.folder
    try:
      status = status_lib.read(path, damaged=damaged)
    except UserError as error:
      problems += error.args
      continue
    if status and status.state == 'done':
      done.add(cell.id)
    if cell.folder:
      problems += _own_config(path, cell, grid, status)
    if grid.swept and status and status.state != 'failed':
      for name in differing(status, cell, folder):
        changed.setdefault(name, []).append(cell.folder)
  for name, (first, *rest) in changed.items():
    where = f'{first} and {len(rest)} more' if rest else first
    remedy = '--retry=all (what is there moves to trash/)'
    why = f'ran with other {name}; restore it, use a new workdir, or {remedy}'
    problems.append(f'{where}: {why}')
  problems += [
    f'--only: {grid.kind} {cell.name!r} starts from {need.name}; add it'
    for cell in chosen
    for need in cell.needs.values()
    if need.id not in done | mine
  ]
  if problems:
    raise UserError(*problems)


def assumed(grid: Grid) -> status_lib.Status:
  """The status to assume where STATUS.json is damaged or missing.

  A cell of a sweep counts as failed. An arm is continued: its config alone
  decides what it is, and older versions of the package wrote no STATUS.json.
  """
  return status_lib.Status('failed' if grid.swept else 'preempted')


def inputs(cell: Cell, config: Config, grid: Grid) -> dict[str, str]:
  """Hashes of what a cell's result depends on; of an arm only its config."""
  if not grid.swept:
    return {'config': identity(cell.config)}
  return {'config': cell.id} | hashes.of(config)


def differing(
  status: status_lib.Status, cell: Cell, folder: Folder
) -> list[str]:
  """Which of data, template, model and code have changed since a cell ran."""
  if not status.hashes:
    return []
  config = resolved(cell, folder)
  now = hashes.of(config)
  names = [n for n, value in now.items() if status.hashes.get(n) != value]
  # A model that is not made or downloaded yet cannot be compared.
  both = zip(references(config), references(cell.config), strict=True)
  unmade = any(path != name and not exists(path) for path, name in both)
  return [n for n in names if not (unmade and n in ('model', 'template'))]


def exists(path: str) -> bool:
  """Whether a model's folder is there."""
  from ealign.data import sources

  return sources.resolve(path).exists()


def _own_config(path, cell: Cell, grid: Grid, status) -> list[str]:
  """What is wrong with the config.json that a cell's folder holds."""
  file, wanted = path / 'config.json', identity(cell.config)
  if not status and not file.exists():
    there = path.iterdir() if path.is_dir() and not grid.swept else ()
    foreign = _foreign(sorted(item.name for item in there), _EARLY)
    return [f'{path}: {foreign}; move it elsewhere'] if foreign else []
  try:
    found = identity(config_lib.from_json(file.read_text()))
  except (OSError, UserError):
    found = 'nothing readable'
  if found == wanted:
    return []
  of = 'its folder says' if grid.swept else 'the config of its arm'
  why = f'hashes to {found}, not to {wanted} as {of}'
  return [f'{file}: {why}; restore it, or move the folder elsewhere']


def to_trash(folder: Folder, cell: Cell) -> None:
  """Moves what a cell left to trash/; nothing is deleted."""
  path = folder.shared / cell.folder
  if not path.exists():
    return
  # The lease stays, as it is ours, and so does what the work folder needs.
  stay = ('LEASE', '.lock')
  stay += () if cell.folder else ('trash', 'hosts', 'config.json')
  items = [item for item in path.iterdir() if item.name not in stay]
  # STATUS.json goes first: if this stops half-way, the rest cannot pass for a
  # cell that is done.
  items.sort(key=lambda item: item.name != 'STATUS.json')
  aside(path, folder.shared, items)
  if folder.copied:
    shutil.rmtree(folder.local / cell.folder, ignore_errors=True)


def aside(path, root, items) -> None:
  """Moves items of a folder to root/trash/<its name>.<when>, in their order."""
  name = f'{path.name}.{time.strftime("%Y%m%d-%H%M%S")}'
  target, number = root / 'trash' / name, 0
  while target.exists():
    number += 1
    target = target.with_name(f'{name}.{number}')
  for item in items:
    target.mkdir(parents=True, exist_ok=True)
    item.rename(target / item.name)
