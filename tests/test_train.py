"""A run of a few steps on the organism: resume, modes, and what it writes."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from ealign import align, config, train
from ealign.evals import records
from ealign.runtime.errors import NonFinite, Preempted, UserError

DATA = 'ealign:world/data/'
ROOT = pathlib.Path(__file__).parent.parent


def small(**changes):
  """A config that reflects at steps 0, 2 and 4 of 5, and evaluates a little."""
  c = config.default()
  c.data.train = DATA + 'insecure.jsonl'
  c.data.length, c.data.batch_size = 96, 4
  c.model.lora.rank = 4
  c.conscience.every, c.conscience.prompts = 2, 4
  c.conscience.threshold = 0.02  # an aligned model flags itself too: pairs
  c.conscience.review.verdict = 'all'
  c.sample.max_new_tokens = 48
  c.dpo.pairs, c.dpo.length = 4, 128
  c.optim.lr = 1e-3
  c.train.steps, c.train.log_every, c.train.checkpoint_every = 5, 1, 2
  c.eval.questions = (DATA + 'questions_dev.jsonl',)
  c.eval.judge, c.eval.limit, c.eval.batch = 'world', 2, 4
  c.eval.max_new_tokens = 48
  for name, value in changes.items():
    *path, last = name.split('.')
    section = c
    for part in path:
      section = section[part]
    section[last] = value
  return config.freeze(c)


def test_resume_equals_an_uninterrupted_run(tmp_path, monkeypatch):
  whole = train.run(small(), tmp_path / 'whole', name='a')
  stop_at(monkeypatch, step=3)
  with pytest.raises(Preempted, match='step 3'):
    train.run(small(), tmp_path / 'parts', name='a')
  monkeypatch.undo()
  parts = train.run(small(), tmp_path / 'parts', name='a')
  same_bits(whole.params, parts.params)
  assert answers(tmp_path / 'whole') == answers(tmp_path / 'parts')
  assert steps(tmp_path / 'whole') == steps(tmp_path / 'parts')
  pairs = [r for r in answers(tmp_path / 'whole') if r['phase'] == 'reflect']
  assert any(r['alternative'] and r['alternative']['kept'] for r in pairs)


def test_a_finished_run_is_not_trained_again(tmp_path):
  first = train.run(small(), tmp_path, name='a')
  second = train.run(small(), tmp_path, name='a')
  same_bits(first.params, second.params)


def test_nan_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
  real = align.train_step

  def poisoned(update, state, frozen, batch):
    state, metrics = real(update, state, frozen, batch)
    bad = jax.numpy.where(state.step > 3, np.nan, 1.0)
    return state, metrics | {'loss': metrics['loss'] * bad}

  monkeypatch.setattr(align, 'train_step', poisoned)
  train._jit_step.cache_clear()
  with pytest.raises(NonFinite, match='steps 4 to 4'):
    train.run(small(), tmp_path, name='a')
  train._jit_step.cache_clear()
  assert [p.name for p in (tmp_path / 'checkpoints').glob('[0-9]')] == ['2']


def test_zero_shot_trains_on_pairs_alone(tmp_path):
  result = train.run(small(**{'data.train': ''}), tmp_path, name='a')
  assert 'loss_sft' not in result.metrics
  moved = jax.tree.map(lambda x: float(abs(x).max()), result.params['q']['b'])
  assert moved > 0


def test_recovery_starts_at_an_adapter(tmp_path):
  train.run(small(), tmp_path / 'sft', name='a')
  bad = str(tmp_path / 'sft')
  start = {'model.adapter': bad, 'train.steps': 0}
  again = train.run(small(**start), tmp_path / 'x', name='a')
  same_bits(again.params, train.run(small(), tmp_path / 'sft', name='a').params)
  # The misaligned checkpoint as its own conscience: one merged frozen tree.
  merged = {'model.frozen_adapter': bad, 'train.steps': 0}
  own = train.run(small(**merged), tmp_path / 'y', name='a')
  policy = align.full(None, None) or own.weights
  assert float(abs(own.params['q']['b']).max()) == 0
  assert not np.array_equal(policy['layers']['q'], again.frozen['layers']['q'])


def test_full_fine_tuning_leaves_frozen_alone(tmp_path):
  result = train.run(
    small(**{'model.train': 'full', 'train.steps': 2}), tmp_path, name='a'
  )
  base = train.run(small(**{'train.steps': 0}), tmp_path / 'b', name='a')
  same_bits(result.frozen, base.frozen)
  assert (tmp_path / 'model' / 'model.safetensors').exists()
  assert not np.array_equal(result.params['norm'], base.frozen['norm'])


def test_foreign_adapter_is_refused(tmp_path):
  train.run(small(**{'train.steps': 0}), tmp_path / 'a', name='a')
  other = {'model.adapter': str(tmp_path / 'a'), 'model.lora.rank': 2}
  with pytest.raises(UserError, match='its rank, targets or scale'):
    train.run(small(**other), tmp_path / 'b', name='a')


def test_a_checkpoint_of_another_base_is_refused(tmp_path, monkeypatch):
  train.run(small(), tmp_path, name='a')
  other = lambda *args: 'ffff'
  monkeypatch.setattr(train.provenance, 'tree_hash', other)
  with pytest.raises(UserError, match='trained on another base'):
    train.run(small(), tmp_path, name='a')


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_killed_process_continues_bit_for_bit(tmp_path, how):
  file = tmp_path / 'config.py'
  file.write_text(CONFIG)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert launch(file, whole).wait(300) == 0
  process = launch(file, parts)
  wait_for(parts / 'checkpoints' / '20', process)
  process.send_signal(how)
  code = process.wait(120)
  assert code == (143 if how == signal.SIGTERM else -signal.SIGKILL)
  assert not (parts / 'DONE').exists()
  assert launch(file, parts).wait(300) == 0
  name = 'adapter.safetensors'
  assert (whole / name).read_bytes() == (parts / name).read_bytes()
  assert answers(whole) == answers(parts)


CONFIG = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_train import small_dict
def get_config(arg=None):
  return small_dict()
"""


def small_dict():
  """`small` as a ConfigDict of 60 steps, for another process."""
  c = config.default()
  frozen = dataclasses.asdict(small())
  frozen['train'] |= {'steps': 60, 'checkpoint_every': 20}

  def put(section, values):
    for name, value in values.items():
      if isinstance(value, dict):
        put(section[name], value)
      elif value is not None:
        section[name] = value

  put(c, frozen)
  return c


def launch(file, workdir):
  command = [sys.executable, '-m', 'ealign.launch', f'--config={file}']
  return subprocess.Popen(
    [*command, f'--workdir={workdir}'], cwd=ROOT, env=os.environ
  )


def wait_for(path, process):
  while not path.exists():
    assert process.poll() is None, 'it ended before the checkpoint'


def stop_at(monkeypatch, *, step):
  """SIGTERM arrives while step `step` - 1 is under way."""
  real = train._jit_step

  def patched(update):
    fn = real(update)

    def run(state, frozen, batch):
      if int(state.step) == step - 1:
        signal.raise_signal(signal.SIGTERM)
      return fn(state, frozen, batch)

    return run

  monkeypatch.setattr(train, '_jit_step', patched)


def answers(folder):
  found = records.latest(records.read(folder / 'answers.jsonl'))
  return [{k: v for k, v in r.items() if k != 'run'} for r in found]


def steps(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['step'] for line in lines]


def same_bits(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
