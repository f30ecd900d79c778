import ast
import dataclasses
import json
import pathlib

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


def of(family, **more):
  """A config.json of that family with sizes, and nothing else."""
  names = ('hidden_act', 'rms_norm_eps', 'tie_word_embeddings')
  hf = without(*names, 'rope_parameters', model_type=family)
  if family == 'qwen3_moe':
    hf |= {'num_experts': 4, 'num_experts_per_tok': 2}
    hf['moe_intermediate_size'] = 12
  return hf | more


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


BNB = {'quant_method': 'bitsandbytes', 'llm_int8_skip_modules': ['x'] * 99}
UNLIKE = [  # model_type, field, its value, what is said
  ('qwen3', 'model_type', 'gpt2', "model_type is 'gpt2'; supported: qwen2,"),
  ('qwen3', 'model_type', 'gemma3', "model_type is 'gemma3'; .*gemma3_text"),
  ('qwen3', 'model_type', ['x'], "model_type is .'x'.; supported: qwen2,"),
  ('qwen3', 'architectures', ['Qwen3Model'], "is .'Qwen3Model'.; supported"),
  ('qwen3', 'hidden_act', 'gelu', "hidden_act is 'gelu'"),
  ('qwen3', 'attention_bias', True, 'attention_bias is True'),
  (
    'qwen3',
    'quantization_config',
    BNB,
    "are quantized by 'bitsandbytes'; take",
  ),
  ('qwen3', 'quantization', {'bits': 4}, 'quantization: the weights are quant'),
  ('llama', 'auto_map', {'AutoModelForCausalLM': 'x.Y'}, 'has code of its own'),
  ('llama', 'rope_interleaved', True, 'rope_interleaved is True; supported: F'),
  (
    'llama',
    'logits_scaling',
    8.0,
    "logits_scaling is '8.0', and it may change",
  ),
  ('qwen3', 'num_nextn_predict_layers', 1, 'ealign does not know it; if it ch'),
  ('llama', 'rope_scaling', {'type': 'default', 'beta': 2}, 'RoPE: beta is 2'),
  ('qwen3', 'rope_parameters', {'rope_type': 'yarn'}, "rope_type is 'yarn'"),
  ('qwen3', 'rope_scaling', {'type': 'dynamic'}, "rope_type is 'dynamic'"),
  ('qwen3', 'rope_scaling', {'rope_type': 'linear'}, 'factor is None'),
  ('qwen3', 'rope_scaling', 'linear', "rope_scaling is 'linear'"),
  ('qwen3', 'rope_theta', None, 'rope_theta is None'),
  ('qwen3', 'num_key_value_heads', 3, 'heads is 3; it must divide num_att'),
  ('qwen3', 'rms_norm_eps', 'x', "eps is 'x'; it must be a number above 0"),
  ('qwen3', 'rms_norm_eps', 0, 'eps is 0; it must be a number above 0'),
  ('qwen3', 'rms_norm_eps', float('nan'), 'eps is nan; it must be a number'),
  ('qwen3', 'tie_word_embeddings', 'no', "is 'no'; it must be true or false"),
  ('qwen3', 'head_dim', 7, 'head_dim is 7; it must be even'),
  ('qwen3', 'use_sliding_window', 'no', "window is 'no'; supported: true or f"),
  ('llama', 'rope_parameters', {'full_attention': {}}, 'one for all layers'),
  ('gemma3_text', 'rope_parameters', {'sliding_attention': {}}, 'one for all'),
  ('gemma3_text', 'query_pre_attn_scalar', 'x', "scalar is 'x'; it must be a"),
  ('gemma3_text', 'num_key_value_heads', None, "heads' is missing"),
  ('qwen3_moe', 'norm_topk_prob', 'no', "is 'no'; it must be true or false"),
  ('qwen3_moe', 'router_aux_loss_coef', -1, 'coef is -1; it must be a number'),
  ('llama', 'mlp_bias', True, 'mlp_bias is True'),
  ('llama', 'partial_rotary_factor', 0.5, 'partial_rotary_factor is 0.5'),
  ('llama', 'layer_types', ['sliding_attention'] * 3, "layer_types is .'slid"),
  ('mistral', 'sliding_window', 0, 'sliding_window is 0'),
  ('qwen3_moe', 'mlp_only_layers', [0], 'mlp_only_layers is .0.'),
  ('qwen3_moe', 'decoder_sparse_step', 2, 'decoder_sparse_step is 2'),
  ('qwen3_moe', 'num_experts_per_tok', 5, 'tok is 5; it must be at most num_'),
  ('gemma3_text', 'hidden_activation', 'silu', "hidden_activation is 'silu'"),
  ('gemma3_text', 'attn_logit_softcapping', 50.0, 'attn_logit_softcapping is '),
  (
    'gemma3_text',
    'final_logit_softcapping',
    30.0,
    'final_logit_softcapping is',
  ),
  ('gemma3_text', 'use_bidirectional_attention', True, 'bidirectional_attenti'),
  ('gemma3_text', 'sliding_window', None, 'sliding_window is None'),
  ('gemma3_text', 'layer_types', ['linear_attention'] * 3, 'layer_types is'),
]


