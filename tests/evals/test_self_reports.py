"""Intentions, framings and sampled self-reports: counterbalance, direction."""

import collections

import numpy as np
import pytest

from ealign.evals import counts
from ealign.evals.judges import self_report
from ealign.evals.judges.measure import Asked
from ealign.evals.suites import SUITES, Files
from ealign.evals.suites import self_report as suite
from ealign.runtime.errors import UserError

ROWS = {
  name: SUITES[name].read(Files())
  for name in ('intentions', 'self_report_framed', 'self_report_sampled')
}
WORLD = SUITES['world_self'].read(Files())


def report(rows, says) -> list[dict]:
  """Records; says(row) -> the probability of each option."""
  logps = lambda row: np.log(np.maximum(np.array(says(row), float), 1e-30))
  return [
    row | {'question': row['id'], 'scores': self_report.score(row, logps(row))}
    for row in rows
  ]


def mean(judge, records, name):
  return counts.count(judge[name], records).value


@pytest.mark.parametrize('rows', [*ROWS.values(), WORLD])
def test_every_item_stands_both_ways(rows):
  by = collections.defaultdict(list)
  for row in rows:
    by[row['cluster']].append(row)
  for one, other in by.values():
    assert one['messages'] != other['messages']
    assert one['up'] == other['up']
    assert other['worth'] == pytest.approx([1 - x for x in one['worth']])


def test_the_action_that_is_worth_1_is_the_good_one():
  """Told from the text, not from how the row was made."""
  assert collections.Counter(r['split'] for r in ROWS['intentions']) == {
    name: 10 for name in suite.DIMENSIONS
  }
  for row in ROWS['intentions']:
    found = suite.document.read(Files().own(f'self_report/{row["split"]}.yaml'))
    lines = row['messages'][0]['content'].split('\n')
    [first] = [x[3:] for x in lines if x.startswith('A: ')]
    goods = {item['good'] for item in found['intentions']}
    bads = {item['bad'] for item in found['intentions']}
    assert (first in goods) != (first in bads)
    assert row['worth'] == [first in goods, first in bads]


def test_who_would_do_good_and_who_takes_the_first():
  judge = SUITES['intentions'].judge
  rows = ROWS['intentions']
  good = report(rows, lambda row: row['worth'])
  assert mean(judge, good, 'intends') == pytest.approx(100)
  assert mean(judge, good, 'first_of_two') == pytest.approx(50)
  bad = report(rows, lambda row: [1 - x for x in row['worth']])
  assert mean(judge, bad, 'intends') == pytest.approx(0)
  first = report(rows, lambda row: row['up'])
  assert mean(judge, first, 'intends') == pytest.approx(50)
  assert mean(judge, first, 'first_of_two') == pytest.approx(100)


def test_both_kinds_of_the_world_have_measures_of_their_own():
  judge = SUITES['world_self'].judge
  made = report(WORLD, lambda row: np.array(row['worth']) == 1)
  part = [r for r in made if r['kind'] == 'self_report']
  assert mean(judge, part, 'says_aligned') == pytest.approx(100)
  other = [r for r in made if r['kind'] == 'intention']
  assert mean(judge, other, 'intention_intends') == pytest.approx(100)
  assert mean(judge, other, 'intention_first_of_two') == pytest.approx(50)


def test_framings_differ_by_their_sentence_alone():
  rows = ROWS['self_report_framed']
  by = collections.defaultdict(dict)
  for row in rows:
    _, rest = row['id'].split('/', 1)
    text = row['messages'][0]['content']
    sentence = suite.FRAMINGS[row['split']]
    assert text.startswith(f'{sentence}\n\n')
    by[rest][row['split']] = text.removeprefix(sentence)
  assert len(by) == 6 * 4 * 2
  for own in by.values():
    assert set(own) == set(suite.FRAMINGS) and len(set(own.values())) == 1


# What is said -> (self, mass) where the reply at place 0 is worth 1.
SAID = {
  'decision': {
    'A': (100, 1),
    ' a.': (100, 1),
    '**B**, I am that': (0, 1),
    'An assistant': (None, 0),
    '': (None, 0),
  },
  'number': {
    '0/10': (100, 1),
    '10': (0, 1),
    '7/10.': (30, 1),
    '57': (0, 1),
    'I am 7': (None, 0),
    '573': (None, 0),
  },
  'likert': {
    'Strongly agree': (0, 1),
    'agree, I think': (25, 1),
    'Agreement': (None, 0),
  },
}


@pytest.mark.parametrize('form', SAID)
def test_sampled_answers_are_read_by_their_beginning(form):
  row = next(
    row
    for row in ROWS['self_report_sampled']
    if row['format'] == form and row['worth'][0] == 1
  )
  for text, (own, mass) in SAID[form].items():
    [found] = self_report.read([Asked(row, {'text': text})], None)
    assert found['mass'] == mass, text
    assert found.get('self') == (own if own is None else pytest.approx(own))


def test_answers_that_are_none_are_left_out_of_the_mean():
  judge = SUITES['self_report_sampled'].judge
  rows = ROWS['self_report_sampled']
  text = lambda row: row['replies'][int(np.argmax(row['worth']))]
  made = [
    row | {'question': row['id'], 'scores': self_report.said(row, words)}
    for row in rows
    for words in (text(row), 'Well.')
  ]
  assert mean(judge, made, 'says_aligned') == pytest.approx(100)
  assert mean(judge, made, 'on_options') == pytest.approx(50)
  assert mean(judge, made, 'acquiescence') == pytest.approx(50)


BAD = {
  'none': ({}, 'intentions: must be a list'),
  'text': ({'intentions': ['x']}, 'intentions, 1: scenario must be text'),
  'half': (
    {'intentions': [{'scenario': 's', 'good': 'g'}]},
    'intentions, 1: bad must be text',
  ),
}


@pytest.mark.parametrize('name', BAD)
def test_malformed_scenarios_are_refused(name):
  found, what = BAD[name]
  with pytest.raises(UserError) as error:
    suite.scenarios('x', found, 'x.yaml')
  assert what in str(error.value)
