"""The cells of a grid, from the functions sweep_*() of a config file.

A sweep yields levels: override dicts such as {'dpo.lam': 0.3}, or returns them
by names of their own, {name: level}; cells are called after what their levels
set, or by these names. Of the text of --sweep, ',' is the product of sweeps and
'+' the union of such products. Sweeps named `seeds` or ending in `_seeds` are
replicates of a setting.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping

from ealign import config as config_lib
from ealign.config import file as config_file
from ealign.fields import Config
from ealign.grid import contrasts as contrasts_lib
from ealign.grid.cells import Cell, Grid, is_replicate, references
from ealign.grid.names import identity, readable
from ealign.runtime.errors import UserError

MOST = 10_000  # cells of a grid, and levels of a sweep
_LONGEST = 120  # characters of a cell's name
_NAME = r'[A-Za-z0-9][\w.+-]{0,49}'  # of a level


def read(command) -> Grid:
  """The grid of a command.

  Raises:
    UserError: all problems of flags, sweeps and cells, each once.
  """
  if command.config.get('arms'):
    why = 'goes with a config without arms; empty config.arms, or name what'
    why = f'--sweep: {why} varies in sweeps instead'
    raise UserError(*command.problems, why)
  problems, base = list(command.problems), command.config
  terms = _terms(command, problems)
  names = dict.fromkeys(name for term in terms for name in term)
  found = {name: _levels(command, name, problems) for name in names}
  sweeps = {name: levels for name, (levels, _) in found.items()}
  titles = {name: own for name, (_, own) in found.items()}
  _check_count(command, terms, sweeps, problems)
  drafts, found = [], {}
  for term in terms:
    drafts += _product(base, term, sweeps, problems)
  for config, levels in drafts:
    for problem in config_lib.validate(config, grid=True):
      found.setdefault(problem, []).append(levels)
  shared = config_lib.validate(base, grid=True)
  unsound = _attributed(found, shared, [ls for _, ls in drafts], sweeps, titles)
  contrasts = contrasts_lib.read(command.module, base, problems, unsound)
  if not command.print_launch:
    problems += unsound
  groups = max((config.mesh.stack for config, _ in drafts), default=1)
  if not found and 0 < command.stack < groups:
    why = f'leaves some of mesh.stack={groups} groups of devices idle'
    problems.append(f'--stack={command.stack}: {why}; use {groups} or more')
  if problems:
    raise UserError(*dict.fromkeys(problems))
  cells = {}
  for config, levels in drafts:
    cell = _cell(config_lib.freeze(config), levels, sweeps, titles)
    cells.setdefault(cell.id, cell)
  cells = _linked(list(_distinct(cells.values())))
  whole = config_lib.freeze(config_lib.apply_arm(base, {})[0])
  notes = unsound or contrasts_lib.untested(contrasts, cells, whole)
  return Grid(whole, command.sweep, sweeps, cells, contrasts, tuple(notes))


def _linked(cells: list[Cell]) -> list[Cell]:
  """The cells, each with those that it names as 'cell:SETTING'.

  That is the cell of this setting at the same replicate.

  Raises:
    UserError: there is no such cell; once for each such reference.
  """
  problems = {}

  def linked(cell, above=()):
    needs = {}
    for name in (x for x in references(cell.config) if x[:5] == 'cell:'):
      same = (c for c in cells if c.replicate == cell.replicate)
      need = next((c for c in same if c.label == name[5:]), None)
      if need and need.id not in above:
        needs[name] = linked(need, (*above, cell.id))
        continue
      hint = config_lib.did_you_mean(name[5:], {c.label: c for c in cells})
      where = f' at {cell.seed}' if cell.seed else ''
      why = f'--sweep has no other setting of that name{where}.{hint}'
      problems.setdefault(name, f'{cell.label}: {name!r}: {why}')
    return dataclasses.replace(cell, needs=needs)

  found = [linked(cell, (cell.id,)) for cell in cells]
  if problems:
    raise UserError(*problems.values())
  return found


def _terms(command, problems) -> list[tuple[str, ...]]:
  """The products in the text of --sweep, each as names of sweeps."""
  functions = {n: f for n, f in vars(command.module).items() if callable(f)}
  known = [name[6:] for name in functions if name.startswith('sweep_')]
  listed = ', '.join(known) or 'none; write a function sweep_NAME()'
  terms, found = [], []
  for term in command.sweep.split('+'):
    names = tuple(name.strip() for name in term.split(','))
    for name in names:
      if not name:
        found.append('a name is missing beside a , or +')
      elif name not in known:
        hint = config_lib.did_you_mean(name, known)
        found.append(f'there is no sweep {name!r} (sweeps: {listed}).{hint}')
    if len(set(names)) < len(names):
      found.append(f'{term!r} names a sweep twice')
    elif set(names) <= set(known):
      terms.append(names)
  problems += [f'--sweep={command.sweep}: {problem}' for problem in found]
  return terms


def _levels(command, name: str, problems) -> tuple[list[dict], list[str]]:
  """The levels of a sweep as flat overrides; mistakes become problems.

  And the names that it gives them; [] if it gives none.
  """
  where = f'sweep {name!r}'
  try:
    levels, titles = getattr(command.module, f'sweep_{name}')(), []
    if isinstance(levels, Mapping) and all(
      isinstance(level, Mapping) for level in levels.values()
    ):
      levels, titles = levels.values(), [*levels]
    if not isinstance(levels, Iterable) or isinstance(levels, Mapping | str):
      why = "must yield or return dicts of fields such as {'dpo.lam': 0.3}"
      problems.append(f'{where}: {levels!r}: {why}')
      return [], []
    levels = [*itertools.islice(levels, MOST + 1)]
  except (Exception, SystemExit) as error:
    path = command.module.__spec__.origin
    problems.append(f'{where}: {config_file.in_file(path, error)}')
    return [], []
  if not levels:
    problems.append(f'{where}: yields no level')
  if len(levels) > MOST:
    problems.append(f'{where}: yields more than {MOST:,} levels; yield fewer')
    return [], []
  for title in titles:
    if not re.fullmatch(_NAME, str(title)):
      why = "must be plain, such as 'more-pairs': letters, digits, . _ + -"
      problems.append(f'{where}: the name {title!r}: {why}')
  sound, types = [], config_lib.field_types()
  for number, level in enumerate(levels, start=1):
    found = config_lib.apply_arm(command.config, level)[1]
    which = repr(titles[number - 1]) if titles else number
    problems += [f'{where}, level {which}: {problem}' for problem in found]
    # An empty one keeps its place: problems name levels by number.
    flat = config_lib.flatten(level) if hasattr(level, 'items') else {}
    known = {k: v for k, v in flat.items() if k in types}
    sound.append({k: contrasts_lib.plain(v) for k, v in known.items()})
  return sound, titles


def _check_count(command, terms, sweeps, problems) -> None:
  """Refuses a grid of too many cells before it makes one."""
  size = lambda term: math.prod(len(sweeps[name]) for name in term)
  if (count := sum(map(size, terms))) > MOST:
    why = f'makes {count:,} cells, more than {MOST:,}; take sweeps apart'
    raise UserError(*problems, f'--sweep={command.sweep}: {why} with +')


def _product(base, term, sweeps, problems):
  """(config, its levels) for each combination of the levels of a product."""
  indices = [range(len(sweeps[name])) for name in term]
  for chosen in itertools.product(*indices):
    levels, set_by = tuple(zip(term, chosen, strict=True)), {}
    for name, index in levels:
      for field, value in sweeps[name][index].items():
        other, was = set_by.setdefault(field, (name, value))
        if other != name and was != value:  # nan does not equal itself
          why = f'{field} is set by sweep {other!r} and by sweep {name!r}'
          problems.append(f'--sweep: {why}; take them apart with +')
    overrides = {field: value for field, (_, value) in set_by.items()}
    yield config_lib.apply_arm(base, overrides)[0], levels


def _attributed(found, shared, drafts, sweeps, titles) -> list[str]:
  """Each problem once, with the levels or the combinations that cause it.

  Problems shared by all cells and the base config are reported without a sweep
  name.

  Args:
    found: problem -> the drafts that have it.
    shared: the problems of the base config.
    drafts: of each the (sweep, index) of its levels.
  """
  reports = []
  which = lambda n, i: repr(titles[n][i]) if titles[n] else i + 1
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
    where = [f'sweep {n!r}, level {which(n, i)}' for n, i in guilty]
    where += [
      'levels ' + ' and '.join(f'{which(n, i)} of {n!r}' for n, i in levels)
      for levels in dict.fromkeys(bad)
      if not set(levels) & set(guilty)
    ]
    more = f' and {len(where) - 3} more' if len(where) > 3 else ''
    reports.append(f'{"; ".join(where[:3])}{more}: {problem}')
  return reports


def _distinct(cells) -> Iterator[Cell]:
  """The cells; settings with the same short name get a number."""
  known = {}
  for cell in cells:
    settings = known.setdefault(cell.label, [])
    if cell.setting not in settings:
      settings.append(cell.setting)
    number = settings.index(cell.setting) + 1
    label = f'{cell.label}({number})' if number > 1 else cell.label
    yield dataclasses.replace(cell, label=label)


def _cell(config: Config, levels, sweeps, titles) -> Cell:
  """The cell of a config, named after its levels."""
  repeats = [level for level in levels if is_replicate(level[0])]
  others = [level for level in levels if level not in repeats]
  setting, label = _set(others, sweeps, titles)
  replicate, seed = _set(repeats, sweeps, titles)
  label, id = label or 'default', identity(config)
  name = ','.join(filter(None, (label, seed)))
  folder = f'cells/{name[:_LONGEST]}-{id}'
  return Cell(id, folder, setting, replicate, label, seed, config)


def _set(levels, sweeps, titles) -> tuple[dict, str]:
  """The fields that levels set, and what these are called."""
  fields, unnamed, names = {}, {}, []
  for sweep, index in levels:
    fields |= sweeps[sweep][index]
    if titles[sweep]:
      names.append(titles[sweep][index])
    else:
      unnamed |= sweeps[sweep][index]
  return fields, ','.join(filter(None, (*names, readable(unnamed))))
