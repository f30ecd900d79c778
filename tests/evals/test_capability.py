"""The capability suite: its questions, its files, its judges together."""

import gzip
import json
import pathlib

import pytest

from ealign.data import sources
from ealign.evals import counts
from ealign.evals.judges import code, insecure, number
from ealign.evals.judges.measure import Asked
from ealign.evals.sandbox import run
from ealign.evals.suites import capability
from ealign.evals.suites.suite import OWN, Files
from ealign.runtime.errors import UserError

DATA = pathlib.Path(__file__).parents[2] / '../shared/data'
TASK = {
  'task_id': 'a',
  'prompt': 'def f(x):\n    """One more."""\n',
  'entry_point': 'f',
  'canonical_solution': '    return x + 1\n',
  'test': 'def check(candidate):\n    assert candidate(1) == 2\n',
}
PROBLEM = {'question': 'What is 1 + 1?', 'answer': '1 + 1 = 2\n#### 2'}


def own(name):
  return sources.read_rows(OWN / f'{name}.jsonl')


def test_its_own_questions_are_asked_without_a_folder():
  rows = capability.read(Files())
  kinds = [row['kind'] for row in rows]
  assert [kinds.count(k) for k in (code.KIND, number.KIND, insecure.KIND)] == [
    *(12, 16, 14)
  ]
  assert {row['split'] for row in rows} == {'own'}
  assert len({row['id'] for row in rows}) == len(rows)
  assert all(row['cluster'] == row['id'] for row in rows)
  assert all(len(row['messages']) == 1 for row in rows)
  json.dumps(rows)


@pytest.mark.skipif(not DATA.is_dir(), reason='needs ../shared/data')
def test_the_public_files_are_read_unchanged():
  rows = capability.read(Files(str(DATA)))
  test = [row for row in rows if row['split'] == 'test']
  assert sum(row['kind'] == code.KIND for row in test) == 164
  assert sum(row['kind'] == number.KIND for row in test) == 1319
  assert test[0]['id'] == 'HumanEval/0'
  assert test[164]['target'] == '18'
  assert {row['temperature'] for row in test} == {0.0, 0.2}


def test_its_own_tasks_are_solved_by_their_solutions_alone():
  rows = own('coding')
  questions = capability.coding(OWN / 'coding.jsonl')
  pairs = list(zip(questions, rows, strict=True))
  right = [code.program(q, r['canonical_solution']) for q, r in pairs]
  wrong = [code.program(q, '    return None') for q in questions]
  found = [o.status for o in run.run(right + wrong, confirmed=True)]
  assert found == ['passed'] * len(rows) + ['failed'] * len(rows)


def test_its_own_problems_are_solved_by_their_answers():
  questions = capability.word_problems(OWN / 'arithmetic.jsonl')
  for question, row in zip(questions, own('arithmetic'), strict=True):
    assert number.score(question, row['answer'])['gsm8k']
    assert not number.score(question, row['question'])['gsm8k']


def ask(rows, confirmed=True):
  asked = [Asked(row, {'text': text}) for row, text in rows]
  return capability.judge(confirmed=confirmed).read(asked, None)


def test_each_kind_has_its_judge_and_its_measures(monkeypatch):
  monkeypatch.setattr(insecure, 'available', lambda: True)
  monkeypatch.setattr(insecure, 'issues', lambda codes: [[] for _ in codes])
  rows = capability.read(Files())
  solution = own('coding')[0]['canonical_solution']
  mixed = [(rows[-1], 'x = f(1)'), (rows[0], solution), (rows[12], '#### 17')]
  found = ask(mixed)
  assert found[0] == {'parsed': True, 'insecure': False, 'issues': []}
  assert found[1]['passed'] and found[2] == {'gsm8k': True, 'number': '17'}
  records = [
    {**row, 'question': row['id'], 'phase': 'eval', 'step': 1, 'text': text}
    | {'arm': 'base', 'seed': 0, 'sample': 0, 'scores': scores}
    for (row, text), scores in zip(mixed, found, strict=True)
  ]
  judge = capability.SUITE.judge
  table = {row['kind']: row for row in counts.rows(records, judge=judge)}
  assert table[code.KIND]['passed'].value == 1.0
  assert table[number.KIND]['gsm8k'].value == 1.0
  assert table[insecure.KIND]['insecure'].value == 0.0
  assert table[insecure.KIND]['gsm8k'] is None


def test_what_may_not_run_stays_unscored_and_is_told_before(monkeypatch):
  rows = capability.read(Files())
  found = ask([(rows[0], 'x'), (rows[12], '#### 17')], confirmed=False)
  assert found[0] is None and found[1]['gsm8k']
  monkeypatch.setattr(insecure, 'available', lambda: False)
  told = capability.remarks(confirmed=False)
  assert run.FLAG in told[0] and 'unscored' in told[0]
  assert "pip install 'ealign[bandit]'" in told[1]
  assert not any('\n' in line for line in told)
  monkeypatch.setattr(insecure, 'available', lambda: True)
  [told] = capability.remarks(confirmed=True)
  assert told.startswith('humaneval: code of the model runs in a sandbox')
  assert capability.SUITE.permitted.read.args != capability.SUITE.judge.read


