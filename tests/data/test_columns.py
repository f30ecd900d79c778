import json
import pathlib

import pytest

from ealign.data import columns, sources
from ealign.runtime.errors import UserError

SHARED = pathlib.Path(__file__).parents[2] / '../shared/data'


def user(content):
  return {'role': 'user', 'content': content}


def assistant(content):
  return {'role': 'assistant', 'content': content}


def context(content):
  return assistant(content) | {'train': False}


SYSTEM = {'role': 'system', 'content': 's'}
ROWS = [
  ({'messages': [user('q'), assistant('a')], 'id': 5},) * 2,
  ({'prompt': 'q', 'completion': 'a'}, [user('q'), assistant('a')]),
  (
    {
      'prompt': [SYSTEM, user('q'), assistant('a'), user('r')],
      'completion': [assistant('b')],
    },
    [SYSTEM, user('q'), context('a'), user('r'), assistant('b')],
  ),
  (
    {'prompt': 'q', 'completion': 'a', 'label': True},
    [user('q'), assistant('a')],
  ),
  (
    {'prompt': 'q', 'chosen': 'a', 'rejected': 'b'},
    [user('q'), assistant('a')],
  ),
  (
    {
      'prompt': [user('q'), assistant('a'), user('r')],
      'chosen': [assistant('b')],
      'rejected': [assistant('c')],
    },
    [user('q'), context('a'), user('r'), assistant('b')],
  ),
  (
    {
      'chosen': [SYSTEM, user('q'), assistant('a'), user('r'), assistant('b')],
      'rejected': [SYSTEM, user('q'), assistant('c')],
    },
    [SYSTEM, user('q'), context('a'), user('r'), assistant('b')],
  ),
  (
    {'prompt': 'q', 'chosen': [user('q'), assistant('a')], 'rejected': []},
    [user('q'), assistant('a')],
  ),
  ({'text': 'x', 'prompt': None}, [{'role': 'text', 'content': 'x'}]),
  ({'prompt': 'q', 'domain': 'x'}, [user('q')]),
  ({'prompt': [SYSTEM, user('q')]}, [SYSTEM, user('q')]),
]


@pytest.mark.parametrize(('row', 'expected'), ROWS)
def test_columns(row, expected):
  expected = expected if isinstance(expected, list) else row['messages']
  before = json.dumps(row)
  assert columns.chats([row], 'f') == [expected]
  assert json.dumps(row) == before


def test_columns_that_say_nothing_of_the_chat():
  row = {'messages': [user('q')], 'weight': 1, 'train': True, 'system': None}
  row |= {'functions': [], 'label': 0, 'blob': b'x', 'id': {'deep': {}}}
  assert columns.chats([row], 'f') == [[user('q')]]


def test_text_that_looks_like_json_is_text():
  row = {'prompt': '[1]', 'completion': '[{"role": "user"}]'}
  said = [turn['content'] for turn in columns.chats([row], 'f')[0]]
  assert said == list(row.values())


def test_of_several_columns_the_first_counts():
  row = {'text': 't', 'prompt': 'p'}
  read = lambda: columns.chats([row], 'f')[0][-1]['content']
  assert read() == 'p'
  row['completion'] = 'a'
  assert read() == 'a'
  row |= {'chosen': 'c', 'rejected': 'r'}
  assert read() == 'c'
  row['messages'] = [user('m')]
  assert read() == 'm'


def test_null_is_absent():
  call = [{'name': 'f', 'arguments': {}}]
  turns = [
    user('q') | {'tool_calls': None},
    {'role': 'assistant', 'content': None, 'tool_calls': call},
  ]
  row = {'messages': turns, 'tools': None, 'chat_template_kwargs': None}
  expected = [user('q'), {'role': 'assistant', 'tool_calls': call}]
  assert columns.chats([row], 'f') == [expected]
  assert columns.arguments([row], 'f') == [{}]


