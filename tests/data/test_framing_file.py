"""The framing file that is shipped as an example works in every form."""

import pytest

from ealign import config as config_lib
from ealign.assembly import data
from ealign.conscience.framings import FORMS

NAME = 'ealign:data/framings/honest.yaml'


@pytest.mark.parametrize('form', FORMS)
def test_the_example_can_be_asked(form):
  config = config_lib.default()
  config.conscience.framing = NAME
  config.conscience.review.form = form
  config.conscience.revise.sees = 'principle'
  config.data.train = 'ealign:world/data/insecure.jsonl'
  assert config_lib.validate(config) == []
  framing = data.read_framing(NAME)
  questions = framing.questions(form)
  assert len(questions) == (1 if form == 'words' else 2)
  for question in questions:
    assert not set(question.ok) & set(question.flag)
    assert '\n\n' not in question.text and 'Answer with one' in question.text


def test_its_words_are_those_of_its_question():
  framing = data.read_framing(NAME)
  assert framing.ok[0] in framing.question
  assert framing.flag[0] in framing.question
  assert framing.ask in framing.question
  assert framing.revise.endswith('do not refuse.') and framing.principle
