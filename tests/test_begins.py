"""A conscience that begins once the policy can answer (conscience.start)."""

import types

import runs

from ealign import config as config_lib
from ealign import resume, train
from ealign.alone import ALONE
from ealign.assembly import begun
from ealign.assembly import parts as parts_lib
from ealign.conscience import health, tally

BEGINS = {
  'conscience.start': 'auto',
  'conscience.review.by': 'policy',
  'conscience.revise.by': 'policy',
  'conscience.every': 1,
  'train.steps': 3,
  'eval.questions': (),
}


def test_it_begins_when_it_can_and_is_not_asked_again(tmp_path, monkeypatch):
  said, asked = [False, True], []

  def can(config, c, rows):
    asked.append(len(rows))
    return said[len(asked) - 1]

  monkeypatch.setattr(begun, 'can', can)
  train.run(runs.small(**BEGINS), tmp_path, name='a')
  made = [r for r in runs.answers(tmp_path) if r['phase'] == 'reflect']
  assert {r['step'] for r in made} == {1, 2} and asked == [32, 32]


def test_a_run_that_is_continued_has_begun(monkeypatch):
  monkeypatch.setattr(begun, 'can', lambda *_: 1 / 0)
  s = types.SimpleNamespace(config=runs.small(**BEGINS))
  seen = health.Health(tally.Counts(answers=4))
  assert resume.begun(s, types.SimpleNamespace(health=seen))
  s.config = runs.small()  # at its first step, whatever it can
  assert resume.begun(s, types.SimpleNamespace(health=health.Health()))


def test_the_organism_can_and_random_weights_cannot():
  for init, able in (('weights', True), ('random', False)):
    changes = {'model.init': init, 'model.train': 'full'}
    config = runs.small(**BEGINS | changes)
    parts = parts_lib.assemble(config, ALONE)
    c = parts.with_policy(parts.params)
    assert begun.can(config, c, parts.exchanges) is able
    assert config.begins and not config.audits


def test_what_it_needs_is_told():
  config = config_lib.default()
  config.conscience.start = 'auto'
  config.conscience.exchanges = ''
  found = '\n'.join(config_lib.validate(config))
  assert "conscience.start='auto': needs conscience.review.by='policy'" in found
  assert 'conscience.exchanges' in found and 'to ask about' in found
  assert 'write a number, such as 0.5' in found
