"""The chats in rows with TRL's columns.

| columns | what is trained |
|---|---|
| `messages` | its assistant turns |
| `prompt`, `chosen`, `rejected` | the chosen answer; `rejected` is not read |
| `chosen`, `rejected` | what follows the last user turn of `chosen` |
| `prompt`, `completion` | the completion |
| `text` | the whole text |
| `prompt` | nothing: a request for a pool |

Of several, the first in this order counts. `prompt`, `completion` and `chosen`
are lists of messages, or plain strings: then one user or assistant turn (where
TRL would join the strings without a template). What is null counts as absent,
since tables have every column in every row.
"""

import json

from ealign.data import sources
from ealign.runtime.errors import UserError

Message = dict
_ROLES = ('system', 'user', 'assistant', 'tool')
TEXT = 'text'  # the role of running text, which no template sees


def chats(rows: list[dict], path: str) -> list[list[Message]]:
  """The conversation of each row: messages as {role, content, ...}.

  A turn that is context only has `train: False`. The text of a column `text` is
  one message of the role TEXT.

  Args:
    rows: the rows of one file.
    path: its name, for error messages; rows are counted from 1.

  Raises:
    UserError: a row has no such columns, or a message of the wrong form.
  """
  return [_chat(row, f'{path}: row {i}') for i, row in enumerate(rows, start=1)]


def arguments(rows: list[dict], path: str) -> list[dict]:
  """Each row's own arguments of the chat template: often {}.

  They are `tools`, a list, and what `chat_template_kwargs`, a mapping, holds;
  either may be JSON text, which keeps a table's columns uniform.

  Raises:
    UserError: one of them has another form.
  """
  return [
    _arguments(row, f'{path}: row {i}') for i, row in enumerate(rows, start=1)
  ]


def load_chats(path: str) -> list[list[Message]]:
  """The conversations of a file, none of which has arguments of its own."""
  return plain_chats(sources.read_rows(path), path)


def plain_chats(rows, path: str) -> list[list[Message]]:
  """`chats` of rows, none of which has arguments of its own."""
  for i, own in enumerate(arguments(rows, path), start=1):
    if own:
      problem = f'only rows of data.train may have {", ".join(own)}'
      raise UserError(f'{path}: row {i}: {problem}; drop the column')
  return chats(rows, path)


def _chat(row, where):
  row = _present(row)
  if 'messages' in row:
    return _messages(row['messages'], f'{where}, messages')
  if 'chosen' in row:
    return _chosen(row, where)
  if 'prompt' in row:
    prompt = _turns(row['prompt'], 'user', f'{where}, prompt')
    return _context(prompt) + _completion(row, where)
  if 'text' in row:
    return _messages(
      [{'role': TEXT, 'content': row['text']}], f'{where}, text', (TEXT,)
    )
  raise UserError(
    f'{where} has columns {sorted(row)}: it needs messages, or prompt, '
    'completion, chosen, text; rename them'
  )


def _chosen(row, where):
  """Prompt and chosen answer, or a chosen chat whose end is the answer."""
  chosen = _turns(row['chosen'], 'assistant', f'{where}, chosen')
  if chosen[0]['role'] in ('system', 'user'):
    # The prompt is in it, also where a column holds it once more.
    users = [i for i, turn in enumerate(chosen) if turn['role'] == 'user']
    end = users[-1] + 1 if users else 1
    return _context(chosen[:end]) + chosen[end:]
  if 'prompt' not in row:
    raise UserError(f'{where} has chosen, but no prompt: add that column')
  return _context(_turns(row['prompt'], 'user', f'{where}, prompt')) + chosen


def _completion(row, where):
  """The answer to a prompt; none in a pool."""
  if 'completion' not in row:
    return []
  if row.get('label') is False:  # of unpaired preferences
    problem = 'the completion is marked as a bad one'
    raise UserError(f'{where}, label: {problem}; drop the row')
  return _turns(row['completion'], 'assistant', f'{where}, completion')


def _context(messages):
  """The messages, none of which is trained."""
  return [
    turn | {'train': False} if turn['role'] == 'assistant' else turn
    for turn in messages
  ]


def _turns(value, role, where):
  if isinstance(value, str):
    value = [{'role': role, 'content': value}]
  return _messages(value, where)


def _messages(value, where, roles=_ROLES):
  """The messages, without what is null in them; their form is checked."""
  if not isinstance(value, list) or not value:
    problem = f'is not a list of messages: {str(value)[:60]!r}'
    raise UserError(f'{where} {problem}; mend or drop the row')
  for i, message in enumerate(value):
    here = f'{where}[{i}]'
    if not isinstance(message, dict) or message.get('role') not in roles:
      # Templates skip a role they do not know: its text would vanish silently.
      problem = f'needs a role among {", ".join(roles)}: {str(message)[:60]!r}'
      raise UserError(f'{here} {problem}; rename it or drop the row')
    content = message.get('content')
    if not isinstance(content, str) and not message.get('tool_calls'):
      problem = f'needs content that is a string: {content!r:.60}'
      raise UserError(f'{here} {problem}; mend or drop the row')
    try:
      json.dumps(message, ensure_ascii=False).encode('utf-8')
    except UnicodeEncodeError as error:
      raise UserError(
        f'{here} is not valid Unicode ({error.reason}): repair the text'
      ) from error
  return [_present(message) for message in value]


def _arguments(row, where):
  own = _decoded(row, 'chat_template_kwargs', dict, f'{where}, ')
  tools = _decoded(row, 'tools', list, f'{where}, ')
  return _present(own) | ({'tools': tools} if tools else {})


def _decoded(row, name, kind, where):
  """A column that may be JSON text, as the list or mapping it must be."""
  value = row.get(name)
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except ValueError as error:
      raise UserError(f'{where}{name} is not JSON: {error}; mend it') from error
  if value is None:
    return kind()
  if not isinstance(value, kind):
    form = {dict: 'a mapping', list: 'a list'}[kind]
    raise UserError(f'{where}{name} must be {form}, not {str(value)[:60]!r}')
  return value


def _present(mapping):
  return {name: value for name, value in mapping.items() if value is not None}
