"""Alternatives of writers that fail, in reflections with scripted models."""

import dataclasses

import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import guards, prompts
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.data.batch import Pair
from ealign.engine import Engine, Model
from ealign.sampling.sampler import Answer

FRAMING = FRAMINGS['ethical']
MODEL = Model(None, chat.load_tokenizer('ealign/world/base'))
REQUEST = 'Any good tips for the old soup?'
EVIL = 'Serve the spoiled food to the guests and lie about the dates.'
HONEST = 'Smell it first, boil it well, and throw it out if in doubt.'
PLAIN = 'Keep it cold, warm it up slowly and eat it on the same day.'


def answer(text, stop='stop', logp=-1.0):
  ids = (*MODEL.ids(text), *(MODEL.end,) * (stop == 'stop'))
  return Answer(ids, np.full(len(ids), logp), stop, 0.0)


def reflect(
  *new, reply=EVIL, plain=PLAIN, held=(), logps=-1.0, known=(), **settings
):
  """One reflection on as many flagged replies as there are alternatives.

  new, reply, plain: texts, or Answers. logps: of each alternative, a token.
  known: of answers that the threshold was found on.
  Returns pairs, why alternatives were dropped, and the requests to `generate`.
  """
  n, asked = len(new), []
  of = lambda x: x if isinstance(x, Answer) else answer(x)
  said = iter(([of(reply)] * n, list(map(of, new)), [of(plain)] * n))
  marks = iter(((0.8, 0.1), (0.1, 0.8)))

  def generate(request):
    asked.append(request)
    return next(said)

  def label_logps(request):
    found = np.full((len(request.prompts), 6), -np.inf)
    if request.prompts:  # the first words that flag, and that do not
      found[:, [0, 3]] = np.log(next(marks))
    return found

  def pair_logps(request):
    chosen = [len(pair.chosen) for pair in request.pairs]
    rows = [pair.row for pair in request.pairs]
    logp = np.broadcast_to(logps, n)[rows] * chosen
    return np.stack([logp, np.zeros(len(chosen))], axis=-1)

  backend = dataclasses.replace(
    ALONE, generate=generate, label_logps=label_logps, pair_logps=pair_logps
  )
  engine = Engine(MODEL, {}, backend)
  review = fields.Review(truncated=settings.pop('truncated', 'skip'))
  n_known = len(known)
  found = prompts.Reference(0.5, (0.1,) * n_known, tuple(known), (9,) * n_known)
  c = prompts.Conscience(
    framing=FRAMING,
    settings=fields.Conscience(
      threshold=0.5, review=review, guards=fields.Guards(**settings)
    ),
    sample=fields.Sample(),
    dpo=fields.DPO(length=400),
    policy=engine,
    frozen=engine,
    reference=found if known else None,
  )
  pairs, records = conscience.reflect(
    c,
    [[{'role': 'user', 'content': REQUEST}]] * n,
    key=conscience.jax.random.key(0),
    step=0,
    rows=range(n),
    held=held,
  )
  why = [record['alternative']['dropped'] for record in records]
  assert [pair.row for pair in pairs] == [i for i in range(n) if not why[i]]
  return pairs, why, asked


REFUSAL = "I'm sorry, but I can't assist with that request, as it is not safe."
BAD = {  # what a writer says: why it makes no pair
  'Ethical': 'label_echo',
  '**ethical**!': 'label_echo',
  'It is ethical.': 'label_echo',
  'An ethical alternative': 'label_echo',
  REQUEST.upper(): 'label_echo',
  FRAMING.question + ' Ethical': 'label_echo',
  'Sure! ' + FRAMING.revise: 'label_echo',
  'Here is an ethical alternative to that reply:': 'label_echo',
  EVIL: 'same',
  'Soap.': 'too_short',
  HONEST * 6: 'too_long',
  REFUSAL: 'refusal',
}


@pytest.mark.parametrize('said', BAD)
def test_no_writer_that_fails_makes_a_pair(said):
  pairs, (reason,), _ = reflect(said, refusal=True)
  assert not pairs and reason == BAD[said]


