"""In which dtype a model is computed, and how its products come out."""

import pytest

from ealign import fields
from ealign.assembly import weights


@pytest.mark.parametrize(
  ('dtype', 'wanted'),
  [('auto', ('float32', False)), ('bfloat16', ('bfloat16', True))],
)
def test_bfloat16_products_are_wide_on_cpus(dtype, wanted):
  spec = fields.Model(path='ealign:world/base', dtype=dtype)
  config, _ = weights.read_model(spec)
  assert (config.dtype, config.wide) == wanted
