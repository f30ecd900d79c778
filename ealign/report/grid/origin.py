"""What the cells were made with, and whether it was the same for all."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ealign.evals.records import grouped
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
_LOUD = 'cells differ: do not compare them'
# And what a run found out itself, before its first step.
_LEFT_OUT = ('seed', 'hashes.config', 'audit', 'threshold')


@dataclasses.dataclass(frozen=True)
class Fact:
  """A fact's values, each with its cells."""

  name: str
  values: list[tuple[Any, list[Result]]]
  note: str

  @property
  def loud(self) -> bool:
    """Whether cells differ in it that must not."""
    return self.note == _LOUD


def facts(cells: Sequence[Result]) -> list[Fact]:
  """Facts of the finished cells; those that must not differ stand first."""
  known = [(cell, _of(cell)) for cell in cells if cell.done and cell.current]
  code = {of.get('hashes.code') for _, of in known}
  same_code = len(code) == 1 and any(code)
  names = dict.fromkeys(name for _, of in known for name in of)
  made = [_fact(name, known, same_code) for name in names]
  return sorted(made, key=lambda f: (not f.loud, len(f.values) == 1))


def _of(cell: Result) -> dict[str, Any]:
  hashes = cell.status.get('hashes') or {}
  found = cell.run.info | {f'hashes.{name}': h for name, h in hashes.items()}
  found['host'] = cell.status.get('host')
  kept = lambda name: not {name, name.split('.')[0]} & {*_LEFT_OUT}
  return {name: value for name, value in found.items() if kept(name)}


def _fact(name, known, same_code) -> Fact:
  groups = grouped(known, lambda pair: results.key(pair[1].get(name)))
  values = [(x[0][1].get(name), [c for c, _ in x]) for x in groups.values()]
  values.sort(key=lambda value: -len(value[1]))
  notes = {
    '': len(values) == 1,
    'several machines': name == 'host',
    'as the sweep has it': _follows(name, values),
    # Commits that left alone what results depend on.
    'of the same code (hashes.code)': name == 'commit' and same_code,
  }
  note = next((note for note, holds in notes.items() if holds), _LOUD)
  return Fact(name, values, note)


def _follows(name, values) -> bool:
  """Whether equal settings of the fields it depends on give equal values."""
  root = name.removeprefix('hashes.').split('.')[0]
  fields = _FOLLOWS.get(name) or _FOLLOWS.get(root) or ('nothing',)
  seen = {}
  for value, cells in values:
    for cell in cells:
      overrides = (cell.setting | cell.replicate).items()
      varied = {n: x for n, x in overrides if n.startswith(fields)}
      if seen.setdefault(results.key(varied), value) != value:
        return False
  return True