@pytest.mark.parametrize('family, field, value, said', UNLIKE)
def test_what_is_not_supported_is_refused(family, field, value, said):
  hf = of(family)
  assert config_lib.from_hf(hf).family == family
  with pytest.raises(UserError, match=said) as caught:
    config_lib.from_hf(hf | {field: value})
  (line,) = str(caught.value).splitlines()
  assert len(line) < 200


# As they are on the Hub, in files of transformers 4 and 5 and of tools; only
# the sizes are not theirs.
REAL = {
  'llama': {  # SmolLM2, Llama 3, Vicuna
    '_name_or_path': 'x',
    'is_llama_config': True,
    'rope_interleaved': False,
    'pretraining_tp': 2,
    'max_sequence_length': 2048,
    'transformers.js_config': {'kv_cache_dtype': {'fp16': 'float16'}},
    'unsloth_fixed': True,
    'quantization_config': None,
    'auto_map': {'AutoTokenizer': ['x.Y', None]},
    '_flash_attn_2_enabled': True,
    'bad_words_ids': None,
    'id2label': {'0': 'LABEL_0'},
    'mlp_bias': False,
    'sliding_window': 4096,
    'temperature': 1.0,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4},
  },
  'qwen2': {'use_mrope': False, 'max_window_layers': 21, 'attention_bias': 1},
  'qwen3': {'max_window_layers': 36, 'use_sliding_window': False},
  'qwen3_moe': {'output_router_logits': False, 'intermediate_size': 6144},
  'mistral': {'attention_dropout': 0.0, 'use_cache': True},
  'gemma3_text': {
    'cache_implementation': 'hybrid',
    'hidden_act': 'gelu',
    '_sliding_window_pattern': 6,
    'rope_local_base_freq': 10000,
  },
}


@pytest.mark.parametrize('family', config_lib.FAMILIES)
def test_no_real_model_is_refused_for_a_harmless_field(family):
  from transformers import AutoConfig

  plain = config_lib.from_hf(of(family))
  assert config_lib.from_hf(of(family, **REAL[family])) == plain
  # What transformers writes of a model it makes itself.
  theirs = AutoConfig.for_model(family).to_dict()
  assert config_lib.from_hf(theirs | {'architectures': None}).family == family


