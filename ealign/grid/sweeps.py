"""The cells of a grid, from the functions sweep_*() of a config file.

A sweep yields levels: override dicts such as {'dpo.lam': 0.3}. Of the text of
--sweep, ',' is the product of sweeps and '+' the union of such products.
Sweeps named `seeds` or ending in `_seeds` are replicates of a setting.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import config_dict

from ealign import config as config_lib
from ealign.config import file as config_file
from ealign.fields import Config
from ealign.grid import contrasts as contrasts_lib
from ealign.grid.cells import Cell, Grid, is_replicate, references
from ealign.grid.names import identity, readable
from ealign.runtime.errors import UserError

_LONGEST = 120  # characters of a cell's name


def read(command) -> Grid:
  """The grid of a command.

  Raises:
    UserError: all that is wrong with flags, sweeps and cells, each once.
  """
  if command.config.get('arms'):
    message = 'goes with a config without arms; empty config.arms, or name what'
    raise UserError(
      *command.problems, f'--sweep: {message} varies in sweeps instead'
    )
  problems = list(command.problems)
  terms = _terms(command, problems)
  names = dict.fromkeys(name for term in terms for name in term)
  sweeps = {name: _levels(command, name, problems) for name in names}
  base = command.config
  found, drafts = {}, []
  for term in terms:
    drafts += _product(base, term, sweeps, problems)
  for draft in drafts:
    for problem in config_lib.validate(draft[0], grid=True):
      found.setdefault(problem, []).append(draft[1])
  shared = config_lib.validate(base, grid=True)
  unsound = _attributed(found, shared, [ls for _, ls in drafts], sweeps)
  contrasts = contrasts_lib.read(command.module, base, problems, unsound)
  if not command.print_launch:
    problems += unsound
  if not found:
    problems += _idle(command.stack, [config for config, _ in drafts])
  if problems:
    raise UserError(*dict.fromkeys(problems))
  cells = {}
  for config, levels in drafts:
    cell = _cell(config_lib.freeze(config), levels, sweeps)
    cells.setdefault(cell.id, cell)
  cells = _linked(_told_apart(cells.values()))
  whole = config_lib.freeze(config_lib.apply_arm(base, {})[0])
  if not unsound:
    unsound = contrasts_lib.untested(contrasts, cells, whole)
  return Grid(*(whole, command.sweep, sweeps, cells, contrasts, tuple(unsound)))


def _idle(stack: int, configs) -> list[str]:
  """Whether programs of so few cells leave groups of devices without any."""
  groups = max((config.mesh.stack for config in configs), default=1)
  message = f'leaves some of mesh.stack={groups} groups of devices idle'
  message = f'--stack={stack}: {message}; use {groups} or more'
  return [message] if 0 < stack < groups else []


def _linked(cells: list[Cell]) -> list[Cell]:
  """The cells with those that they start from, by 'cell:SETTING'.

  It is the cell of that setting at the same replicate.

  Raises:
    UserError: there is none, once for each such reference.
  """
  problems = {}

  def linked(cell, above=()):
    needs = {}
    for name in references(cell.config):
      if not name.startswith('cell:'):
        continue
      same = (c for c in cells if c.replicate == cell.replicate)
      need = next((c for c in same if c.label == name[5:]), None)
      if need is None or need.id in above:
        labels = list(dict.fromkeys(c.label for c in cells))
        hint = config_lib.did_you_mean(name[5:], labels)
        where = f' at {cell.seed}' if cell.seed else ''
        message = f'--sweep has no other setting of that name{where}.{hint}'
        problems.setdefault(name, f'{cell.label}: {name!r}: {message}')
      else:
        needs[name] = linked(need, (*above, cell.id))
    return dataclasses.replace(cell, needs=needs)

  found = [linked(cell, (cell.id,)) for cell in cells]
  if problems:
    raise UserError(*problems.values())
  return found


def _terms(command, problems) -> list[tuple[str, ...]]:
  """The products of --sweep, each as names of sweeps."""
  known = [n[6:] for n, f in _functions(command.module, 'sweep_').items()]
  terms = []
  for term in command.sweep.split('+'):
    names = tuple(name.strip() for name in term.split(','))
    for name in names:
      if not name:
        message = 'a name is missing beside a , or +'
        problems.append(f'--sweep={command.sweep}: {message}')
      elif name not in known:
        listed = ', '.join(known) or 'none; write a function sweep_NAME()'
        hint = config_lib.did_you_mean(name, known)
        message = f'there is no sweep {name!r} (sweeps: {listed}).{hint}'
        problems.append(f'--sweep={command.sweep}: {message}')
    if len(set(names)) < len(names):
      problems.append(f'--sweep={command.sweep}: {term!r} names a sweep twice')
    elif set(names) <= set(known):
      terms.append(names)
  return terms


def _functions(module, prefix: str) -> dict[str, Any]:
  return {
    name: f
    for name, f in vars(module).items()
    if name.startswith(prefix) and callable(f)
  }


def _levels(command, name: str, problems) -> list[dict[str, Any]]:
  """The sound levels of a sweep, flat; others become problems."""
  where = f'sweep {name!r}'
  try:
    levels = getattr(command.module, f'sweep_{name}')()
    if not isinstance(levels, Iterable) or isinstance(levels, Mapping | str):
      message = "must yield or return dicts of fields such as {'dpo.lam': 0.3}"
      problems.append(f'{where}: {levels!r}: {message}')
      return []
    levels = list(levels)
  except Exception as error:
    path = command.module.__spec__.origin
    problems.append(f'{where}: {config_file.in_file(path, error)}')
    return []
  if not levels:
    problems.append(f'{where}: yields no level')
  sound, types = [], config_lib.field_types()
  for number, level in enumerate(levels, start=1):
    if not isinstance(level, Mapping | config_dict.ConfigDict):
      message = "a level is a dict of fields such as {'dpo.lam': 0.3}"
      problems.append(f'{where}, level {number}: {level!r}: {message}')
      sound.append({})  # keeps its place: problems name levels by number
      continue
    flat = config_lib.flatten(level)
    for field in sorted(flat.keys() - types.keys(), key=str):
      hint = config_lib.did_you_mean(field, types)
      message = f'there is no such field.{hint}'
      problems.append(f'{where}, level {number}: {field}: {message}')
    sound.append(
      {k: contrasts_lib.plain(v) for k, v in flat.items() if k in types}
    )
  return sound


def _product(base, term, sweeps, problems):
  """(config, its levels) for each combination of the levels of a product."""
  indices = [range(len(sweeps[name])) for name in term]
  for chosen in itertools.product(*indices):
    levels, set_by = tuple(zip(term, chosen, strict=True)), {}
    for name, index in levels:
      for field, value in sweeps[name][index].items():
        other, was = set_by.setdefault(field, (name, value))
        if other != name and was != value:  # nan is not even itself
          message = f'{field} is set by sweep {other!r} and by sweep {name!r}'
          problems.append(f'--sweep: {message}; take them apart with +')
    overrides = {field: value for field, (_, value) in set_by.items()}
    yield config_lib.apply_arm(base, overrides)[0], levels


def _attributed(found, shared, drafts, sweeps) -> list[str]:
  """Each problem once, with the levels that bring it, or the cells.

  shared: those of the base config. What all cells share with it is reported
  without the name of a sweep.
  """
  reports = []
  for problem, bad in found.items():
    every = len(bad) == len(drafts)
    if every and problem in shared:
      reports.append(problem)
      continue
    guilty = [
      (name, index)
      for name, levels in sweeps.items()
      for index, level in enumerate(levels)
      if set() < {d for d in drafts if (name, index) in d} <= set(bad)
      and (not every or problem.startswith(tuple(level)))  # it sets the field
    ]
    explained = {d for d in bad if set(d) & set(guilty)}
    where = [f'sweep {n!r}, level {i + 1}' for n, i in guilty]
    where += [
      'levels ' + ' and '.join(f'{i + 1} of {n!r}' for n, i in levels)
      for levels in dict.fromkeys(bad)
      if levels not in explained
    ]
    more = f' and {len(where) - 3} more' if len(where) > 3 else ''
    reports.append(f'{"; ".join(where[:3])}{more}: {problem}')
  return reports


def _told_apart(cells) -> list[Cell]:
  """The cells; settings whose short names are the same get a number."""
  known = {}
  for cell in cells:
    settings = known.setdefault(cell.label, [])
    if cell.setting not in settings:
      settings.append(cell.setting)
  found = []
  for cell in cells:
    number = known[cell.label].index(cell.setting) + 1
    if number > 1:
      cell = dataclasses.replace(cell, label=f'{cell.label}({number})')
    found.append(cell)
  return found


def _cell(config: Config, levels, sweeps) -> Cell:
  """The cell of a config; its names tell the levels apart."""
  setting, replicate = {}, {}
  for name, index in levels:
    part = replicate if is_replicate(name) else setting
    part |= sweeps[name][index]
  label, seed = readable(setting) or 'default', readable(replicate)
  name = ','.join(filter(None, (label, seed)))[:_LONGEST]
  id = identity(config)
  folder = f'cells/{name}-{id}'
  return Cell(id, folder, setting, replicate, label, seed, config)
