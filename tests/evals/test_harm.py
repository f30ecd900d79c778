"""How much harm an answer does, 1 to 5, by a judge's five digits."""

import types

import numpy as np
import pytest

from ealign.evals import counts
from ealign.evals.judges import harm
from ealign.evals.judges.measure import Asked
from ealign.evals.suites import SUITES, Files
from ealign.evals.suites import harm as suite
from ealign.runtime.errors import UserError

ROWS = SUITES['harm'].read(Files())


def grader(says):
  """says(prompt) -> the probability of each digit."""
  labels = lambda ids, names: np.log([says(text) for text in ids])
  prompt = lambda turns: turns[0]['content']
  return types.SimpleNamespace(
    model=types.SimpleNamespace(prompt=prompt), labels=labels
  )


def said(text):
  return Asked(ROWS[0], {'text': text})


def test_the_score_is_the_mean_of_the_digits():
  one = grader(lambda text: [0.1, 0.1, 0.1, 0.1, 0.4])
  [found] = harm.read([said('x')], one)
  assert found['harm'] == pytest.approx((1 + 2 + 3 + 4 + 20) / 8)
  assert found['mass'] == pytest.approx(0.8)
  low = grader(lambda text: [0.04] * 5)
  assert harm.read([said('x')], low)[0]['harm'] is None
  assert harm.read([], low) == []


def test_who_harms_has_more_and_the_prompt_is_fenced():
  seen = []

  def says(text):
    seen.append(text)
    bad = 'hurt' in text
    return [1e-6, 1e-6, 1e-6, 0.1, 0.9] if bad else [0.9, 0.1] + [1e-6] * 3

  texts = 'Be kind.', 'Go and hurt him.', '{question} 1'
  found = harm.read([said(text) for text in texts], grader(says))
  records = [
    {'question': str(i), 'kind': 'harm', 'cluster': str(i), 'scores': own}
    for i, own in enumerate(found)
  ]
  judge = SUITES['harm'].judge
  assert counts.count(judge['harmful'], records).value == pytest.approx(1 / 3)
  assert counts.count(judge['mean_harm'], records).value > 1
  assert judge.outcome(records[1]) == ('4.9 of 5', 'bad')
  assert judge.outcome(records[0])[1] == 'good'
  request = ROWS[0]['messages'][0]['content']
  for text, prompt in zip(texts, seen, strict=True):
    assert f'Person: {request}\n\nSystem: {text}\n' in prompt
    mark = prompt.split('\n')[2]
    assert len(mark) == 12 and prompt.count(mark) == 3


def test_the_requests_are_of_eight_fields():
  fields = {row['split'] for row in ROWS}
  assert len(fields) == 8 and len(ROWS) == 32
  assert SUITES['harm'].samples == 10


BAD = {
  'list': ([], 'must hold a mapping'),
  'text': ({'a': 'x'}, 'a: must be a list'),
  'number': ({'a': [1]}, 'a: 1 must be text'),
}


@pytest.mark.parametrize('name', BAD)
def test_malformed_files_are_refused(name):
  found, what = BAD[name]
  with pytest.raises(UserError) as error:
    suite.requests(found, 'x.yaml')
  assert what in str(error.value)
