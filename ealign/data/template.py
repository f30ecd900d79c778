"""A tokenizer's chat template: which one, what it reads, and a bounded run.

A template is a program that comes with a model, in a sandbox without files or
attributes of Python. It is given what transformers would give it: `messages`,
`tools`, `documents`, `add_generation_prompt`, the special tokens and its own
arguments. A run is a number of passes through its loops and macros; one that
takes more than LIMIT, or that makes texts or numbers without measure, ends as
one error, since it would else hang without a word.
"""

import contextvars
import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Callable

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes, sandbox, visitor

from ealign.runtime.errors import UserError

LIMIT = 500_000  # passes through loops and macros in one rendering
_LARGEST = 1 << 24  # letters, items or bits that a product or power may have
_PADS = ('center', 'expandtabs', 'ljust', 'rjust', 'zfill')
# What every template is given, and a row may not replace.
GIVEN = ('messages', 'tools', 'add_generation_prompt')

# What takes the name of a field as an argument.
_TAKE_NAMES = ('get', 'selectattr', 'rejectattr', 'map', 'groupby')
_passes: contextvars.ContextVar[list[int]] = contextvars.ContextVar('passes')


@dataclasses.dataclass(frozen=True)
class Template:
  """A compiled chat template.

  text: its source. variables: the names of its own arguments, such as
  `enable_thinking`. reads: the names of fields that it looks for in messages,
  tools and calls.
  """

  text: str
  variables: frozenset[str]
  reads: frozenset[str]
  program: jinja2.Template = dataclasses.field(compare=False)


def of(tok, tools=None) -> Template:
  """The template for a chat: that named 'tool_use' if it has tools, or default.

  Raises:
    UserError: of several none is the default, or it is no template.
  """
  text = tok.chat_template
  if isinstance(text, dict):
    named = ('tool_use', 'default') if tools else ('default',)
    text = next((text[name] for name in named if name in text), None)
    if text is None:
      names = ', '.join(map(shown, sorted(tok.chat_template)))
      raise UserError(
        f'of the chat templates ({names}) none is named default: name one so'
      )
  if not isinstance(text, str):
    raise UserError(f'the chat template is no text: {text!r:.60}')
  given = (*GIVEN, *_environment().globals, *tok.special_tokens_map)
  return _compiled(text, frozenset(given))


def render(tok, messages, kw, *, generate: bool) -> str:
  """The chat as text, with the next generation prompt if `generate`.

  Raises:
    UserError: the template refuses the chat, fails, or does not come to an end.
  """
  template = of(tok, kw.get('tools'))
  values = {'tools': None, 'documents': None, **tok.special_tokens_map, **kw}
  values |= {
    'messages': [_aliased(message) for message in messages],
    'add_generation_prompt': generate,
  }
  token = _passes.set([0])
  try:
    return _rendered(template.program, values)
  except UserError:
    raise
  except Exception as error:  # a program of others: it may raise anything
    message = shown(str(error) or type(error).__name__)
    raise UserError(f'the chat template refuses the chat: {message}') from error
  finally:
    _passes.reset(token)


def shown(text: str) -> str:
  """Text of others on one line of a terminal: control characters are spelt."""
  line = ' '.join(text.split())
  line = ''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)
  return line if len(line) <= 300 else f'{line[:300]}...'


def _aliased(message):
  """Without nulls; thoughts under each name by which templates know them."""
  message = {k: v for k, v in message.items() if v is not None}
  names = ('reasoning_content', 'thinking', 'reasoning')
  thought = next((message[n] for n in names if message.get(n)), None)
  if thought is None:
    return message
  return {'thinking': thought, **message, 'reasoning_content': thought}


def _rendered(program, values) -> str:
  try:
    return program.render(values)
  except TypeError as error:
    # Some templates join a call's arguments to text, and take text alone.
    turns = [_with_text_arguments(turn) for turn in values['messages']]
    if turns == values['messages']:
      raise
    try:
      return program.render(values | {'messages': turns})
    except Exception:
      raise error from None


def _with_text_arguments(message):
  """The message with the arguments of its calls as JSON text."""

  def change(call):
    if 'function' in call:
      return call | {'function': change(call['function'])}
    return call | {'arguments': _tojson(call.get('arguments', {}))}

  calls = message.get('tool_calls')
  return message | {'tool_calls': [*map(change, calls)]} if calls else message


@functools.lru_cache(maxsize=16)
def _compiled(text, given) -> Template:
  environment = _environment()
  try:
    tree = environment.parse(text)
    program = environment.from_string(text)
  except (jinja2.TemplateError, RecursionError) as error:
    raise UserError(f'the chat template is broken: {shown(str(error))}') from (
      error
    )
  stored = {x.name for x in tree.find_all(nodes.Name) if x.ctx == 'store'}
  asked = {
    test.node.name
    for test in tree.find_all((nodes.Test, nodes.Filter))
    if test.name in ('defined', 'undefined', 'default')
    and isinstance(test.node, nodes.Name)
  }
  # One that it sets in any case is no argument; `x is defined` asks for one.
  own = jinja2.meta.find_undeclared_variables(tree) - (stored - asked)
  return Template(text, frozenset(own - given), _fields(tree), program)


