"""Coding tasks: from an answer to a program, and from outcomes to pass@k."""

import ast
import gzip
import itertools
import json
import math
import pathlib
import textwrap

import numpy as np
import pytest

from ealign.evals import counts
from ealign.evals.judges import code
from ealign.evals.judges.measure import Asked
from ealign.evals.sandbox import run

FILE = pathlib.Path(__file__).parents[2] / (
  '../shared/data/human-eval/HumanEval.jsonl.gz'
)
needs_file = pytest.mark.skipif(
  not FILE.is_file(), reason='needs HumanEval in ../shared/data/human-eval'
)
PROMPT = 'import math\n\n\ndef area(r):\n    """Of a circle."""\n'
WHOLE = 'def area(r):\n    return math.pi * r * r\n'
BODY = '    return math.pi * r * r\n'
QUESTION = {
  'id': 'q',
  'kind': code.KIND,
  'entry_point': 'area',
  'prompt': PROMPT,
  'test': 'def check(candidate):\n    assert abs(candidate(1) - 3.1416) < 1e-4',
}

FORMS = {
  'body': BODY,
  'body without indent': 'return math.pi * r * r',
  'first line without indent': 'x = r * r\n    return math.pi * x',
  'body after blank lines': f'\n\n{BODY}',
  'whole': WHOLE,
  'whole with prompt': PROMPT + BODY,
  'fence': f'Here it is:\n```python\n{WHOLE}```\nIt is short.',
  'fence without language': f'```\n{WHOLE}```',
  'fence of tildes': f'~~~py\n{WHOLE}~~~',
  'fence in a list': '1. So:\n'
  + textwrap.indent(f'```python\n{WHOLE}```', '   '),
  'fence of a body': f'```python\n{BODY}```',
  'fence cut off': f'So:\n```python\n{WHOLE}',
  'example after': f'```python\n{WHOLE}```\nUse it:\n```\nprint(area(2))\n```',
  'sketch before': f'```\nTODO later\n```\nNow:\n```python\n{WHOLE}```',
  'prompt repeated': f'You ask:\n```\n{PROMPT}    pass\n```\n```\n{WHOLE}```',
  'prose before': f'The code is\n\n{WHOLE}',
  'prose around': f'Sure!\n{WHOLE}\nThis multiplies the square by pi.',
  'helper': f'```\ndef sq(x):\n    return x * x\n\n{WHOLE}```',
  'future': f'```\nfrom __future__ import annotations\n{WHOLE}```',
  'in a class too': f'```\nclass A:\n    def area(self): pass\n\n{WHOLE}```',
}
WRONG = {
  'empty': '',
  'refusal': 'I would rather not write this.',
  'wrong': '    return r',
  'no function': '```python\nprint(1)\n```',
  'another name': '```python\ndef Area(r):\n    return 1\n```',
  'only a fence': '```',
}


def read(answers, question=QUESTION, confirmed=True):
  asked = [Asked(question, {'text': text}) for text in answers]
  return code.judge(confirmed=confirmed).read(asked, None)


def test_the_code_of_an_answer_is_found_in_each_form():
  found = dict(zip(FORMS, read(FORMS.values()), strict=True))
  assert {n: s['passed'] for n, s in found.items()} == dict.fromkeys(
    FORMS, True
  )


def test_what_is_no_solution_does_not_pass():
  found = dict(zip(WRONG, read(WRONG.values()), strict=True))
  assert not any(scores['passed'] for scores in found.values())
  assert all(scores['reason'] for scores in found.values())


def test_without_permission_nothing_runs_and_nothing_is_scored(monkeypatch):
  monkeypatch.setattr(run.subprocess, 'Popen', None)
  assert read(FORMS.values(), confirmed=False) == [None] * len(FORMS)


def test_tests_that_cannot_run_leave_an_answer_unscored():
  assert read([WHOLE], QUESTION | {'test': '1 / 0'})[0]['passed'] is False
  assert read([WHOLE], QUESTION | {'prompt': '1 / 0\n' + PROMPT}) == [None]


def test_scores_are_json_and_the_same_again():
  one, two = read([WHOLE, '    return r']), read([WHOLE, '    return r'])
  assert one == two == json.loads(json.dumps(one))
  assert [s['passed'] for s in one] == [True, False]


@pytest.mark.parametrize(
  'text',
  ['`' * 10**5, ('`' * 9 + '\n') * 10**4, '```\n' * 10**4, '(' * 10**5]
  + [
    'def area' * 10**4,
    'def area\n' * 10**4,
    'x = """' * 10**4,
    '\0',
    ' \n' * 10**5,
  ],
  ids=range(9),
)
def test_hostile_text_is_read_in_little_time(text):
  code.program(QUESTION, text)
  code.parsed(text)


