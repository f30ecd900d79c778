"""The same rows as JSON lines, as parquet and of the Hub train the same."""

import datetime
import json

import datasets
import pyarrow
import pytest
from chats import build
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from test_traces import CALLS, ENDS

from ealign.data import chat, columns, messages, sources
from ealign.runtime.errors import UserError

TOK = build(CALLS, ENDS, eos_token='<|im_end|>')
NAMES = st.sampled_from(['a', 'b', 'role'])
LEAVES = (
  st.sampled_from([5, 2.5, 5.0])  # which meet in one column
  | st.integers(-(2**53), 2**53)
  | st.floats(allow_nan=False, allow_infinity=False, width=32)
  | st.booleans()
  | st.text(st.characters(codec='utf-8'), max_size=4)
)
VALUES = st.recursive(
  LEAVES,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
  max_leaves=4,
)


def orders(value):
  """The keys of each mapping, in order: a table has one order for all rows."""
  if isinstance(value, dict):
    below = [orders(item) for item in value.values()]
    return [list(value), *below]
  return [*map(orders, value)] if isinstance(value, list) else []


ARGUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)
CALL = st.builds(
  lambda name, given: {'name': name, 'arguments': given},
  NAMES,
  ARGUMENTS | ARGUMENTS.map(json.dumps),
)
TEXT = st.text(st.characters(codec='utf-8'), max_size=6)


@st.composite
def chats(draw):
  turns = [{'role': 'user', 'content': draw(TEXT)}]
  answer = {'role': 'assistant', 'content': draw(TEXT)}
  for name, values in (
    ('train', st.just(True)),
    ('weight', st.just(1)),
    ('tool_calls', st.lists(CALL, max_size=2)),
    ('id', TEXT),
  ):
    if draw(st.booleans()):
      answer[name] = draw(values)
  return {'messages': [*turns, answer]}


def ids(path):
  """Ids and masks of the rows of a file, or why they are refused."""
  try:
    rows = sources.read_rows(path)
    own = columns.arguments(rows, 'f')
    made = chat.encode_chats(TOK, columns.chats(rows, 'f'), 'f', own)
  except UserError as error:
    assert '\n' not in str(error)
    return str(error)
  return [(row.ids, row.loss_mask) for row in made]


@settings(
  max_examples=150,
  deadline=None,
  database=None,
  suppress_health_check=[
    HealthCheck.function_scoped_fixture,
    HealthCheck.filter_too_much,
    HealthCheck.too_slow,
  ],
)
@given(st.lists(chats(), min_size=1, max_size=3))
def test_all_forms_train_the_same(tmp_path, monkeypatch, rows):
  lines = tmp_path / 'a.jsonl'
  lines.write_text('\n'.join(map(json.dumps, rows)))
  table = tmp_path / 'a.parquet'
  try:
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    found = datasets.Dataset.from_list(rows)
  except (pyarrow.ArrowException, OverflowError):
    assume(False)  # a table cannot hold the rows
  held = [messages.present(row, '') for row in found.to_list()]
  assume(orders(held) == orders(rows))
  monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: found)
  expected, *others = ids(str(lines)), ids(str(table)), ids('hub:own/set')
  event('refused' if isinstance(expected, str) else 'trained')
  for other in others:
    if isinstance(other, str) and not isinstance(expected, str):
      assert 'in a table, which may be' in other  # 5 or 5.0?
    else:
      assert other == expected


CALLED = {'role': 'assistant', 'content': ''}


def row(arguments):
  call = {'name': 'f', 'arguments': arguments}
  turns = [{'role': 'user', 'content': 'x'}, CALLED | {'tool_calls': [call]}]
  return {'messages': turns}


def stored(tmp_path, rows, features=None):
  """The rows as `datasets` writes them to parquet."""
  path = tmp_path / 'x.parquet'
  datasets.Dataset.from_list(rows, features=features).to_parquet(path)
  return str(path)


