"""The table: what stands in which column, for terminal, page and markdown.

`blocks` lays the rows of `counts` out; `text_table`, `markdown` and `show`
write them down, and the report shows the same blocks.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from ealign.evals import counts
from ealign.evals.judges.measure import Judge, Measure

WIDTH = 100  # columns of a terminal
NOTHING = '–'


@dataclasses.dataclass(frozen=True)
class Entry:
  text: str
  interval: str = ''
  hint: str = ''  # counts behind the figure
  sort: object = None  # what a page sorts by

  def __str__(self) -> str:
    return f'{self.text} {self.interval}'.strip()


@dataclasses.dataclass(frozen=True)
class Block:
  """One table: columns are (title, is a number), lines hold one Entry each.

  marks: how a page shows each line, if it shows them apart.
  """

  title: str
  note: str
  columns: tuple[tuple[str, bool], ...]
  lines: list[tuple[Entry, ...]]
  marks: Sequence[str] = ()


def percent(value: float | None) -> str:
  return NOTHING if value is None else f'{100 * value:.1f}'


def bracket(interval: tuple[float, float]) -> str:
  return '[{:.1f}, {:.1f}]'.format(*(100 * limit for limit in interval))


def points(value: float) -> str:
  """A difference of shares in points."""
  return f'{100 * value:+.1f}'


def p_value(p: float) -> str:
  """A p-value with two digits."""
  return '< 0.0001' if p < 1e-4 else f'{p:.2g}'


def entry(found: counts.Share | counts.Mean | None, *, wide: bool) -> Entry:
  """A share in per cent, or a mean as it is; wide: with its interval."""
  if found is None or not found.total:
    return Entry(NOTHING)
  if isinstance(found, counts.Mean):
    hint = f'mean of {found.total} answers'
    return Entry(
      number(found.value), number_bracket(found.interval), hint, found.value
    )
  hint = f'{found.count} of {found.total} answers; '
  hint += f'clustered by prompt {bracket(found.clustered)}'
  return Entry(percent(found.value), bracket(found.interval) * wide, hint)


def number(value: float | None) -> str:
  """A mean that is no share."""
  return NOTHING if value is None else f'{value:.1f}'


def number_bracket(interval: tuple[float, float] | None) -> str:
  """Its interval; '' where there is none."""
  return '[{:.1f}, {:.1f}]'.format(*interval) if interval else ''


def shown(value: Any) -> str:
  """The value of a setting."""
  if isinstance(value, str):
    return value or '(none)'
  return NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def _cells(row, measures: Sequence[Measure]) -> list[Entry]:
  return [entry(row.get(m.name), wide='run' in m.brackets) for m in measures]


def note(measures: Sequence[Measure], begin: str) -> str:
  """What stands under a table: a clause for each measure that needs one."""
  clauses = [measure.note for measure in measures if measure.note]
  return f'{begin} {"; ".join(clauses)}.' if clauses else begin


_NOTE = 'In per cent, 95 % Wilson intervals in brackets.'


def blocks(rows: Sequence[Mapping], judge: Judge) -> list[Block]:
  """The tables to show: the headline, all other questions, the verdicts."""
  kind = counts.headline_kind(rows, judge)
  parts = {part: counts.headline(rows, part) for part in judge.claimed}
  parts = {'': counts.headline(rows, kind)} | parts
  shown = [id(row) for part in parts.values() for row in part.values()]
  others = [row for row in rows if id(row) not in shown]
  reviewed = [row for row in rows if row.get('no_verdict')]
  made = (
    _headline_block(parts, dict.fromkeys(row['arm'] for row in rows), judge),
    _others_block(others, rows, judge),
    _verdict_block(reviewed, rows, judge),
  )
  return [without_empty(block) for block in made if block.lines]


def _headline_block(parts, arms, judge) -> Block:
  titles, notes = ['arm'], []
  lines = {arm: [Entry(str(arm))] for arm in arms}
  for part, found in parts.items():
    measures = judge.shown(part)
    titles += [part or 'n', *(m.short for m in measures)]
    about = f'{part}: {judge.kinds.get(part, "answers")}' if part else ''
    clauses = [m.note for m in measures] if part else []
    notes += filter(None, (about or 'n: answers', *clauses))
    for arm, line in lines.items():
      row = found.get(arm, {})
      line.append(Entry(str(row.get('answers', NOTHING))))
      line += _cells(row, measures)
      if part == judge.part(judge.tokens):
        line.append(Entry(percent(row.get(judge.tokens.name))))
  text = note(judge.shown(''), _NOTE)
  tokens = any(
    row.get(judge.tokens.name) is not None
    for found in parts.values()
    for row in found.values()
  )
  notes += [judge.tokens.note] if judge.claimed or tokens else []
  heads = columns(*titles, judge.tokens.short, names=1)
  text += f' {"; ".join(notes)}.'
  return Block('Held-out questions', text, heads, [*map(tuple, lines.values())])


def _asked(row, rows) -> list[Entry]:
  splits = {
    str(other['split']) for other in rows if other['kind'] == row['kind']
  }
  split = f', {row["split"]}' if len(splits) > 1 else ''
  return [Entry(str(row['arm'])), Entry(f'{row["kind"]}{split}')]


def _by_kind(rows) -> list[Mapping]:
  return sorted(rows, key=lambda row: (row['kind'], str(row['split'])))


def columns(
  *titles: str, names: int | None = None
) -> tuple[tuple[str, bool], ...]:
  """Columns of which the first `names` (by default all) are of texts."""
  names = len(titles) if names is None else names
  return tuple((title, at >= names) for at, title in enumerate(titles))


def without_empty(block: Block) -> Block:
  """The block less the columns in which nothing stands."""
  keep = [
    at
    for at in range(len(block.columns))
    if any(line[at].text != NOTHING for line in block.lines)
  ]
  pick = lambda cells: tuple(cells[at] for at in keep)
  lines = [pick(line) for line in block.lines]
  return dataclasses.replace(block, columns=pick(block.columns), lines=lines)


def _others_block(rows, every, judge) -> Block:
  main = judge.shown('')
  measures = [*main, *(m for part in judge.claimed for m in judge.shown(part))]
  lines = [
    (*_asked(row, every), Entry(str(row['answers'])), *_cells(row, measures))
    for row in _by_kind(rows)
  ]
  titles = ('n', *(m.short for m in measures))
  heads = columns('arm', 'questions', *titles, names=2)
  kinds = {row['kind'] for row in rows} - {*judge.claimed}
  named = [f' {k}: {what}.' for k, what in judge.kinds.items() if k in kinds]
  text = note(main, _NOTE) + ''.join(named)
  return Block('Asked in other ways', text, heads, lines)


def _verdict_block(rows, every, judge) -> Block:
  measures = judge.shown('', verdicts=True)
  title, begin = 'Verdicts of the conscience', 'In per cent.'
  if judge.truth:
    title += ' against the truth'
    of = f'of the n {judge.sound_those} with a verdict'
    begin = f'In per cent, {of}.'
  lines = []
  for row in _by_kind(rows):
    total = getattr(row.get(measures[0].name), 'total', 0)
    cells = _cells(row, measures)
    lines.append((*_asked(row, every), Entry(str(total)), *cells))
  titles = ('n', *(m.short for m in measures))
  heads = columns('arm', 'questions', *titles, names=2)
  return Block(title, note(measures, begin), heads, lines)


def fitted(block: Block, width: int) -> Block:
  """The block in at most `width` characters: drops columns, cuts names."""
  titles = [title for title, _ in block.columns]
  lines = [list(map(str, line)) for line in block.lines]
  sizes = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
  name = min(sizes[0], 10)
  keep = list(range(len(titles)))
  need = lambda: name + sum(sizes[at] + 2 for at in keep[1:])
  named = sum(not is_number for _, is_number in block.columns)
  for title in (*_SPARE, *reversed(titles[named:])):
    at = titles.index(title) if title in titles else None
    if need() > width and at in keep:
      keep.remove(at)
  name = max(4, min(sizes[0], name + width - need()))
  pick = lambda cells: tuple(cells[at] for at in keep)
  cut = lambda cell: Entry(_cut(cell.text, name))
  lines = [(cut(line[0]), *pick(line)[1:]) for line in block.lines]
  return dataclasses.replace(block, columns=pick(block.columns), lines=lines)


# What a narrow terminal goes without, in this order; files keep everything.
_SPARE = (
  *('tokens', 'none', 'code', 'n', 'any', 'of all', 'coherent'),
  *('rows', 'answers', 'verdicts'),
)


def _cut(text: str, size: int) -> str:
  return text if len(text) <= size else text[: size - 1] + '…'


def text_table(blocks: Sequence[Block], *, width: int = WIDTH) -> str:
  """All blocks as plain text, in lines of at most `width` characters."""
  return '\n'.join(_text(fitted(block, width)) for block in blocks)


def _text(block: Block) -> str:
  titles = [title for title, _ in block.columns]
  lines = [titles] + [list(map(str, line)) for line in block.lines]
  sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
  lines.insert(1, ['-' * size for size in sizes])
  out = [block.title]
  for line in lines:
    cells = zip(line, sizes, block.columns, strict=True)
    padded = [
      cell.rjust(size) if number else cell.ljust(size)
      for cell, size, (_, number) in cells
    ]
    out.append('  '.join(padded).rstrip())
  return '\n'.join(out) + '\n'


def escape_markdown(value) -> str:
  """Text that stays within its cell, with no markup of its own."""
  text = ' '.join(str(value).split())
  for char, name in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
    text = text.replace(char, name)
  return ''.join(f'\\{char}' if char in '\\|`*_[]' else char for char in text)


def show(blocks: Sequence[Block], file=None) -> None:
  """Prints the blocks: in colour on a terminal, plain anywhere else."""
  file = file or sys.stdout
  if not file.isatty():
    print(text_table(blocks), file=file)
    return
  console = rich.console.Console(file=file)
  console.width = min(console.width, WIDTH)
  for block in blocks:
    block = fitted(block, console.width)
    drawn = rich.table.Table(
      title=block.title,
      title_justify='left',
      box=rich.box.SIMPLE_HEAD,
      show_edge=False,
      pad_edge=False,
      padding=(0, 1, 0, 0),
    )
    for title, number in block.columns:
      justify = 'right' if number else 'left'
      drawn.add_column(title, justify=justify, no_wrap=True)
    for line in block.lines:
      drawn.add_row(*(rich.text.Text(str(cell)) for cell in line))
    console.print(drawn)
    console.print()
