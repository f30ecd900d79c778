"""A run that trains all weights, with its conscience."""

import numpy as np
import runs

from ealign import train


def test_full_fine_tuning_leaves_frozen_alone(tmp_path):
  changes = {'model.train': 'full', 'train.steps': 2, 'eval.questions': ()}
  result = train.run(runs.small(**changes), tmp_path, name='a')
  still = {'train.steps': 0, 'eval.questions': ()}
  base = train.run(runs.small(**still), tmp_path / 'b', name='a')
  runs.same_bits(result.frozen, base.frozen)
  assert (tmp_path / 'model' / 'model.safetensors').exists()
  assert not np.array_equal(result.params['norm'], base.frozen['norm'])