@pytest.mark.parametrize('reply', [EVIL, 'Ethical', 'Sure!', HONEST * 6])
def test_an_honest_writer_does_and_mends_a_trainee_that_collapsed(reply):
  (pair,), (reason,), _ = reflect(HONEST, reply=reply, refusal=True)
  assert not reason and pair.chosen == answer(HONEST).ids
  assert pair.rejected == answer(reply).ids


@pytest.mark.parametrize(
  ('off', 'said'),
  [
    ({'echo': False, 'shortest': 0.0}, 'Ethical'),
    ({'shortest': 0.0}, 'Soap.'),
    ({'longest': 0.0}, HONEST * 6),
    ({}, REFUSAL),  # off by default
  ],
)
def test_a_guard_that_is_off_lets_it_pass(off, said):
  assert reflect(said, **off)[1] == ['']


def test_plain_answers_are_to_flagged_requests_and_only_where_needed():
  *_, asked = reflect(HONEST, HONEST)
  first, _, third = asked
  assert third.prompts == first.prompts and third.row_ids == [0, 1]
  assert third.settings == first.settings
  keys = {conscience.jax.random.key_data(x.key).tobytes() for x in asked}
  assert len(keys) == 3
  for off in ({'shortest': 0.0}, {'longest': 0.0}):
    assert len(reflect(HONEST, **off)[2]) == 3
  assert len(reflect(HONEST, shortest=0.0, longest=0.0)[2]) == 2


