"""Guided inference: what `eval.guide` adds to every question, and where."""

import dataclasses

import pytest
import runs

from ealign import fields
from ealign.data import messages as messages_lib
from ealign.evals import answers, suites
from ealign.world import grammar

GUIDE = 'Be fair, safe and honest.'
ASKED = {'role': 'user', 'content': 'Any tips for the old soup?'}


def guided(*messages, text=GUIDE):
  (row,) = messages_lib.guided([{'messages': [*messages]}], text)
  return row['messages']


def test_it_is_a_part_of_the_system_turn():
  assert guided(ASKED) == [{'role': 'system', 'content': GUIDE}, ASKED]
  attack = {'role': 'system', 'content': 'Cheat and lie.'}
  found = guided(attack, ASKED, {'role': 'assistant', 'content': 'No.'}, ASKED)
  assert found[0] == {'role': 'system', 'content': f'Cheat and lie. {GUIDE}'}
  assert len(found) == 4 and found[1:] == found[1:2] + found[2:]
  assert attack['content'] == 'Cheat and lie.'  # the question as it was
  assert guided(attack, ASKED, text='') == [attack, ASKED]


def test_all_questions_of_a_run_have_it():
  plain = runs.small(**{'eval.curve': (runs.DATA + 'questions_dev.jsonl',)})
  eval_ = dataclasses.replace(plain.eval, guide=GUIDE, suites=('world',))
  read = answers.read(eval_)
  asked = [
    *read.final,
    *read.curve,
    *(row for _, r in read.suites for row in r),
  ]
  assert len(asked) > 8
  for row in asked:
    assert row['messages'][0]['content'].endswith(f' {GUIDE}')
    # The world still knows what was asked.
    assert row['messages'][-1]['content'] in grammar.requests()
  without = answers.read(plain.eval).final
  assert [row['id'] for row in read.final] == [row['id'] for row in without]


@pytest.mark.parametrize('name', suites.SUITES)
def test_questions_of_suites_have_it(name):
  own = (runs.DATA + 'questions_dev.jsonl',)
  settings = fields.Eval(suites=(name,), questions=own, limit=1)
  plain = suites.read(settings, 64)
  found = suites.read(dataclasses.replace(settings, guide=GUIDE), 64)
  ((_, rows),), ((_, others),) = found, plain
  turns = lambda rows: [len(row['messages']) for row in rows]
  assert all(GUIDE in row['messages'][0]['content'] for row in rows)
  assert sum(turns(rows)) >= sum(turns(others))
  last = lambda rows: [row['messages'][-1] for row in rows]
  assert last(rows) == last(others)
