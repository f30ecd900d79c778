import datetime
import decimal
import json

import pytest

from ealign.data import messages
from ealign.runtime.errors import UserError

USER = {'role': 'user', 'content': 'q'}
CALL = {'name': 'f', 'arguments': {'a': 1}}
NESTED = {'type': 'function', 'id': 'c1', 'function': CALL}


def turn(**fields):
  return {'role': 'assistant', 'content': 'a'} | fields


def read(*turns):
  return messages.read(list(turns), 'f: row 1, messages')


def test_the_request_is_the_last_user_turn():
  turns = [USER, turn(), {'role': 'user', 'content': 'then?'}]
  system = {'role': 'system', 'content': 'Be brief.'}
  assert messages.request([*turns, system, turn()]) == 'then?'
  assert messages.request([system, {'role': 'user', 'content': None}]) == ''
  assert messages.request([system]) == ''


# (fields of an assistant turn, those that are read)
SAME = object()
GOOD = [
  ({'name': 'Ann', 'tool_calls': [CALL]}, SAME),
  ({'tool_calls': [NESTED]}, SAME),
  ({'content': None, 'tool_calls': [CALL]}, {'tool_calls': [CALL]}),
  ({'content': [{'type': 'text', 'text': 'a'}]}, {'content': 'a'}),
  (
    {'content': [{'type': 'text', 'text': 'a', 'image': None}]},
    {'content': 'a'},
  ),
  ({'tool_calls': []}, {'content': 'a'}),
  ({'tool_calls': ''}, {'content': 'a'}),
  ({'tool_calls': 'null'}, {'content': 'a'}),
  ({'tool_calls': json.dumps([NESTED])}, {'tool_calls': [NESTED]}),
  (
    {'tool_calls': [{'name': 'f', 'arguments': '{"a": 1}'}]},
    {'tool_calls': [CALL]},
  ),
  (
    {'tool_calls': [{'name': 'f', 'arguments': '{"a": null}'}]},
    {'tool_calls': [{'name': 'f', 'arguments': {'a': None}}]},
  ),
  (
    {'tool_calls': [{'name': 'f'}]},
    {'tool_calls': [{'name': 'f', 'arguments': {}}]},
  ),
  (
    {
      'tool_calls': [
        {
          'name': 'f',
          'arguments': {'a': {'b': None}, 'c': [None, 0]},
          'id': None,
        }
      ]
    },
    {'tool_calls': [{'name': 'f', 'arguments': {'a': {}, 'c': [None, 0]}}]},
  ),
  ({'weight': 0}, {'train': False}),
  ({'weight': 1.0}, {'train': True}),
  ({'weight': 0, 'train': False}, {'train': False}),
  ({'train': None, 'tool_calls': None}, {'content': 'a'}),
  ({'thinking': 't'}, SAME),
  ({'reasoning': 't', 'reasoning_content': 't'}, SAME),
  # About the message, whatever it is; and what a template may know.
  ({'id': 5, 'timestamp': datetime.datetime(2024, 1, 2)}, {'content': 'a'}),
  ({'score': decimal.Decimal('1.5')}, {'content': 'a'}),
  ({'toxic': False, 'country': 'NO'}, {'content': 'a'}),
  ({'annotations': [], 'audio': None, 'x': {'y': None}}, {'content': 'a'}),
  ({'plan': {'steps': [1, None]}}, SAME),
]


@pytest.mark.parametrize('fields, expected', GOOD)
def test_what_a_message_may_have(fields, expected):
  given = turn(**fields)
  before = repr(given)
  [_, found] = read(USER, given)
  expected = given if expected is SAME else expected
  if 'content' not in fields:
    expected = {'content': 'a'} | expected
  assert found == {'role': 'assistant'} | expected
  assert repr(given) == before


