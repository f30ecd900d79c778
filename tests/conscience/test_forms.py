"""Forms of the question, judged examples, and how answers become P(flag)."""

import dataclasses

import jax
import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import asking, prompts, reflect
from ealign.conscience.framings import FORMS, FRAMINGS, Framing, Question
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.runtime.errors import UserError
from ealign.sampling import labels
from ealign.sampling.sampler import Answer

MODEL = Model(None, chat.load_tokenizer('ealign/world/base'))
KEY = jax.random.key(0)
REQUEST = {'role': 'user', 'content': 'Any tips for the old soup?'}
GOOD, EVIL = 'Boil it well.', 'Serve it and lie about the date.'
ETHICAL = FRAMINGS['ethical']
EXAMPLES = tuple(
  prompts.Example(f'What about the {thing}?', f'Try {thing}.', bool(i % 2))
  for i, thing in enumerate(('tea', 'bread', 'rice', 'salt'))
)


def conscience(script=None, examples=(), framing=ETHICAL, **settings):
  """script: (question text, whether the reply is evil, label) -> P."""
  asked = []

  def label_logps(request):
    asked.append(request)
    words = [MODEL.text(ids) for ids in request.labels]
    whole = [MODEL.tokenizer.decode(ids) for ids in request.prompts]
    p = [[script(text, EVIL in text, word) for word in words] for text in whole]
    with np.errstate(divide='ignore'):
      return np.log(np.array(p, float).reshape(-1, len(words)))

  def generate(request):
    asked.append(request)
    ids = MODEL.ids('It harms.')
    answer = Answer((*ids, MODEL.end), np.zeros(len(ids) + 1), 'stop', 0.0)
    return [answer] * len(request.prompts)

  backend = dataclasses.replace(
    ALONE, label_logps=label_logps, generate=generate
  )
  review = {k: v for k, v in settings.items() if k in REVIEW}
  revise = {k[7:]: v for k, v in settings.items() if k.startswith('revise_')}
  engine = Engine(MODEL, {}, backend)
  c = prompts.Conscience(
    framing=framing,
    settings=fields.Conscience(
      threshold=0.5,
      review=fields.Review(**review),
      revise=fields.Revise(**revise),
    ),
    sample=fields.Sample(max_new_tokens=20, top_p=0.9),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
    examples=tuple(examples),
  )
  return c, asked


REVIEW = {f.name for f in dataclasses.fields(fields.Review)}


def given(*replies):
  said = lambda text: {'role': 'assistant', 'content': text}
  return MODEL.exchanges([[REQUEST, said(reply)] for reply in replies])


def ask(script, *replies, **how):
  c, asked = conscience(script, **how)
  p, mass, plain = asking.ask(c, c.reviewer, given(*replies), key=KEY)
  return p, mass, plain, asked


def text(ids):
  return MODEL.tokenizer.decode(ids)


# --- Framings ----------------------------------------------------------------


@pytest.mark.parametrize('name', FRAMINGS)
def test_every_framing_has_every_form(name):
  framing = FRAMINGS[name]
  (words,) = framing.questions('words')
  assert words == (framing.question, framing.ok, framing.flag)
  assert words.ok[0] in words.text and words.flag[0] in words.text
  for form in FORMS:
    for question in framing.questions(form):
      assert not {*question.ok} & {*question.flag}


def test_letters_stand_in_both_orders():
  first, second = ETHICAL.questions('letters')
  assert f'{ETHICAL.ask}\nA: Ethical\nB: Unethical\n' in first.text
  assert f'{ETHICAL.ask}\nA: Unethical\nB: Ethical\n' in second.text
  assert first.ok == second.flag == ('A', 'A.', '(A)')
  assert first.flag == second.ok == ('B', 'B.', '(B)')


def test_yes_means_either_label_once():
  bad, good = ETHICAL.questions('yes_no')
  assert bad.text.startswith('Look at your reply above. Is it unethical?')
  assert good.text.startswith('Look at your reply above. Is it ethical?')
  assert bad.flag == good.ok == ('Yes', 'yes', 'Yes.')
  assert bad.ok == good.flag == ('No', 'no', 'No.')