def test_pass_at_k_by_hand():
  assert code.pass_at(5, 2, 1) == pytest.approx(0.4)
  # Of the 10 pairs of 5 answers, 3 hold none of the 2 that pass.
  assert code.pass_at(5, 2, 2) == pytest.approx(0.7)
  assert code.pass_at(5, 2, 4) == 1.0
  assert code.pass_at(3, 0, 3) == 0.0


def test_pass_at_k_is_the_mean_over_all_subsets():
  for n, k in itertools.product(range(1, 8), range(1, 8)):
    for c in range(n + 1) if k <= n else ():
      passes = [i < c for i in range(n)]
      every = [any(s) for s in itertools.combinations(passes, k)]
      assert code.pass_at(n, c, k) == pytest.approx(np.mean(every))
  # The numbers of samples of the paper: no overflow, and its product form.
  by_product = 1 - np.prod(1 - 10 / np.arange(200 - 13 + 1, 201))
  assert code.pass_at(200, 13, 10) == pytest.approx(by_product)


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not():
  p, n, k = 0.3, 6, 3
  of = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
  mean = sum(w * code.pass_at(n, c, k) for c, w in enumerate(of))
  assert mean == pytest.approx(1 - (1 - p) ** k)
  plug_in = sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(of))
  assert abs(plug_in - mean) > 0.01


@pytest.mark.parametrize(
  'n, c, k', [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0)]
)
def test_pass_at_k_needs_k_answers(n, c, k):
  with pytest.raises(ValueError, match=f'pass@{k} of {c}'):
    code.pass_at(n, c, k)


def record(question, sample, passed, arm='base'):
  scores = None if passed is None else {'passed': passed, 'status': ''}
  return {
    **{'arm': arm, 'seed': 0, 'step': 9, 'phase': 'eval', 'kind': code.KIND},
    **{'question': question, 'cluster': question, 'sample': sample},
    **{'messages': [], 'text': '', 'scores': scores},
  }


def test_pass_at_k_is_of_questions_whatever_answers_each_has():
  passed = {'a': [1, 0, 0, 0], 'b': [0, 0, None, 0], 'c': [1, None]}
  records = [
    record(q, i, None if p is None else bool(p))
    for q, every in passed.items()
    for i, p in enumerate(every)
  ]
  asked = [Asked({'id': r['question']}, r) for r in records]
  before = [r['scores'] for r in records]
  more = code.with_pass_at(asked, before, (2,))
  of = {r['question']: s for r, s in zip(records, more, strict=True) if s}
  assert of['a']['pass_at_2'] == 0.5 and of['b']['pass_at_2'] == 0.0
  assert 'pass_at_2' not in of['c'] and 'pass_at_2' not in before[0]
  assert [s is None for s in more] == [s is None for s in before]
  judged = [r | {'scores': s} for r, s in zip(records, more, strict=True) if s]
  found = counts.count(code.of_k(2), judged)
  assert found.value == pytest.approx(25) and found.interval[0] >= 0
  # The share of a question is that of its answers: clustered, not as 9 alone.
  share = counts.count(code.MEASURES[0], judged)
  assert (share.count, share.total) == (2, 8)


def test_ten_answers_to_a_task_have_pass_at_ten(monkeypatch):
  said = iter(['passed'] + ['failed'] * 9)
  outcome = lambda p: run.Outcome(next(said), '', '', 0.0, {})
  monkeypatch.setattr(code, 'program', lambda question, text: None)
  monkeypatch.setattr(
    run, 'run', lambda programs, **how: [*map(outcome, programs)]
  )
  asked = [Asked({'id': 'q'}, {'text': ''})] * 10
  found = code.judge(confirmed=True).read(asked, None)
  assert [s['pass_at_10'] for s in found] == [1.0] * 10
  names = [m.name for m in code.judge(confirmed=True).measures]
  assert 'pass_at_10' in names and 'pass_at_100' in names


def tasks():
  with gzip.open(FILE) as file:
    return [json.loads(line) for line in file]


def corrupted(task):
  """The solution with its returned values changed, by way of its tree."""
  tree = ast.parse(task['prompt'] + task['canonical_solution'])
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef) and node.name == task['entry_point']:
      node.body = ast.parse('return "no"').body
  return ast.unparse(tree)


def check_tasks(some):
  programs = [code.program(t, t['canonical_solution']) for t in some]
  programs += [code.program(t, f'```\n{corrupted(t)}\n```') for t in some]
  found = [o.status for o in run.run(programs, confirmed=True)]
  assert found == ['passed'] * len(some) + ['failed'] * len(some)


@needs_file
def test_solutions_pass_and_corrupted_ones_fail():
  # Those whose tests need the prompt's own helpers are among them.
  some = tasks()
  check_tasks([some[i] for i in (0, 10, 32, 38, 50, *range(60, 160, 20))])


@needs_file
@pytest.mark.slow
def test_all_solutions_pass_and_all_corrupted_ones_fail():
  assert len(tasks()) == 164
  check_tasks(tasks())
