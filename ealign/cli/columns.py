"""Texts beside each other, row by row, while they come.

A row is written once nothing that comes later can change it, so nothing on the
screen is ever written anew: it can be scrolled, and goes through a pipe.

  == sft                        == conscience
    With the old soup: Hide       With the old soup: Share
    the nuts in the dish and      the work and thank the
"""

import itertools
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator

LEAST = 36  # cells of a column: of fewer a text is a ladder of words
GAP = 2  # cells between columns
INDENT = 2  # so that no answer can be taken for a name or a verdict


def fit(count: int, cells: int = 0) -> int:
  """The cells of each of `count` columns; 0: one under another reads better.

  cells: of the terminal; 0 = as it is.
  """
  cells = cells or shutil.get_terminal_size().columns
  each = (cells + GAP) // max(count, 1) - GAP
  return each if count > 1 and each >= LEAST else 0


def size(text: str) -> int:
  """The cells that a text takes: two for a wide letter, none for an accent."""
  wide = lambda x: 1 + (unicodedata.east_asian_width(x) in 'WF')
  return sum(0 if unicodedata.combining(x) else wide(x) for x in text)


def wrapped(text: str, cells: int) -> list[str]:
  """The text in rows of at most so many cells.

  Of a text that goes on only the last row changes.
  """
  rows = []
  for line in text.expandtabs(4).split('\n'):
    row = ''
    for blank, word in re.findall(r'(\s*)(\S*)', line):
      if size(row + blank + word) <= cells:
        row += blank + word
        continue
      if row:
        rows.append(row)
        blank = ''
      row = (blank if size(blank) < cells else '') + word
      while size(row) > cells:
        head = _head(row, cells)
        rows.append(row[:head])
        row = row[head:]
    rows.append(row)
  return rows


def _head(text: str, cells: int) -> int:
  """How many letters fit; at least one."""
  sizes = itertools.accumulate(size(x) for x in text)
  return max(1, sum(total <= cells for total in sizes))


def beside(
  texts: Iterable[Iterator[str]], cells: int, write: Callable[[str], None]
) -> None:
  """Writes texts beside each other, each in turn as far as it has come.

  Args:
    texts: of each column, what comes next of it.
    cells: of a column.
    write: takes a row, with its end of line.
  """
  texts = list(texts)
  said, open_, row = [''] * len(texts), set(range(len(texts))), 0
  while open_:
    for i in sorted(open_):
      part = next(texts[i], None)
      if part is None:
        open_.discard(i)
      else:
        said[i] += part
    rows = [wrapped(text, cells - INDENT) for text in said]
    # The last row of a text that is still open may change.
    ready = min((len(rows[i]) - 1 for i in open_), default=max(map(len, rows)))
    for at in range(row, ready):
      own = (' ' * INDENT + x[at] if at < len(x) else '' for x in rows)
      write(line(own, cells))
    row = max(row, ready)


def heads(texts: Iterable[str], cells: int, write: Callable) -> None:
  """Writes whole texts beside each other that are no answers: not indented."""
  rows = [wrapped(text, cells) for text in texts]
  for parts in itertools.zip_longest(*rows, fillvalue=''):
    write(line(parts, cells))


def line(parts: Iterable[str], cells: int) -> str:
  """One row of all columns."""
  padded = (part + ' ' * (cells - size(part)) for part in parts)
  return (' ' * GAP).join(padded).rstrip() + '\n'