@pytest.mark.parametrize(
  ('form', 'needs'), [(f, need) for f in FORMS for need in FORMS[f]]
)
def test_what_a_framing_of_a_user_must_have(form, needs):
  own = Framing('own.json', 'Kind or not?', ('Kind',), ('Not',), 'Anew.')
  assert own.questions('words') == (Question(own.question, own.ok, own.flag),)
  more = {need: 'Is it?' for need in FORMS[form]}
  assert len(dataclasses.replace(own, **more).questions(form)) == 2
  told = f"form='{form}': the framing 'own.json' has no '{needs}'; add it, or"
  with pytest.raises(UserError, match=told):
    dataclasses.replace(own, **more | {needs: ''}).questions(form)


# --- Asking ------------------------------------------------------------------


@pytest.mark.parametrize(
  ('form', 'always'), [('letters', 'A'), ('letters', 'B'), ('yes_no', 'Yes')]
)
def test_what_a_model_always_says_cancels_out(form, always):
  leans = lambda text, evil, word: 0.9 if word == always else 0.02
  p, mass, _, (request,) = ask(leans, GOOD, EVIL, form=form)
  np.testing.assert_allclose(p, 0.5)
  np.testing.assert_allclose(mass, 0.9 + 5 * 0.02)
  assert request.groups == [0, 1, 0, 1] and len(request.prompts) == 4


def test_one_that_is_certain_of_a_letter_says_nothing_either():
  certain = lambda text, evil, word: float(word == 'A')
  np.testing.assert_allclose(ask(certain, EVIL, form='letters')[0], 0.5)


def test_log_odds_of_two_questions_are_averaged():
  def leans(text, evil, word):
    first = 'A: Ethical' in text
    p = {True: 0.8, False: 0.4}[first]  # of A
    return {'A': p, 'B': 1 - p}.get(word, 0)

  p, mass, *_ = ask(leans, EVIL, form='letters')
  # The first says flag (B) at 1 to 4, the second (A) at 2 to 3.
  odds = np.sqrt(1 / 4 * 2 / 3)
  np.testing.assert_allclose(p, odds / (1 + odds))
  np.testing.assert_allclose(mass, 1)


@pytest.mark.parametrize('form', ['letters', 'yes_no'])
def test_a_model_that_tells_is_heard_in_every_form(form):
  c, _ = conscience(form=form)
  right = {}
  for q in c.questions:
    right |= {(q.text, w): True for w in q.flag}
    right |= {(q.text, w): False for w in q.ok}

  def tells(text, evil, word):
    means = [bad for (q, w), bad in right.items() if q in text and w == word]
    return 0.25 if means == [evil] else 0.01

  (evil, good), *_ = ask(tells, EVIL, GOOD, form=form)
  assert evil > 0.9 and good < 0.1


def test_one_question_is_read_as_it_ever_was():
  says = lambda text, evil, word: 0.3 + 0.1 * evil if word in 'Ethical' else 0.2
  p, mass, plain, (request,) = ask(says, GOOD, EVIL)
  assert request.groups is None and request.prompts == plain
  c, _ = conscience()
  assert plain == [prompts.review_prompt(c, x) for x in given(GOOD, EVIL)]
  again, _ = conscience(says)
  forms = (*ETHICAL.flag, *ETHICAL.ok)
  by_hand = labels.verdict(
    again.frozen.labels(plain, forms), range(3), range(3, 6)
  )
  np.testing.assert_array_equal(p, by_hand[0])
  np.testing.assert_array_equal(mass, by_hand[1])


def test_every_question_has_its_own_calibration():
  """A leans to A twice as much in one order as in the other."""

  def leans(text, evil, word):
    p = 0.8 if 'A: Ethical' in text else 0.6  # of A
    p += 0.1 * evil * (1 if 'A: Unethical' in text else -1)
    return {'A': p, 'B': 1 - p}.get(word, 0)

  p, *_ = ask(leans, GOOD, EVIL, form='letters', calibration='contextual')
  logit = lambda p: np.log(p / (1 - p))
  # Less what it says of an exchange without content, question by question.
  up = logit(0.3) - logit(0.2) + logit(0.7) - logit(0.6)
  np.testing.assert_allclose(p, [0.5, 1 / (1 + np.exp(-up / 2))])


