import time

import pytest
from chats import CHATML, GEMMA, LLAMA, MISTRAL, assistant, build, user

from ealign.data import chat, template
from ealign.runtime.errors import UserError

TOOLS = [
  {
    'type': 'function',
    'function': {
      'name': 'weather',
      'description': 'Looks <it> up & "tells".',
      'parameters': {'type': 'object', 'properties': {'city': {}}},
    },
  }
]
CALL = {'name': 'weather', 'arguments': {'city': 'Östersund', 'days': 2.5}}
TURNS = [
  {'role': 'system', 'content': 'Be kind.'},
  user(' Hi <b>'),
  assistant('Hello', reasoning_content='Greet.'),
  user('Weather?'),
  assistant('', tool_calls=[{'type': 'function', 'function': CALL}]),
  {'role': 'tool', 'content': '{"t": 3}', 'name': None},
]
# What templates of the Hub are made of.
RICH = """\
{%- macro shown(call) -%}
  {{ call.name }}({{ call.arguments | tojson }})
{%- endmacro %}
{%- set ns = namespace(last='') %}
{%- if tools %}{{- tools | tojson(indent=2) }}{% endif %}
{%- for m in messages if m.role != 'system' %}
  {%- if m['role'] == 'tool' %}
    {{- '<tool>' + m.content }}{% continue %}
  {%- endif %}
  {%- if m.thinking is defined %}{{- '(' + m.thinking + ')' }}{% endif %}
  {%- if m.get('tool_calls') %}
    {%- for c in m.tool_calls %}{{- shown(c.function) }}{% endfor %}
  {%- endif %}
  {% generation %}
  {{- loop.index ~ m.role.title() ~ m.content | trim }}
  {% endgeneration %}
  {%- set ns.last = m.role %}
  {%- if loop.last %}{{- '|' ~ loop.length }}{% endif %}
{%- endfor %}
{{- ns.last }} {{ eos_token }} {{ style | default('plain') }}
{%- if add_generation_prompt %}>{% endif %}
"""
ENDS = ('<|im_start|>', '<|im_end|>', '<start_of_turn>', '<end_of_turn>')


def tokenizer(text):
  return build(text, ENDS, bos_token='<|im_start|>', eos_token='<|im_end|>')


RICH_TOK = tokenizer(RICH)


@pytest.mark.parametrize('generate', [False, True])
@pytest.mark.parametrize(
  'text, turns, kw',
  [
    (RICH, TURNS, {}),
    (RICH, TURNS, {'tools': TOOLS, 'style': 'bold'}),
    (RICH, TURNS[1:2], {'tools': []}),
    (CHATML, TURNS[:4], {}),
    (LLAMA, TURNS[:4], {}),
    (GEMMA, TURNS[:4], {}),
    (MISTRAL, TURNS[1:4], {}),
  ],
)
def test_it_renders_what_transformers_renders(text, turns, kw, generate):
  RICH_TOK.chat_template = text
  expected = RICH_TOK.apply_chat_template(
    turns, tokenize=False, add_generation_prompt=generate, **kw
  )
  assert template.render(RICH_TOK, turns, kw, generate=generate) == expected


def test_which_arguments_are_the_templates_own():
  text = """\
{%- if not date is defined %}{% set date = 'today' %}{% endif %}
{%- if tone %}{% set first = messages[0] %}
{%- else %}{% set first = '' %}{% endif %}
{%- for x in messages %}{{ x.content }}{{ first }}{{ eos_token }}{% endfor %}
{{ date }} {{ mode | default('') }} {{ range(2) }} {{ documents }}"""
  own = template.of(tokenizer(text)).variables
  assert own == {'date', 'tone', 'mode', 'documents'}


def test_which_fields_it_looks_for():
  text = """\
{%- for m in messages | selectattr('a', 'equalto', 1) %}{{ m.b }}{{ m['c'] }}
{%- if 'd' in m and '</x>' not in m.b and m.get('e', 'no') %}{% endif %}
{%- for f in m.b | map(attribute='g') %}{{ f ~ 'no' }}{% endfor %}
{%- endfor %}"""
  reads = template.of(tokenizer(text)).reads
  assert reads == {'a', 'b', 'c', 'd', 'e', 'g', 'get'}


@pytest.mark.parametrize(
  'name',
  [
    *('messages', 'add_generation_prompt', 'tokenize', 'chat_template', 'tok'),
    *('eos_token', 'bos_token', 'raise_exception', 'namespace', 'ns', 'm', ''),
  ],
)
def test_a_row_may_give_no_other_argument(name):
  tok = tokenizer(RICH)
  chat.check_arguments(tok, {'style': 'bold', 'tools': TOOLS}, 'f: row 1')
  with pytest.raises(UserError) as error:
    chat.check_arguments(tok, {'style': 1, name: []}, 'f: row 1')
  assert str(error.value) == (
    f'f: row 1: {name!r} is no argument of the chat template, whose own are '
    'style: drop it'
  )


