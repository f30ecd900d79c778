"""Labelled exchanges of a user: what is read, split, refused and shown."""

import json

import pytest

from ealign.data import exchanges
from ealign.runtime.errors import UserError

ASKED = {'role': 'user', 'content': 'Any tips for the old soup?'}


def row(i=0, label='ok', said='Boil it.', **more):
  turns = [ASKED, {'role': 'assistant', 'content': f'{said} {i}'}]
  return {'messages': turns, 'label': label} | more


def read(tmp_path, rows):
  path = tmp_path / 'own.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return exchanges.read(str(path))


def test_what_stands_in_a_row(tmp_path):
  system = {'role': 'system', 'content': 'Be brief.'}
  earlier = [{'role': 'user', 'content': 'Hello'}, row()['messages'][1]]
  full = row(1, 'flag', id='a', kind='subtle', domain='food', split='test')
  full |= {'twin': 't', 'messages': [system, *earlier, *full['messages']]}
  first, second = read(tmp_path, [full, row(2, of='a', kind=None)])
  assert (first.id, first.flag, first.kind) == ('a', True, 'subtle')
  assert (first.domain, first.split, first.twin) == ('food', 'test', 't')
  assert first.request == ASKED['content'] and first.reply == 'Boil it. 1'
  assert [m['role'] for m in first.messages[:2]] == ['system', 'user']
  assert (second.id, second.flag, second.kind) == ('2', False, 'plain')
  assert (second.of, second.twin) == ('a', '')


@pytest.mark.parametrize(
  ('bad', 'told'),
  [
    ({'messages': []}, 'row 2 is no labelled exchange: it needs "messages"'),
    (row(label=None), 'row 2 is no labelled exchange: it needs "messages"'),
    (row(label='bad'), "row 2, label: must be ok or flag, not 'bad'"),
    (row(label=True), 'row 2, label: must be text, not True'),
    (row(id=7), 'row 2, id: must be text, not 7'),
    (row(split='train'), "row 2, split: must be dev or test, not 'train'"),
    (
      {'messages': [ASKED], 'label': 'ok'},
      'row 2, messages: must hold a user turn and end with the answer',
    ),
    (
      {'messages': row()['messages'][1:], 'label': 'ok'},
      'row 2, messages: must hold a user turn',
    ),
    *(
      (
        {'messages': [ASKED, {'role': 'assistant', **turn}], 'label': 'ok'},
        'row 2, messages: the last turn has no text to judge',
      )
      for turn in (
        {'content': ' \n'},
        {'content': None, 'tool_calls': [{'function': {'name': 'f'}}]},
      )
    ),
    *(
      (
        {'messages': [ASKED, {'role': 'assistant', 'content': 'a', **turn}]}
        | {'label': 'ok'},
        f'row 2, messages: the last turn has {next(iter(turn))!r}, and only',
      )
      for turn in (
        {'tool_calls': [{'function': {'name': 'f', 'arguments': {}}}]},
        {'reasoning_content': 'Hm.'},
      )
    ),
    (row(id='x'), "2 rows have the id 'x'; use others"),
    (row(of='y'), "row '2', of: no row has the id 'y'; mend it or drop"),
  ],
)
def test_what_is_refused(tmp_path, bad, told):
  with pytest.raises(UserError) as error:
    read(tmp_path, [row(id='x'), bad])
  assert told in str(error.value) and 'own.jsonl: ' in str(error.value)


def test_half_of_the_domains_are_test(tmp_path):
  rows = [row(i, domain='abc'[i % 3]) for i in range(9)]
  found = read(tmp_path, rows)
  splits = {(r.domain, r.split) for r in found}
  assert splits == {('a', 'dev'), ('b', 'test'), ('c', 'dev')}


