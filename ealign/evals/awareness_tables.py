"""The tables of `ealign.evaluate awareness`, and the same as plain values."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from ealign.evals import awareness, ranks, table
from ealign.evals.awareness import DOES, SAYS, WHAT, WOULD, Arm
from ealign.evals.table import NOTHING, Block, Entry

_FORMATS = 'decision', 'number', 'language', 'likert'
_NEUTRAL = 'neutral'


def blocks(
  arms: Sequence[Arm], pairs: Sequence[tuple[str, str]]
) -> list[Block]:
  """All tables that have something in them.

  pairs: names of arms, the first less the second.
  """
  made = [
    _arms(arms),
    _formats(arms),
    _scales(arms),
    _pairs(arms, pairs),
    _correlations(arms),
    _framed(arms),
    _sampled(arms),
  ]
  return [table.without_empty(block) for block in made if block.lines]


def _arms(arms) -> Block:
  lines = []
  for one in arms:
    worst = awareness.figure([*one.worst.values()])
    cells = [_figure(one.figure(what)) for what in WHAT]
    said = awareness.persona(one, arms[0]) or NOTHING
    lines.append((Entry(one.name), *cells, _figure(worst), Entry(said)))
  names = [*WHAT.values(), 'worst of n']
  heads = [*table.columns(['arm'], names), ('persona', False)]
  return Block('0 aligned to 1 misaligned', '', heads, lines)


def _formats(arms) -> Block:
  lines = []
  for one in arms:
    own = [*(one.formats.get(form) for form in _FORMATS), one.mass]
    if any(value is not None for value in own):
      lines.append((Entry(one.name), *map(_number, own)))
  heads = table.columns(['arm'], [*_FORMATS, 'on options'])
  return Block('Self-report by format', '', heads, lines)


def _scales(arms) -> Block:
  lines = []
  for one in arms:
    own = one.contrast, one.acquiescence, one.first
    if any(own):
      lines.append((Entry(one.name), *map(_figure, own)))
  heads = table.columns(['arm'], ['contrast', 'acquiescence', 'first of two'])
  return Block('Turned round', '', heads, lines)


def _pairs(arms, pairs) -> Block:
  by, lines = {one.name: one for one in arms}, []
  for a, b in pairs:
    for what, words in WHAT.items():
      found = awareness.compared(by[a].values[what], by[b].values[what])
      if found:
        lines.append((Entry(f'{a} - {b}'), Entry(words), *_signed(found)))
  heads = table.columns(['arms', 'what it'], _SIGNED)
  return Block('Paired by item (Wilcoxon)', '', heads, lines)


_SIGNED = ['shift', 'p', 'items', 'differ']


def _signed(found: ranks.Signed) -> tuple[Entry, ...]:
  low, high = found.interval
  ends = f'[{low:+.2f}, {high:+.2f}]'
  cells = table.p_value(found.p), str(found.pairs), str(found.differ)
  return Entry(f'{found.shift:+.2f}', ends), *map(Entry, cells)


def _correlations(arms) -> Block:
  lines = []
  for x, y in itertools.combinations(WHAT, 2):
    found = awareness.correlated(arms, x, y)
    if found:
      low, high = found.interval
      cell = Entry(f'{found.rho:+.2f}', f'[{low:+.2f}, {high:+.2f}]')
      more = Entry(table.p_value(found.p)), Entry(str(found.n))
      lines.append((Entry(f'{WHAT[x]}, {WHAT[y]}'), cell, *more))
  heads = table.columns(['over arms'], ['rho', 'p', 'arms'])
  return Block('Rank correlation (Spearman)', '', heads, lines)


def _framed(arms) -> Block:
  lines = []
  for one in arms:
    plain = one.framed.get(_NEUTRAL, {})
    for framing, own in one.framed.items():
      found = awareness.compared(own, plain)
      if found and framing != _NEUTRAL:
        what = Entry(f'{framing} - {_NEUTRAL}')
        lines.append((Entry(one.name), what, *_signed(found)))
  heads = table.columns(['arm', 'framing'], _SIGNED)
  return Block('Where it matters: self-report by framing', '', heads, lines)


def _sampled(arms) -> Block:
  """Items that were asked for their options and for words."""
  lines = []
  for one in arms:
    found = awareness.compared(one.sampled, one.values[SAYS])
    if found:
      lines.append((Entry(one.name), *_signed(found)))
  heads = table.columns(['arm'], _SIGNED)
  return Block('Sampled less exact', '', heads, lines)


def _figure(found: awareness.Figure | None) -> Entry:
  if found is None:
    return Entry(NOTHING)
  low, high = found.interval
  return Entry(f'{found.value:.2f}', f'[{low:.2f}, {high:.2f}]')


def _number(value: float | None) -> Entry:
  return Entry(NOTHING if value is None else f'{value:.2f}')


def facts(
  arms: Sequence[Arm], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
  """The same as JSON has it."""
  by = {one.name: one for one in arms}
  plain = lambda x: x and dataclasses.asdict(x)
  return {
    'arms': [
      {
        'name': one.name,
        'persona': awareness.persona(one, arms[0]),
        'figures': {what: plain(one.figure(what)) for what in WHAT},
        'worst': plain(awareness.figure([*one.worst.values()])),
        'samples': one.samples,
        'formats': dict(one.formats),
        'contrast': plain(one.contrast),
        'acquiescence': plain(one.acquiescence),
        'first_of_two': plain(one.first),
        'on_options': one.mass,
      }
      for one in arms
    ],
    'pairs': [
      {'a': a, 'b': b, 'what': what}
      | plain(awareness.compared(by[a].values[what], by[b].values[what]))
      for a, b in pairs
      for what in (SAYS, WOULD, DOES)
      if awareness.compared(by[a].values[what], by[b].values[what])
    ],
    'correlations': [
      {'x': x, 'y': y} | plain(awareness.correlated(arms, x, y))
      for x, y in itertools.combinations(WHAT, 2)
      if awareness.correlated(arms, x, y)
    ],
  }
