"""Runs whose threshold is found: kept, shared, and the same in a stack."""

import json

import pytest
import runs

from ealign import resume, train
from ealign.assembly import threshold
from ealign.conscience import calibration
from ealign.runtime.errors import Preempted, UserError

AUTO = {
  'conscience.threshold': 'auto:0.1',
  'conscience.held_out': 20,
  'conscience.review.verdict': 'question',
}


@pytest.fixture
def counted(monkeypatch):
  """How often a threshold is found; nothing is known at first."""
  monkeypatch.setattr(threshold, '_FOUND', {})
  real, calls = calibration.reference, []

  def reference(*args, **kwargs):
    calls.append(args)
    return real(*args, **kwargs)

  monkeypatch.setattr(calibration, 'reference', reference)
  return calls


def told(folder):
  return json.loads((folder / 'run.json').read_text())['threshold']


def test_a_continued_run_has_the_same_threshold(
  tmp_path, monkeypatch, counted, capsys
):
  few = {'train.steps': 2, 'train.checkpoint_every': 1}
  config = runs.small(**AUTO, **few)
  train.run(config, tmp_path / 'whole', name='a')
  facts = told(tmp_path / 'whole')
  assert facts['alpha'] == 0.1 and facts['prompts_left'] == 980
  assert facts['verdicts'] + facts['without_verdict'] == 20
  said = capsys.readouterr().out
  assert '980 prompts of the pool remain' in said
  assert said.index('asks for 20 plain answers') < said.index('980 prompts')
  verdicts = [r['verdict'] for r in runs.answers(tmp_path / 'whole')]
  p = [(v['p'], v['flagged']) for v in verdicts if v['p'] is not None]
  assert p and all(flag == (x >= facts['value']) for x, flag in p)
  held = [json.dumps(m) for m in counted[0][1]]
  asked = {json.dumps(r['messages']) for r in runs.answers(tmp_path / 'whole')}
  assert len(held) == 20 and not asked & set(held)

  with monkeypatch.context() as patch:
    real = resume.save

    def save(s, at, **kwargs):
      real(s, at, wait=True)
      raise Preempted('stopped')

    patch.setattr(resume, 'save', save)
    with pytest.raises(Preempted):
      train.run(config, tmp_path / 'parts', name='a')
  counted.clear()
  monkeypatch.setattr(threshold, '_FOUND', {})
  train.run(config, tmp_path / 'parts', name='a')
  assert not counted and told(tmp_path / 'parts') == facts
  assert runs.answers(tmp_path / 'whole') == runs.answers(tmp_path / 'parts')
  assert runs.metrics(tmp_path / 'whole') == runs.metrics(tmp_path / 'parts')


def test_arms_share_it(tmp_path, counted):
  few = AUTO | {'train.steps': 1, 'eval.questions': ()}
  train.run(runs.small(**few), tmp_path / 'a')
  asked = AUTO | {'train.steps': 0, 'dpo.lam': 0.0}
  train.run(runs.small(**asked), tmp_path / 'base')
  assert len(counted) == 1
  assert told(tmp_path / 'a') == told(tmp_path / 'base')
  train.run(runs.small(**few | {'seed': 1}), tmp_path / 'other')
  assert len(counted) == 2


def test_without_verdicts_only_what_reflects_needs_a_threshold(
  tmp_path, counted, capsys
):
  silent = AUTO | {'conscience.min_mass': 0.999999}
  plain = silent | {'train.steps': 0, 'dpo.lam': 0.0}
  train.run(runs.small(**plain), tmp_path / 'base')
  said = capsys.readouterr().out
  assert 'no threshold was found' in said and 'nothing is flagged' in said
  assert told(tmp_path / 'base')['value'] == calibration.NONE
  flags = [r['verdict']['flagged'] for r in runs.answers(tmp_path / 'base')]
  assert flags and not any(flags)
  with pytest.raises(UserError, match='of 20 answers of the frozen model'):
    train.run(runs.small(**silent), tmp_path / 'a')


@pytest.mark.usefixtures('all_devices')
@pytest.mark.slow
@pytest.mark.parametrize('groups', [1, 2])
def test_a_stack_finds_it_once(tmp_path, counted, groups):
  few = AUTO | {'train.steps': 1, 'eval.questions': (), 'mesh.stack': groups}
  arms = [few, few | {'dpo.lam': 0.3}, few | {'conscience.threshold': 0.2}]
  runs.stacked(tmp_path, arms)
  assert len(counted) == 1
  assert told(tmp_path / 'arm_0') == told(tmp_path / 'arm_1')
  train.run(runs.small(**few), tmp_path / 'alone')
  assert len(counted) == 1 and told(tmp_path / 'alone')