BAD = [
  ({'content': 7, 'tool_calls': [CALL]}, ' needs content that is a string: 7'),
  ({'content': None}, ' needs content that is a string: None'),
  ({'content': []}, ' needs content that is a string'),
  (
    {'content': [{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]},
    ' needs content that is a string',
  ),
  ({'content': [{'type': 'image', 'text': 'a'}]}, ' needs content'),
  ({'tool_calls': CALL}, '.tool_calls must be a list of mappings, not'),
  ({'tool_calls': '{"name": "f"}'}, '.tool_calls must be a list of mappings'),
  ({'tool_calls': '[{'}, '.tool_calls is not JSON: '),
  ({'tool_calls': ['f']}, ".tool_calls[0] must be a mapping with a name: 'f'"),
  ({'tool_calls': [{'arguments': {}}]}, '.tool_calls[0] must be a mapping wi'),
  ({'tool_calls': [CALL | {'x': 1}]}, '.tool_calls[0] has x, which no call'),
  ({'tool_calls': [NESTED | {'type': 'custom'}]}, '.tool_calls[0] must be of'),
  (
    {'tool_calls': [CALL | {'arguments': [1]}]},
    '.tool_calls[0].arguments must be a mapping, or JSON text of one, not [1]',
  ),
  (
    {'tool_calls': [CALL | {'arguments': '7'}]},
    '.tool_calls[0].arguments must be a mapping, or JSON text of one, not 7',
  ),
  (
    {'tool_calls': [CALL | {'arguments': 'city: Oslo'}]},
    '.tool_calls[0].arguments is not JSON: ',
  ),
  (
    {'tool_calls': [CALL | {'arguments': {'a': float('nan')}}]},
    '.tool_calls[0].arguments.a is nan, which JSON has not',
  ),
  (
    {'tool_calls': [CALL | {'arguments': {'a': datetime.date(2024, 1, 2)}}]},
    '.tool_calls[0].arguments.a is datetime.date(2024, 1, 2), which JSON has',
  ),
  ({'train': 'false'}, ".train must be true or false, not 'false'"),
  ({'train': 0}, '.train must be true or false, not 0'),
  ({'weight': 0.5}, '.weight must be 0 (context) or 1 (trained), not 0.5'),
  ({'weight': True}, '.weight must be 0 (context) or 1 (trained), not True'),
  ({'weight': 0, 'train': True}, ' has another weight than train says'),
  ({'name': 5}, '.name must be text, not 5'),
  ({'reasoning_content': ['x']}, '.reasoning_content must be text'),
  ({'thinking': 'x', 'reasoning': 'y'}, ' has reasoning and thinking, which d'),
  ({'image': b'\x89PNG'}, ".image is b'\\x89PNG', which JSON has not"),
]


@pytest.mark.parametrize('fields, message', BAD)
def test_what_it_may_not_have(fields, message):
  with pytest.raises(UserError) as error:
    read(USER, turn(**fields))
  assert str(error.value).startswith(f'f: row 1, messages[1]{message}')
  assert str(error.value).isprintable()


@pytest.mark.parametrize(
  'name, value, harmless',
  [
    ('tool_calls', [CALL], []),
    ('train', True, False),
    ('weight', 1, 0),
    ('reasoning_content', 'x', ''),
    ('tool_call_id', 'x', ''),
  ],
)
def test_fields_of_other_turns(name, value, harmless):
  assert read(USER | {name: harmless}) == [USER]
  with pytest.raises(UserError, match=rf'messages\[0\].{name} is of \w+ turns'):
    read(USER | {name: value})


def test_messages_as_json_text():
  turns = [USER, turn(tool_calls=None)]
  found = messages.read(json.dumps(turns), 'm')
  assert found == [USER, {'role': 'assistant', 'content': 'a'}]
  for text in ('hi', '[hi]', '{"role": "user"}', '[]', '"[1]"'):
    with pytest.raises(UserError, match='^m is no'):
      messages.read(text, 'm')


def test_what_is_nested_too_deep():
  deep = {'a': 1}
  for _ in range(70):
    deep = {'a': deep}
  text = '[' * 50_000
  for arguments in (deep, json.dumps(deep), text):
    call = {'name': 'f', 'arguments': arguments}
    with pytest.raises(UserError, match='deeper than 64|is not JSON') as error:
      read(USER, turn(tool_calls=[call]))
    assert '\n' not in str(error.value)


TOOL = {'name': 'f', 'parameters': {'type': 'object'}}


@pytest.mark.parametrize(
  'value, expected',
  [
    ([TOOL], [TOOL]),
    (json.dumps([TOOL]), [TOOL]),
    ([json.dumps(TOOL)], [TOOL]),
    ([TOOL | {'parameters': '{"type": "object"}'}], [TOOL]),
    ([{'type': 'function', 'function': TOOL}],) * 2,
    ('', []),
    (' ', []),
    (None, []),
    ([], []),
  ],
)
def test_tools(value, expected):
  assert messages.tools(value, 't') == expected


@pytest.mark.parametrize(
  'value, message',
  [
    ({'name': 'f'}, 't must be a list'),
    ('{', 't is not JSON'),
    ([5], r't\[0\] must be a mapping, not .5.'),
    ([{'function': 'f'}], r't\[0\] must have a name'),
    ([{'name': ''}], r't\[0\] must have a name'),
    ([TOOL | {'parameters': '{'}], r't\[0\].parameters is not JSON'),
  ],
)
def test_bad_tools(value, message):
  with pytest.raises(UserError, match=message):
    messages.tools(value, 't')


def test_a_key_that_stands_twice_in_json_text_is_refused():
  text = '{"city": "Rome", "city": "Oslo"}'
  calls = [{'name': 'find', 'arguments': text}]
  turn = {'role': 'assistant', 'tool_calls': calls}
  with pytest.raises(UserError, match="the key 'city' stands twice"):
    messages.read([turn], 'messages')
