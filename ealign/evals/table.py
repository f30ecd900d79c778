"""The table: what stands in which column, for terminal, page and Markdown.

`blocks` lays the rows of `counts` out; `text_table` and `show` write them for a
terminal, and the report shows the same blocks.
"""

import dataclasses
import html
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from ealign.evals import counts
from ealign.evals.judges.measure import Judge, Measure
from ealign.runtime.errors import visible

WIDTH = 100  # columns of a terminal
NOTHING = '–'


@dataclasses.dataclass(frozen=True)
class Entry:
  text: str
  interval: str = ''
  hint: str = ''  # counts behind the figure
  sort: object = None  # what a page sorts by

  def __str__(self) -> str:
    return visible(f'{self.text} {self.interval}'.strip())


@dataclasses.dataclass(frozen=True)
class Block:
  """One table: columns are (title, is a number), lines hold one Entry each.

  marks: how a page shows each line, if it shows them apart. spare: titles of
  the columns that a narrow terminal goes without, in this order.
  """

  title: str
  note: str
  columns: Sequence[tuple[str, bool]]
  lines: list[tuple[Entry, ...]]
  marks: Sequence[str] = ()
  spare: Sequence[str] = ()


def percent(value: float | None, scale: float = 100) -> str:
  """A share in per cent; with scale=1 a mean as it is."""
  return NOTHING if value is None else f'{scale * value:.1f}'


def bracket(interval: tuple[float, float] | None, scale: float = 100) -> str:
  """An interval in brackets; '' if there is none."""
  ends = [f'{scale * limit:.1f}' for limit in interval or ()]
  return f'[{", ".join(ends)}]' if ends else ''


def points(value: float) -> str:
  """A difference of shares, in percentage points."""
  return f'{100 * value:+.1f}'


def p_value(p: float) -> str:
  """A p-value with two digits."""
  return '< 0.0001' if p < 1e-4 else f'{p:.2g}'


def entry(share: counts.Share | counts.Mean | None, *, wide: bool) -> Entry:
  """A cell: a share in per cent or a mean; `wide` shows a share's interval."""
  if share is None or not share.total:
    return Entry(NOTHING)
  if isinstance(share, counts.Mean):
    text, interval = percent(share.value, 1), bracket(share.interval, 1)
    return Entry(text, interval, f'mean of {share.total} answers', share.value)
  hint = f'{share.count} of {share.total} answers; '
  hint += f'as if all were independent {bracket(share.interval)}'
  return Entry(percent(share.value), bracket(share.clustered) * wide, hint)


def shown(value: Any) -> str:
  """A setting's value as tables show it."""
  if isinstance(value, str):
    return value or '(none)'
  return NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def _cells(row, measures: Sequence[Measure]) -> list[Entry]:
  return [entry(row.get(m.name), wide='run' in m.brackets) for m in measures]


def note(measures: Sequence[Measure], begin: str) -> str:
  """The note under a table: `begin`, then the notes of its measures."""
  clauses = [measure.note for measure in measures if measure.note]
  return f'{begin} {"; ".join(clauses)}.' if clauses else begin


_NOTE = (
  'In per cent; in brackets 95 % intervals in which the answers to one '
  'question count as alike.'
)


def blocks(rows: Sequence[Mapping], judge: Judge) -> list[Block]:
  """The tables to show: the headline, all other questions, the verdicts."""
  parts = counts.by_part(rows, judge)
  shown = [id(row) for part in parts.values() for row in part.values()]
  others = [row for row in rows if id(row) not in shown]
  reviewed = [row for row in rows if row.get('no_verdict')]
  made = (
    _headline_block(parts, rows, judge),
    _others_block(others, rows, judge),
    _verdict_block(reviewed, rows, judge),
  )
  spare = [judge.tokens.short, judge['no_verdict'].short, *judge.claimed, 'n']
  spare += [judge[name].short for name in judge.spare]
  shown = [without_empty(block) for block in made if block.lines]
  return [dataclasses.replace(block, spare=spare) for block in shown]


def _headline_block(parts, rows, judge) -> Block:
  titles, notes = [], []
  lines = {row['arm']: [Entry(str(row['arm']))] for row in rows}
  for part, by_arm in parts.items():
    measures = judge.shown(part)
    titles += [part or 'n', *(m.short for m in measures)]
    about = f'{part}: {judge.kinds.get(part, "answers")}' if part else ''
    clauses = [m.note for m in measures] if part else []
    notes += filter(None, (about or 'n: answers', *clauses))
    for arm, line in lines.items():
      row = by_arm.get(arm, {})
      line.append(Entry(str(row.get('answers', NOTHING))))
      line += _cells(row, measures)
      if part == judge.part(judge.tokens):
        line.append(Entry(percent(row.get(judge.tokens.name))))
  known = any(line[-1].text != NOTHING for line in lines.values())
  notes += [judge.tokens.note] if judge.claimed or known else []
  heads = columns(['arm'], [*titles, judge.tokens.short])
  text = f'{note(judge.shown(""), _NOTE)} {"; ".join(notes)}.'
  return Block('Held-out questions', text, heads, [*map(tuple, lines.values())])


