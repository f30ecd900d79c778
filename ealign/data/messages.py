"""The shape of a chat: which fields a message, a call and a tool may have.

Each field of `FIELDS` is checked and brought to one form; what stands in
`IGNORED` is left out, since it is about a message and not of the chat; any
other field is kept for `chat`, which refuses what the template does not read.
What is null counts as absent at every depth: tables give every row the keys of
all others, and so does JSON that was made of them. JSON text is decoded where
nothing else can be meant; what it holds is kept as it is, nulls too.
"""

import collections
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ealign.runtime.errors import UserError

Message = dict
TEXT = 'text'  # the role of running text, which no template sees
ROLES = ('system', 'user', 'assistant', 'tool')
THOUGHTS = ('reasoning_content', 'reasoning', 'thinking')
# Facts about a message that are no part of what is said.
IGNORED = frozenset(
  'id message_id parent_id conversation_id turn turn_id index timestamp time '
  'date created created_at updated_at model source lang score rating '
  'tokens token_count num_tokens turn_identifier country state language '
  'header hashed_ip toxic redacted'.split()
)
_DEPTH = 64  # levels that lists and mappings may be nested


class Field(NamedTuple):
  """Whose turns may have a field, and how its value is read.

  read(value, where) is the value in its one form, or None for absent.
  """

  roles: tuple[str, ...]
  read: Callable[[Any, str], Any]


def read(value, where: str, roles=ROLES) -> list[Message]:
  """The messages of a list, or of JSON text of one, each in its one form.

  Args:
    value: of a row's column. where: its name, for error messages. roles: those
      that a message may have.

  Raises:
    UserError: a field has another form; it names message and field.
  """
  if isinstance(value, str) and value.lstrip()[:1] == '[':
    value = decoded(value, where)
  if not isinstance(value, list) or not value:
    problem = f'is not a list of messages: {str(value)[:60]!r}'
    raise UserError(f'{where} {problem}; mend or drop the row')
  return [_message(m, f'{where}[{i}]', roles) for i, m in enumerate(value)]


def request(chat) -> str:
  """The text of a chat's last user turn; '' without one."""
  turns = (m for m in reversed(chat) if m['role'] == 'user')
  return str(next(turns, {}).get('content') or '')


def guided(rows, text: str) -> list[dict]:
  """Questions with a text behind what the system turn of each says.

  Without a system turn it is one: guided inference, arXiv 2310.10477. '' adds
  nothing.
  """
  if not text:
    return [*rows]
  return [row | {'messages': _guided(row['messages'], text)} for row in rows]


def _guided(chat, text: str) -> list[dict]:
  first, *rest = chat
  if first['role'] != 'system':
    return [{'role': 'system', 'content': text}, *chat]
  return [first | {'content': f'{first["content"]} {text}'.strip()}, *rest]


def tools(value, where: str) -> list[dict]:
  """The tools of a row: mappings with a name, each of which may be JSON text.

  Raises:
    UserError: something else.
  """
  if isinstance(value, str):
    value = decoded(value, where) if value.strip() else []
  if value is None:
    return []
  if not isinstance(value, list):
    raise UserError(f'{where} must be a list, not {str(value)[:60]!r}')
  return [_tool(tool, f'{where}[{i}]') for i, tool in enumerate(value)]


def present(value, where: str, depth: int = 0):
  """JSON as it is, without what is null in a mapping.

  Raises:
    UserError: something that JSON has not, or nested too deep.
  """
  if depth > _DEPTH:
    raise UserError(f'{where} is nested deeper than {_DEPTH} levels: drop it')
  if isinstance(value, dict):
    return {
      key: present(item, at(where, key), depth + 1)
      for key, item in value.items()
      if item is not None
    }
  if isinstance(value, list):
    items = enumerate(value)
    return [present(x, f'{where}[{i}]', depth + 1) for i, x in items]
  number = isinstance(value, (bool, int)) or (
    isinstance(value, float) and math.isfinite(value)
  )
  if number or value is None or isinstance(value, str):
    return value
  raise UserError(
    f'{where} is {value!r:.40}, which JSON has not: write it as text, or drop '
    'the field'
  )


def at(where: str, key) -> str:
  """The name of what a mapping holds under a key, which may be any text."""
  key = str(key)
  return f'{where}.{key}' if key.isidentifier() else f'{where}[{key!r:.60}]'


def once(pairs: list[tuple[str, Any]]) -> dict:
  """A JSON object; a ValueError if it has a key twice, since one would vanish.

  It is the `object_pairs_hook` of `json.loads`.
  """
  found = dict(pairs)
  if len(found) < len(pairs):
    twice, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
    raise ValueError(f'the key {twice!r} stands twice in an object')
  return found


def decoded(text: str, where: str):
  """What JSON text holds, nulls included; `where` is its name."""
  try:
    value = json.loads(text, object_pairs_hook=once)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where} is not JSON: {error}; mend it') from error
  present(value, where)  # that it is JSON of some depth
  return value


def _message(message, where, roles) -> Message:
  if not isinstance(message, dict) or message.get('role') not in roles:
    # Templates skip a role they do not know: its text would vanish silently.
    problem = f'needs a role among {", ".join(roles)}: {str(message)[:60]!r}'
    raise UserError(f'{where} {problem}; rename it or drop the row')
  kept = {k: v for k, v in message.items() if k not in IGNORED}
  found = {}
  for name, value in present(kept, where).items():
    field = FIELDS.get(name)
    if field and message['role'] not in field.roles:
      if value in (0, [], ''):  # false of a turn that is never trained
        continue
      problem = f'is of {" and ".join(field.roles)} turns alone: drop it'
      raise UserError(f'{where}.{name} {problem}')
    if field:
      value = field.read(value, f'{where}.{name}')
    if value is not None and (field or value not in ('', [], {})):
      found[name] = value
  _check_whole(found, message, where)
  return found