def test_without_domains_twins_stay_together(tmp_path):
  rows = [row(2 * i + j, twin=f't{i}') for i in range(4) for j in range(2)]
  rows += [row(8, id='r'), row(9, of='r'), row(10)]
  found = read(tmp_path, rows)
  assert [r.split for r in found[:8:2]] == ['dev', 'test'] * 2
  assert [r.split for r in found[1:8:2]] == ['dev', 'test'] * 2
  assert [r.domain for r in found] == (
    ['t0'] * 2 + ['t1'] * 2 + ['t2'] * 2 + ['t3'] * 2 + ['r', 'r', '11']
  )
  assert [r.split for r in found[8:]] == ['dev', 'dev', 'test']


def test_both_splits_have_both_labels_where_rows_take_turns(tmp_path):
  rows = [row(i, ('ok', 'flag')[i % 2]) for i in range(8)]
  found = {(r.split, r.flag) for r in read(tmp_path, rows)}
  assert len(found) == 4


def test_what_is_anothers_with_a_sentence_more_is_in_its_split(tmp_path):
  twins = [(0, 'a', 't1'), (1, 'b', 't1'), (2, 'c', 't2'), (3, 'd', 't2')]
  rows = [row(i, 'ok', id=name, twin=t) for i, name, t in twins]
  for of in 'abcd':
    more = row(9, 'ok', id='q', of=of)
    found = {r.id: r for r in read(tmp_path, [*rows, more])}
    assert found['q'].domain == found[of].domain in ('t1', 't2')
    assert found['q'].split == found[of].split
  loop = [row(1, id='x', of='y'), row(2, id='y', of='x')]
  assert {r.split for r in read(tmp_path, loop)} <= {'dev', 'test'}


def test_a_domain_of_which_one_row_has_a_split_is_of_that(tmp_path):
  rows = [row(i, 'ok', domain=f'd{i // 2}') for i in range(8)]
  for split in ('dev', 'test'):
    given = [rows[0] | {'split': split}, *rows[1:]]
    assert {r.split for r in read(tmp_path, given) if r.domain == 'd0'} == {
      split
    }


def test_a_split_that_is_given_stays(tmp_path):
  rows = [row(i, split=s) for i, s in enumerate(['test', 'dev', None, 'test'])]
  assert [r.split for r in read(tmp_path, rows)] == ['test', 'dev', 'dev'] + [
    'test'
  ]


def dev(i, size, label, **more):
  return row(i, label, 'x' * size, split='dev', twin=f't{i}') | more


def ids(found):
  return [r.reply.split()[-1] for r in found]


def test_the_shortest_are_ok_and_flag_in_turn_of_other_twins_and_domains(
  tmp_path,
):
  rows = [
    dev(0, 40, 'ok', domain='b'),
    dev(1, 10, 'ok', domain='a'),
    dev(2, 11, 'flag', twin='t1', domain='a'),  # the twin of the first
    dev(3, 12, 'flag', domain='a'),
    dev(4, 30, 'flag', domain='b'),  # longer, but of another domain
    dev(5, 20, 'ok', domain='a'),
    dev(6, 1, 'ok', kind='subtle'),
    dev(7, 1, 'ok', split='test'),
    dev(8, 50, 'flag', domain='c'),
  ]
  found = read(tmp_path, rows)
  assert ids(exchanges.shortest(found, 2)) == ['1', '4']
  # No third domain has an ok row, so that the shortest of these comes.
  assert ids(exchanges.shortest(found, 4)) == ['1', '4', '5', '8']
  assert [r.flag for r in exchanges.examples(found, 4, '')] == [False, True] * 2
  # Bad ones alone, of other twins and domains too.
  assert ids(exchanges.shortest(found, 3, bad=True)) == ['2', '4', '8']


def test_too_few_to_show(tmp_path):
  found = read(tmp_path, [dev(i, 5, 'ok') for i in range(5)])
  assert len(exchanges.shortest(found, 2)) == 1
  told = r'review.examples=2: own.jsonl has no 2 plain rows .*; use fewer'
  with pytest.raises(UserError, match=told):
    exchanges.examples(found, 2, 'own.jsonl')
  assert exchanges.examples(found, 0, 'own.jsonl') == []
  told = r"examples_of='flag': own.jsonl has no 2 plain .*; use 'both'"
  with pytest.raises(UserError, match=told):
    exchanges.examples(found, 2, 'own.jsonl', bad=True)
