"""Where a run starts and how it ends, without a conscience: plain SFT."""

import contextlib
import signal

import numpy as np
import pytest
import runs
from etils import epath

from ealign import train
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.runtime.hosts import Hosts
from ealign.workdir import folder as folder_lib

PLAIN = {'dpo.lam': 0.0, 'eval.questions': ()}


def test_recovery_starts_at_an_adapter(tmp_path):
  plain = {'dpo.lam': 0.0, 'train.steps': 1, 'eval.questions': ()}
  first = train.run(runs.small(**plain), tmp_path / 'sft', name='a')
  bad = {'model.adapter': str(tmp_path / 'sft')}
  still = {'train.steps': 0, 'eval.questions': ()}
  again = train.run(runs.small(**still | bad), tmp_path / 'x', name='a')
  runs.same_bits(again.params, first.params)
  # The misaligned checkpoint as its own conscience: one merged frozen tree.
  merged = {'model.frozen_adapter': str(tmp_path / 'sft')}
  own = train.run(runs.small(**still | merged), tmp_path / 'y', name='a')
  assert float(abs(own.params['q']['b']).max()) == 0
  was, now = (run.frozen['layers']['q'] for run in (again, own))
  assert not np.array_equal(was, now)


def test_foreign_adapter_is_refused(tmp_path):
  still = {'train.steps': 0, 'eval.questions': ()}
  train.run(runs.small(**still), tmp_path / 'a', name='a')
  other = {'model.adapter': str(tmp_path / 'a'), 'model.lora.rank': 2}
  with pytest.raises(UserError, match='its rank, targets or scale'):
    train.run(runs.small(**other), tmp_path / 'b', name='a')


def test_a_checkpoint_of_another_base_is_refused(tmp_path, monkeypatch):
  plain = runs.small(**{'dpo.lam': 0.0, 'train.steps': 2, 'eval.questions': ()})
  train.run(plain, tmp_path, name='a')
  other = lambda *args: 'ffff'
  monkeypatch.setattr(train.provenance, 'tree_hash', other)
  with pytest.raises(UserError, match='trained on another base'):
    train.run(plain, tmp_path, name='a')


def test_nan_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
  def poisoned(fn, state, *batch):
    bad = np.nan if int(state.step) > 2 else 1.0
    state, metrics = fn(state, *batch)
    return state, metrics | {'loss': metrics['loss'] * bad}

  runs.patch_step(monkeypatch, poisoned)
  with pytest.raises(NonFinite, match='step 4: the loss'):
    train.run(runs.small(**PLAIN), tmp_path, name='a')
  assert [p.name for p in (tmp_path / 'checkpoints').glob('[0-9]')] == ['2']


class Killed(BaseException):
  """What stands for SIGKILL: nothing is written after it."""


ASKS = {
  'train.steps': 3,
  'train.log_every': 1,
  'train.checkpoint_every': 2,
  'train.eval_every': 1,
  'conscience.every': 1,
  'eval.curve': (runs.DATA + 'questions_dev.jsonl',),
  'eval.curve_limit': 1,
}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  train.run(runs.small(**ASKS), folder, name='a')
  return folder


# 1 and 2 are the curve and the reflection of step 0; the last ones the curve
# and the answers to the final questions, after the checkpoint of the last step.
@pytest.mark.parametrize('number', [1, 2, 5, 6, 7, 8])
def test_what_a_killed_run_wrote_is_not_written_twice(
  tmp_path, monkeypatch, undisturbed, number
):
  real, calls = train.Setup.record, []

  def record(self, *args):
    real(self, *args)
    calls.append(args)
    if len(calls) == number:
      raise Killed

  with monkeypatch.context() as patched:
    patched.setattr(train.Setup, 'record', record)
    with pytest.raises(Killed):
      train.run(runs.small(**ASKS), tmp_path, name='a')
  train.run(runs.small(**ASKS), tmp_path, name='a')
  assert runs.answers(tmp_path) == runs.answers(undisturbed)
  assert runs.metrics(tmp_path) == runs.metrics(undisturbed)