def _check_whole(found, message, where) -> None:
  """What no field tells alone; `found` is what was read of `message`."""
  if 'content' not in found and not found.get('tool_calls'):
    problem = f'needs content that is a string: {message.get("content")!r:.60}'
    raise UserError(f'{where} {problem}; mend or drop the row')
  if 'weight' in found:
    train = found.pop('weight') == 1
    if found.setdefault('train', train) != train:
      raise UserError(f'{where} has another weight than train says: drop one')
  thoughts = {found[name] for name in THOUGHTS if name in found}
  if len(thoughts) > 1:
    names = ' and '.join(name for name in THOUGHTS if name in found)
    raise UserError(f'{where} has {names}, which differ: drop one')
  try:
    json.dumps(found, ensure_ascii=False).encode('utf-8')
  except UnicodeEncodeError as error:
    raise UserError(
      f'{where} is not valid Unicode ({error.reason}): repair the text'
    ) from error


def _role(value, where):
  return value


def _content(value, where):
  """Text; or one text part, which is how some libraries write it."""
  if isinstance(value, list) and len(value) == 1:
    [part] = value
    if isinstance(part, dict) and part.keys() == {'type', 'text'}:
      value = part['text'] if part['type'] == 'text' else part
  if isinstance(value, str):
    return value
  message, _, _ = where.rpartition('.')
  problem = f'needs content that is a string: {value!r:.60}'
  raise UserError(f'{message} {problem}; mend or drop the row')


def _text(value, where):
  if not isinstance(value, str):
    raise UserError(f'{where} must be text, not {value!r:.60}: mend it')
  return value


def _train(value, where):
  if not isinstance(value, bool):
    raise UserError(f'{where} must be true or false, not {value!r:.60}')
  return value


def _weight(value, where):
  if isinstance(value, bool) or value not in (0, 1):
    problem = f'must be 0 (context) or 1 (trained), not {value!r:.60}'
    raise UserError(f'{where} {problem}')
  return value


def _calls(value, where):
  """A list of calls, or JSON text of one; None if there is none."""
  if isinstance(value, str):
    value = decoded(value, where) if value.strip() else []
  if not isinstance(value, list | None):
    problem = f'must be a list of mappings, not {str(value)[:60]!r}'
    raise UserError(f'{where} {problem}')
  calls = enumerate(value or ())
  return [_call(x, f'{where}[{i}]') for i, x in calls] or None


def _call(call, where):
  """{name, arguments}, or the same as `function` of a call that has a type."""
  inner = call.get('function') if isinstance(call, dict) else None
  if inner is not None:
    kind = call.get('type', 'function')
    if kind != 'function' or not isinstance(inner, dict):
      problem = f'must be of type function and have one: {str(call)[:60]!r}'
      raise UserError(f'{where} {problem}')
    _known(call, ('id', 'type', 'function', 'index'), where)
    rest = {key: call[key] for key in ('id', 'type') if key in call}
    return {**rest, 'function': _call(inner, f'{where}.function')}
  if not isinstance(call, dict) or not _named(call):
    raise UserError(f'{where} must be a mapping with a name: {call!r:.60}')
  _known(call, ('id', 'type', 'index', 'name', 'arguments'), where)
  given = _arguments(call.get('arguments'), f'{where}.arguments')
  rest = {key: call[key] for key in ('id', 'type', 'name') if key in call}
  return {**rest, 'arguments': given}


def _arguments(value, where):
  """A mapping, or JSON text of one; a call without arguments has none."""
  if isinstance(value, str):
    value = decoded(value, where) if value.strip() else {}
  if not isinstance(value, dict | None):
    problem = f'must be a mapping, or JSON text of one, not {value!r:.60}'
    raise UserError(f'{where} {problem}')
  return value or {}


def _known(mapping, names, where) -> None:
  others = sorted(mapping.keys() - set(names))
  if others:
    problem = f'has {", ".join(others)}, which no call has: drop that'
    raise UserError(f'{where} {problem}')


def _named(mapping) -> bool:
  return isinstance(mapping.get('name'), str) and bool(mapping['name'].strip())


def _tool(tool, where):
  if isinstance(tool, str):
    tool = decoded(tool, where)
  if not isinstance(tool, dict):
    raise UserError(f'{where} must be a mapping, not {str(tool)[:60]!r}')
  inner = tool.get('function', tool)
  if not isinstance(inner, dict) or not _named(inner):
    raise UserError(f'{where} must have a name: {str(tool)[:60]!r}')
  if isinstance(inner.get('parameters'), str):
    schema = decoded(inner['parameters'], f'{where}.parameters')
    inner = inner | {'parameters': schema}
  return tool | {'function': inner} if 'function' in tool else inner


_ASSISTANT = ('assistant',)
FIELDS = {
  'role': Field((*ROLES, TEXT), _role),
  'content': Field((*ROLES, TEXT), _content),
  'tool_calls': Field(_ASSISTANT, _calls),
  'name': Field(ROLES, _text),
  'tool_call_id': Field(('tool',), _text),
  'train': Field(_ASSISTANT, _train),
  'weight': Field(_ASSISTANT, _weight),
  **dict.fromkeys(THOUGHTS, Field(_ASSISTANT, _text)),
}
