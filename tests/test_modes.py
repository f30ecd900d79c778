"""The modes of a run: no data, another start."""

import jax
import numpy as np
import pytest
import runs

from ealign import train
from ealign.runtime.errors import UserError


def test_zero_shot_trains_on_pairs_alone(tmp_path):
  changes = {'data.train': '', 'eval.questions': ()}
  result = train.run(runs.small(**changes), tmp_path, name='a')
  assert 'loss_sft' not in result.metrics
  moved = jax.tree.map(lambda x: float(abs(x).max()), result.params['q']['b'])
  assert moved > 0


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
