import dataclasses

import pytest

from ealign import fields
from ealign.assembly import fit
from ealign.models import config as config_lib
from ealign.runtime.errors import UserError

MODEL = config_lib.Config(
  vocab_size=7, d_model=4, layers=1, heads=2, kv_heads=1, head_dim=2, d_ff=3
)
MIXTURE = dataclasses.replace(
  MODEL, family='qwen3_moe', experts=2, experts_per_token=1
)


def config(*targets):
  lora = fields.LoRA(targets=targets)
  return fields.Config(model=fields.Model(lora=lora))


def test_an_adapter_needs_projections_that_the_model_has():
  fit.targets(fields.Config(), MODEL)
  fit.targets(config('q', 'o'), MIXTURE)
  with pytest.raises(UserError) as caught:
    fit.targets(config('q', 'gate', 'down'), MIXTURE)
  assert str(caught.value) == (
    "model.lora.targets=gate,down: a model of type 'qwen3_moe' has no such "
    'projections, or has them in its experts, which take no adapter; use '
    'model.lora.targets=q,k,v,o'
  )
