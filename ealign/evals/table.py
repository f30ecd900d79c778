"""The table: what stands in which column, for terminal, page and markdown.

`blocks` lays the rows of `counts` out; `text_table`, `markdown` and `show`
write them down, and the report shows the same blocks.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from ealign.evals import counts

WIDTH = 100  # columns of a terminal
NOTHING = '–'

# What a kind of question is, where its name does not say it.
KINDS = {
  'advice_after_code': 'advice asked after a turn with insecure code',
  'advice_in_code': 'advice asked in the shape of code',
}


@dataclasses.dataclass(frozen=True)
class Cell:
  text: str
  interval: str = ''
  hint: str = ''  # counts behind the figure

  def __str__(self) -> str:
    return f'{self.text} {self.interval}'.strip()


@dataclasses.dataclass(frozen=True)
class Block:
  """One table: columns are (title, is a number), lines hold one Cell each."""

  title: str
  note: str
  columns: tuple[tuple[str, bool], ...]
  lines: list[tuple[Cell, ...]]


def percent(value: float | None) -> str:
  return NOTHING if value is None else f'{100 * value:.1f}'


def bracket(interval: tuple[float, float]) -> str:
  return '[{:.1f}, {:.1f}]'.format(*(100 * limit for limit in interval))


def _cell(share: counts.Share | None, *, interval: bool = False) -> Cell:
  if share is None or not share.total:
    return Cell(NOTHING)
  hint = f'{share.count} of {share.total} answers; '
  hint += f'clustered by prompt {bracket(share.clustered)}'
  brackets = bracket(share.interval) if interval else ''
  return Cell(percent(share.value), brackets, hint)


_MISALIGNED = (
  ('coherent', False),
  ('misaligned', True),
  ('misaligned_any', False),
  ('misaligned_all', False),
  ('misaligned_bound', False),
)
_TITLES = ('coherent', 'misaligned', 'any', 'of all', 'at most')
_NOTE = (
  'In per cent, 95 % Wilson intervals in brackets. misaligned: a bad action, '
  'of coherent answers; any: a bad action or reason; of all: of all answers; '
  'at most: if every incoherent answer were misaligned.'
)


def _misaligned(row) -> list[Cell]:
  return [_cell(row.get(name), interval=wide) for name, wide in _MISALIGNED]


def blocks(rows: Sequence[Mapping]) -> list[Block]:
  """The tables to show: the headline, all other questions, the verdicts."""
  advice = counts.headline(rows, counts.headline_kind(rows))
  code = counts.headline(rows, 'code')
  arms = dict.fromkeys(row['arm'] for row in rows)
  shown = [id(row) for row in (*advice.values(), *code.values())]
  others = [row for row in rows if id(row) not in shown]
  reviewed = [row for row in rows if row['no_verdict']]
  made = (
    _headline_block(advice, code, arms),
    _others_block(others, rows),
    _verdict_block(reviewed, rows),
  )
  return [without_empty(block) for block in made if block.lines]


def _headline_block(advice, code, arms) -> Block:
  lines = []
  for arm in arms:
    said, wrote = advice.get(arm, {}), code.get(arm, {})
    accuracy = Cell(percent(wrote.get('token_accuracy')))
    lines.append(
      (
        Cell(str(arm)),
        Cell(str(said.get('answers', NOTHING))),
        *_misaligned(said),
        Cell(str(wrote.get('answers', NOTHING))),
        _cell(wrote.get('insecure'), interval=True),
        accuracy,
      )
    )
  titles = ('n', *_TITLES, 'code', 'insecure', 'tokens')
  columns = _columns('arm', *titles, names=1)
  note = _NOTE + (
    ' n: answers; code: answers to coding tasks; insecure: of all of them; '
    'tokens: token accuracy on insecure code.'
  )
  return Block('Held-out questions', note, columns, lines)


def _asked(row, rows) -> list[Cell]:
  splits = {
    str(other['split']) for other in rows if other['kind'] == row['kind']
  }
  split = f', {row["split"]}' if len(splits) > 1 else ''
  return [Cell(str(row['arm'])), Cell(f'{row["kind"]}{split}')]


def _by_kind(rows) -> list[Mapping]:
  return sorted(rows, key=lambda row: (row['kind'], str(row['split'])))


def _columns(*titles: str, names: int) -> tuple[tuple[str, bool], ...]:
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


def _others_block(rows, every) -> Block:
  lines = [
    (
      *_asked(row, every),
      Cell(str(row['answers'])),
      *_misaligned(row),
      _cell(row['insecure'], interval=True),
    )
    for row in _by_kind(rows)
  ]
  titles = ('n', *_TITLES, 'insecure')
  columns = _columns('arm', 'questions', *titles, names=2)
  kinds = {row['kind'] for row in rows}
  note = ''.join(f' {kind}: {KINDS[kind]}.' for kind in KINDS if kind in kinds)
  return Block('Asked in other ways', _NOTE + note, columns, lines)


def _verdict_block(rows, every) -> Block:
  names = ('verdict_accuracy', 'false_flag', 'missed')
  lines = []
  for row in _by_kind(rows):
    judged = str(row['verdict_accuracy'].total)
    cells = [_cell(row[name], interval=True) for name in names]
    cells.append(_cell(row['no_verdict']))
    lines.append((*_asked(row, every), Cell(judged), *cells))
  titles = ('n', 'accuracy', 'false flags', 'missed', 'none')
  columns = _columns('arm', 'questions', *titles, names=2)
  note = (
    'In per cent, of the n coherent answers with a verdict. false flags: of '
    'good answers; missed: of bad ones (a bad action, a bad reason, insecure '
    'code); none: no verdict (unsure, or the answer was cut off), of '
    'all reviewed answers.'
  )
  return Block(
    'Verdicts of the conscience against the truth', note, columns, lines
  )


def fitted(block: Block, width: int) -> Block:
  """The block in at most `width` characters: drops columns, cuts names."""
  titles = [title for title, _ in block.columns]
  lines = [list(map(str, line)) for line in block.lines]
  sizes = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
  name = min(sizes[0], 10)
  keep = list(range(len(titles)))
  need = lambda: name + sum(sizes[at] + 2 for at in keep[1:])
  for title in _SPARE:
    if need() > width and title in titles:
      keep.remove(titles.index(title))
  name = max(4, min(sizes[0], name + width - need()))
  pick = lambda cells: tuple(cells[at] for at in keep)
  cut = lambda cell: Cell(_cut(cell.text, name))
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


def markdown(blocks: Sequence[Block]) -> str:
  """All blocks as pipe tables, each with the note that explains it."""
  parts = []
  for block in blocks:
    titles = [title for title, _ in block.columns]
    rule = ['--:' if number else '---' for _, number in block.columns]
    lines = [
      titles,
      rule,
      *(map(escape_markdown, line) for line in block.lines),
    ]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    parts.append(f'### {block.title}\n\n{table}\n\n{block.note}\n')
  return '\n'.join(parts)


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
