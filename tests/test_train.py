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
  assert runs.metrics(tmp_path / 'whole') == runs.metrics(tmp_path / 'parts')
  pairs = [
    r for r in runs.answers(tmp_path / 'whole') if r['phase'] == 'reflect'
  ]
  assert any(r['alternative'] and r['alternative']['kept'] for r in pairs)
  # What is finished is read, not trained again.
  stop_at(monkeypatch, step=1)
  again = train.run(runs.small(), tmp_path / 'parts', name='a')
  runs.same_bits(whole.params, again.params)


def test_a_run_killed_while_it_evaluates_asks_again(tmp_path, monkeypatch):
  changes = {'dpo.lam': 0.0, 'train.steps': 2, 'eval.questions': ()}
  changes |= {'train.eval_every': 2, 'eval.curve_limit': 2}
  changes['eval.curve'] = (runs.DATA + 'questions_dev.jsonl',)
  real, asked = train.answers_lib.curve, []

  def killed(*args, **more):
    asked.append(args)
    if len(asked) == 2:
      raise KeyboardInterrupt
    return real(*args, **more)

  monkeypatch.setattr(train.answers_lib, 'curve', killed)
  with pytest.raises(KeyboardInterrupt):
    train.run(runs.small(**changes), tmp_path, name='a')
  train.run(runs.small(**changes), tmp_path, name='a')
  curve = [r for r in runs.answers(tmp_path) if r['phase'] == 'curve']
  assert [r['step'] for r in curve] == [0, 0, 0, 0, 2, 2, 2, 2]


def test_requests_are_drawn_by_the_weights_of_their_pools():
  config = runs.small(**{'conscience.samples': 2})
  pool = [(1.0, ['a', 'b']), (3.0, ['c'])]
  drawn = [train.draw_requests(config, pool, step) for step in range(400)]
  requests, rows = drawn[2]
  assert requests[::2] == requests[1::2]  # each is answered twice
  assert rows == list(range(2 * 8, 3 * 8))
  share = np.mean([r == 'c' for requests, _ in drawn for r in requests])
  assert abs(share - 0.75) < 0.05
  assert drawn[2] == train.draw_requests(config, pool, 2)


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
