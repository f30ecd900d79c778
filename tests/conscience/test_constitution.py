"""The store of principles: who comes, who is merged, who goes, and back."""

import json

import pytest

from ealign.conscience import constitution
from ealign.conscience.constitution import Principle

FAIR, SAFE = 'Be fair to everyone.', 'Keep people safe from harm.'


def propose(store, *texts, step=0, rows=(1, 2), same=0.8):
  return constitution.propose(store, texts, step=step, rows=rows, same=same)


def measure(store, gains, step=0, least=0.0, most=8):
  return constitution.measure(store, gains, step=step, least=least, most=most)


def test_what_is_proposed_is_in_force_with_the_rows_it_came_from():
  store = propose((), FAIR, SAFE, step=4, rows=[7, 9])
  assert [p.id for p in store] == ['p1', 'p2']
  assert {(p.state, p.source, p.step, p.rows) for p in store} == {
    ('active', 'written', 4, (7, 9))
  }
  assert [p.id for p in propose(store, 'Say what you know.')][2] == 'p3'


@pytest.mark.parametrize(
  ('text', 'merged'),
  [
    (FAIR, ()),
    ('be fair, to EVERYONE', ('be fair, to EVERYONE',)),
    ('Be fair to everyone here.', ('Be fair to everyone here.',)),
  ],
)
def test_a_near_duplicate_is_merged_into_the_first(text, merged):
  (one,) = propose(propose((), FAIR), text, step=8, rows=[3])
  assert (one.id, one.text, one.merged) == ('p1', FAIR, merged)
  assert (one.step, one.rows) == (8, (3,))
  # The same again is no new wording.
  assert propose((one,), text)[0].merged == merged


def test_what_is_like_nothing_there_stands_for_itself():
  assert len(propose(propose((), FAIR), SAFE)) == 2
  assert (
    len(propose(propose((), FAIR), 'Be fair to everyone here.', same=1)) == 2
  )
  assert constitution.likeness(FAIR, FAIR.upper()) == 1
  assert constitution.likeness(FAIR, SAFE) < 0.3


def test_it_retires_once_it_does_not_help_and_may_come_back():
  store = measure(propose((), FAIR, SAFE), {'p1': 0.25, 'p2': 0.0})
  assert [p.state for p in store] == ['active', 'retired']
  store = measure(store, {'p1': -0.5}, step=4)
  assert [p.state for p in store] == ['retired', 'retired']
  assert store[0].gains == ((0, 0.25), (4, -0.5)) and store[0].gain == -0.5
  assert store[1].gains == ((0, 0.0),)
  store = propose(store, FAIR, step=8)
  assert store[0].state == 'active' and len(store[0].gains) == 2
  assert (
    measure(propose((), FAIR), {'p1': 0.1}, least=0.1)[0].state == 'retired'
  )


def test_beyond_the_most_those_of_the_least_gain_go():
  store = propose((), FAIR, SAFE, 'Say what you know.', same=1)
  store = measure(store, {'p1': 0.1, 'p2': 0.3, 'p3': 0.1}, most=2)
  assert [p.state for p in store] == ['active', 'active', 'retired']


def test_candidates_are_new_or_were_of_help_once():
  store = constitution.listed([FAIR, SAFE, 'Say what you know.'])
  of = lambda: [p.id for p in constitution.candidates(store, 0.0)]
  assert of() == ['c1', 'c2', 'c3']
  assert constitution.of(store, 'active') == ()
  store = propose(store, FAIR, SAFE)
  assert of() == ['c3'] and len(store) == 3  # each is the listed one itself
  store = measure(store, {'c1': 0.5, 'c2': -0.5})
  assert of() == ['c3']  # c1 is in force, c2 never helped
  store = measure(store, {'c1': 0.0}, step=4)
  assert of() == ['c1', 'c3']
  assert constitution.candidates(propose((), FAIR), 0.0) == ()  # written


def test_it_is_the_same_after_json():
  store = (
    *constitution.listed([FAIR]),
    Principle('p1', SAFE, rows=(1, 2), gains=((0, 0.1),), merged=('x',)),
  )
  text = json.dumps(constitution.dump(store))
  assert constitution.load(json.loads(text)) == store
