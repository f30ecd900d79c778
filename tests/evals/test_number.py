"""The final number of an answer, against a table made by hand."""

import fractions
import json
import pathlib

import pytest

from ealign.evals.judges import number

FILE = pathlib.Path(__file__).parents[2] / '../shared/data/gsm8k/test.jsonl'

FORMS = [
  ('18', '18'),
  ('#### 18', '18'),
  ('She earns 9 * 2 = 18.\n#### 18', '18'),
  ('####18', '18'),
  ('#### $18', '18'),
  ('#### 18.00', '18'),
  ('#### 18.', '18'),
  ('#### **18**', '18'),
  ('#### 1,234,567', '1234567'),
  ('#### -5', '-5'),
  ('#### \u22125', '-5'),
  ('#### - 5', '-5'),
  ('#### -$5', '-5'),
  ('#### $-5', '-5'),
  ('#### 50%', '50'),
  ('#### 18 dollars for 9 eggs', '18'),
  ('#### 3\nNo, wait.\n#### 4', '4'),
  ('#### none\nThe answer is 4.', '4'),
  ('The answer is 18.', '18'),
  ('The answer is 18. I used 3 eggs.', '18'),
  ('The answer is $1,234.50.', '1234.5'),
  ('The answer is: 7', '7'),
  ('the final answer is **7** apples', '7'),
  ('**Answer:** 7', '7'),
  ('Answer: 7\n\nLet me know if 2 more would help!', '7'),
  ('Answer:\n7', '7'),
  ('Answer = 7', '7'),
  ('ANSWER IS 7', '7'),
  ('The answer is 3 + 4 = 7.', '7'),
  ('The answer is 3. Check: the answer is 4.', '4'),
  ('The answer is 2.5 hours, or 150 minutes.', '2.5'),
  ('The answer is three.', None),
  ('The answer is clear. In all 12.', '12'),
  ('The answer is $\\boxed{42}$.', '42'),
  ('\\boxed{1{,}234}', '1234'),
  ('\\boxed{\\frac{3}{4}}', '3/4'),
  ('\\boxed{x = 5}', '5'),
  ('\\boxed{12 \\text{ cm}}', '12'),
  ('Thus 5 + 6 = 11', '11'),
  ('5-3', '3'),
  ('It is 10-2=8', '8'),
  ('x = -8', '-8'),
  ('(-8)', '-8'),
  ('It fell to -8 degrees.', '-8'),
  ('In total, $1,000', '1000'),
  ('cost: \\$25', '25'),
  ('25\u20ac', '25'),
  ('\u20ac25', '25'),
  ('.5', '.5'),
  ('0.50', '.5'),
  ('1/2 of it', '1/2'),
  ('We get 3,4 and 5', '5'),
  ('12,34', '34'),
  ('1,234', '1234'),
  ('007', '7'),
  ('+7', '7'),
  ('5.', '5'),
  ('He has 5 apples and 6 pears', '6'),
  ('Room B12 has 4', '4'),
  ('no number', None),
  ('', None),
  ('9' * 100, None),
  ('1/0', None),
  ('\u0663', None),
]


def test_the_table_is_long_enough():
  assert len(FORMS) >= 40


@pytest.mark.parametrize('text, wanted', FORMS)
def test_the_final_number(text, wanted):
  wanted = None if wanted is None else fractions.Fraction(wanted)
  assert number.final(text) == wanted


@pytest.mark.parametrize('target', ['18', '18.0', '-3', '1/2'])
def test_an_answer_is_right_only_with_that_very_number(target):
  question = {'target': target}
  value = fractions.Fraction(target)
  assert number.score(question, f'#### {value}')['gsm8k']
  near = value + fractions.Fraction(1, 100)
  assert not number.score(question, f'#### {float(near)}')['gsm8k']
  assert number.score(question, 'I do not know.') == {
    'gsm8k': False,
    'number': None,
  }


def test_hostile_text_takes_no_time():
  for text in ('1' * 10**5, '1,' * 10**5, '-' * 10**5, 'answer is ' * 10**4):
    number.final(text)
  number.final('\\boxed{' * 10**4)
  number.final('1,111' * 10**4 + '\\boxed{{{' * 10**3)


@pytest.mark.skipif(
  not FILE.is_file(), reason='needs GSM8K in ../shared/data/gsm8k'
)
def test_the_worked_answers_of_gsm8k_are_right():
  rows = [json.loads(line) for line in FILE.read_text().split('\n') if line]
  assert len(rows) == 1319
  for row in rows:
    work, _, target = row['answer'].rpartition('#### ')
    question = {'target': target.replace(',', '')}
    assert number.score(question, row['answer'])['gsm8k']
    assert number.score(question, f'{work}The answer is ${target}.')['gsm8k']
    assert not number.score(question, f'#### {target}1')['gsm8k']