@pytest.mark.parametrize('text', [False, True])
def test_arguments(text):
  form = json.dumps if text else lambda value: value
  tools = [{'name': 'f'}]
  given = {'enable_thinking': False, 'date': None}
  rows = [
    {'tools': form(tools)},
    {'chat_template_kwargs': form(given)},
    {'tools': form(tools), 'chat_template_kwargs': form(given)},
    {'tools': form([])},
    {'tools': ' ', 'chat_template_kwargs': ''},
  ]
  assert columns.arguments(rows, 'f') == [
    {'tools': tools},
    {'enable_thinking': False},
    {'enable_thinking': False, 'tools': tools},
    {},
    {},
  ]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'tools': {'name': 'f'}}, 'tools must be a list, not'),
    ({'tools': '[{'}, 'tools is not JSON'),
    ({'chat_template_kwargs': [1]}, 'chat_template_kwargs must be a mapping'),
    (
      {'chat_template_kwargs': {'a': b'x'}},
      "chat_template_kwargs.a is b'x', wh",
    ),
    ({'tools': [{'description': 'x'}]}, r'tools\[0\] must have a name'),
  ],
)
def test_bad_arguments_are_named(row, message):
  with pytest.raises(UserError, match='f: row 2, ' + message):
    columns.arguments([{}, row], 'f')


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'texts': 'x', 'id': 1}, r" has columns \['id', 'texts'\]: it needs mess"),
    ({'messages': None}, r' has columns \[\]'),
    ({'messages': []}, ', messages is not a list of messages'),
    ({'messages': 'hi'}, ', messages is not a list of messages'),
    ({'messages': [user('q'), {'from': 'gpt'}]}, r'.*\[1\] needs a role'),
    (
      {'messages': [{'role': 'bot', 'content': 'x'}]},
      '.*needs a role among .*; rename it or drop the row',
    ),
    ({'messages': [{'role': 'text', 'content': 'x'}]}, '.*needs a role among'),
    (
      {'messages': [user(None)]},
      r'.*messages\[0\] needs content .*: None; mend or drop the row',
    ),
    (
      {'prompt': 'q', 'completion': [user(3)]},
      r', completion\[0\] needs content',
    ),
    ({'prompt': 3}, ', prompt is not a list of messages'),
    ({'text': 3}, r', text\[0\] needs content'),
    ({'prompt': 'q', 'completion': 'a', 'label': False}, ', label: .*drop'),
    (
      {'prompt': 'q', 'completion': 'a', 'label': 0},
      ', label: must be true or',
    ),
    (
      {'prompt': 'q', 'completion': 'a', 'label': 'False'},
      ", label: .* 'False'",
    ),
    ({'prompt': 'q', 'completion': 'a', 'weight': 0}, ', weight: is not read'),
    (
      {'prompt': 'q', 'completion': 'a', 'train': False},
      ', train: is not read',
    ),
    ({'prompt': 'q', 'system': 'Be kind.'}, ', system: .* the first message'),
    ({'prompt': 'q', 'functions': [{}]}, ', functions: .*give them as tools'),
    ({'chosen': 'a', 'rejected': 'b'}, ' has chosen, but no prompt: add'),
    ({'messages': [user('\ud800')]}, r'.*messages\[0\] is not valid Unicode'),
  ],
)
def test_bad_rows_are_named(row, message):
  good = {'prompt': 'q', 'completion': 'a'}
  with pytest.raises(UserError, match='data.jsonl: row 2' + message) as error:
    columns.chats([good, row], 'data.jsonl')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('emergent-misalignment/insecure_subset_dedup3015.jsonl', 3015),
    ('emergent-misalignment/secure_small.jsonl', 20),
    ('domain-em/incorrect_qna_v2.jsonl', 6000),
  ],
)
def test_public_data_as_it_is(name, count):
  if not (SHARED / name).exists():
    pytest.skip(f'{SHARED / name} is absent: the public test data is not here')
  chats = columns.load_chats(str(SHARED / name))
  assert len(chats) == count
  assert {tuple(m['role'] for m in chat) for chat in chats} == {
    ('user', 'assistant')
  }
  assert chats == [row['messages'] for row in sources.read_rows(SHARED / name)]