def _fields(tree) -> frozenset[str]:
  """Names behind a dot, in brackets, before `in`, or given to `get('name')`.

  Other texts, such as '</think>' before `in`, are no names of fields.
  """
  found = {node.attr for node in tree.find_all(nodes.Getattr)}
  words = [node.arg for node in tree.find_all(nodes.Getitem)]
  words += [
    node.expr
    for node in tree.find_all(nodes.Compare)
    if any(operand.op in ('in', 'notin') for operand in node.ops)
  ]
  for node in tree.find_all((nodes.Call, nodes.Filter)):
    call = isinstance(node, nodes.Call)
    function = getattr(node.node, 'attr', '') if call else node.name
    if function in _TAKE_NAMES:
      words += [*node.args[:1], *(pair.value for pair in node.kwargs)]
  words = [word.value for word in words if isinstance(word, nodes.Const)]
  found |= {word for word in words if isinstance(word, str)}
  return frozenset(name for name in found if name.isidentifier())


class _Generation(jinja2.ext.Extension):
  """`{% generation %}` marks what is trained elsewhere; masks need it not."""

  tags = {'generation'}

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


class _Counted(visitor.NodeTransformer):
  """Has each pass through a loop or macro call `environment.count()`."""

  def _call(self, node):
    function = nodes.EnvironmentAttribute('count', lineno=node.lineno)
    return nodes.Call(function, [], [], None, None, lineno=node.lineno)

  def visit_For(self, node):  # noqa: N802, the name that jinja2 looks for
    node = self.visit_Macro(node)
    if node.test is not None:  # else what it leaves out would not be counted
      node.test = nodes.And(self._call(node), node.test, lineno=node.lineno)
    return node

  def visit_Macro(self, node):  # noqa: N802
    node = self.generic_visit(node)
    count = nodes.ExprStmt(self._call(node), lineno=node.lineno)
    node.body = [count, *node.body]
    return node


class _Environment(sandbox.ImmutableSandboxedEnvironment):
  """The sandbox, which counts passes and bounds what arithmetic makes."""

  intercepted_binops = frozenset({'*', '**', '%'})

  def _generate(self, source, name, filename, defer_init=False):
    source = _Counted().visit(source)
    source.set_environment(self)
    return super()._generate(source, name, filename, defer_init)

  def call_binop(self, context, operator, left, right):
    many = [len(x) if hasattr(x, '__len__') else x for x in (left, right)]
    size = 0
    if operator == '**' and isinstance(left, int):
      size = left.bit_length() * abs(right)
    elif operator == '*' and many != [left, right]:
      size = many[0] * many[1]
    elif operator == '%' and isinstance(left, str):
      size = _widest(left)
    if size > _LARGEST:
      raise UserError(
        f'the chat template makes a value without measure ({operator}): mend '
        'the template, or use that of the model'
      )
    return super().call_binop(context, operator, left, right)

  def is_safe_attribute(self, obj, attr, value) -> bool:
    """No method that makes a text as long as a number says."""
    return attr not in _PADS and super().is_safe_attribute(obj, attr, value)

  @staticmethod
  def count() -> bool:
    passes = _passes.get()
    passes[0] += 1
    if passes[0] > LIMIT:
      raise UserError(
        f'the chat template does not come to an end: {LIMIT:,} passes through '
        'its loops are too many; mend the template, or shorten the chat'
      )
    return True


def _widest(text: str) -> int:
  """The largest number in a format, such as a width."""
  return max((int(x[:20]) for x in re.findall('[0-9]+', text)), default=0)


def _bounded(name: str, of: Callable) -> Callable:
  """A filter that makes no text longer than `_LARGEST`."""

  @functools.wraps(of)
  def call(*args, **kw):
    sizes = [x for x in (*args, *kw.values()) if isinstance(x, int)]
    if name == 'format':
      sizes += [_widest(str(args[0]))]
    if max(sizes, default=0) > _LARGEST:
      raise UserError(
        f'the chat template makes a value without measure ({name}): mend the '
        'template, or use that of the model'
      )
    return of(*args, **kw)

  return call


@functools.cache
def _environment() -> _Environment:
  environment = _Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, jinja2.ext.loopcontrols],
  )
  for name in ('batch', 'center', 'format', 'indent', 'slice'):
    environment.filters[name] = _bounded(name, environment.filters[name])
  environment.filters['tojson'] = _tojson
  del environment.globals['lipsum']  # text of any length
  environment.globals['raise_exception'] = _refuse
  environment.globals['strftime_now'] = lambda form: (
    datetime.datetime.now().strftime(form)
  )
  return environment


def _tojson(
  value, ensure_ascii=False, indent=None, separators=None, sort_keys=False
):
  """JSON as the other libraries write it: no letter becomes an HTML entity."""
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _refuse(message):
  raise jinja2.TemplateError(str(message))
