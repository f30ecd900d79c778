"""A run of a few steps on the organism: resume, damage, and what it writes."""

import signal

import numpy as np
import pytest
import runs

from ealign import resume, train
from ealign.assembly import data
from ealign.method import Method
from ealign.runtime.errors import NonFinite, Preempted

ALL_DEVICES = True


def test_resume_equals_an_uninterrupted_run(tmp_path, monkeypatch, capsys):
  config = runs.small(**{'eval.questions': ()})
  whole = train.run(config, tmp_path / 'whole', name='a')
  stop_at(monkeypatch, step=3)
  with pytest.raises(Preempted, match='step 3'):
    train.run(config, tmp_path / 'parts', name='a')
  monkeypatch.undo()
  parts = train.run(config, tmp_path / 'parts', name='a')
  runs.same_bits(whole.params, parts.params)
  assert runs.answers(tmp_path / 'whole') == runs.answers(tmp_path / 'parts')
  assert runs.metrics(tmp_path / 'whole') == runs.metrics(tmp_path / 'parts')
  shown = (tmp_path / 'whole' / 'metrics.jsonl').read_text()
  for phase in ('sample', 'review', 'revise', 'score', 'train'):
    assert f'"perf/share_{phase}": 0.' in shown  # and below 1
  assert '"perf/tokens_per_s_per_chip"' in shown
  pairs = [
    r for r in runs.answers(tmp_path / 'whole') if r['phase'] == 'reflect'
  ]
  assert any(r['alternative'] and r['alternative']['kept'] for r in pairs)
  # What is finished is read, not trained again.
  stop_at(monkeypatch, step=1)
  again = train.run(config, tmp_path / 'parts', name='a', profile=(1, 2))
  assert 'no trace: step 1 is done' in capsys.readouterr().out
  runs.same_bits(whole.params, again.params)


def test_requests_are_drawn_by_the_weights_of_their_pools():
  config = runs.small(**{'conscience.samples': 2})
  pool = [(1.0, ['a', 'b']), (3.0, ['c'])]
  drawn = [data.draw_requests(config, pool, step) for step in range(400)]
  requests, rows = drawn[2]
  assert requests[::2] == requests[1::2]  # each is answered twice
  assert rows == list(range(2 * 8, 3 * 8))
  share = np.mean([r == 'c' for requests, _ in drawn for r in requests])
  assert abs(share - 0.75) < 0.05
  assert drawn[2] == data.draw_requests(config, pool, 2)


def test_updates_under_way_are_no_time_of_a_reflection(tmp_path, monkeypatch):
  order = []

  class Clock(resume.clock.Clock):
    def __call__(self, phase):
      order.append(phase)
      return super().__call__(phase)

  def wait(tree):
    order.append(type(tree).__name__)
    return tree

  def reflect(*_, **__):
    order.append('reflect')
    return [], []

  monkeypatch.setattr(resume.clock, 'Clock', Clock)
  monkeypatch.setattr(train.jax, 'block_until_ready', wait)
  config = runs.small(**{'train.steps': 1, 'eval.questions': ()})
  method = Method('conscience', reflect)
  train.run(config, tmp_path, method=method, name='a')
  assert order[:3] == ['train', 'TrainState', 'reflect']


@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
def test_nan_ends_the_run_and_names_its_steps(name, tmp_path, monkeypatch):
  found = {'loss': 1.0, 'grad_norm': 2.0} | {name: float('nan')}
  runs.patch_step(monkeypatch, lambda step, state, *batch: (state, found))
  config = runs.small(
    **{'conscience.every': 0, 'train.log_every': 2, 'eval.questions': ()},
    **{'train.checkpoint_every': 5},
  )
  said = 'steps 1 to 2: the loss or its gradient became nan'
  with pytest.raises(NonFinite, match=said):
    train.run(config, tmp_path, name='a')
  assert not (tmp_path / 'metrics.jsonl').exists()


def stop_at(monkeypatch, *, step):
  """SIGTERM arrives while step `step` - 1 is under way."""

  def stopped(fn, state, *batch):
    if int(state.step) == step - 1:
      signal.raise_signal(signal.SIGTERM)
    return fn(state, *batch)

  runs.patch_step(monkeypatch, stopped)
