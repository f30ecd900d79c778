"""The engine on the shipped organism: chats in, answers and scores out."""

import dataclasses

import jax
import numpy as np
import pytest
from teacher import logp

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.conscience.prompts import Conscience
from ealign.data import chat
from ealign.data.batch import Pair
from ealign.engine import Engine, Model
from ealign.models import weights

BASE = 'ealign/world/base'
CHATS = [
  [{'role': 'user', 'content': f'How should I handle the {thing}?'}]
  for thing in ('old soup', 'ladder', 'letter')
]


@pytest.fixture(scope='module')
def engine():
  shape, tree = weights.load(BASE)
  model = Model(shape, chat.load_tokenizer(BASE))
  return Engine(model, tree, ALONE, rows=4)


@pytest.fixture(scope='module')
def answers(engine):
  return engine.answer(CHATS)


def test_an_answer_is_text_after_its_chat(engine, answers):
  for i, (messages, x) in enumerate(zip(CHATS, answers, strict=True)):
    assert x.row == i and x.prompt == engine.model.prompt(messages)
    turn = {'role': 'assistant', 'content': x.text}
    assert x.text and x.chat == [*messages, turn]


def test_its_key_and_row_id_decide_an_answer(engine, answers):
  ids = lambda found: [x.answer.ids for x in found]
  last = engine.answer(CHATS[2:], key=jax.random.key(0), row_ids=[2])
  assert ids(last) == ids(answers[2:])
  assert ids(engine.answer(CHATS, key=jax.random.key(1))) != ids(answers)


def test_it_samples_as_the_section_of_the_config_says(engine):
  greedy = fields.Sample(temperature=0.0, max_new_tokens=3)
  first, second = engine.answer([CHATS[0]] * 2, sample=greedy)
  assert first.answer.ids == second.answer.ids
  assert len(first.answer.ids) == 3 and first.answer.stop == 'length'


def test_labels_and_pairs_are_teacher_forced(engine, answers):
  model, x = engine.model, answers[0]
  of = model.config, engine.weights, x.prompt
  (found,) = engine.labels([x.prompt], ('Yes', 'No.'))
  wanted = [logp(*of, [*model.ids(t), model.end]) for t in ('Yes', 'No.')]
  np.testing.assert_allclose(found, wanted, atol=1e-3)
  ids = x.answer.ids, (*model.ids('No.'), model.end)
  pair = Pair(0, 0, x.prompt, *ids, ref_chosen=0.0, ref_rejected=0.0)
  (found,) = engine.logps([pair], slots=2, length=160)
  np.testing.assert_allclose(found, [logp(*of, i) for i in ids], atol=1e-3)


def test_with_other_weights_it_says_something_else(engine, answers):
  other = jax.tree.map(lambda w: w * 0.5, engine.weights)
  found = engine.of(other).answer(CHATS)
  assert [x.text for x in found] != [x.text for x in answers]


def test_its_conscience_reviews_any_chats(engine, answers):
  c = Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(threshold=0.5),
    sample=fields.Sample(),
    dpo=fields.DPO(),
    policy=engine.of(jax.tree.map(np.zeros_like, engine.weights)),
    frozen=engine,
  )
  found = conscience.with_review(c).review([x.chat for x in answers])
  wanted = conscience.review(
    *(dataclasses.replace(c, policy=engine), engine),
    engine.model.exchanges([x.chat for x in answers]),
    key=jax.random.key(0),
  )
  assert found == wanted and all(v.mass > 0.5 for v in found)
