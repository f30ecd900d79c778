"""All config fields as a page: default, what each may be, meaning.

Made of `fields` with the comments that stand beside each field there, and of
the choices of `limits`, so that nothing is written twice.
"""

import ast
import dataclasses
import io
import pathlib
import re
import tokenize
import typing
from collections.abc import Iterator

from ealign import fields, kinds
from ealign.config import convert, limits
from ealign.conscience.framings import FRAMINGS

HEAD = """# All config fields

Made by `ealign fields > docs/fields.md` of `ealign/fields.py`; a test insists
that it is current. `ealign fields WORD` prints the fields whose name or meaning
has the word, or what a word of TRL, transformers or PEFT is called here.

In a config file a field is `config.dpo.lam = 0.3`, on the command line
`--config.dpo.lam=0.3`. There

- texts need no quotes but the shell's: `--config.data.train=my_chats.jsonl`,
  and `''` is empty: `--config.data.train=''`; None is
  `--config.pool.system=None`;
- true and false are `True` and `False`: `--config.log.tensorboard=True`;
- a tuple is written with commas, as the column *may be* shows; one of a single
  item needs no comma, `--config.pool.paths=my.jsonl`, and
  `--config.eval.questions=''` is empty;
- `arms` is no field: it is set in the config file, and `--only` chooses of
  them.

What goes together and what does not is checked before anything is loaded, and
all problems are told at once. Where a value decides something that surprises,
[method.md](method.md#where-the-paper-is-silent) has the reason.
"""
_EXAMPLES = {
  'model.lora.targets': 'q,k,v,o',
  'data.chat_template_kwargs': "(('enable_thinking', False),)",
  'pool.paths': 'a.jsonl,b.jsonl',
  'pool.weights': '0.75,0.25',
  'eval.questions': 'a.jsonl,b.jsonl',
  'eval.curve': 'a.jsonl,b.jsonl',
  'eval.suites': 'misalignment,refusal',
  'eval.kinds': 'advice,code',
}


@dataclasses.dataclass(frozen=True)
class Field:
  """A field: its dotted name, default, what it may be and what it means."""

  name: str
  default: str
  allowed: str
  meaning: str

  def __str__(self) -> str:
    head = f'{self.name}={self.default}'
    return f'{head}\n    {self.allowed}\n    {self.meaning}'


def rows() -> list[Field]:
  """All fields, in the order of `fields`."""
  comments, usual = _comments(), convert.flatten(fields.Config())
  return [
    Field(name, repr(usual[name]), _allowed(name, kind), comments[name])
    for name, kind in fields.annotations()
  ]


def example(name: str) -> str:
  """The command line's form of a tuple."""
  value = _EXAMPLES[name]
  flag = f'--config.{name}={value}'
  return f'"{flag}"' if "'" in value else flag


def page() -> str:
  """The page, as Markdown."""
  lines, section, about = [HEAD], None, dict(_sections(fields.Config))
  for field in rows():
    own = field.name.rpartition('.')[0]
    if own != section:
      section = own
      lines += ['', f'## {own}' if own else '## The run', '', about[own], '']
      lines += [
        '| field | default | may be | meaning |',
        '|---|---|---|---|',
      ]
    cells = f'`{field.name}`', f'`{field.default}`', field.allowed
    # As it stands <name> would be a tag, which no reader sees.
    cells = (*cells, field.meaning.replace('<', '\\<'))
    escaped = (cell.replace('|', '\\|') for cell in cells)
    lines.append(f'| {" | ".join(escaped)} |')
  return re.sub('\n{3,}', '\n\n', '\n'.join(lines)) + '\n'


def _sections(section: type, prefix: str = '') -> Iterator[tuple[str, str]]:
  """What each section says of itself, by its dotted name; '' is nothing."""
  own = section.__doc__ or ''
  made = own.startswith(f'{section.__name__}(')  # by dataclasses
  yield prefix, '' if made or not prefix else ' '.join(own.split())
  for field in dataclasses.fields(section):
    if dataclasses.is_dataclass(field.type):
      name = f'{prefix}.{field.name}'.lstrip('.')
      yield from _sections(field.type, name)


def _allowed(name: str, kind) -> str:
  """What a field may be, in words."""
  choices = limits.choices() | {'conscience.framing': tuple(FRAMINGS)}
  listed = [f'`{x}`' if x else "`''`" for x in choices.get(name, ())]
  more = {
    'conscience.framing': ['a `.json` or `.yaml` file'],
    limits.VERDICT: ['`noisy:EPS`'],
    'eval.judge': ['`FILE.py:NAME`', '`other:PATH`', '`openai:NAME`'],
  } | dict.fromkeys(limits.BY, ['`other:PATH`'])
  if listed:
    return ', '.join(listed + more.get(name, []))
  bare = kinds.bare(kind)
  words = 'True or False' if bare is bool else convert.type_name(bare)
  if typing.get_origin(bare) is tuple:
    return f'{words}: `{example(name)}`'
  found = limits.ranges().get(name)
  if found is None:
    return words
  if bare == float | str:
    return found.allowed
  return f'{words}, {found.allowed}'


def _comments() -> dict[str, str]:
  """The comments above and behind each field, by its dotted name."""
  text = pathlib.Path(fields.__file__).read_text('utf-8')
  notes, alone = {}, set()  # by line; lines with nothing but a comment
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      notes[token.start[0]] = token.string.lstrip('# ')
      if token.line.lstrip().startswith('#'):
        alone.add(token.start[0])
  own = {}
  for node in ast.parse(text).body:
    if isinstance(node, ast.ClassDef):
      for item in node.body:
        if isinstance(item, ast.AnnAssign):
          own[node.name, item.target.id] = _note(item, notes, alone)
  return dict(_by_name(fields.Config, '', own))


def _note(item: ast.AnnAssign, notes: dict[int, str], alone: set[int]) -> str:
  first = item.lineno
  while first - 1 in alone:
    first -= 1
  lines = range(first, item.end_lineno + 1)
  return ' '.join(notes[line] for line in lines if line in notes)


def _by_name(section: type, prefix: str, own: dict) -> Iterator:
  for field in dataclasses.fields(section):
    if dataclasses.is_dataclass(field.type):
      yield from _by_name(field.type, f'{prefix}{field.name}.', own)
    else:
      yield prefix + field.name, own[section.__name__, field.name]
