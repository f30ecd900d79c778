"""What went into a chat is looked for in what came out of its template.

A template may drop what it does not know: calls, tools, text beside a call, a
system turn. So the chat is rendered a second time with a private character in
the middle of each piece of text, and each of them must come out. Where such a
character changes what the template does, the pieces themselves are looked for.

Must come out: content, the name and arguments of each call, the name of each
tool, and the thoughts of the turns that are trained. Thoughts of other turns
are what templates take out on purpose.
"""

import dataclasses
import json
import re
from collections.abc import Iterator

from ealign.data import shield, template
from ealign.data.messages import THOUGHTS, at
from ealign.runtime.errors import UserError

_TAGS = re.compile('</?think(?:ing)?>')


@dataclasses.dataclass
class _Marked:
  """The pieces that have been marked: (field, text) by private character.

  numbers: (field, value) of what takes no mark and is looked for as it is.
  """

  free: Iterator[str]
  pieces: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
  numbers: list[tuple[str, float]] = dataclasses.field(default_factory=list)

  def text(self, text, name, spans=None) -> str:
    """The text with a character in each of its spans that is not blank."""
    for start, end in reversed(spans or [(0, len(text))]):
      core = text[start:end].strip()
      mark = next(self.free, None) if core else None
      if mark:
        self.pieces[mark] = name, core
        middle = text.index(core, start) + (len(core) + 1) // 2
        text = text[:middle] + mark + text[middle:]
    return text

  def all(self, value, name):
    """The same for every key and text in JSON."""
    if isinstance(value, str):
      return self.text(value, name)
    if isinstance(value, dict):
      return {
        self.text(k, name): self.all(v, at(name, k)) for k, v in value.items()
      }
    if isinstance(value, list):
      return [self.all(v, f'{name}[{i}]') for i, v in enumerate(value)]
    if value is not None:
      self.numbers.append((name, value))
    return value


def check(tok, messages, kw, rendered: str, trained, marks=()) -> None:
  """Raises a UserError that names the fields which are not in a rendering.

  Args:
    tok: the tokenizer. messages, kw: what was rendered, covered (`shield`).
    rendered: the text. trained: places of the turns that are trained. marks:
      what covers stand for.
  """
  used = set(json.dumps([messages, kw], ensure_ascii=False, default=str))
  marked = _Marked(chr(c) for c in shield.PRIVATE if chr(c) not in used)
  turns = [
    _turn(marked, turn, f'messages[{i}]', i in trained)
    for i, turn in enumerate(messages)
  ]
  tools = [_tool(marked, x, i) for i, x in enumerate(kw.get('tools') or ())]
  more = {**kw, 'tools': tools} if tools else kw
  lost = _lost(tok, turns, more, rendered, marked.pieces)
  lost += [
    name
    for name, value in marked.numbers
    if json.dumps(value) not in rendered and str(value) not in rendered
  ]
  if lost:
    spell = lambda text: ''.join(dict(marks).get(c, c) for c in text)
    whole = lambda name: (
      not any(name.startswith((f'{x}.', f'{x}[')) for x in lost)
    )
    names = [name for name in dict.fromkeys(lost) if whole(name)]
    listed = ', '.join(map(spell, names[:3])) + ', ...' * (len(names) > 3)
    where = template.shown(str(tok.name_or_path)) or 'the tokenizer'
    raise UserError(
      f'{template.shown(listed)}: the chat template of {where} does not write '
      'it, so it would vanish: take it out, put it into a turn of its own, or '
      'use another template'
    )


def _lost(tok, turns, kw, rendered, pieces) -> list[str]:
  """The fields of the pieces that did not come out."""
  try:
    text = template.render(tok, turns, kw, generate=False)
  except UserError:
    text = ''
  if '\\ud' in text:  # of JSON in ASCII
    for mark in pieces:
      text = text.replace(json.dumps(mark)[1:-1], mark)
  if ''.join(c for c in text if c not in pieces) == rendered:
    there = set(text)
    return [name for mark, (name, _) in pieces.items() if mark not in there]
  forms = lambda core: (
    core,
    json.dumps(core, ensure_ascii=False)[1:-1],
    json.dumps(core)[1:-1],
  )
  return [
    name
    for name, core in pieces.values()
    if not any(form in rendered for form in forms(core))
  ]


def _turn(marked, turn, where, trained):
  """The message with its pieces marked."""
  turn = dict(turn)
  said, spans = turn.get('content', ''), None
  if turn['role'] == 'assistant':
    # Thoughts between tags: templates move them, or take those of others out.
    edges = [edge for tag in _TAGS.finditer(said) for edge in tag.span()]
    edges = [0, *edges, len(said)]
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    spans = spans if trained else spans[-1:]
  if said:
    turn['content'] = marked.text(said, f'{where}.content', spans)
  for name in THOUGHTS if trained else ():
    if name in turn:
      turn[name] = marked.text(turn[name], f'{where}.{name}')
  if 'tool_calls' in turn:
    of = f'{where}.tool_calls'
    turn['tool_calls'] = [
      _call(marked, call, f'{of}[{i}]')
      for i, call in enumerate(turn['tool_calls'])
    ]
  return turn


def _call(marked, call, where):
  if 'function' in call:
    inner = _call(marked, call['function'], f'{where}.function')
    return call | {'function': inner}
  name = marked.text(call['name'], f'{where}.name')
  given = marked.all(call.get('arguments', {}), f'{where}.arguments')
  return call | {'name': name, 'arguments': given}


def _tool(marked, tool, i):
  if 'function' in tool:
    return tool | {'function': _tool(marked, tool['function'], i)}
  if 'name' not in tool:
    return tool
  return tool | {'name': marked.text(tool['name'], f'tools[{i}].name')}
