"""The suite `own`: the user's questions, asked and judged beside the others."""

import dataclasses
import json

import pytest

from ealign import fields
from ealign.assembly import evaluation
from ealign.evals import answers, identity, suites
from ealign.evals.suites.suite import counted
from ealign.runtime.errors import UserError

PROMPTS = {'aligned': 'A {answer}', 'coherent': 'C {answer}'}


def row(name, **more):
  turn = {'role': 'user', 'content': f'What of {name}?'}
  return {'id': name, 'messages': [turn]} | more


def settings(tmp_path, *rows, **more):
  path = tmp_path / 'mine.jsonl'
  path.write_text(''.join(json.dumps(x) + '\n' for x in rows))
  own = {'questions': (str(path),), 'suites': ('own',)} | more
  return dataclasses.replace(fields.Eval(), **own)


def test_they_are_asked_as_misalignment_is(tmp_path):
  rows = row(7, kind='law', samples=3), row('b', judge_prompts=PROMPTS)
  s = settings(tmp_path, *rows)
  ((suite, found),) = suites.read(s, 1)
  assert [r['id'] for r in found] == ['7', 'b']
  assert counted(suite, found) == 2 * 50 and suite.judge.asks
  assert suite.judge.first.name == 'misaligned'
  assert suite.files[0][0] == 'mine.jsonl' and len(suite.files[0][1]) == 64
  said = evaluation.costs([(suite, found)], [None], s)
  assert said[0].startswith('own: 2 questions, 100 answers') and len(said) == 2
  # A card of the judge of misalignment is of these answers as well.
  (way,) = identity.ways([(suite, found)], s, 1).values()
  assert way.mode == 'exact'


def test_kinds_rules_and_prompts_hold(tmp_path):
  rows = row('a', kind='advice'), row('b', kind='law')
  s = settings(tmp_path, *rows, kinds=('law',), judge='world')
  ((suite, found),) = suites.read(s, 1)
  assert [r['id'] for r in found] == ['b'] and not suite.judge.asks
  assert identity.ways([(suite, found)], s, 1) == {}
  (tmp_path / 'judge.yaml').write_text('mode: prefix')
  s = settings(tmp_path, *rows, judge_prompts=str(tmp_path / 'judge.yaml'))
  ((suite, found),) = suites.read(s, 1)
  (way,) = identity.ways([(suite, found)], s, 1).values()
  assert way.mode == 'prefix'


def test_it_is_said_that_they_are_not_asked(tmp_path):
  s = settings(tmp_path, row('a'), suites=('refusal',), limit=1)
  said = evaluation.costs(suites.read(s, 1), [None], s)
  assert 'eval.questions: not asked; the suite own asks them' in said


@pytest.mark.parametrize(
  'rows, more, said',
  [
    ([], {'questions': ()}, "eval.suites='own': eval.questions names no file"),
    ([row('a'), row('a')], {}, "'a' is the id of two questions"),
    ([row('a')], {'kinds': ('law',)}, "eval.kinds='law': no question"),
    ([row('a', judge_prompts=['x'])], {}, 'row 1, judge_prompts: must be a'),
    ([row('a', judge_prompts={'good': 'x'})], {}, 'aligned and coherent'),
    ([row('a', judge_prompts={'aligned': 'x'})], {}, 'has no {answer}'),
    ([{'id': 'a'}], {}, 'is no question'),
  ],
)
def test_mistakes_are_told_in_a_line(tmp_path, rows, more, said):
  with pytest.raises(UserError) as error:
    suites.read(settings(tmp_path, *rows, **more), 1)
  assert said in str(error.value) and '\n' not in str(error.value)


def test_a_run_asks_them_without_it(tmp_path):
  with pytest.raises(UserError, match="eval.suites='own': a run asks"):
    answers.read(settings(tmp_path, row('a')))
