import dataclasses

import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.assembly import fit
from ealign.conscience import prompts
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.engine import Engine, Model
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


def conscience(positions, **revise):
  shape = dataclasses.replace(MODEL, vocab_size=9999, max_positions=positions)
  model = Model(shape, chat.load_tokenizer('ealign/world/base'))
  engine = Engine(model, {}, ALONE)
  return prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(revise=fields.Revise(**revise)),
    sample=fields.Sample(max_new_tokens=20),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
  )


def test_a_request_leaves_room_for_the_answer_its_review_and_the_alternative():
  asked = [{'role': 'user', 'content': 'Any tips for the old soup?'}]
  c = conscience(1000)
  model = c.policy.model
  longest = len(model.prompt(asked)) + prompts.overhead(c, model)
  fit.pool(conscience(longest + 40), 'pool', [asked])
  fit.pool(conscience(longest + 23, max_new_tokens=3), 'pool', [asked])
  fit.pool(conscience(longest + 50, max_new_tokens=30), 'pool', [asked])
  for positions, limit in ((39, 0), (22, 3), (49, 30)):
    small = conscience(longest + positions, max_new_tokens=limit)
    name = 'conscience.revise.' if limit == 30 else 'sample.'
    told = f'pool: row 1.* lower {name}max_new_tokens'
    with pytest.raises(UserError, match=told):
      fit.pool(small, 'pool', [asked])
