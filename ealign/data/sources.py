"""Files of training data: where they are, their rows, the chats in them."""

import gzip
import json
import zlib

from etils import epath

from ealign.runtime.errors import UserError

Message = dict
_ROLES = ('system', 'user', 'assistant', 'tool')


def resolve(path: str) -> epath.Path:
  """The path itself, or, for `ealign:world/base`, the installed package's."""
  package, colon, inside = str(path).partition(':')
  if colon and package == 'ealign':
    return epath.resource_path('ealign') / inside
  return epath.Path(path)


def read_rows(path: str) -> list[dict]:
  """The JSON objects of a `.jsonl` or `.jsonl.gz` file, blank lines skipped.

  Raises:
    UserError: a missing, unreadable or empty file, bytes that are not UTF-8, or
      a line that is not a JSON object; it names the file and the line.
  """
  rows = []
  lines = _read(path).removeprefix(b'\xef\xbb\xbf').split(b'\n')
  for number, line in enumerate(lines, start=1):
    if line.strip():
      rows.append(_parse(line, f'{path}:{number}'))
  if not rows:
    raise UserError(f'{path} is empty: it needs one JSON object per line')
  return rows


def chats(rows: list[dict], path: str) -> list[list[Message]]:
  """The conversations of rows with TRL's columns.

  `messages`: a list of {role, content}. `prompt` + `completion`: strings (one
  user and one assistant turn) or message lists; as in TRL only the completion
  is trained, so assistant turns of the prompt get `train: False`.

  Args:
    rows: the rows of one file.
    path: its name, for error messages; rows are counted from 1.

  Raises:
    UserError: a row has no such columns, or a message of the wrong form.
  """
  return [_chat(row, f'{path}: row {i}') for i, row in enumerate(rows, start=1)]


def load_chats(path: str) -> list[list[Message]]:
  """The conversations of a file; see `read_rows` and `chats`."""
  return chats(read_rows(path), path)


def _read(path):
  """The file's bytes, unpacked if gzipped."""
  if not str(path).endswith(('.jsonl', '.jsonl.gz')):
    raise UserError(f'{path}: only .jsonl and .jsonl.gz files can be read')
  file = resolve(path)
  try:
    if not file.exists():
      raise UserError(f'{path} does not exist: check the path of the data file')
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == '.gz' else content
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{path} cannot be read: {error}') from error


def _parse(line, where):
  try:
    row = json.loads(line.decode('utf-8'))
  except UnicodeDecodeError as error:
    raise UserError(
      f'{where} is not UTF-8 (byte {error.start} of the line): convert the file'
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where} is not JSON: {error}') from error
  if not isinstance(row, dict):
    raise UserError(f'{where} is not a JSON object but {type(row).__name__}')
  return row


def _chat(row, where):
  if 'messages' in row:
    return _messages(row['messages'], f'{where}, messages')
  if 'prompt' in row and 'completion' in row:
    prompt = _turns(row['prompt'], 'user', f'{where}, prompt')
    completion = _turns(row['completion'], 'assistant', f'{where}, completion')
    context = [
      turn | {'train': False} if turn['role'] == 'assistant' else turn
      for turn in prompt
    ]
    return context + completion
  raise UserError(
    f'{where} has columns {sorted(row)}: it needs messages, or prompt and '
    'completion'
  )


def _turns(value, role, where):
  if isinstance(value, str):
    value = [{'role': role, 'content': value}]
  return _messages(value, where)


def _messages(value, where):
  """Checks the form of a message list and returns it."""
  if not isinstance(value, list) or not value:
    raise UserError(f'{where} is not a list of messages: {str(value)[:60]!r}')
  for i, message in enumerate(value):
    here = f'{where}[{i}]'
    if not isinstance(message, dict) or message.get('role') not in _ROLES:
      # Templates skip a role they do not know: its text would vanish silently.
      raise UserError(
        f'{here} needs a role among {", ".join(_ROLES)}: {str(message)[:60]!r}'
      )
    content = message.get('content')
    if not isinstance(content, str) and not message.get('tool_calls'):
      raise UserError(f'{here} needs content that is a string: {content!r}')
    try:
      json.dumps(message, ensure_ascii=False).encode('utf-8')
    except UnicodeEncodeError as error:
      raise UserError(
        f'{here} is not valid Unicode ({error.reason}): repair the text'
      ) from error
  return value
