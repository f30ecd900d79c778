"""Zero-shot: a run without fine-tuning data trains on its pairs alone."""

import jax
import runs

from ealign import train


def test_zero_shot_trains_on_pairs_alone(tmp_path):
  changes = {'data.train': '', 'eval.questions': ()}
  result = train.run(runs.small(**changes), tmp_path, name='a')
  assert 'loss_sft' not in result.metrics
  moved = jax.tree.map(lambda x: float(abs(x).max()), result.params['q']['b'])
  assert moved > 0