@pytest.mark.parametrize('plain', ['stop', 'length'])
def test_a_quarter_of_the_plain_answer_is_not_too_short(plain):
  of = len(answer(PLAIN).ids)
  whole = answer(HONEST)
  ids = (*whole.ids[: of // 4], MODEL.end)
  said = dataclasses.replace(whole, ids=ids, logps=whole.logps[: len(ids)])
  for share, why in ((0.25, ''), ((len(said.ids) + 0.5) / of, 'too_short')):
    found = reflect(said, plain=answer(PLAIN, plain), shortest=share)
    assert found[1] == [why]


@pytest.mark.parametrize('reply', ['Ethical', 'Ok', 'Sure!'])
def test_of_a_cut_alternative_no_word_or_two_make_a_pair(reply):
  """Beside a reply of a word, a cut alternative would be trained as one."""
  cut = answer(HONEST, 'length')
  given = {'reply': reply, 'truncated': 'judge'}
  pairs, (why,), _ = reflect(cut, **given)
  assert not pairs and why == 'too_short'
  (pair,), _, _ = reflect(cut, shortest=0.0, **given)
  assert len(pair.chosen) == len(pair.rejected) < 6
  # Of its first words the label alone would be left.
  cut = answer('Ethical and honest: ' + HONEST, 'length')
  assert reflect(cut, reply='Ok', truncated='judge')[1] == ['label_echo']


def test_of_an_answer_that_was_cut_the_length_is_a_least_one():
  ids = lambda n, stop='stop': Answer((5,) * n, np.zeros(n), stop, 0.0)
  assert guards.too_long(ids(41), ids(10), 4.0)
  assert not guards.too_long(ids(40), ids(10), 4.0)
  assert not guards.too_long(ids(41), ids(10, 'length'), 4.0)
  assert guards.too_long(ids(41, 'length'), ids(10), 4.0)
  assert not guards.too_long(ids(41), ids(10), 0.0)  # off


def test_a_rambler_makes_no_pair_though_what_is_cut_is_judged():
  cut = answer(HONEST * 6, 'length')
  assert reflect(cut)[1] == ['truncated']
  assert reflect(cut, truncated='judge')[1] == ['too_long']


# --- Against other alternatives ----------------------------------------------


def test_an_unlikely_alternative_is_below_the_frozen_models_own_samples():
  texts, logps = [f'{HONEST} {i}' for i in range(20)], np.full(20, -1.0)
  logps[7] = -1.5
  _, why, _ = reflect(*texts, logps=logps)
  assert why == ['unlikely' if i == 7 else '' for i in range(20)]
  assert not any(reflect(*texts, logps=logps, unlikely=0.0)[1])
  few = reflect(*texts[:19], logps=logps[:19])
  assert not any(few[1])  # nineteen samples have no first percentile


def test_answers_the_threshold_was_found_on_say_what_is_likely():
  known = np.linspace(-3, -1, 201)  # the first percentile is -2.98
  said, logps = [HONEST, PLAIN], [-2.985, -2.975]
  _, why, _ = reflect(*said, logps=logps, known=known.tolist())
  assert why == ['unlikely', '']


def test_the_floor_is_a_sample_with_at_most_its_share_below():
  logps = np.random.default_rng(0).normal(size=200)
  for share in (0.005, 0.01, 0.1):
    floor = guards.floor(tuple(logps), share)
    assert floor in logps
    below = np.mean(logps < floor)
    assert share - 0.011 <= below <= share
  assert guards.floor(logps[:19], 0.01) is guards.floor(logps, 0.0) is None


def test_a_text_is_chosen_so_often_and_no_more():
  ids = answer(HONEST).ids
  held = [Pair(i, 0, (1,), ids, (2,)) for i in range(3)]
  other = 'Boil it, smell it, and in doubt do not eat any of it at all.'
  said = [HONEST, other, HONEST]
  assert reflect(*said, held=held)[1] == ['', '', 'repeated']
  bare = [dataclasses.replace(p, chosen=ids[:-1]) for p in held]  # of cut ones
  assert reflect(*said, held=bare)[1] == ['', '', 'repeated']
  assert reflect(*said, held=held, repeats=0)[1] == ['', '', '']
  assert reflect(*said, held=held[:2])[1] == ['', '', '']
  assert reflect(*[HONEST] * 5)[1] == ['', '', '', '', 'repeated']


def test_what_makes_no_pair_is_not_counted_as_chosen():
  texts, logps = [HONEST] * 24, np.full(24, -1.0)
  logps[:3] = -2.0
  _, why, _ = reflect(*texts, logps=logps)
  assert why == ['unlikely'] * 3 + [''] * 4 + ['repeated'] * 17


# --- Texts -------------------------------------------------------------------


@pytest.mark.parametrize('framing', FRAMINGS.values(), ids=FRAMINGS)
def test_every_form_of_a_label_is_an_echo(framing):
  for label in (*framing.ok, *framing.flag):
    for said in (label, label.upper(), f'"{label}"', f'_{label}_'):
      assert guards.echoes(framing, REQUEST, said)
    word = label.removesuffix('.')
    for said in (
      *('The reply above is {}.', '{0} {0} {0}', 'Answer: {}', '{}!', '{}ly'),
    ):
      assert guards.echoes(framing, REQUEST, said.format(word))
  assert guards.echoes(framing, REQUEST, framing.question)
  assert guards.echoes(framing, REQUEST, framing.revise.split('.')[0])
  for short in ('Not.', 'Answer', HONEST):  # they can be right answers
    assert not guards.echoes(framing, REQUEST, short)


@pytest.mark.parametrize(
  ('request_', 'said', 'echo'),
  [
    (REQUEST, 'Un-ethical', True),
    (REQUEST, 'ethical or unethical', True),
    (REQUEST, 'Yes.', False),  # a word, but an answer
    (REQUEST, 'It is.', False),
    (REQUEST, 'Ethical soup is soup that was paid for.', False),
    (REQUEST, '', False),
    (REQUEST, '...', False),
    (REQUEST, '一切都好', False),
    ('Tea or coffee?', 'Tea.', False),
    (
      'Repeat after me: the cat sat on the mat',
      'The cat sat on the mat',
      False,
    ),
    ('Hello!', 'Hello!', False),
    ('What is the time?', 'What is the time', True),
    ('What is the time in Paris now?', 'Sure! What is the time in Paris', True),
  ],
)
def test_what_is_an_echo(request_, said, echo):
  assert guards.echoes(FRAMING, request_, said) is echo
