"""A CSV file with a header, as benchmarks are published."""

import csv
import io

from ealign.data import sources
from ealign.runtime.errors import UserError


def read(
  path, columns: tuple[str, ...], limit: int = sources.LIMIT_MIB
) -> list[dict[str, str]]:
  """The rows of a file: column -> text. A field may have several lines.

  Args:
    path: of the file. columns: that it must have. limit: MiB of the file.

  Raises:
    UserError: it is missing, too large, empty, not UTF-8 or no such table; it
      names file and line, where a row ends.
  """
  content = sources.read_bytes(str(path), limit)
  try:
    text = content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    message = f'is not UTF-8 (byte {error.start}): convert the file'
    raise UserError(f'{path} {message}') from None
  lines = csv.reader(io.StringIO(text, newline=''), strict=True)
  try:
    return _rows(path, lines, columns)
  except csv.Error as error:
    where = f'{path}:{lines.line_num}'
    raise UserError(f'{where} is no CSV ({error}): mend it') from None


def _rows(path, lines, columns) -> list[dict]:
  header = next(lines, [])
  if missing := [name for name in columns if name not in header]:
    shown = ', '.join(header)[:80] or 'none'
    message = f'has no column {missing[0]!r}, but {shown}; is it another file?'
    raise UserError(f'{path} {message}')
  if len(set(header)) < len(header):
    raise UserError(f'{path} has a column twice: drop one')
  rows = []
  for row in filter(None, lines):
    if len(row) != len(header):
      message = f'has {len(row)} fields, but the header {len(header)}; mend it'
      raise UserError(f'{path}:{lines.line_num} {message}')
    rows.append(dict(zip(header, row, strict=True)))
  if not rows:
    raise UserError(f'{path} has a header and no rows: it needs at least one')
  return rows
