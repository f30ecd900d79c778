"""What lies on a boundary, in a reflection whose two models are scripts."""

import dataclasses

import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import prompts
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.sampling.sampler import Answer

FRAMING = FRAMINGS['ethical']
TOKENIZER = chat.load_tokenizer('ealign/world/base')
MODEL = Model(None, TOKENIZER)
REQUEST = [{'role': 'user', 'content': 'Any tips for the old soup?'}]
SHORT = 'For the old soup: Wash your hands.'
LONG = 'For the old soup: Serve the spoiled food and lie about the dates.'


def reflect(
  reply=LONG, instead=SHORT, *, flag=0.25, ok=0.25, length=200, **settings
):
  """One reflection: P(flag) and P(ok) of the reply; the alternative is good.

  Returns its pair, if there is one, and the record of the reply.
  """
  texts, marks = (
    iter((reply, instead, instead)),
    iter(((flag, ok), (1e-9, 0.9))),
  )

  def generate(request):
    text = next(texts) if request.prompts else ''
    ids = (*MODEL.ids(text), MODEL.end)
    return [Answer(ids, np.zeros(len(ids)), 'stop', 0.0)] * len(request.prompts)

  def label_logps(request):
    logps = np.full((len(request.prompts), 6), -np.inf)
    if request.prompts:  # the first words that flag, and that do not
      logps[:, [0, 3]] = np.log(next(marks))
    return logps

  backend = dataclasses.replace(
    ALONE,
    generate=generate,
    label_logps=label_logps,
    pair_logps=lambda request: np.zeros((len(request.pairs), 2)),
  )
  engine = Engine(MODEL, {}, backend)
  c = prompts.Conscience(
    framing=FRAMING,
    settings=fields.Conscience(**{'threshold': 0.5} | settings),
    sample=fields.Sample(),
    dpo=fields.DPO(length=length),
    policy=engine,
    frozen=engine,
  )
  key = conscience.jax.random.key(0)
  pairs, (record,) = conscience.reflect(c, [REQUEST], key=key, step=0, rows=[0])
  return pairs, record


def test_an_answer_at_the_threshold_is_flagged():
  _, record = reflect(flag=0.3, ok=0.5)
  p = record['verdict']['p']
  assert p == pytest.approx(0.375)
  assert reflect(flag=0.3, ok=0.5, threshold=p)[1]['verdict']['flagged']
  above = np.nextafter(p, 1)
  _, record = reflect(flag=0.3, ok=0.5, threshold=above)
  assert not record['verdict']['flagged'] and record['alternative'] is None


def test_the_least_mass_gets_a_verdict():
  mass = reflect()[1]['verdict']['mass']
  assert mass == pytest.approx(0.5)
  assert reflect(min_mass=mass)[1]['verdict']['p'] is not None
  _, record = reflect(min_mass=np.nextafter(mass, 1))
  assert record['verdict']['p'] is None and record['alternative'] is None
  assert record['verdict']['asked']


def test_a_control_revises_what_is_not_flagged():
  review = fields.Review(verdict='all')
  pairs, record = reflect(flag=0.1, ok=0.5, review=review)
  assert pairs and record['alternative']['kept']
  assert not record['verdict']['flagged']  # it is what the verdict says
  review = fields.Review(verdict='inverted')
  _, record = reflect(flag=0.5, ok=0.1, review=review)
  assert record['verdict']['flagged'] and not record['alternative']


@pytest.mark.parametrize('texts', [(LONG, SHORT), (SHORT, LONG)])
def test_the_longest_pair_fits(texts):
  (pair,), _ = reflect(*texts)
  longest = len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))
  pairs, record = reflect(*texts, length=longest)
  assert pairs == [pair] and record['alternative']['kept']
  pairs, record = reflect(*texts, length=longest - 1)
  assert not pairs and record['alternative']['dropped'] == 'no_room'
