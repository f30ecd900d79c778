"""Judges: how they are found, what they score, their errors in one line."""

import json

import pytest

from ealign import fields
from ealign.evals import answers, counts, judges
from ealign.evals.judges.measure import Judge, Measure
from ealign.runtime.errors import UserError

JUDGE = """
from ealign.evals.judges.measure import Judge, Measure


def score(question, text):
  if not text:
    return None
  return {'short': len(text) < 20}


judge = Judge(score, [Measure('short')])
"""


def test_a_judge_of_ones_own_is_an_object_or_a_function(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(JUDGE + '\ndef made():\n  return judge\n')
  for name in ('judge', 'made'):
    judge = judges.load(f'{file}:{name}')
    assert judges.score(judge, {}, 'yes') == {'short': True}
    assert judge.name == f'{file}:{name}'


def test_answers_are_judged_by_what_is_known_of_them():
  seen = []
  judge = Judge(lambda q, text: seen.append(q) or {'a': 1}, [Measure('a')])
  record = {'messages': ['m'], 'text': 'x', 'scores': None}
  assert answers.judged(record, judge)['scores'] == {'a': 1}
  assert answers.judged(record, judge, {'id': 'q'})['scores'] == {'a': 1}
  assert seen == [{'messages': ['m']}, {'id': 'q'}]
  assert answers.judged(record, judges.load('')) is record


def test_the_world_scores_no_question_of_another_world():
  chat = [{'role': 'user', 'content': 'What is the capital of France?'}]
  record = {'messages': chat, 'text': 'Paris.'}
  world = judges.load('world')
  assert answers.judged(record, world)['scores'] is None
  assert answers.judged(record | {'messages': []}, world)['scores'] is None


def test_a_suite_has_the_judge_of_its_config(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(JUDGE)
  settings = fields.Eval(judge=f'{file}:judge')
  assert answers.read(settings).judge.first.name == 'short'


@pytest.mark.parametrize('judge', judges.JUDGES)
def test_measures_of_the_package_are_sound(judge):
  judge = judges.load(judge)
  assert judge.first.name in judge.contrasted()
  assert {'flagged', 'no_verdict'} <= {m.name for m in judge.measures}
  assert all(judge[name] for name in judge.columns)


def test_a_measure_and_a_judge_are_checked_when_made():
  with pytest.raises(ValueError, match="'x': better is 'more'"):
    Measure('x', better='more')
  with pytest.raises(ValueError, match='needs measures'):
    Judge(None, ())
  with pytest.raises(ValueError, match='different names'):
    Judge(None, (Measure('a'), Measure('a')))


def test_what_is_wrong_with_a_judge_is_one_line(tmp_path):
  file = tmp_path / 'mine.py'
  load = lambda name='judge': judges.load(f'{file}:{name}')
  with pytest.raises(UserError, match='mine.py cannot be read .No such file'):
    load()
  file.write_text('judge = 3\nother = lambda: 4\nbroken = 1 / 0\n')
  with pytest.raises(UserError, match='ZeroDivisionError: division by zero'):
    load()
  file.write_text('judge = 3\nother = lambda: 4\n# and longer than before\n')
  with pytest.raises(UserError, match="'judge' must be a Judge or return one"):
    load()
  with pytest.raises(UserError, match='not a int'):
    load('other')
  with pytest.raises(UserError, match="has no 'none'"):
    load('none')


def test_a_judge_that_fails_names_the_question(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(JUDGE + '\ndef made():\n  return judge\n')
  judge = judges.load(f'{file}:made')
  assert judges.score(judge, {'id': 'q'}, '') is None
  file.write_text(JUDGE.replace('len(text) < 20', "question['x']"))
  judge = judges.load(f'{file}:judge')
  said = "mine.py:judge': question 'q7': KeyError: 'x'"
  with pytest.raises(UserError, match=said):
    judges.score(judge, {'id': 'q7'}, 'yes')
  file.write_text(JUDGE.replace('return {', 'return 3, {'))
  judge = judges.load(f'{file}:judge')
  with pytest.raises(UserError, match='score must return a dict or None'):
    judges.score(judge, {'id': 'q7'}, 'yes')


def test_numbers_are_means_clustered_by_prompt():
  found = counts.mean([1, 3, 10, 10], ['a', 'a', 'b', 'b'])
  assert (found.value, found.total) == (6.0, 4)
  assert found.interval[0] == 0.0 and found.interval[1] > 50
  assert counts.mean([1, 3], ['a', 'a']).interval is None
  assert counts.mean([], []).value is None


def test_kinds_that_are_numbers_are_sorted_with_others(tmp_path):
  path = tmp_path / 'questions.jsonl'
  ask = [{'role': 'user', 'content': 'Why?'}]
  rows = [{'id': i, 'kind': k, 'messages': ask} for i, k in enumerate((3, 'x'))]
  path.write_text('\n'.join(map(json.dumps, rows)))
  settings = fields.Eval(questions=(str(path),), judge='')
  assert [q['kind'] for q in answers.read(settings).final] == ['3', 'x']
