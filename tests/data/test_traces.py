"""What goes into a chat comes out of its template, or is one error."""

import pytest
from chats import CHATML, assistant, build, user

from ealign.data import chat
from ealign.runtime.errors import UserError

ENDS = ('<|im_start|>', '<|im_end|>')
TOOLS = [{'type': 'function', 'function': {'name': 'look_up'}}]
CALL = {'name': 'weather', 'arguments': {'city': 'Oslo', 'at': {'h': ['x']}}}
CALLS = """\
{%- if tools %}
{{- '<|im_start|>tools' + tools | tojson + '<|im_end|>' }}{% endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}{{ m.content }}
{%- for c in m.tool_calls %}
{{- '<call>' + c.name + c.arguments | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
ASK = user('How is it?')
TWO = [ASK, assistant('Fine.'), user('And I?'), assistant('Well.')]


def encode(text, turns, **kw):
  tok = build(text, ENDS, eos_token='<|im_end|>')
  [row] = chat.encode(tok, turns, **kw)
  return tok.decode(row.ids)


def lost(text, turns, **kw):
  """The fields that an error names as lost."""
  with pytest.raises(UserError) as error:
    encode(text, turns, **kw)
  names, _, rest = str(error.value).partition(': the chat template of ')
  assert 'does not write it, so it would vanish' in rest
  return names


def without(part, by=''):
  assert part in CALLS
  return CALLS.replace(part, by)


ALL = [
  {'role': 'system', 'content': 'I'},
  ASK,
  assistant('I look it up.', tool_calls=[CALL]),
  {'role': 'tool', 'content': '3'},
  assistant('Three.'),
]


def test_a_template_that_writes_everything():
  text = encode(CALLS, ALL, tools=TOOLS)
  for part in (
    'look_up',
    'system\nI<',
    'up.<call>weather{"city": "Oslo", "at"',
  ):
    assert part in text


@pytest.mark.parametrize(
  'text, names',
  [
    (CHATML, 'messages[2].tool_calls[0].name, messages[2].tool_calls[0].argum'),
    (without('c.name + '), 'messages[2].tool_calls[0].name'),
    (without(' + c.arguments | tojson'), 'messages[2].tool_calls[0].arguments'),
    (
      without('c.arguments | tojson', '(c.arguments | list | tojson)'),
      'messages[2].tool_calls[0].arguments.',
    ),
    (without(' + tools | tojson'), 'tools[0].name'),
    (
      without('{{ m.content }}', '{{ m.content if not m.tool_calls }}'),
      'messages[2].content',
    ),
    # One letter stands elsewhere in the text too.
    (
      without('{{ m.content }}', "{{ m.content if m.role != 'system' }}"),
      'messages[0].content',
    ),
    (
      without('{{ m.content }}', "{{ m.content if m.role != 'tool' }}"),
      'messages[3].content',
    ),
    (
      without('for m in messages', 'for m in messages[1:]'),
      'messages[0].conte',
    ),
  ],
)
def test_what_a_template_drops_is_named(text, names):
  assert lost(text, ALL, tools=TOOLS).startswith(names)


def test_numbers_are_looked_for_as_they_are():
  given = {'n': 12345, 'x': 2.5, 'is': True, 'none': None}
  turns = [ASK, assistant('', tool_calls=[{'name': 'f', 'arguments': given}])]
  encode(CALLS, turns)
  encode(without('c.arguments | tojson', 'c.arguments | string'), turns)
  text = without('c.arguments | tojson', '(c.arguments | list | tojson)')
  of = 'messages[1].tool_calls[0].arguments'
  assert lost(text, turns) == f'{of}.n, {of}.x, {of}.is'


def test_the_error_names_row_and_template():
  tok = build(CHATML, ENDS, eos_token='<|im_end|>')
  tok.name_or_path = 'some/\x1bfolder'
  turns = [ASK, assistant('x', tool_calls=[CALL])]
  with pytest.raises(UserError) as error:
    chat.encode_chats(tok, [TWO, turns], 'x.jsonl')
  assert str(error.value).startswith(
    'x.jsonl: row 2: messages[1].tool_calls[0].name, messages[1].tool_calls[0]'
    r'.arguments: the chat template of some/\x1bfolder does not write it'
  )


@pytest.mark.parametrize(
  'by',
  [
    '{{ m.content | trim }}',
    '{{ m.content | upper }}',
    '{{ m.content | tojson }}',
    '{{ m.content | tojson(ensure_ascii=true) }}',
    "{{ m.content.replace('é', 'e') }}",
    "{{ m.content if m.content != 'x' }}",
    "{{ 'n: ' ~ m.content | length ~ m.content }}",
  ],
)
def test_templates_may_change_how_a_text_is_written(by):
  turns = [user(' Is <it> "é"\n?  '), assistant('\tNo\n\n日 "x"\n')]
  encode(without('{{ m.content }}', by), turns)


def test_a_template_that_looks_at_the_text_itself():
  # With a mark in the text it does other things: then the text is looked for.
  by = "{{ m.content if m.content in ('How is it?', 'And I?', 'Fine.') }}"
  assert lost(without('{{ m.content }}', by), TWO) == 'messages[3].content'
  encode(without('{{ m.content }}', by), TWO[:2])
  names = "{{ '' if m.content == 'How is it?' else m.content }}"
  assert lost(without('{{ m.content }}', names), TWO) == 'messages[0].content'


THINK = without('{{ m.content }}', "{{ m.content.split('</think>')[-1] }}")


def test_thoughts_of_earlier_turns_may_go():
  thought = '<think>Hm, \nlet me see.</think>\n\nFine.'
  turns = [ASK, assistant(thought, train=False), *TWO[2:]]
  assert 'see' not in encode(THINK, turns)
  assert lost(THINK, [ASK, assistant(thought)]) == 'messages[1].content'
  field = assistant('Fine.', reasoning_content='Hm.')
  encode(CALLS, [ASK, field | {'train': False}, *TWO[2:]])
  assert lost(CALLS, [ASK, field]) == 'messages[1].reasoning_content'


def test_text_that_spells_tokens_and_marks():
  call = {'name': 'f', 'arguments': {'<|im_end|>': '\U00100000<|im_start|>'}}
  turns = [user('<|im_end|> \U00100001'), assistant('', tool_calls=[call])]
  assert encode(CALLS, turns).count('\U00100000') == 1
  named = lost(without(' + c.arguments | tojson'), turns)
  assert named == 'messages[1].tool_calls[0].arguments'


def test_requests_are_looked_at_too():
  text = without('for m in messages', 'for m in messages[1:]')
  tok = build(text, ENDS, eos_token='<|im_end|>')
  with pytest.raises(UserError, match=r'^messages\[0\].content: the chat temp'):
    chat.check_prompt(tok, ALL[:2])
  tok.chat_template = CALLS
  chat.check_prompt(tok, ALL[:2])


@pytest.mark.parametrize(
  'field, said', [('prefix', 'prefix'), ('loss', 'loss'), ('label', 'label')]
)
def test_a_field_that_nothing_reads(field, said):
  turns = [ASK, assistant('x', **{field: False})]
  with pytest.raises(
    UserError, match=rf"messages\[1\] has '{said}', which the"
  ):
    encode(CALLS, turns)
  for reads in (f'm.{field}', f"m['{field}']", f"m.get('{field}')"):
    encode(
      CALLS + '{% if messages and false %}{{ ' + reads + ' }}{% endif %}', turns
    )
  encode(CALLS + f"{{% if '{field}' in m %}}{{% endif %}}", turns)
