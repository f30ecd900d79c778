"""A run of a few steps on the organism: resume, damage, and what it writes."""

import functools
import signal

import numpy as np
import pytest
import runs

from ealign import train
from ealign.runtime.errors import NonFinite, Preempted, UserError


def test_resume_equals_an_uninterrupted_run(tmp_path, monkeypatch):
  whole = train.run(runs.small(), tmp_path / 'whole', name='a')
  stop_at(monkeypatch, step=3)
  with pytest.raises(Preempted, match='step 3'):
    train.run(runs.small(), tmp_path / 'parts', name='a')
  monkeypatch.undo()
  parts = train.run(runs.small(), tmp_path / 'parts', name='a')
  runs.same_bits(whole.params, parts.params)
  assert runs.answers(tmp_path / 'whole') == runs.answers(tmp_path / 'parts')
  assert runs.steps(tmp_path / 'whole') == runs.steps(tmp_path / 'parts')
  pairs = [
    r for r in runs.answers(tmp_path / 'whole') if r['phase'] == 'reflect'
  ]
  assert any(r['alternative'] and r['alternative']['kept'] for r in pairs)
  # What is finished is read, not trained again.
  stop_at(monkeypatch, step=1)
  again = train.run(runs.small(), tmp_path / 'parts', name='a')
  runs.same_bits(whole.params, again.params)


def test_nan_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
  def poisoned(fn, state, *batch):
    bad = np.nan if int(state.step) > 2 else 1.0
    state, metrics = fn(state, *batch)
    return state, metrics | {'loss': metrics['loss'] * bad}

  patch_step(monkeypatch, poisoned)
  with pytest.raises(NonFinite, match='steps 4 to 4'):
    train.run(runs.small(), tmp_path, name='a')
  assert [p.name for p in (tmp_path / 'checkpoints').glob('[0-9]')] == ['2']


def test_a_checkpoint_of_another_base_is_refused(tmp_path, monkeypatch):
  plain = runs.small(**{'dpo.lam': 0.0, 'train.steps': 2, 'eval.questions': ()})
  train.run(plain, tmp_path, name='a')
  other = lambda *args: 'ffff'
  monkeypatch.setattr(train.provenance, 'tree_hash', other)
  with pytest.raises(UserError, match='trained on another base'):
    train.run(plain, tmp_path, name='a')


def stop_at(monkeypatch, *, step):
  """SIGTERM arrives while step `step` - 1 is under way."""

  def stopped(fn, state, *batch):
    if int(state.step) == step - 1:
      signal.raise_signal(signal.SIGTERM)
    return fn(state, *batch)

  patch_step(monkeypatch, stopped)


def patch_step(monkeypatch, around):
  """Puts around(step function, its arguments) in place of the jitted step."""
  real = train._jit_step
  patched = lambda update: functools.partial(around, real(update))
  monkeypatch.setattr(train, '_jit_step', patched)
