"""How long the rest takes, by batches that were computed."""

import dataclasses
import types

import pytest

from ealign.alone import ALONE
from ealign.assembly import pace


@pytest.fixture
def clock(monkeypatch):
  """Time that passes only where a test says so."""
  now = types.SimpleNamespace(seconds=0.0)
  own = types.SimpleNamespace(monotonic=lambda: now.seconds)
  monkeypatch.setattr(pace, 'time', own)
  return now


def test_the_first_batch_of_a_suite_is_no_measure():
  said = []
  own = pace.Pace('to sample', said.append)
  assert own.begin(1000) == ''
  own.add(100, 60)  # it compiles
  assert not said
  own.add(100, 10)
  assert said == ['  by the first batches 1m20s to sample all that is left']
  own.add(100, 10)
  assert len(said) == 1  # the lines of suites say it from here on
  assert own.begin(500) == '; 50s to sample all that is left'
  own.add(100, 60)
  assert own.begin(400) == '; 40s to sample all that is left'


def test_what_was_kept_is_no_measure():
  own = pace.Pace('to judge', None)
  for left in (300, 200, 100):
    assert own.begin(left) == ''


def test_answers_count_by_their_tokens_and_judgements_by_prompts(clock):
  def compute(request):
    clock.seconds += request.takes
    return request

  said = []
  both = [pace.Pace(what, said.append) for what in ('to sample', 'to judge')]
  own = {'generate': compute, 'label_logps': compute}
  backend = pace.measured(dataclasses.replace(ALONE, **own), *both)
  request = lambda count, takes: types.SimpleNamespace(
    prompts=[()] * count, max_tokens=50, takes=takes
  )
  for one in both:
    one.begin(1000)
  for takes in (90, 4):
    assert backend.generate(request(2, takes)).takes == takes
    assert backend.label_logps(request(5, takes)).takes == takes
  assert said == [
    '  by the first batches 32s to sample all that is left',  # 800 of 1,000
    '  by the first batches 13m12s to judge all that is left',  # 990
  ]