def test_the_two_spellings_of_rope_must_not_contradict():
  old = {'rope_scaling': {'type': 'linear', 'factor': 2.0}}
  new = {'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e5}}
  with pytest.raises(UserError, match="rope_scaling: rope_type is 'linear'"):
    config_lib.from_hf(of('llama', **old, **new))
  del new['rope_parameters']['rope_type']
  got = config_lib.from_hf(of('llama', **old, **new))
  assert got.rope_theta == 5e5
  assert got.rope_scaling == config_lib.Scaling('linear', 2.0)


def test_all_problems_are_named_at_once():
  hf = without('vocab_size', rope_theta='a', hidden_act='relu', head_dim='8')
  del hf['rope_parameters']
  with pytest.raises(UserError) as caught:
    config_lib.from_hf(hf)
  for name in ('head_dim', 'vocab_size', 'rope_theta', 'hidden_act'):
    assert name in str(caught.value)
  assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
  'family, more, wanted',
  [
    ('qwen2', {'use_sliding_window': True, 'max_window_layers': 2}, 'ffs'),
    ('qwen3', {'sliding_window': 8}, ''),
    ('qwen3_moe', {'use_sliding_window': True}, 'sss'),
    ('llama', {'sliding_window': 8}, ''),
    ('mistral', {}, 'sss'),
    ('mistral', {'sliding_window': None}, ''),
    ('gemma3_text', {}, 'sss'),
    ('gemma3_text', {'sliding_window_pattern': 2}, 'sfs'),
  ],
)
def test_which_layers_are_local(family, more, wanted):
  got = config_lib.from_hf(of(family, **more))
  assert got.local == tuple(kind == 's' for kind in wanted)
  assert got.window == (4096 if wanted else 0)


@pytest.mark.parametrize('family', config_lib.FAMILIES)
def test_defaults_agree_with_those_of_transformers(family):
  from transformers import AutoConfig

  theirs = AutoConfig.for_model(family).to_dict()
  got = config_lib.from_hf(of(family))
  assert got.tie_embeddings == theirs['tie_word_embeddings']
  assert got.norm_eps == theirs['rms_norm_eps']
  rope = theirs['rope_parameters']
  if family == 'gemma3_text':
    assert got.query_scalar == theirs['query_pre_attn_scalar']
    assert got.window == theirs['sliding_window']
    assert got.local_rope_theta == rope['sliding_attention']['rope_theta']
    rope = rope['full_attention']
  assert got.rope_theta == rope['rope_theta']
  if family == 'qwen3_moe':
    assert got.norm_topk == theirs['norm_topk_prob']
    assert got.balance_coef == theirs['router_aux_loss_coef']
  if family == 'mistral':
    assert got.window == theirs['sliding_window']


@pytest.mark.parametrize('family', config_lib.FAMILIES)
def test_absent_heads_are_those_of_transformers(family):
  from transformers import AutoConfig

  hf = of(family)
  del hf['num_key_value_heads'], hf['head_dim']
  if family == 'llama':  # its first models have no such field
    assert config_lib.from_hf(hf).kv_heads == 4
  else:
    with pytest.raises(UserError, match="'num_key_value_heads' is missing"):
      config_lib.from_hf(hf)
  if family in ('llama', 'mistral', 'qwen2', 'qwen3'):
    assert config_lib.from_hf(hf | {'num_key_value_heads': None}).kv_heads == 4
  theirs = AutoConfig.for_model(**hf)
  got = config_lib.from_hf(hf | {'num_key_value_heads': 2})
  assert got.head_dim == (getattr(theirs, 'head_dim', None) or 16 // 4)


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


def test_only_their_table_names_the_families():
  """What a family means is a trait: nothing compares names."""
  for path in pathlib.Path(config_lib.__file__).parent.glob('*.py'):
    tree = ast.parse(path.read_text())
    names = [
      node.value
      for node in ast.walk(tree)
      if isinstance(node, ast.Constant) and node.value in config_lib.FAMILIES
    ]
    if path.name == 'config.py':  # the keys, and the default of Config
      assert sorted(names) == sorted([*config_lib.FAMILIES, 'qwen3'])
    elif path.name != 'gguf_tokenizer.py':  # kinds of tokenizers, named alike
      assert not names, path