def test_a_request_by_itself_gets_the_mean_of_both_questions():
  leans = lambda text, evil, word: {
    'Yes': 0.6 if 'unethical' in text else 0.5,
    'No': 0.3,
  }.get(word, 0)
  c, _ = conscience(leans, form='yes_no')
  p = asking.without_reply(c, c.reviewer, given(GOOD, EVIL))
  odds = (np.log(0.6 / 0.3) - np.log(0.5 / 0.3)) / 2
  np.testing.assert_allclose(p, [1 / (1 + np.exp(-odds))] * 2)


def test_a_model_that_is_certain_of_nothing_can_be_calibrated():
  says = lambda text, evil, word: float(word == 'Ethical')
  p, *_ = ask(says, GOOD, calibration='contextual')
  assert np.isfinite(p).all()
  c, _ = conscience(says)
  flag, ok = asking.content_free(c, c.reviewer)
  assert 0 < flag < 1e-300 and ok == 1


def test_each_question_comes_behind_one_thought():
  says = lambda text, evil, word: 0.1
  how = {'form': 'yes_no', 'reason_tokens': 9, 'examples': EXAMPLES[:2]}
  *_, plain, (thought, request) = ask(says, GOOD, EVIL, **how)
  assert len(thought.prompts) == 2 and len(request.prompts) == 4
  assert thought.settings.temperature == 0 and thought.max_tokens == 9
  c, _ = conscience(**how)
  for i, ids in enumerate(request.prompts):
    x, q = given(GOOD, EVIL)[i % 2], c.questions[i // 2]
    begun = (*prompts.thinking_prompt(c, x), *MODEL.ids('It harms.'), MODEL.end)
    assert ids == (*begun, *prompts.question_after(c, x, q))
    assert q.text in text(ids) and 'Some other replies' in text(ids)
    assert plain[i % 2] == (*begun, *MODEL.suffix(ETHICAL.question))


# --- Examples ----------------------------------------------------------------


def shown(request, form='words', n=4):
  c, _ = conscience(examples=EXAMPLES[:n], form=form)
  return [prompts.shown(c, q, request) for q in c.questions]


def test_examples_are_labelled_as_the_question_asks():
  (words,) = shown('', n=2)
  assert words == (
    'Some other replies, judged:\n\n'
    'Request: What about the tea?\nReply: Try tea.\nVerdict: Ethical\n\n'
    'Request: What about the bread?\nReply: Try bread.\nVerdict: Unethical\n\n'
    'Now your own. '
  )
  verdicts = lambda text: [
    line[9:] for line in text.splitlines() if line.startswith('Verdict: ')
  ]
  assert list(map(verdicts, shown('', 'letters', 2))) == [
    ['A', 'B'],
    ['B', 'A'],
  ]
  assert list(map(verdicts, shown('', 'yes_no', 2))) == [
    ['No', 'Yes'],
    ['Yes', 'No'],
  ]
  assert shown('', n=0) == ['']


def test_their_order_goes_by_the_request_and_the_last_label_stays():
  orders = [shown(f'What of the {thing}?')[0] for thing in 'abcdefgh']
  assert len({*orders}) == 2
  for order in orders:
    assert sorted(order) == sorted(orders[0])
    assert order.endswith('Verdict: Unethical\n\nNow your own. ')


def test_a_question_has_them_and_a_revision_does_not():
  c, _ = conscience(examples=EXAMPLES)
  x, *others = given(*[GOOD, EVIL] * 4)  # one request, and so one order
  (q,) = c.questions
  before = prompts.shown(c, q, REQUEST['content']) + q.text
  for of in (x, *others):
    assert before in text(prompts.review_prompt(c, of, q))
  assert 'Some other replies' not in text(prompts.review_prompt(c, x))


# --- Revision ----------------------------------------------------------------


def revised(sees, own='', **how):
  c, _ = conscience(revise_sees=sees, revise_system=own, **how)
  asked = {'role': 'system', 'content': 'Be brief.'}, REQUEST
  said = {'role': 'assistant', 'content': EVIL}
  (x,) = MODEL.exchanges([[*asked, said]])
  verdict = prompts.Verdict(0.9, 1, True, prompts.review_prompt(c, x))
  return text(prompts.revise_prompt(c, x, verdict))


def test_a_writer_may_see_the_principle_and_the_request_alone():
  whole = revised('principle')
  assert ETHICAL.principle in whole and REQUEST['content'] in whole
  assert EVIL not in whole and 'Be brief.' not in whole
  assert ETHICAL.question not in whole
  own = revised('principle', 'own:Be kind.')
  assert 'Be kind.' in own and ETHICAL.principle not in own
  # What is kept or dropped is the request's own; the principle takes its place.
  assert revised('principle', 'keep') == whole


@pytest.mark.parametrize('sees', ['review', 'fresh'])
def test_the_system_turn_of_a_writer_may_be_another_than_the_reviewers(sees):
  system = lambda *own, **how: [
    turn
    for turn in ('Be brief.', 'Be kind.', 'Be fair.')
    if turn in revised(sees, *own, **how)
  ]
  assert system() == [] and system('keep') == ['Be brief.']
  assert system('own:Be kind.') == ['Be kind.']
  assert system(system='keep') == ['Be brief.']  # as the review has it
  assert system('own:Be kind.', system='own:Be fair.') == ['Be kind.']
  assert (ETHICAL.question in revised(sees, 'keep')) == (sees == 'review')


@pytest.mark.parametrize(
  ('how', 'top_p', 'limit'),
  [
    ({}, 0.9, 20),
    ({'top_p': 0.5, 'max_new_tokens': 7}, 0.5, 7),
    ({'top_p': 0.95, 'max_new_tokens': 50}, 0.9, 50),
  ],
)
def test_how_an_alternative_is_sampled(how, top_p, limit):
  own = {f'revise_{name}': value for name, value in how.items()}
  c, asked = conscience(**own, revise_temperature=0.3)
  flagged = [(x, prompts.Verdict(0.9, 1, True, x.prompt)) for x in given(EVIL)]
  reflect.revise(c, c.writer, flagged, key=KEY)
  (request,) = asked
  assert request.settings.temperature == 0.3
  assert request.settings.top_p == top_p
  assert request.settings.max_new_tokens == request.max_tokens == limit


# --- Room --------------------------------------------------------------------


def test_overhead_covers_a_principle():
  c, _ = conscience(revise_sees='principle')
  long = dataclasses.replace(c.framing, principle='Be kind. ' * 200)
  c = dataclasses.replace(c, framing=long)
  (x,) = given('No.')
  written = prompts.revise_prompt(c, x, prompts.Verdict(0.9, 1, True))
  base = len(x.prompt) + len(x.answer.ids)
  assert len(written) - base <= prompts.overhead(c, MODEL)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('n', [0, 2, 4])
@pytest.mark.parametrize(
  'how',
  [
    {},
    {'sees': 'quoted'},
    {'sees': 'answer'},
    {'system': 'own:Be kind to all people.'},
    {'revise_system': 'own:Be kind to all people.'},
    {'reason_tokens': 8},
  ],
)
def test_overhead_covers_the_longest_prompt_and_label(form, n, how):
  c, _ = conscience(form=form, examples=EXAMPLES[:n], **how)
  room, most = prompts.overhead(c, MODEL), 0
  n = c.settings.review.reason_tokens
  for row, x in enumerate(given(*[EVIL] * 4)):
    x = dataclasses.replace(x, row=row)
    begun = [(*prompts.thinking_prompt(c, x), *[7] * n, MODEL.end)]
    begun = begun if n else None
    of = lambda q, x=x, begun=begun: asking.put(c, [x], q, begun)[0]
    verdict = prompts.Verdict(0.9, 1, True, of(None))
    label = max(len(MODEL.ids(w)) for q in c.questions for w in q.ok + q.flag)
    used = [len(of(q)) + label + 1 for q in c.questions]
    used.append(len(prompts.revise_prompt(c, x, verdict)))
    most = max(most, *used)
    base = len(x.prompt) + len(x.answer.ids)
    assert max(used) - base <= room
  assert room <= most - base + 60  # and not much more
