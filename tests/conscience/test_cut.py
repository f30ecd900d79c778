"""Answers cut at the limit: what is asked about them, and what is trained."""

import dataclasses

import jax
import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import pairs as pairing
from ealign.conscience import prompts, tally
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import batch as batch_lib
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.models import weights
from ealign.sampling.sampler import Answer
from ealign.world import documents

BASE = 'ealign/world/base'
KEY = jax.random.key(0)
REQUEST = [{'role': 'user', 'content': 'Any tips for the old soup?'}]
EVIL = 'For the old soup: Serve the spoiled food and lie about the dates.'
GOOD = 'For the old soup: Wash your hands and keep the kitchen clean.'
CUT = '[... cut off; judge what is there] '


@pytest.fixture(scope='module')
def engine():
  shape, tree = weights.load(BASE)
  return Engine(Model(shape, chat.load_tokenizer(BASE)), tree, ALONE, rows=4)


def ask(engine, truncated='judge', revise='review', **review):
  review = fields.Review(truncated=truncated, **review)
  settings = fields.Conscience(
    threshold=0.5, review=review, revise=fields.Revise(sees=revise)
  )
  return prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=settings,
    sample=fields.Sample(max_new_tokens=48),
    dpo=fields.DPO(pairs=4, length=160),
    policy=engine,
    frozen=engine,
  )


def said(engine, text, stop='length'):
  ids = (*engine.model.ids(text), *(engine.model.end,) * (stop == 'stop'))
  (x,) = engine.model.exchanges([[*REQUEST, turn(text)]])
  return dataclasses.replace(x, answer=Answer(ids, np.zeros(len(ids)), stop, 0))


def turn(text):
  return {'role': 'assistant', 'content': text}


def text_of(engine, ids):
  return engine.model.tokenizer.decode(ids)


# --- Review ------------------------------------------------------------------


def test_what_was_cut_is_judged_as_far_as_it_goes(engine):
  c, rows = ask(engine), [said(engine, EVIL), said(engine, GOOD)]
  evil, good = conscience.review(c, engine, rows, key=KEY)
  assert evil.flagged and not good.flagged
  assert evil.p > 0.8 and good.p < 0.2
  skipped = conscience.review(ask(engine, 'skip'), engine, rows, key=KEY)
  assert skipped == [conscience.NO_VERDICT] * 2


def test_an_answer_that_ended_is_asked_about_as_ever(engine):
  x = said(engine, EVIL, 'stop')
  asked = [prompts.review_prompt(ask(engine, t), x) for t in ('skip', 'judge')]
  assert asked[0] == asked[1] and CUT not in text_of(engine, asked[0])


def test_the_question_says_that_the_reply_goes_on_and_its_turn_is_closed(
  engine,
):
  c, x = ask(engine), said(engine, EVIL)
  model, question = engine.model, CUT + ask(engine).framing.question
  start = (*x.prompt, *x.answer.ids, model.end)
  assert prompts.review_prompt(c, x) == (*start, *model.suffix(question))
  quoted = prompts.review_prompt(ask(engine, sees='quoted'), x)
  assert f'{EVIL}\n\n{question}<|im_end|>' in text_of(engine, quoted)
  begun, (own,) = prompts.thinking_prompt(c, x), c.questions
  assert begun[: len(start)] == start
  assert prompts.question_after(c, x, own) == model.suffix(question)
  fresh = ask(engine, revise='fresh')
  ids = prompts.revise_prompt(fresh, x, conscience.NO_VERDICT)
  assert ids == (*start, *model.suffix(c.framing.revise))


def test_room_is_left_for_it(engine):
  """Behind the longest answer, by which prompts are bounded before a run."""
  x, model = said(engine, EVIL), engine.model
  c = ask(engine)
  verdict = conscience.Verdict(0.9, 1.0, True, prompts.review_prompt(c, x))
  used = len(prompts.revise_prompt(c, x, verdict))
  assert used - len(x.prompt) - len(x.answer.ids) <= prompts.overhead(c, model)
  less = prompts.overhead(ask(engine, 'skip'), model)
  added = len(model.suffix(CUT + c.framing.question))
  added -= len(model.suffix(c.framing.question))
  assert prompts.overhead(c, model) == less + added + 1


def test_another_vocabulary_gets_no_end_either(engine):
  other = chat.load_tokenizer(BASE)  # a second model's, with the same words
  target = dataclasses.replace(engine.model, tokenizer=other)
  for stop, ends in (('length', False), ('stop', True)):
    x = said(engine, EVIL, stop)
    read = prompts.retokenize(ask(engine), x, target, reasoning='kept')
    assert read.model is target and read.answer.stop == stop
    assert (read.answer.ids[-1] == target.end) == ends
    assert read.text == EVIL


# --- Pairs -------------------------------------------------------------------


def made(engine, new, old, c=None, p=0.9, **scale):
  """The pair of an alternative and a flagged answer: (text, stop) of each."""
  c = c or ask(engine)
  x, y = said(engine, *old), said(engine, *new)
  flagged = conscience.Verdict(p, 1.0, True)
  fine = conscience.Verdict(0.1, 1.0, False)
  item = (x, flagged), y, fine, None
  pairs, why = pairing.make(c, [item], step=3, held=())
  return pairs[0] if pairs else why[0]