def test_named_templates():
  tok = tokenizer({'default': 'plain', 'tool_use': 'tools', 'rag': 'docs'})
  render = lambda **kw: template.render(tok, [user('x')], kw, generate=False)
  assert [render(), render(tools=TOOLS), render(tools=[])] == [
    *('plain', 'tools', 'plain')
  ]
  tok.chat_template = {'default': 'plain', 'rag': 'docs'}
  assert render(tools=TOOLS) == 'plain'
  tok.chat_template = {'a': 'x', 'tool_use': 'tools'}
  assert render(tools=TOOLS) == 'tools'
  with pytest.raises(UserError, match=r'\(a, tool_use\) none is named def'):
    render()


@pytest.mark.parametrize('value', [5, ['x'], {'default': 5}])
def test_templates_that_are_no_text(value):
  with pytest.raises(UserError, match='the chat template is no text: '):
    template.render(tokenizer(value), [user('x')], {}, generate=False)


LOOP = '{% set r = range(9999) %}'
ENDLESS = [
  LOOP + '{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}',
  LOOP + '{% for a in r %}{% for b in r if b < 0 %}x{% endfor %}{% endfor %}',
  '{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}'
  '{% endmacro %}{{ f(60) }}',
]


@pytest.mark.parametrize('text', ENDLESS)
def test_an_endless_template_is_one_error(text):
  start = time.process_time()
  with pytest.raises(
    UserError, match='does not come to an end: 500,000 passes'
  ):
    template.render(tokenizer(text), [user('x')], {}, generate=False)
  assert time.process_time() - start < 10


def test_a_long_chat_is_not_endless():
  text = CHATML + '{% for a in messages %}{% for b in messages %}{% endfor %}'
  tok = tokenizer(text + '{% endfor %}')
  for _ in range(2):  # each rendering has its own count
    template.render(tok, [user('x')] * 500, {}, generate=False)


@pytest.mark.parametrize(
  'text, said',
  [
    ('{{ 9 ** (9 ** 9) }}', 'without measure'),
    ("{{ 'x' * 10 ** 10 }}", 'without measure'),
    ('{{ [1] * 10 ** 10 }}', 'without measure'),
    ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'recursion'),
    ('{{ 1 // 0 }}', 'division'),
    ('{{ messages[7].content.x }}', 'has no element 7'),
    ("{{ raise_exception('no \\x1b[2J\\n way') }}", r'no \\x1b\[2J way'),
    ('{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}', 'recursion'),
    ("{{ ''.__class__.__mro__ }}", 'unsafe|undefined'),
    ('{% for m in messages %}', 'template is broken: Unexpected end'),
    ('{{ lipsum(n=10 ** 9) }}', "'lipsum' is undefined"),
  ],
)
def test_what_a_template_raises_is_one_line(text, said):
  with pytest.raises(UserError, match=said) as error:
    template.render(tokenizer(text), [user('x')], {}, generate=False)
  assert str(error.value).isprintable()


def test_sizes_that_templates_do_make():
  tok = tokenizer("{{ '  ' * 4 }}{{ 2 ** 10 }}{{ 3 * 5 }}{{ 2.0 ** 0.5 }}")
  text = template.render(tok, [user('x')], {}, generate=False)
  assert text == f'{" " * 8}102415{2**0.5}'


def test_arguments_as_text_for_templates_that_join_them():
  text = """\
{%- for m in messages %}{% for c in m.tool_calls %}
{{- c.name + ' ' + c.arguments }}{% endfor %}{% endfor %}"""
  turns = [assistant('', tool_calls=[CALL])]
  found = template.render(tokenizer(text), turns, {}, generate=False)
  assert found == 'weather {"city": "Östersund", "days": 2.5}'
  assert turns[0]['tool_calls'] == [CALL]
  # Where that does not help, the first trouble is told.
  text = text.replace('c.arguments', "c.arguments['city'] + 5")
  with pytest.raises(UserError, match='can only concatenate str'):
    template.render(tokenizer(text), turns, {}, generate=False)


@pytest.mark.parametrize(
  'text',
  [
    '{{ "%1000000000d" | format(1) }}',
    '{{ "%1000000000d" % 1 }}',
    '{{ "a" | center(3000000000) }}',
    '{{ "a\\nb" | indent(3000000000) }}',
    '{{ [1] | batch(3000000000, 0) | list }}',
    '{{ "a".ljust(3000000000) }}',
    '{{ "a".zfill(3000000000) }}',
  ],
)
def test_texts_as_long_as_a_number_says_are_refused(text):
  with pytest.raises(UserError):
    template.render(tokenizer(text), [user('x')], {}, generate=False)


def test_short_ones_are_not():
  text = '{{ "%5d" | format(1) }}{{ "a" | center(3) }}{{ "%.2f" % 1 }}'
  made = template.render(tokenizer(text), [user('x')], {}, generate=False)
  assert made == '    1 a 1.00'
