"""What is held out of the pool, and who shares a threshold."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
import runs

from ealign import fields
from ealign.assembly import data, threshold
from ealign.conscience import prompts
from ealign.conscience.framings import FRAMINGS
from ealign.runtime import display
from ealign.runtime.errors import UserError


def say(text):
  return [{'role': 'user', 'content': text}]


def config(paths=('a',), weights=(1.0,), **conscience):
  sections = {'threshold': 'auto:0.05', 'held_out': 40, 'prompts': 4}
  return fields.Config(
    pool=fields.Pool(paths, weights),
    conscience=fields.Conscience(**sections | conscience),
  )


ONE = [(1.0, [say(f'a {i}') for i in range(60)])]
TWO = [*ONE, (3.0, [say(f'b {i}') for i in range(300)])]


def words(chats):
  return [chat[0]['content'] for chat in chats]


def test_what_is_held_out_is_never_drawn():
  c = config()
  left, held = data.hold_out(c, ONE)
  assert len(set(words(held))) == 40
  assert sorted(words(held) + words(left[0][1])) == sorted(words(ONE[0][1]))
  drawn = {
    word
    for step in range(200)
    for word in words(data.draw_requests(c, left, step)[0])
  }
  assert drawn == set(words(left[0][1]))


def test_it_depends_on_the_seed_alone():
  c = config()
  at = lambda seed: dataclasses.replace(c, seed=seed)
  held = lambda seed: words(data.hold_out(at(seed), ONE)[1])
  assert held(0) == held(0) != held(1)


def test_it_has_the_mixture_of_the_pool():
  c = config(('a', 'b'), (1.0, 3.0), held_out=160)
  left, held = data.hold_out(c, TWO)
  share = np.mean([word.startswith('b') for word in words(held)])
  assert len(held) == 160 and abs(share - 0.75) < 0.08
  assert [weight for weight, _ in left] == [1.0, 3.0]
  c = config(('a', 'b'), (0.0, 1.0), held_out=100)
  _, held = data.hold_out(c, [(0.0, ONE[0][1]), TWO[1]])
  assert all(word.startswith('b') for word in words(held))


def test_a_prompt_that_is_there_twice_is_out_everywhere():
  pool = [(1.0, ONE[0][1] + ONE[0][1][:30]), (1.0, ONE[0][1] + TWO[1][1])]
  left, held = data.hold_out(config(('a', 'b'), (1.0, 1.0), held_out=30), pool)
  assert len(set(words(held))) == 30
  for _, chats in left:
    assert not set(words(chats)) & set(words(held))


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'held_out': 61}, 'held_out=61: a: none would remain'),
    ({'held_out': 57}, 'held_out=57: 3 of 60 prompts would remain'),
  ],
)
def test_too_few_remain(changes, said):
  with pytest.raises(UserError, match=said):
    data.hold_out(config(**changes), ONE)
  data.hold_out(config(held_out=56), ONE)


def test_a_source_that_would_be_empty_is_named():
  pool = [(1.0, ONE[0][1]), (1.0, [say('b')])]
  with pytest.raises(UserError, match='held_out=30: small: none would remain'):
    data.hold_out(config(('a', 'small'), (1.0, 1.0), held_out=30), pool)


def test_a_number_holds_nothing_out(monkeypatch):
  monkeypatch.setattr(data, 'make_pool', lambda *_: ONE)
  made = lambda **changes: data.pools(runs.small(**changes), None, [])
  assert made() == (ONE, [])
  auto = {'conscience.threshold': 'auto:0.1', 'conscience.held_out': 20}
  left, held = made(**auto)
  assert len(held) == 20 and len(left[0][1]) == 40
  # Without reflections: for the last answers only, if there are any.
  assert made(**auto | {'dpo.lam': 0.0})[1] == held
  off = {'dpo.lam': 0.0, 'eval.questions': ()}
  assert made(**auto | off) == ([], []) == made(**{'dpo.lam': 0.0})


def test_a_run_that_needs_none_finds_none():
  for off in ({}, {'conscience.threshold': 0.5}):
    settings = runs.small(**off)
    assert threshold.found(settings, None, {}, None, (), {}, print) is None


def test_other_examples_are_another_question():
  tokenizer = SimpleNamespace(name_or_path='', chat_template='')
  model = SimpleNamespace(config=None, template=None, tokenizer=tokenizer)
  engine = SimpleNamespace(model=model, mesh=None)

  def depends(*examples):
    given = config(), FRAMINGS['ethical']
    sections = given[0].conscience, given[0].sample, given[0].dpo
    c = prompts.Conscience(given[1], *sections, engine, engine)
    c = dataclasses.replace(c, examples=examples)
    origin = {'frozen': 'hash', 'others': {}}
    return repr(threshold._depends(given[0], c, [], origin))

  one, other = (prompts.Example('Why?', text, False) for text in 'ab')
  assert depends(one) == depends(one) != depends(other)


def test_what_was_stored_is_taken():
  settings = runs.small(**{'conscience.threshold': 'auto:0.1'})
  stored = {'threshold': 0.3, 'p': [0.2, None], 'logps': [-1.0, -2.0]}
  stored['lengths'] = [3, 4]
  found = threshold.found(settings, None, {}, None, (), stored, print)
  assert found.threshold == 0.3 and found.p == (0.2, None)
  assert hash(found) and found.lengths == (3, 4)


def test_it_tells_how_long_the_answers_take(monkeypatch):
  said, made = [], prompts.Reference(0.3, (0.2,), (-1.0,), (3,))

  def slow(*_, **__):
    until = time.monotonic() + 30
    while len(said) < 2 and time.monotonic() < until:
      time.sleep(0.01)
    return made

  monkeypatch.setattr(display, '_STILL', 0.02)
  monkeypatch.setattr(threshold, '_FOUND', {})
  monkeypatch.setattr(threshold, '_depends', lambda *_: 'all')
  monkeypatch.setattr(threshold, 'by_itself', lambda c: c)
  monkeypatch.setattr(threshold.calibration, 'reference', slow)
  settings = runs.small(**{'conscience.threshold': 'auto:0.1'})
  backend = SimpleNamespace(apart=lambda find: find())
  of = settings, None, {}, backend, ['a', 'b'], {}, said.append
  assert threshold.found(*of) is made
  assert said[0] == 'conscience.threshold: asks for 2 plain answers'
  assert said[1].startswith('conscience.threshold: 2 plain answers, ')
  assert said[1].endswith('s so far')
