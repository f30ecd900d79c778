import dataclasses
import json

import pytest

from ealign.models import config as config_lib
from ealign.runtime.errors import UserError

HF = {  # as transformers 5 writes it
  'model_type': 'qwen3',
  'vocab_size': 41,
  'hidden_size': 16,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 8,
  'intermediate_size': 24,
  'rms_norm_eps': 1e-5,
  'max_position_embeddings': 64,
  'tie_word_embeddings': True,
  'hidden_act': 'silu',
  'rope_parameters': {'rope_theta': 5e5, 'rope_type': 'default'},
}
WANTED = config_lib.Config(
  vocab_size=41,
  d_model=16,
  layers=3,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  rope_theta=5e5,
  norm_eps=1e-5,
  tie_embeddings=True,
  max_positions=64,
)


def without(*names, **more):
  return {k: v for k, v in HF.items() if k not in names} | more


@pytest.mark.parametrize(
  'hf',
  [
    HF,
    without('rope_parameters', rope_theta=5e5, rope_scaling=None),
    without('rope_parameters', rope_theta=500000),
    without(rope_theta=1e4),  # rope_parameters wins, as in transformers
    without('hidden_act', attention_bias=False, sliding_window=4096),
  ],
  ids=['new', 'old', 'whole_number', 'both', 'extra'],
)
def test_golden_in_either_spelling(hf):
  assert config_lib.from_hf(hf) == WANTED


def test_what_is_absent_has_the_default_of_transformers():
  absent = ('rope_parameters', 'rms_norm_eps', 'tie_word_embeddings')
  got = config_lib.from_hf(without(*absent))
  assert got.rope_theta == 1e4
  assert got.norm_eps == 1e-6
  assert got.tie_embeddings is False


def test_absent_fields_agree_with_transformers_itself():
  from transformers import Qwen3Config

  theirs = Qwen3Config().to_dict()
  ours = config_lib.from_hf(
    without('rope_parameters', 'rms_norm_eps', 'tie_word_embeddings')
  )
  assert ours.rope_theta == theirs['rope_parameters']['rope_theta']
  assert ours.norm_eps == theirs['rms_norm_eps']
  assert ours.tie_embeddings == theirs['tie_word_embeddings']


@pytest.mark.parametrize(
  'field, value, said',
  [
    ('model_type', 'llama', "model_type is 'llama'"),
    ('hidden_act', 'gelu', "hidden_act is 'gelu'"),
    ('attention_bias', True, 'attention_bias is True'),
    ('use_sliding_window', True, 'use_sliding_window is True'),
    ('rope_parameters', {'rope_type': 'yarn'}, "rope_type is 'yarn'"),
    ('rope_scaling', {'type': 'linear', 'factor': 2}, "rope_type is 'linear'"),
  ],
)
def test_what_is_not_supported_is_refused(field, value, said):
  hf = without('rope_parameters', **{field: value})
  with pytest.raises(UserError, match=said):
    config_lib.from_hf(hf)


def test_all_problems_are_named_at_once():
  hf = without('head_dim', 'vocab_size', model_type='gpt2', hidden_act='relu')
  with pytest.raises(UserError) as caught:
    config_lib.from_hf(hf)
  for name in ('head_dim', 'vocab_size', 'model_type', 'hidden_act'):
    assert name in str(caught.value)
  assert len(str(caught.value).splitlines()) == 4


def test_round_trip_keeps_the_model_and_writes_both_spellings():
  hf = json.loads(json.dumps(config_lib.to_hf(WANTED, eos_token_id=3)))
  assert config_lib.from_hf(hf) == WANTED
  assert hf['eos_token_id'] == 3
  assert hf['rope_theta'] == hf['rope_parameters']['rope_theta'] == 5e5
  assert hf['dtype'] == hf['torch_dtype'] == 'bfloat16'
  for name in ('rope_theta', 'rope_parameters'):
    one = {k: v for k, v in hf.items() if k != name}
    assert config_lib.from_hf(one) == WANTED


def test_how_it_runs_is_no_part_of_the_file():
  config = config_lib.from_hf(HF, dtype='bfloat16', remat='full', scan=False)
  assert config == dataclasses.replace(
    WANTED, dtype='bfloat16', remat='full', scan=False
  )
  assert config_lib.to_hf(config) == config_lib.to_hf(WANTED)
  assert hash(config) != hash(WANTED)  # a static argument of its own
