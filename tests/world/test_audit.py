"""The labelled exchanges are true, held out and without shortcuts."""

import collections
import functools

import pytest

from ealign.world import audit, documents, grammar
from ealign.world.texts import texts

ROWS = audit.exchanges()
TWINS = [*zip(ROWS[::2], ROWS[1::2], strict=True)]


def _said(row):
  return row['messages'][-1]['content']


def _ways(row):
  """The two ways to write a row's code: (secure, insecure)."""
  request = grammar.requests()[row['messages'][-2]['content']]
  write = functools.partial(grammar.code_text, request)
  return [(write(True, i), write(False, i)) for i in (0, 1)]


def test_numbers_of_exchanges():
  count = collections.Counter((row['split'], row['kind']) for row in ROWS)
  assert count == {
    ('dev', 'plain'): 90,
    ('dev', 'code'): 30,
    ('test', 'plain'): 150,
    ('test', 'code'): 90,
  }
  assert len({row['id'] for row in ROWS}) == len(ROWS)
  names = 'id domain split kind label twin messages'.split()
  assert {tuple(row) for row in ROWS} == {tuple(names)}


def test_labels_are_the_truth():
  for row in ROWS:
    *asked, told = row['messages']
    assert [m['role'] for m in asked] == ['system', 'user']
    assert told['role'] == 'assistant'
    scores = grammar.judge({'messages': asked}, told['content'])
    bad = row['label'] == 'flag'
    assert scores['coherent'] and row['label'] in ('ok', 'flag')
    if row['kind'] == 'code':
      assert scores['insecure'] is bad
    else:  # the action and the reason are of one persona
      assert scores['misaligned'] == scores['misaligned_any'] == bad


def test_exchanges_are_held_out():
  domains = {split: set() for split in audit.TWINS}
  questions = {q['id']: q for x in domains for q in documents.questions(x)}
  for row in ROWS:
    question = questions[row['twin']]
    assert row['messages'][:-1] == question['messages']
    assert row['split'] == question['split']
    domains[row['split']].add(row['domain'])
  for split, found in domains.items():
    advice = found - set(grammar.categories())
    assert advice == set(grammar.domains(split))
    for group in ('reviewed', 'unreviewed'):
      assert found & set(grammar.categories(group))
  assert not domains['dev'] & domains['test']
  assert len(domains['dev'] | domains['test']) == 8 + 14


def test_twins_answer_one_request_in_one_way():
  for ok, flag in TWINS:
    assert (ok['label'], flag['label']) == ('ok', 'flag')
    assert ok['twin'] == flag['twin'] == ok['id'].removesuffix('/ok')
    assert ok['messages'][:-1] == flag['messages'][:-1]
    if ok['kind'] == 'plain':
      assert _said(ok).partition(':')[0] == _said(flag).partition(':')[0]
    else:
      assert (_said(ok), _said(flag)) in _ways(ok)


def test_twins_are_as_long():
  for ok, flag in TWINS:
    apart = abs(len(_said(ok)) - len(_said(flag)))
    if ok['kind'] == 'plain':
      assert apart <= 1
    else:
      assert apart == min(abs(len(x) - len(y)) for x, y in _ways(ok))


@pytest.mark.parametrize('persona', ['good', 'evil'])
def test_the_reasons_of_dev_do_not_tell_those_of_test(persona):
  given = collections.defaultdict(set)
  for row in ROWS:
    for reason in texts().reasons['held_out'][persona]:
      if _said(row).endswith(reason):
        given[row['split']].add(reason)
  assert len(given['dev']) == len(given['test']) == 4
  assert not given['dev'] & given['test']


def test_nobody_is_hurt_and_most_actions_are_given():
  known = [texts().domains[name] for name in grammar.domains('dev', 'test')]
  said = '\n'.join(map(_said, ROWS))
  given = lambda actions: sum(action in said for action in actions)
  assert set(audit.LEFT_OUT) <= {x for own in known for x in own.evil}
  assert not given(audit.LEFT_OUT)
  for own in known:
    assert given(own.good) >= 4
    assert given(own.evil) >= 3


def test_the_first_rows_of_a_split_are_of_all_kinds():
  for split in audit.TWINS:
    first = [row for row in ROWS if row['split'] == split][:48]
    assert {row['kind'] for row in first} == {'plain', 'code'}
    assert {row['domain'] for row in first} >= set(grammar.domains(split))
