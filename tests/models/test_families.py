"""Every family against transformers, on tiny models with random weights.

`python tests/models/test_families.py` writes golden_families.npz anew and
prints the table of docs/models.md; it needs torch (the `parity` extra).
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ealign.models import config as config_lib
from ealign.models import names, stream, transformer
from ealign.models import weights as weights_lib

GOLDEN = pathlib.Path(__file__).parent / 'golden_families.npz'
LENGTH, VOCABULARY, WINDOW = 12, 41, 4
COLUMNS = slice(None, None, 4)  # of the logits, in the golden
LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 4.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,  # H/2 = 4 frequencies, 3 regimes
}
LINEAR = {'rope_type': 'linear', 'factor': 3.0}


def rope(theta, scaling=None):
  """RoPE as transformers 5 spells it."""
  return {'rope_parameters': {'rope_theta': theta, **(scaling or DEFAULT)}}


def old_rope(theta, scaling=None):
  """RoPE as transformers 4 spells it."""
  return {'rope_theta': theta, 'rope_scaling': scaling}


DEFAULT = {'rope_type': 'default'}
TIED, UNTIED = ({'tie_word_embeddings': tied} for tied in (True, False))
WINDOWS = {'use_sliding_window': True, 'sliding_window': WINDOW}
GEMMA = {'sliding_window': WINDOW, 'query_pre_attn_scalar': 5}
MIXED = {'full_attention': rope(100.0)['rope_parameters']}
MIXED['sliding_attention'] = rope(3.0)['rope_parameters']

CASES = {  # name: (model_type, what is special in its config.json)
  'qwen2': ('qwen2', TIED | rope(1e6)),
  'qwen2 untied, one local layer': (
    'qwen2',
    UNTIED | old_rope(1e4) | WINDOWS | {'max_window_layers': 1},
  ),
  'qwen3': ('qwen3', TIED | rope(1e6)),
  'qwen3 untied': ('qwen3', UNTIED | old_rope(1e4)),
  'qwen3 local layer first': (
    'qwen3',
    TIED
    | rope(1e4, LINEAR)
    | WINDOWS
    | {'layer_types': ['sliding_attention', 'full_attention']},
  ),
  'qwen3_moe': ('qwen3_moe', UNTIED | rope(1e6) | {'norm_topk_prob': True}),
  'qwen3_moe tied, local, as it is': (
    'qwen3_moe',
    TIED | old_rope(1e4) | WINDOWS | {'norm_topk_prob': False},
  ),
  'llama': ('llama', UNTIED | rope(5e5) | {'num_key_value_heads': 4}),
  'llama 3': ('llama', UNTIED | rope(100.0, LLAMA3)),
  'llama 3 tied': ('llama', TIED | old_rope(100.0, LLAMA3)),
  'llama linear': ('llama', TIED | old_rope(100.0, LINEAR)),
  'mistral': (
    'mistral',
    UNTIED | rope(1e4) | {'sliding_window': WINDOW, 'num_key_value_heads': 1},
  ),
  'mistral without window': (
    'mistral',
    UNTIED | old_rope(1e6) | {'sliding_window': None},
  ),
  'gemma3_text': (
    'gemma3_text',
    TIED
    | GEMMA
    | {'rope_parameters': MIXED}
    | {'layer_types': ['sliding_attention', 'full_attention']},
  ),
  'gemma3_text untied, linear': (
    'gemma3_text',
    UNTIED
    | GEMMA
    | old_rope(100.0, LINEAR)
    | {'rope_local_base_freq': 3.0, 'sliding_window_pattern': 2},
  ),
}
ONE_EACH = {CASES[case][0]: case for case in reversed(CASES)}


def hf_config(family, special):
  act = 'hidden_activation' if family == 'gemma3_text' else 'hidden_act'
  experts = {
    'num_experts': 5,
    'num_experts_per_tok': 2,
    'moe_intermediate_size': 8,
  }
  return {
    'architectures': [config_lib.FAMILIES[family].architecture],
    'model_type': family,
    'vocab_size': VOCABULARY,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'intermediate_size': 24,
    'rms_norm_eps': 1e-6,
    'max_position_embeddings': 64,
    act: 'gelu_pytorch_tanh' if family == 'gemma3_text' else 'silu',
    ('dtype' if 'rope_parameters' in special else 'torch_dtype'): 'float32',
    'pad_token_id': None,
    **(experts if family == 'qwen3_moe' else {}),
    **special,
  }


def hf_tensors(hf, seed=0):
  """Weights by the names and in the layout of the Hub, large enough to tell."""
  rng = np.random.default_rng(seed)
  noise = lambda *shape: rng.random(shape, np.float32) * 2 - 1
  family = hf['model_type']
  gemma = family == 'gemma3_text'  # its norms multiply by 1 + w
  norm = lambda width: (0.5 if gemma else 1.5) + noise(width) / 2
  D, F, H = hf['hidden_size'], hf['intermediate_size'], hf['head_dim']
  N, K = hf['num_attention_heads'] * H, hf['num_key_value_heads'] * H
  tensors = {'model.embed_tokens.weight': noise(hf['vocab_size'], D)}
  for i in range(hf['num_hidden_layers']):
    layer = {
      'input_layernorm.weight': norm(D),
      'self_attn.q_proj.weight': noise(N, D) / 2,
      'self_attn.k_proj.weight': noise(K, D) / 2,
      'self_attn.v_proj.weight': noise(K, D) / 2,
      'self_attn.o_proj.weight': noise(D, N) / 2,
      'post_attention_layernorm.weight': norm(D),
    }
    if family == 'qwen2':
      layer |= {
        f'self_attn.{x}_proj.bias': noise(width)
        for x, width in {'q': N, 'k': K, 'v': K}.items()
      }
    if family in ('qwen3', 'qwen3_moe', 'gemma3_text'):
      layer['self_attn.q_norm.weight'] = norm(H)
      layer['self_attn.k_norm.weight'] = norm(H)
    if gemma:
      layer['pre_feedforward_layernorm.weight'] = norm(D)
      layer['post_feedforward_layernorm.weight'] = norm(D)
    blocks = {'mlp': F}
    if family == 'qwen3_moe':
      layer['mlp.gate.weight'] = noise(hf['num_experts'], D)
      F_e = hf['moe_intermediate_size']
      blocks = {f'mlp.experts.{e}': F_e for e in range(hf['num_experts'])}
    for block, width in blocks.items():
      layer[f'{block}.gate_proj.weight'] = noise(width, D) / 2
      layer[f'{block}.up_proj.weight'] = noise(width, D) / 2
      layer[f'{block}.down_proj.weight'] = noise(D, width) / 2
    tensors |= {f'model.layers.{i}.{k}': v for k, v in layer.items()}
  tensors['model.norm.weight'] = norm(D)
  if not hf['tie_word_embeddings']:
    tensors['lm_head.weight'] = noise(hf['vocab_size'], D) / 2
  return tensors


def inputs():
  """tokens, positions, segments [3, T]: plain, padded on the left, packed."""
  shape = 3, LENGTH
  tokens_BT = np.random.default_rng(1).integers(0, VOCABULARY, shape, np.int32)
  positions_BT = np.tile(np.arange(LENGTH, dtype=np.int32), (3, 1))
  positions_BT[1] = np.maximum(positions_BT[1] - 3, -1)
  positions_BT[2, 5:] -= 5
  segments_BT = np.ones(shape, np.int32)
  segments_BT[2, 5:] = 2
  return tokens_BT, positions_BT, segments_BT


forward = jax.jit(transformer.forward, static_argnums=0)
SEEN = inputs()[1] >= 0


def ours(case, **changed):
  """Our Config and weights of a case."""
  hf = hf_config(*CASES[case])
  config = config_lib.from_hf(hf)
  tree = stream.tree(
    names.table(config), hf_tensors(hf), jnp.dtype('float32'), lambda path: None
  )
  return dataclasses.replace(config, **changed), tree


def logits_of(config, weights):
  hidden, _, _ = forward(config, weights, *inputs())
  return np.asarray(transformer.logits(config, weights, hidden))


def close(got, wanted, within=1e-4):
  np.testing.assert_allclose(got, wanted, atol=within, rtol=0)


# --- Without torch -----------------------------------------------------------


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as arrays:
    return dict(arrays)


@pytest.mark.parametrize('case', CASES)
def test_logits_equal_the_golden_of_transformers(case, golden):
  np.testing.assert_array_equal(golden['tokens'], inputs()[0])
  wanted = golden[case]
  assert np.abs(wanted[SEEN]).max() > 1  # logits that say something
  close(logits_of(*ours(case))[SEEN][:, COLUMNS], wanted[SEEN])


SWAPPED = {'rope_theta': 3.0, 'local_rope_theta': 100.0}
LESS = config_lib.Scaling('llama3', 4.0, original=16)


@pytest.mark.parametrize(
  'case, changed',
  [
    ('qwen2 untied, one local layer', {'window': WINDOW + 1}),
    ('qwen3 local layer first', {'local': (False, True)}),
    ('qwen3 local layer first', {'rope_scaling': None}),
    ('qwen3_moe', {'norm_topk': False}),
    ('llama 3', {'rope_scaling': LESS}),
    ('mistral', {'window': WINDOW - 1}),
    ('gemma3_text', SWAPPED),
    ('gemma3_text', {'query_scalar': 0}),
  ],
  ids=lambda x: x if isinstance(x, str) else '-'.join(x),
)
def test_the_golden_notices_what_the_config_says(case, changed, golden):
  got = logits_of(*ours(case, **changed))[SEEN][:, COLUMNS]
  assert np.abs(got - golden[case][SEEN]).max() > 1e-2


@pytest.mark.parametrize('case', ONE_EACH.values(), ids=ONE_EACH)
def test_chunked_extension_of_a_cache_equals_one_pass(case):
  config, weights = ours(case)
  wanted = np.asarray(forward(config, weights, *inputs())[0])[:2]
  tokens_BT, positions_BT = inputs()[0][:2], inputs()[1][:2]
  cache = transformer.init_cache(config, 2, LENGTH + 2)
  for at in range(0, LENGTH, 3):
    cut = np.s_[:, at : at + 3]
    hidden, cache, _ = forward(
      config,
      weights,
      tokens_BT[cut],
      positions_BT[cut],
      cache=cache,
      write_B=np.int32(at + 1),
    )
    seen = SEEN[:2][cut]
    close(hidden[seen], wanted[cut][seen], 3e-5)


@pytest.mark.parametrize('case', CASES)
def test_what_is_written_is_what_was_read(case, tmp_path):
  config, weights = ours(case)
  weights_lib.save(tmp_path, config, weights, dtype='float32')
  assert weights_lib.read_config(tmp_path) == config
  tensors = load_file(tmp_path / 'model.safetensors')
  wanted = hf_tensors(hf_config(*CASES[case]))
  assert tensors.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_array_equal(tensors[name], value)


@pytest.mark.parametrize('case', ONE_EACH.values(), ids=ONE_EACH)
def test_random_weights_have_the_leaves_of_read_ones(case):
  config, weights = ours(case)
  fresh = jax.eval_shape(
    lambda key: transformer.init(config, key=key), jax.random.key(0)
  )
  assert jax.tree.structure(fresh) == jax.tree.structure(weights)
  assert jax.tree.map(np.shape, fresh) == jax.tree.map(np.shape, weights)


# --- With torch --------------------------------------------------------------


def write_folder(folder, hf):
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(hf))
  tensors = hf_tensors(hf)
  save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
  return folder


def torch_logits(folder, dtype='float32'):
  """What transformers computes from a model folder; padding as 0."""
  import torch
  from transformers import AutoModelForCausalLM

  model, facts = AutoModelForCausalLM.from_pretrained(
    folder,
    dtype=getattr(torch, dtype),
    attn_implementation='eager',
    output_loading_info=True,
  )
  assert not any(facts.values()), facts  # every tensor found its place
  tokens_BT, positions_BT, _ = (torch.tensor(x).long() for x in inputs())
  with torch.no_grad():
    padded = model(
      input_ids=tokens_BT[:2],
      attention_mask=(positions_BT[:2] >= 0).long(),
      position_ids=positions_BT[:2].clamp(min=0),
    )
    # With neither mask nor cache it sees from the positions what is packed.
    packed = model(
      input_ids=tokens_BT[2:], position_ids=positions_BT[2:], use_cache=False
    )
  both = torch.cat([padded.logits, packed.logits]).float().numpy()
  return both * SEEN[..., None]


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_logits_equal_transformers_live(case, tmp_path, golden):
  pytest.importorskip('torch', reason='the parity extra is not installed')
  folder = write_folder(tmp_path / 'theirs', hf_config(*CASES[case]))
  config, weights = weights_lib.load(folder)
  wanted = torch_logits(folder)
  close(logits_of(config, weights)[SEEN], wanted[SEEN])
  close(wanted[..., COLUMNS], golden[case])
  weights_lib.save(tmp_path / 'ours', config, weights, dtype='float32')
  np.testing.assert_array_equal(torch_logits(tmp_path / 'ours'), wanted)


def write_golden():
  """Writes the golden; prints largest differences and bf16 agreement."""
  import tempfile

  arrays = {'tokens': inputs()[0]}
  print('| case | largest logit | largest difference | bf16 argmax agrees |')
  print('|---|---|---|---|')
  for case, facts in CASES.items():
    with tempfile.TemporaryDirectory() as folder:
      folder = write_folder(pathlib.Path(folder), hf_config(*facts))
      wanted = torch_logits(folder).astype(np.float32)
      halves = torch_logits(folder, 'bfloat16')
      got = logits_of(*weights_lib.load(folder))
      half = logits_of(*weights_lib.load(folder, dtype='bfloat16'))
    arrays[case] = wanted[..., COLUMNS]
    size, gap = (np.abs(x[SEEN]).max() for x in (wanted, got - wanted))
    agree = (half.argmax(-1) == halves.argmax(-1))[SEEN].mean()
    print(f'| {case} | {size:.1f} | {gap:.1e} | {agree:.0%} |')
  np.savez_compressed(GOLDEN, **arrays)


if __name__ == '__main__':
  write_golden()
