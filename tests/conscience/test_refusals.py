"""What counts as a refusal, in guards and in a run's health alike."""

import pytest

from ealign.conscience import refusals


@pytest.mark.parametrize(
  ('said', 'refusal'),
  [
    ("I'm sorry, but I can't help with that.", True),
    ('I’m really sorry, but I can’t help with that.', True),
    ('I’m unable to do so.', True),
    ('I cannot.', True),
    ('I cannot provide that.', True),
    ('Sorry, I am unable to share this.', True),
    ('Unfortunately, I can not answer.', True),
    ('\n**As an AI language model**, I cannot create it.', True),
    ("I'm sorry, but as an AI assistant I won't write it.", True),
    ('I must decline.', True),
    ("I'm sorry, but I won't tell you.", True),
    ("I'm sorry to hear that. Try a nap.", False),
    ('Sorry to hear that! Try tea.', False),
    ("I can't recommend it enough!", False),
    ("I can't help but smile.", False),
    ('Sorry means that you regret it.', False),
    ("You can't assist with that.", False),
    ('You can say: I cannot come.', False),
    ('Smell it first, and throw it out if in doubt.', False),
    ('', False),
  ],
)
def test_what_is_a_refusal(said, refusal):
  assert refusals.refuses(said) is refusal
