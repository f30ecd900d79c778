import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ealign.models import config as config_lib
from ealign.models import lora
from ealign.models import weights as weights_lib
from ealign.runtime.errors import UserError

CONFIG = config_lib.Config(
  vocab_size=7,
  d_model=4,
  layers=2,
  heads=3,
  kv_heads=1,
  head_dim=2,
  d_ff=5,
  tie_embeddings=False,
)
SHAPES = {  # on disk: [out, in]
  'input_layernorm': (4,),
  'self_attn.q_proj': (6, 4),
  'self_attn.k_proj': (2, 4),
  'self_attn.v_proj': (2, 4),
  'self_attn.o_proj': (4, 6),
  'self_attn.q_norm': (2,),
  'self_attn.k_norm': (2,),
  'post_attention_layernorm': (4,),
  'mlp.gate_proj': (5, 4),
  'mlp.up_proj': (5, 4),
  'mlp.down_proj': (4, 5),
}


def tensors(tied=False):
  shapes = {'model.embed_tokens.weight': (7, 4), 'model.norm.weight': (4,)}
  if not tied:
    shapes['lm_head.weight'] = (7, 4)
  for i in range(2):
    shapes |= {f'model.layers.{i}.{k}.weight': s for k, s in SHAPES.items()}
  rng = np.random.default_rng(0)
  return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def folder_of(tmp_path, tensors, config=CONFIG):
  hf = config_lib.to_hf(config, dtype='float32')
  (tmp_path / 'config.json').write_text(json.dumps(hf))
  save_file(tensors, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
  return tmp_path


def test_golden_names_layers_and_transposes(tmp_path):
  disk = tensors()
  config, got = weights_lib.load(folder_of(tmp_path, disk))
  assert config == CONFIG
  wanted = {
    ('q', 1): disk['model.layers.1.self_attn.q_proj.weight'].T,
    ('o', 0): disk['model.layers.0.self_attn.o_proj.weight'].T,
    ('down', 1): disk['model.layers.1.mlp.down_proj.weight'].T,
    ('gate', 0): disk['model.layers.0.mlp.gate_proj.weight'].T,
    ('up', 0): disk['model.layers.0.mlp.up_proj.weight'].T,
    ('attn_norm', 1): disk['model.layers.1.input_layernorm.weight'],
    ('mlp_norm', 1): disk['model.layers.1.post_attention_layernorm.weight'],
  }
  for (name, layer), value in wanted.items():
    np.testing.assert_array_equal(got['layers'][name][layer], value)
  np.testing.assert_array_equal(got['embed'], disk['model.embed_tokens.weight'])
  np.testing.assert_array_equal(got['head'], disk['lm_head.weight'].T)


@pytest.mark.parametrize('tied', [True, False])
def test_what_is_written_is_what_was_read(tmp_path, tied):
  config = config_lib.dataclasses.replace(CONFIG, tie_embeddings=tied)
  disk = tensors(tied)
  loaded = weights_lib.load(folder_of(tmp_path, disk, config))
  weights_lib.save(
    tmp_path / 'new' / 'deep', *loaded, dtype='float32', eos_token_id=3
  )
  written = load_file(tmp_path / 'new' / 'deep' / 'model.safetensors')
  assert written.keys() == disk.keys()
  for name, value in disk.items():
    np.testing.assert_array_equal(written[name], value)
  hf = json.loads((tmp_path / 'new' / 'deep' / 'config.json').read_text())
  assert hf['eos_token_id'] == 3 and hf['dtype'] == 'float32'
  assert config_lib.from_hf(hf) == config


def test_bfloat16_is_rounded_once_and_then_kept(tmp_path):
  config, weights = weights_lib.load(folder_of(tmp_path, tensors()))
  weights_lib.save(tmp_path / 'a', config, weights)
  disk = load_file(tmp_path / 'a' / 'model.safetensors')
  for name, value in tensors().items():
    assert disk[name].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(disk[name], value.astype(ml_dtypes.bfloat16))
  for dtype in ('bfloat16', 'float32'):
    config, weights = weights_lib.load(tmp_path / 'a', dtype=dtype)
    assert config.dtype == dtype
    assert {x.dtype for x in jax.tree.leaves(weights)} == {jnp.dtype(dtype)}
    weights_lib.save(tmp_path / 'b', config, weights)
    again = (tmp_path / 'b' / 'model.safetensors').read_bytes()
    assert again == (tmp_path / 'a' / 'model.safetensors').read_bytes()


def test_a_tied_model_may_carry_its_head_twice(tmp_path):
  config = config_lib.dataclasses.replace(CONFIG, tie_embeddings=True)
  _, weights = weights_lib.load(folder_of(tmp_path, tensors(), config))
  assert 'head' not in weights


def test_missing_extra_and_misshapen_tensors_are_listed_at_once(tmp_path):
  disk = tensors()
  del disk['model.norm.weight'], disk['model.layers.1.mlp.up_proj.weight']
  disk['model.layers.2.mlp.up_proj.weight'] = np.zeros((5, 4), np.float32)
  disk['model.layers.0.self_attn.q_proj.weight'] = np.zeros((4, 6), np.float32)
  with pytest.raises(UserError) as caught:
    weights_lib.load(folder_of(tmp_path, disk))
  said = str(caught.value)
  assert len(said.splitlines()) == 4
  for part in (
    'missing tensor model.norm.weight',
    'missing tensor model.layers.1.mlp.up_proj.weight',
    'unexpected tensor model.layers.2.mlp.up_proj.weight',
    'model.layers.0.self_attn.q_proj.weight has shape (4, 6), '
    'config.json: (6, 4)',
  ):
    assert part in said


def test_an_untied_model_needs_its_head(tmp_path):
  with pytest.raises(UserError, match='missing tensor lm_head.weight'):
    weights_lib.load(folder_of(tmp_path, tensors(tied=True)))


@pytest.mark.parametrize('keep', [0, 5, 300, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
  path = folder_of(tmp_path, tensors()) / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match='model.safetensors: broken'):
    weights_lib.load(tmp_path)


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_a_missing_file_is_named(tmp_path, name):
  (folder_of(tmp_path, tensors()) / name).unlink()
  with pytest.raises(UserError, match=f'{name}: not found'):
    weights_lib.load(tmp_path)


@pytest.mark.parametrize('text', ['{"model_type": ', '[]', '"qwen3"', '\xff'])
def test_a_config_that_is_no_json_object_is_named(tmp_path, text):
  folder_of(tmp_path, tensors())
  (tmp_path / 'config.json').write_bytes(text.encode('latin-1'))
  with pytest.raises(UserError, match='config.json: not readable as JSON'):
    weights_lib.load(tmp_path)


# --- Adapters ----------------------------------------------------------------


def test_an_adapter_is_read_back_bit_for_bit(tmp_path):
  adapter = lora.init(CONFIG, key=jax.random.key(0), rank=2, targets=('q', 'o'))
  adapter['o']['b'] += 1 / 3
  weights_lib.save_adapter(tmp_path / 'adapter.safetensors', adapter, 1 / 3)
  got, scale = weights_lib.load_adapter(tmp_path)
  assert scale == 1 / 3
  assert jax.tree.structure(got) == jax.tree.structure(adapter)
  jax.tree.map(np.testing.assert_array_equal, got, adapter)


def test_an_adapter_that_is_absent_or_broken_is_named(tmp_path):
  with pytest.raises(UserError, match='adapter.safetensors: not found'):
    weights_lib.load_adapter(tmp_path)
  (tmp_path / 'adapter.safetensors').write_bytes(b'no')
  with pytest.raises(UserError, match='adapter.safetensors: broken'):
    weights_lib.load_adapter(tmp_path)


def test_a_file_that_holds_no_adapter_is_named(tmp_path):
  save_file(tensors(), tmp_path / 'adapter.safetensors')
  with pytest.raises(UserError, match='adapter.safetensors: holds no adapter'):
    weights_lib.load_adapter(tmp_path)
