"""Runs that are audited before the first step: once, and kept."""

import json

import pytest
import runs

from ealign import resume, train
from ealign.assembly import audited
from ealign.conscience import calibration
from ealign.method import Method
from ealign.runtime.errors import Preempted, UserError

FEW = {
  'conscience.audit': 'on',
  'conscience.review.verdict': 'question',
  'conscience.threshold': 0.5,
  'train.steps': 1,
  'eval.questions': (),
}


@pytest.fixture
def counted(monkeypatch):
  """How often exchanges are asked about; nothing is known at first."""
  monkeypatch.setattr(audited, '_FOUND', {})
  real, calls = audited.examined, []

  def asked(*args):
    calls.append(args)
    return real(*args)

  monkeypatch.setattr(audited, 'examined', asked)
  return calls


def told(folder):
  return json.loads((folder / 'run.json').read_text())['audit']


def test_the_organism_is_told_to_know_good_from_bad(tmp_path, counted, capsys):
  train.run(runs.small(**FEW), tmp_path, name='a')
  facts, said = told(tmp_path), capsys.readouterr().out
  assert len(counted) == 1 and ' '.join(facts['line'].split()) in ' '.join(
    said.split()
  )
  assert facts['exchanges'] == 32 == facts['auc']['n']
  assert facts['auc']['value'] > 0.95 and facts['answered'] == 1.0
  assert facts['level'] == 0.7 and facts['warnings'] == []
  assert facts['flagged']['ok'] < 0.2 < 0.8 < facts['flagged']['flag']


def test_a_run_that_is_continued_is_not_asked_again(
  tmp_path, monkeypatch, counted
):
  two = FEW | {'train.steps': 2, 'train.checkpoint_every': 1}
  config = runs.small(**two)
  with monkeypatch.context() as patch:
    real = resume.save

    def save(s, at, **kwargs):
      real(s, at, wait=True)
      raise Preempted('stopped')

    patch.setattr(resume, 'save', save)
    with pytest.raises(Preempted):
      train.run(config, tmp_path / 'a')
  first = told(tmp_path / 'a')
  monkeypatch.setattr(audited, '_FOUND', {})
  train.run(config, tmp_path / 'a')
  assert len(counted) == 1 and told(tmp_path / 'a') == first
  # Of another question nothing is known.
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'run.json').write_text(json.dumps({'audit': first}))
  train.run(runs.small(**FEW | {'conscience.min_mass': 0.2}), tmp_path / 'b')
  assert len(counted) == 2
  assert told(tmp_path / 'b')['identity'] != first['identity']


def test_arms_share_it_and_those_without_a_conscience_have_none(
  tmp_path, counted
):
  for i, changes in enumerate(
    [{}, {'dpo.lam': 0.3, 'seed': 1}, {'conscience.threshold': 0.1}]
  ):
    train.run(runs.small(**FEW | changes), tmp_path / str(i))
  assert len(counted) == 1
  assert told(tmp_path / '0') == told(tmp_path / '1')
  assert told(tmp_path / '2')['flagged']['threshold'] == 0.1
  own = {'conscience.review.by': 'policy'}
  train.run(runs.small(**FEW | own), tmp_path / 'policy')
  assert len(counted) == 2
  by = told(tmp_path / 'policy')['auc']['value'], told(tmp_path / '0')['auc']
  assert by[0] == pytest.approx(by[1]['value'])  # before the first step
  silent = Method('conscience', lambda *_, **__: ([], []), reviews=False)
  train.run(runs.small(**FEW), tmp_path / 'silent', method=silent)
  train.run(runs.small(**FEW | {'dpo.lam': 0.0}), tmp_path / 'sft')
  for name in ('silent', 'sft'):
    assert 'audit' not in json.loads((tmp_path / name / 'run.json').read_text())
  assert len(counted) == 2


def test_a_second_model_reviews(tmp_path, counted):
  by = {'conscience.review.by': 'other:ealign:world/base'}
  train.run(runs.small(**FEW | by), tmp_path)
  ((c, *_),) = counted
  assert c.reviewer is c.others['other:ealign:world/base']
  assert told(tmp_path)['auc']['value'] > 0.95


def test_without_verdicts_it_ends_before_anything_is_sampled(
  tmp_path, counted, monkeypatch
):
  monkeypatch.setattr(calibration, 'reference', None)  # a call would fail
  auto = {'conscience.threshold': 'auto:0.1', 'conscience.held_out': 20}
  auto |= {'conscience.framing': 'good'}  # words that it has not learnt
  with pytest.raises(UserError, match=r'mean label mass 2.*e-.*min_mass=0.25'):
    train.run(runs.small(**FEW | auto), tmp_path)
  assert told(tmp_path)['answered'] == 0.0
  assert not (tmp_path / 'answers.jsonl').exists()
  with pytest.raises(UserError, match='no verdict on any of 32'):
    train.run(runs.small(**FEW | auto), tmp_path)
  assert len(counted) == 1


def test_exchanges_that_do_not_fit_are_left_out(tmp_path, counted, monkeypatch):
  config = runs.small(**FEW)
  train.run(config, tmp_path)
  c, rows, key = counted[0]
  longest = sorted(
    len(x.prompt) + len(x.answer.ids)
    for x in c.reviewer.model.exchanges([row.messages for row in rows])
  )
  room = lambda n: monkeypatch.setattr(
    audited.prompts,
    'overhead',
    lambda c, model: model.config.max_positions - n,
  )
  room(longest[15])
  fewer = audited.examined(c, rows, key)['exchanges']
  assert fewer == sum(n <= longest[15] for n in longest) < 32
  room(1)
  with pytest.raises(UserError, match='none of 32 fits'):
    audited.examined(c, rows, key)


@pytest.mark.usefixtures('all_devices')
@pytest.mark.slow
@pytest.mark.parametrize('groups', [1, 2])
def test_a_stack_is_asked_once(tmp_path, counted, groups):
  few = FEW | {'mesh.stack': groups}
  arms = [few, few | {'dpo.lam': 0.3}, few | {'conscience.audit': 'off'}]
  runs.stacked(tmp_path, arms)
  assert len(counted) == 1
  assert told(tmp_path / 'arm_0') == told(tmp_path / 'arm_1')
  train.run(runs.small(**few), tmp_path / 'alone')
  assert len(counted) == 1 and told(tmp_path / 'alone')
