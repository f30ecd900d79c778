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

from ealign.data import messages, sources
from ealign.data.messages import TEXT, Message
from ealign.runtime.errors import UserError

# Columns that speak of the chat and that nothing here reads: what is in them
# would vanish without a word. Others, such as `id` or `source`, are not its.
_REFUSED = {
  'functions': 'give them as tools',
  'function_call': 'give it as tool_calls of a message',
  'system': 'make it the first message, of the role system',
  'documents': 'give them in chat_template_kwargs',
  'train': 'a row is trained, or dropped; of a message train may be false',
  'weight': 'rows have none; drop those of weight 0, and the column',
}


def chats(rows: list[dict], path: str) -> list[list[Message]]:
  """The conversation of each row: messages as {role, content, ...}.

  A turn that is context only has `train: False`. The text of a column `text` is
  one message of the role TEXT. The form of a message is that of `messages`.

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
  either may be JSON text, which keeps a table's columns uniform. Blank text
  counts as absent.

  Raises:
    UserError: one of them has another form.
  """
  return [
    _arguments(row, f'{path}: row {i}') for i, row in enumerate(rows, start=1)
  ]


def load_chats(
  path: str, limit: int = sources.LIMIT_MIB
) -> list[list[Message]]:
  """The conversations of a file, none of which has arguments of its own."""
  return plain_chats(sources.read_rows(path, limit), path)


def plain_chats(rows, path: str) -> list[list[Message]]:
  """`chats` of rows, none of which has arguments of its own."""
  for i, own in enumerate(arguments(rows, path), start=1):
    if own:
      problem = f'only rows of data.train may have {", ".join(own)}'
      raise UserError(f'{path}: row {i}: {problem}; drop the column')
  return chats(rows, path)


def present(row: dict) -> dict:
  """The row without its columns that are null, which count as absent."""
  return {name: value for name, value in row.items() if value is not None}


def _chat(row, where):
  row = present(row)
  for name, remedy in _REFUSED.items():
    if row.get(name) not in (None, '', [], {}, 1):
      raise UserError(f'{where}, {name}: is not read: {remedy}')
  if 'messages' in row:
    return messages.read(row['messages'], f'{where}, messages')
  if 'chosen' in row:
    return _chosen(row, where)
  if 'prompt' in row:
    prompt = _turns(row['prompt'], 'user', f'{where}, prompt')
    return _context(prompt) + _completion(row, where)
  if 'text' in row:
    text = [{'role': TEXT, 'content': row['text']}]
    return messages.read(text, f'{where}, text', (TEXT,))
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
  good = row.get('label', True)  # of unpaired preferences
  if not isinstance(good, bool):
    problem = f'must be true or false, not {good!r:.60}'
    raise UserError(f'{where}, label: {problem}; mend it or drop the column')
  if not good:
    problem = 'the completion is marked as a bad one'
    raise UserError(f'{where}, label: {problem}; drop the row')
  return _turns(row['completion'], 'assistant', f'{where}, completion')


def _context(turns):
  """The messages, none of which is trained."""
  return [
    turn | {'train': False} if turn['role'] == 'assistant' else turn
    for turn in turns
  ]


def _turns(value, role, where):
  if isinstance(value, str):  # text as it is, also where it looks like JSON
    value = [{'role': role, 'content': value}]
  return messages.read(value, where)


def _arguments(row, where):
  own = row.get('chat_template_kwargs')
  name = f'{where}, chat_template_kwargs'
  if isinstance(own, str):
    own = messages.decoded(own, name) if own.strip() else {}
  if not isinstance(own, dict | None):
    raise UserError(f'{name} must be a mapping, not {str(own)[:60]!r}')
  tools = row.get('tools')
  if not isinstance(tools, str):
    tools = messages.present(tools, f'{where}, tools')
  tools = messages.tools(tools, f'{where}, tools')
  own = present(messages.present(own or {}, name))
  return own | ({'tools': tools} if tools else {})
