"""Question files of the user's own: `eval.questions` and `eval.curve`."""

import collections
from collections.abc import Sequence

from ealign.data import columns, sources
from ealign.runtime.errors import UserError


def read(path: str, limit: int = sources.LIMIT_MIB) -> list[dict]:
  """Question rows of a file: id, messages and what the judge needs.

  What is null counts as absent.
  """
  rows = [columns.present(row) for row in sources.read_rows(path, limit)]
  for i, row in enumerate(rows, start=1):
    where = f'{path}: row {i}'
    if 'messages' not in row or 'id' not in row:
      raise UserError(f'{where} is no question: it needs "id" and "messages"')
    for field in ('id', 'suite', 'kind', 'split', 'cluster'):
      if not isinstance(row.get(field, ''), str | int):
        raise UserError(f'{where}, {field}: must be text, not {row[field]!r}')
      if field != 'id' and field in row:
        row[field] = str(row[field])  # kinds are sorted by their names
  chats = columns.plain_chats(rows, path)
  pairs = zip(rows, chats, strict=True)
  rows = [row | {'messages': messages} for row, messages in pairs]
  for i, row in enumerate(rows, start=1):
    roles = [message['role'] for message in row['messages']]
    if 'user' not in roles or roles[-1] == 'assistant':
      message = 'must hold a user turn and end before the answer'
      raise UserError(f'{path}: row {i}, messages: {message}')
  return rows


def check_kinds(kinds: Sequence[str], rows: Sequence[dict]) -> None:
  """Raises a UserError where no question is of a kind that is wanted."""
  there = {str(row.get('kind', '')) for row in rows}
  listed = ', '.join(sorted(filter(None, there))) or 'none'
  for kind in kinds:
    if rows and kind not in there:
      message = f'no question is of this kind (kinds: {listed}); leave it out'
      raise UserError(f'eval.kinds={kind!r}: {message}')


def check_ids(rows: Sequence[dict]) -> None:
  """Raises a UserError unless ids differ: of two, readers keep one answer."""
  seen = collections.Counter((row.get('split'), row['id']) for row in rows)
  for (_, name), times in seen.items():
    if times > 1:
      message = f'{times} questions have this id; ids must differ'
      raise UserError(f'eval: question {name!r}: {message}')
