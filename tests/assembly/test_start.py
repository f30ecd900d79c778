"""The policy that an audit meets: as it is before the first step."""

import jax
import runs

from ealign.alone import ALONE
from ealign.assembly import parts, weights
from ealign.models import weights as weights_lib


def test_it_starts_from_the_adapter_that_is_named(tmp_path):
  plain = runs.small()
  c = parts.conscience_of(plain, ALONE)
  assert parts.with_start(plain, c).policy is c.frozen
  fresh = weights.new_adapter(plain, c.frozen.model.config)
  given = jax.tree.map(lambda x: x + 0.5, fresh)
  scale = weights.lora_scale(plain)
  weights_lib.save_adapter(tmp_path / 'adapter.safetensors', given, scale)
  config = runs.small(**{'model.adapter': str(tmp_path)})
  policy = parts.with_start(config, c).policy
  found = policy.weights['adapter']['q']
  assert abs(found['b'] - 0.5).max() < 1e-6 and policy.model is c.frozen.model
  assert 'adapter' not in c.frozen.weights