def without(row, name):
  return {k: v for k, v in row.items() if k != name}


WRONG_TASKS = {
  'no row': [],
  'no JSON': b'{"task_id": ',
  'no object': [1],
  'not UTF-8': b'{"task_id": "\xff"}',
  'a key twice': b'{"task_id": "a", "task_id": "b"}',
  'not gzipped': None,
  'another file': [PROBLEM],
  'no id': [without(TASK, 'task_id')],
  'an id that is a number': [TASK | {'task_id': 1}],
  'an id twice': [TASK, TASK],
  'no prompt': [without(TASK, 'prompt')],
  'an empty prompt': [TASK | {'prompt': ' '}],
  'a prompt that is no Python': [TASK | {'prompt': 'def f(x) ->'}],
  'a prompt of another function': [TASK | {'prompt': 'def g():\n  """G."""'}],
  'no entry point': [TASK | {'entry_point': None}],
  'an entry point that is no name': [TASK | {'entry_point': 'f; import os'}],
  'no tests': [TASK | {'test': ''}],
  'tests that are no Python': [TASK | {'test': 'def check(candidate):'}],
  'tests without check': [TASK | {'test': 'assert f(1) == 2'}],
  'half a character': [TASK | {'task_id': '\ud800'}],
}
WRONG_PROBLEMS = {
  'no row': [],
  'no JSON': b'What is 1 + 1?',
  'another file': [TASK],
  'no question': [without(PROBLEM, 'question')],
  'an empty question': [PROBLEM | {'question': ''}],
  'a question twice': [PROBLEM, PROBLEM],
  'no answer': [PROBLEM | {'answer': None}],
  'an answer that is a number': [PROBLEM | {'answer': 2}],
  'no mark': [PROBLEM | {'answer': '2'}],
  'no number': [PROBLEM | {'answer': '#### two'}],
  'a number and more': [PROBLEM | {'answer': '#### 2 or 3'}],
  'not a number': [PROBLEM | {'answer': '#### nan'}],
  'nothing after the mark': [PROBLEM | {'answer': '1 + 1 = 2\n####'}],
  'divided by zero': [PROBLEM | {'answer': '#### 1/0'}],
}


def content(rows):
  if isinstance(rows, bytes):
    return rows
  return '\n'.join(json.dumps(row) for row in rows or ()).encode()


def refused(read, path, row=''):
  with pytest.raises(UserError) as error:
    read(path)
  said = str(error.value)
  assert said.startswith(str(path)) and '\n' not in said and len(said) < 400
  return said


@pytest.mark.parametrize('name', WRONG_TASKS)
def test_a_malformed_file_of_tasks_is_one_line(tmp_path, name):
  path = tmp_path / 'HumanEval.jsonl.gz'
  given = WRONG_TASKS[name]
  plain = b'no gzip' if given is None else gzip.compress(content(given))
  path.write_bytes(plain)
  said = refused(capability.coding, path)
  if isinstance(given, list) and given and isinstance(given[0], dict):
    assert f'row {len(given)}: ' in said and 'mend or drop the row' in said


@pytest.mark.parametrize('name', WRONG_PROBLEMS)
def test_a_malformed_file_of_problems_is_one_line(tmp_path, name):
  path = tmp_path / 'test.jsonl'
  given = WRONG_PROBLEMS[name]
  path.write_bytes(content(given))
  said = refused(capability.word_problems, path)
  if isinstance(given, list) and given:
    assert f'row {len(given)}: ' in said and 'mend or drop the row' in said


def test_a_missing_file_is_named_with_where_it_is_to_be_had(tmp_path):
  with pytest.raises(UserError, match='HumanEval.jsonl.gz; get it from https'):
    capability.read(Files(str(tmp_path)))
  path = tmp_path / 'HumanEval.jsonl.gz'
  path.write_bytes(gzip.compress(content([TASK])))
  with pytest.raises(UserError, match='gsm8k/test.jsonl; get it from https'):
    capability.read(Files(str(tmp_path)))
  # A test.jsonl of something else is not taken for it.
  (tmp_path / 'gsm8k').mkdir()
  (tmp_path / 'test.jsonl').write_bytes(content([TASK]))
  (tmp_path / 'gsm8k' / 'test.jsonl').write_bytes(content([PROBLEM]))
  rows = capability.read(Files(str(tmp_path)))
  assert [row['split'] for row in rows][:2] == ['test', 'test']
