"""What the cells were made with, and whether it was the same for all."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.report.grid import results
from ealign.report.grid.results import Result

# The fields that a fact may follow: where these are equal, so must it be.
_FOLLOWS = {
  'hashes.data': ('data.', 'pool.', 'eval.', 'conscience.framing'),
  'data': ('data.', 'model.'),  # counts of tokens and rows
  'parameters': ('model.',),
  'trained': ('model.',),
  'template': ('model.',),
  'frozen': ('model.',),
  'model': ('model.', 'conscience.'),
  'others': ('conscience.',),
}
_LEFT_OUT = ('seed', 'hashes.config')


@dataclasses.dataclass(frozen=True)
class Fact:
  """A value with the cells that have it, or several; loud: they may not be."""

  name: str
  values: list[tuple[Any, list[Result]]]
  note: str = ''
  loud: bool = False


def facts(cells: Sequence[Result]) -> list[Fact]:
  """Of the finished cells: those that differ first."""
  told = [(cell, _of(cell)) for cell in cells if cell.done and cell.current]
  names = dict.fromkeys(name for _, found in told for name in found)
  made = [_fact(name, told) for name in names]
  code = [fact for fact in made if fact.name == 'hashes.code']
  if code and len(code[0].values) == 1 and code[0].values[0][0]:
    # Commits that left alone what results depend on.
    made = [_quiet(f) if f.name == 'commit' and f.loud else f for f in made]
  return sorted(made, key=lambda f: (not f.loud, len(f.values) == 1))


def _quiet(fact: Fact) -> Fact:
  note = 'of the same code (hashes.code)'
  return dataclasses.replace(fact, note=note, loud=False)


def _of(cell: Result) -> dict[str, Any]:
  hashes = cell.status.get('hashes')
  hashes = hashes if isinstance(hashes, Mapping) else {}
  found = cell.info | {f'hashes.{name}': h for name, h in hashes.items()}
  found['host'] = cell.status.get('host')
  return {name: value for name, value in found.items() if name not in _LEFT_OUT}


def _fact(name, told) -> Fact:
  groups = {}
  for cell, found in told:
    value = found.get(name)
    groups.setdefault(results.key(value), (value, []))[1].append(cell)
  values = sorted(groups.values(), key=lambda group: -len(group[1]))
  if len(values) == 1:
    return Fact(name, values)
  if name == 'host':
    return Fact(name, values, 'several machines')
  root = name.removeprefix('hashes.').split('.')[0]
  fields = _FOLLOWS.get(name) or _FOLLOWS.get(root) or ('nothing',)
  varied = lambda cell: results.key(
    {
      name: value
      for name, value in (cell.setting | cell.replicate).items()
      if name.startswith(fields)
    }
  )
  if _one_each((varied(cell), v) for v, group in values for cell in group):
    return Fact(name, values, 'as the sweep has it')
  return Fact(name, values, 'cells differ: do not compare them', loud=True)


def _one_each(pairs: Iterable[tuple[str, Any]]) -> bool:
  seen = {}
  return all(seen.setdefault(group, value) == value for group, value in pairs)