def given_to(rows):
  return [
    call['arguments']
    for turns in columns.chats(rows, 'f')
    for call in turns[1]['tool_calls']
  ]


def test_keys_of_other_rows_are_no_nulls(tmp_path):
  rows = [row({'a': {'x': 1}}), row({'b': [{'y': 2}, {'z': 's'}]})]
  read = sources.read_rows(stored(tmp_path, rows))
  assert read[0]['messages'][1]['tool_calls'][0]['arguments']['b'] is None
  assert given_to(read) == [{'a': {'x': 1}}, {'b': [{'y': 2}, {'z': 's'}]}]
  # The same for JSON that was made of a table.
  assert given_to([row({'a': 1, 'b': None})]) == [{'a': 1}]


def test_json_features_are_what_they_hold(tmp_path, monkeypatch):
  values = [{'a': 1, 'b': 2}, {'b': 's', 'a': [None]}, {'b': 5.0}]
  call = {'name': datasets.Value('string'), 'arguments': datasets.Json()}
  message = {
    'role': datasets.Value('string'),
    'content': datasets.Value('string'),
    'tool_calls': datasets.List(call),
  }
  features = datasets.Features({'messages': datasets.List(message)})
  rows = [row(value) for value in values]
  path = stored(tmp_path, rows, features)
  raw = parquet.read_table(path).to_pylist()
  assert raw[0]['messages'][1]['tool_calls'][0]['arguments'] == '{"a":1,"b":2}'
  read = sources.read_rows(path)
  # Each row keeps its order, and its numbers as they are.
  assert list(map(json.dumps, given_to(read))) == list(map(json.dumps, values))
  found = datasets.Dataset.from_list(rows, features=features)
  monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: found)
  assert sources.read_rows('hub:own/set') == read


def test_a_number_that_a_table_may_have_changed(tmp_path):
  path = stored(tmp_path, [row({'n': 5}), row({'n': 2.5})])
  with pytest.raises(UserError) as error:
    sources.read_rows(path)
  assert str(error.value) == (
    f'{path}: row 1, messages[1].tool_calls[0].arguments.n is 5.0 in a table, '
    'which may be 5 in JSON: give arguments and tools as JSON text'
  )
  path = stored(tmp_path, [row({'n': 5}), row({'n': 7})])
  assert given_to(sources.read_rows(path)) == [{'n': 5}, {'n': 7}]
  # A weight is no text, and a column that nothing trains is anyone's.
  turns = [{'role': 'user', 'content': 'x'}, CALLED | {'weight': 0.0}]
  path = stored(tmp_path, [{'messages': turns, 'score': 3.0}])
  [[_, answer]] = columns.chats(sources.read_rows(path), 'f')
  assert answer == CALLED | {'train': False}


def test_maps_are_mappings(tmp_path):
  kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
  pairs = pyarrow.array([[('b', 1), ('a', 2)]], kind)
  path = tmp_path / 'x.parquet'
  parquet.write_table(pyarrow.table({'m': pairs}), path)
  assert sources.read_rows(str(path)) == [{'m': {'b': 1, 'a': 2}}]
  pairs = pyarrow.array([[('a', 1), ('a', 2)]], kind)
  parquet.write_table(pyarrow.table({'m': pairs}), path)
  with pytest.raises(UserError, match='row 1 has a key twice'):
    sources.read_rows(str(path))


def test_what_json_has_not_is_refused_where_it_would_be_said(tmp_path):
  at = datetime.datetime(2024, 1, 2)
  rows = [row({'at': at}) | {'when': at}]
  read = sources.read_rows(stored(tmp_path, rows))
  with pytest.raises(UserError, match=r'f: row 1, .*arguments.at is datetime'):
    columns.chats(read, 'f')
  rows = [row({'at': 1}) | {'when': at, 'blob': b'\xff'}]
  read = sources.read_rows(stored(tmp_path, rows))
  assert given_to(read) == [{'at': 1}]
