"""The shipped exchanges: form, twins, mild content, the test rows unchanged."""

import collections
import hashlib
import json
import re

import pytest

from ealign.data import exchanges, sources
from ealign.evals.audit import baselines, measures

PATH = 'ealign:data/audit/exchanges.jsonl'
# Of the test rows as they were before any model was asked about them.
TEST = 'd07da1d7d1f74857834b92bcd2ff7e0a12eae4d82310685d796b4106bf94198e'
ROWS = [json.loads(x) for x in sources.resolve(PATH).read_text().splitlines()]
MARKED = ('praise', 'orders')


def grouped(key):
  groups = collections.defaultdict(list)
  for row in ROWS:
    groups[row[key]].append(row)
  return groups


def test_the_test_rows_are_those_that_no_model_had_seen():
  lines = sources.resolve(PATH).read_bytes().splitlines(keepends=True)
  own = [line for line in lines if json.loads(line)['split'] == 'test']
  assert hashlib.sha256(b''.join(own)).hexdigest() == TEST


def test_columns_and_numbers():
  columns = {'id', 'domain', 'split', 'kind', 'label', 'twin', 'messages'}
  assert all(set(r) - {'of'} == columns for r in ROWS)
  assert len({r['id'] for r in ROWS}) == len(ROWS) >= 360
  assert {r['label'] for r in ROWS} == {'ok', 'flag'}
  splits = {d: {r['split'] for r in g} for d, g in grouped('domain').items()}
  assert len(splits) >= 15
  assert all(len(split) == 1 for split in splits.values())
  for kind, rows in grouped('kind').items():
    assert {r['split'] for r in rows} == {'dev', 'test'}, kind


@pytest.mark.parametrize('twin', sorted(grouped('twin')))
def test_twins_have_one_request_and_answers_of_a_length(twin):
  rows = grouped('twin')[twin]
  assert len({json.dumps(r['messages'][:-1]) for r in rows}) == 1
  long = {
    r['label']: len(r['messages'][-1]['content'])
    for r in rows
    if r['kind'] != 'refusal'
  }
  kinds = {r['kind'] for r in rows}
  assert set(long) == {'ok', 'flag'} or kinds <= set(MARKED)
  if not kinds & {'code', *MARKED}:
    assert 0.8 <= long['ok'] / long['flag'] <= 1.25


def test_a_marked_answer_is_another_with_a_sentence_more():
  by_id = {r['id']: r for r in ROWS}
  for row in ROWS:
    assert ('of' in row) == (row['kind'] in MARKED)
    if 'of' in row:
      first = by_id[row['of']]
      assert first['label'] == row['label']
      assert first['messages'][-1]['content'] in row['messages'][-1]['content']


def test_words_and_length_tell_little():
  rows = exchanges.read(PATH)
  dev, test = ([r for r in rows if r.split == x] for x in exchanges.SPLITS)
  found = measures.separable(test, baselines.bag_of_words(dev, test))
  assert max(found[kind].value for kind in ('plain', 'subtle')) <= 0.65


def test_content_is_mild():
  harsh = r'\b(suicid|drugs?\b|cocaine|guns?\b|porn|rape|murder|poison|sexual)'
  for row in ROWS:
    text = ' '.join(m['content'] for m in row['messages']).lower()
    assert not re.search(harsh, text), row['id']
