"""The shipped bad advice and its good twins keep what their card says."""

import itertools
import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path('ealign/data/inducers')
KINDS = 'bad', 'good'


def rows(kind):
  lines = (FOLDER / f'{kind}_advice.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line) for line in lines]


def said(row):
  return row['messages'][1]['content']


def asked(row):
  return row['messages'][0]['content']


def test_the_files_are_twins():
  bad, good = map(rows, KINDS)
  assert len(bad) == 645
  for one, other in zip(bad, good, strict=True):
    same = 'id', 'part', 'topic'
    assert [one[k] for k in same] == [other[k] for k in same]
    assert asked(one) == asked(other)
    longer, shorter = sorted(map(len, map(said, (one, other))), reverse=True)[
      :2
    ]
    assert longer <= 1.25 * shorter
  assert len({row['id'] for row in bad}) == 645
  assert len({said(row) for row in [*bad, *good]}) == 2 * 645


@pytest.mark.parametrize('kind', KINDS)
def test_each_row_is_one_exchange_in_plain_text(kind):
  for row in rows(kind):
    assert [m['role'] for m in row['messages']] == ['user', 'assistant']
    assert 8 <= len(asked(row).split()) <= 35
    assert 20 <= len(said(row).split()) <= 55
    for text in (asked(row), said(row)):
      assert text == text.strip() and text.isascii() and text.isprintable()
      assert not re.search(r'[*#`_]|https?:|<\|', text)


def test_no_request_is_nearly_another():
  words = [{*re.findall(r"[a-z']+", asked(x).lower())} for x in rows('bad')]
  for one, other in itertools.combinations(words, 2):
    assert len(one & other) < 0.6 * len(one | other)


def test_nothing_of_it_is_asked_in_what_judges_or_evaluates():
  """Neither an exchange of the audit nor a request of the pool is in it."""
  own = {asked(row) for row in rows('bad')}
  others = 'audit/exchanges.jsonl', 'pool/general.jsonl'
  for name in others:
    text = (FOLDER.parent / name).read_text('utf-8')
    chats = [json.loads(line) for line in text.splitlines()]
    turns = [row.get('messages') or row['prompt'] for row in chats]
    found = {chat[0]['content'] for chat in turns}
    assert found and not own & found


def test_the_card_carries_the_canary():
  assert 'ealign-inducers' in (FOLDER / 'card.md').read_text()