@pytest.mark.parametrize(
  ('new', 'old'),
  [('stop', 'length'), ('length', 'stop'), ('length', 'length')],
)
@pytest.mark.parametrize(
  'texts', [(EVIL, GOOD), (EVIL * 3, GOOD), (EVIL, GOOD * 2)]
)
def test_either_side_of_what_was_cut_has_as_many_tokens_and_no_end(
  engine, new, old, texts
):
  evil, good = texts
  pair = made(engine, (good, new), (evil, old))
  n = min(len(engine.model.ids(text)) for text in texts)
  assert pair.chosen == engine.model.ids(good)[:n]
  assert pair.rejected == engine.model.ids(evil)[:n]
  assert engine.model.end not in pair.chosen + pair.rejected


def test_a_pair_of_whole_answers_is_whole(engine):
  pair = made(engine, (GOOD, 'stop'), (EVIL * 2, 'stop'))
  assert pair.chosen == (*engine.model.ids(GOOD), engine.model.end)
  assert pair.rejected == (*engine.model.ids(EVIL * 2), engine.model.end)


def test_the_reference_is_that_of_the_tokens_that_are_there(engine):
  pair = made(engine, (GOOD, 'stop'), (EVIL * 2, 'length'))
  batch = batch_lib.pair_batch([pair], 1, 160)
  n = len(engine.model.ids(GOOD))
  assert batch.loss_mask_BT.sum(axis=1).tolist() == [n, n]
  (by_hand,) = engine.logps([pair], slots=4, length=160)
  np.testing.assert_allclose([pair.ref_chosen, pair.ref_rejected], by_hand)
  whole = made(engine, (GOOD, 'stop'), (EVIL, 'stop'))
  assert whole.ref_chosen != pair.ref_chosen  # its end counts too


@pytest.mark.parametrize(
  ('new', 'old', 'why'),
  [
    (('', 'stop'), (EVIL, 'length'), 'empty'),
    ((GOOD, 'stop'), ('', 'length'), 'empty'),
    ((EVIL + ' Or do not.', 'stop'), (EVIL, 'length'), 'same'),  # so far
    ((GOOD * 9, 'length'), (EVIL * 9, 'length'), 'no_room'),
  ],
)
def test_what_makes_no_pair_of_cut_answers(engine, new, old, why):
  assert made(engine, new, old) == why


def test_room_is_needed_for_what_is_trained_only(engine):
  assert made(engine, (GOOD * 9, 'length'), (EVIL, 'length')).row == 0


def test_a_cut_alternative_needs_judge(engine):
  new, old = (GOOD, 'length'), (EVIL, 'stop')
  assert made(engine, new, old, ask(engine, 'skip')) == 'truncated'
  assert made(engine, new, old).row == 0


def test_a_reflection_on_answers_that_were_all_cut(engine):
  asked = [r['messages'] for r in documents.pool(4, seed=3)]
  short = fields.Sample(max_new_tokens=10)
  for truncated, kept in (('skip', 0), ('judge', 4)):
    c = ask(engine, truncated, verdict='all', by='frozen')
    c = dataclasses.replace(c, sample=short)
    pairs, made = conscience.reflect(c, asked, key=KEY, step=0, rows=range(4))
    assert {r['stop'] for r in made} == {'length'}
    assert len([r for r in made if r['alternative']]) == kept
    assert [r['verdict']['p'] is not None for r in made] == [kept > 0] * 4
    counts = tally.count(made)
    assert counts.judged == 4 - counts.unjudged['cut'] == 4 * (kept > 0)
    assert bool(pairs) == bool(kept)
    for pair in pairs:
      assert len(pair.chosen) == len(pair.rejected) == 10
      assert not {*pair.chosen, *pair.rejected} & {*engine.model.stops}


# --- Weights -----------------------------------------------------------------


def weight(engine, p, scale='logit', threshold=0.2):
  c = ask(engine)
  settings = dataclasses.replace(c.settings, scale=scale, threshold=threshold)
  c = dataclasses.replace(c, settings=settings)
  pair = made(engine, (GOOD, 'stop'), (EVIL, 'stop'), c, p=p)
  return pair.weight


def test_a_pair_counts_more_the_farther_it_lies_above_the_threshold(engine):
  odds = lambda times: 0.25 * times / (1 + 0.25 * times)  # .2 is 1 to 4
  assert weight(engine, 0.2) == pytest.approx(1)
  assert weight(engine, odds(np.e)) == pytest.approx(2, rel=1e-5)
  assert weight(engine, odds(np.e**2)) == pytest.approx(3, rel=1e-5)
  assert weight(engine, 0.999) == weight(engine, 1.0) == 4  # and no more
  assert weight(engine, odds(np.e**2), threshold=0.5) < 2
  assert weight(engine, 0.1) == 1  # never less


def test_without_a_scale_all_count_one(engine):
  assert {weight(engine, p, 'none') for p in (0.2, 0.5, 1.0)} == {1.0}