def columns(
  texts: Sequence[str], numbers: Sequence[str] = ()
) -> list[tuple[str, bool]]:
  """Columns that hold text, then columns that hold numbers, by their titles."""
  return [(title, False) for title in texts] + [(t, True) for t in numbers]


def without_empty(block: Block) -> Block:
  """The block without its empty columns."""
  filled = lambda at: any(line[at].text != NOTHING for line in block.lines)
  return _picked(block, [*filter(filled, range(len(block.columns)))])


def _others_block(rows, every, judge) -> Block:
  main = judge.shown('')
  measures = [*main, *(m for part in judge.claimed for m in judge.shown(part))]
  kinds = {row['kind'] for row in rows} - {*judge.claimed}
  named = [f' {k}: {what}.' for k, what in judge.kinds.items() if k in kinds]
  text = note(main, _NOTE) + ''.join(named)
  count = lambda row: row['answers']
  return _by_kind('Asked in other ways', text, rows, every, measures, count)


def _verdict_block(rows, every, judge) -> Block:
  measures = judge.shown('', verdicts=True)
  title, begin = 'Verdicts of the conscience', 'In per cent.'
  if judge.truth:
    title += ' against the truth'
    begin = f'In per cent, of the n {judge.sound_those} with a verdict.'
  count = lambda row: getattr(row.get(measures[0].name), 'total', 0)
  return _by_kind(title, note(measures, begin), rows, every, measures, count)


def _by_kind(title, text, rows, every, measures, count) -> Block:
  """A line for each arm and kind of question; `count` gives the n of a row."""
  lines = []
  for row in sorted(rows, key=lambda row: (row['kind'], str(row['split']))):
    splits = {str(x['split']) for x in every if x['kind'] == row['kind']}
    split = f', {row["split"]}' if len(splits) > 1 else ''
    names = row['arm'], f'{row["kind"]}{split}', count(row)
    lines.append((*(Entry(str(x)) for x in names), *_cells(row, measures)))
  heads = columns(['arm', 'questions'], ['n', *(m.short for m in measures)])
  return Block(title, text, heads, lines)


def fitted(block: Block, width: int) -> Block:
  """Fits the block into `width` characters: drops columns, cuts names."""
  titles = [title for title, _ in block.columns]
  lines = [list(map(str, line)) for line in block.lines]
  sizes = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
  name = min(sizes[0], 10)
  keep = list(range(len(titles)))
  need = lambda: name + sum(sizes[at] + 2 for at in keep[1:])
  named = sum(not is_number for _, is_number in block.columns)
  spare = [titles.index(title) for title in block.spare if title in titles]
  for at in (*spare, *range(len(titles) - 1, named - 1, -1)):
    if need() > width and at in keep:
      keep.remove(at)
  name = max(4, min(sizes[0], name + width - need()))
  cut = lambda text: text if len(text) <= name else text[: name - 1] + '…'
  short = [(Entry(cut(first.text)), *rest) for first, *rest in block.lines]
  return _picked(dataclasses.replace(block, lines=short), keep)


def _picked(block: Block, keep: Sequence[int]) -> Block:
  pick = lambda cells: tuple(cells[at] for at in keep)
  lines = [*map(pick, block.lines)]
  return dataclasses.replace(block, columns=pick(block.columns), lines=lines)


def text_table(blocks: Sequence[Block], *, width: int = WIDTH) -> str:
  """All blocks as plain text, in lines of at most `width` characters."""
  return '\n'.join(_text(fitted(block, width)) for block in blocks)


def _text(block: Block) -> str:
  titles = [title for title, _ in block.columns]
  lines = [titles] + [list(map(str, line)) for line in block.lines]
  sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
  lines.insert(1, ['-' * size for size in sizes])
  sides = ['>' if number else '<' for _, number in block.columns]
  row = '  '.join(f'{{:{x}{n}}}' for x, n in zip(sides, sizes, strict=True))
  drawn = [row.format(*line).rstrip() for line in lines]
  return '\n'.join([visible(block.title), *drawn]) + '\n'


def escape_markdown(value: Any) -> str:
  """Text that stays within its cell, with no markup of its own."""
  text = html.escape(' '.join(visible(str(value)).split()), quote=False)
  return re.sub(r'([\\|`*_\[\]])', r'\\\1', text)


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
      title=rich.text.Text(visible(block.title)),
      title_justify='left',
      box=rich.box.SIMPLE_HEAD,
      show_edge=False,
      pad_edge=False,
      padding=(0, 1, 0, 0),
    )
    for title, number in block.columns:
      side = 'right' if number else 'left'
      drawn.add_column(title, justify=side, no_wrap=True)
    for line in block.lines:
      drawn.add_row(*(rich.text.Text(str(cell)) for cell in line))
    console.print(drawn)
    console.print()