def test_records_that_were_changed_since_the_checkpoint(tmp_path, monkeypatch):
  monkeypatch.setattr(train.answers, 'final', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    train.run(runs.small(**ASKS), tmp_path, name='a')
  path = tmp_path / 'answers.jsonl'
  text = path.read_bytes()
  path.write_bytes(text[:-400])
  with pytest.raises(UserError, match='answers.jsonl: is not what it was'):
    train.run(runs.small(**ASKS), tmp_path, name='a')
  assert path.read_bytes() == text[:-400]


def test_a_signal_while_it_reflects_loses_no_step(
  tmp_path, monkeypatch, undisturbed
):
  real, calls = train._reflected, []

  def reflected(s, at):
    calls.append(at.step)
    if len(calls) == 2:
      signal.raise_signal(signal.SIGTERM)
      pytest.fail('the reflection went on')
    return real(s, at)

  monkeypatch.setattr(train, '_reflected', reflected)
  with pytest.raises(Preempted, match='stopped at step 1 and saved'):
    train.run(runs.small(**ASKS), tmp_path, name='a')
  train.run(runs.small(**ASKS), tmp_path, name='a')
  assert calls == [0, 1, 1, 2]
  assert runs.answers(tmp_path) == runs.answers(undisturbed)
  assert runs.metrics(tmp_path) == runs.metrics(undisturbed)


def test_a_run_killed_while_it_evaluates_asks_again(tmp_path, monkeypatch):
  changes = {'dpo.lam': 0.0, 'train.steps': 2, 'eval.questions': ()}
  changes |= {'train.eval_every': 2, 'eval.curve_limit': 2}
  changes['eval.curve'] = (runs.DATA + 'questions_dev.jsonl',)
  real, asked = train.answers.curve, []

  def killed(*args, **more):
    asked.append(args)
    if len(asked) == 2:
      raise KeyboardInterrupt
    return real(*args, **more)

  monkeypatch.setattr(train.answers, 'curve', killed)
  with pytest.raises(KeyboardInterrupt):
    train.run(runs.small(**changes), tmp_path, name='a')
  train.run(runs.small(**changes), tmp_path, name='a')
  curve = [r for r in runs.answers(tmp_path) if r['phase'] == 'curve']
  assert [r['step'] for r in curve] == [0, 0, 0, 0, 2, 2, 2, 2]


def test_a_signal_during_the_final_evaluation_is_answered_at_once(
  tmp_path, monkeypatch
):
  changes = {'dpo.lam': 0.0, 'train.steps': 1, 'eval.questions': ()}

  def signalled(*args, **more):
    signal.raise_signal(signal.SIGTERM)
    pytest.fail('the evaluation went on')

  monkeypatch.setattr(train.answers, 'final', signalled)
  with pytest.raises(Preempted, match='stopped while it evaluated'):
    train.run(runs.small(**changes), tmp_path, name='a')
  monkeypatch.undo()
  runs.patch_step(monkeypatch, lambda *_: pytest.fail('it trained again'))
  train.run(runs.small(**changes), tmp_path, name='a')


@pytest.mark.parametrize('stopped', [False, True])
def test_its_trace_reaches_the_bucket(tmp_path, monkeypatch, stopped):
  def step(fn, state, *batch):
    if stopped:
      signal.raise_signal(signal.SIGTERM)
    return fn(state, *batch)

  runs.patch_step(monkeypatch, step)
  bucket = tmp_path / 'bucket'
  place = folder_lib.Folder(tmp_path / 'here', epath.Path(bucket))
  config = runs.small(**PLAIN | {'train.steps': 2})
  until = pytest.raises(Preempted) if stopped else contextlib.nullcontext()
  with until:
    train.run(config, place, name='a', profile=(0, 2))
  assert list(bucket.rglob('profile/**/*.xplane.pb'))
  again = folder_lib.Folder(tmp_path / 'again', epath.Path(bucket))
  again.pull()
  assert (again.local / 'run.json').exists()
  assert not (again.local / 'profile').exists()  # it is large


def test_only_host_0_traces(tmp_path):
  other = Hosts(index=1)  # its folder is a copy that goes with it
  config = runs.small(**PLAIN | {'train.steps': 1})
  place = folder_lib.Folder(tmp_path, epath.Path(tmp_path), writes=False)
  train.run(config, place, name='a', profile=(0, 1), hosts=other)
  assert (tmp_path / 'run.json').exists()
  assert not list(tmp_path.rglob('*.xplane.pb'))
