import json
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from ealign.models import config as config_lib
from ealign.models import files, lora, names, stream
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


TIED = config_lib.dataclasses.replace(CONFIG, tie_embeddings=True)


def test_a_tied_model_may_carry_its_head_twice(tmp_path):
  disk = tensors()
  disk['lm_head.weight'] = disk['model.embed_tokens.weight']
  config, weights = weights_lib.load(folder_of(tmp_path, disk, TIED))
  assert config == TIED and 'head' not in weights


def test_a_head_that_differs_is_used_though_the_config_ties_it(
  tmp_path, monkeypatch
):
  """As by transformers: only the last row differs, in a piece of its own."""
  monkeypatch.setattr(stream, 'PIECE', 8)
  disk = tensors()
  disk['lm_head.weight'] = disk['model.embed_tokens.weight'].copy()
  disk['lm_head.weight'][-1, -1] += 1
  config, weights = weights_lib.load(folder_of(tmp_path, disk, TIED))
  assert config == CONFIG
  np.testing.assert_array_equal(weights['head'], disk['lm_head.weight'].T)
  np.testing.assert_array_equal(
    weights['embed'], disk['model.embed_tokens.weight']
  )


def test_the_head_of_a_tied_model_may_stand_for_the_embedding(tmp_path):
  disk = tensors(tied=True)
  table = disk.pop('model.embed_tokens.weight')
  disk['lm_head.weight'] = table
  config, weights = weights_lib.load(folder_of(tmp_path, disk, TIED))
  assert config == TIED and 'head' not in weights
  np.testing.assert_array_equal(weights['embed'], table)


def test_float16_is_written_or_refused(tmp_path):
  config, weights = weights_lib.load(folder_of(tmp_path, tensors()))
  weights_lib.save(tmp_path / 'a', config, weights, dtype='float16')
  disk = load_file(tmp_path / 'a' / 'model.safetensors')
  for name, value in tensors().items():
    np.testing.assert_array_equal(disk[name], value.astype(np.float16))
  weights['norm'] = weights['norm'] + 1e5
  with pytest.raises(UserError, match='float16: model.norm.weight has a weigh'):
    weights_lib.save(tmp_path / 'b', config, weights, dtype='float16')


def test_missing_extra_and_misshapen_tensors_are_listed_at_once(tmp_path):
  disk = tensors()
  del disk['model.norm.weight'], disk['model.layers.1.mlp.up_proj.weight']
  disk['model.layers.2.mlp.up_proj.weight'] = np.zeros((5, 4), np.float32)
  disk['model.layers.0.self_attn.q_proj.weight'] = np.zeros((4, 6), np.float32)
  with pytest.raises(UserError) as caught:
    weights_lib.load(folder_of(tmp_path, disk))
  said = str(caught.value)
  assert [x.partition(': ')[0] for x in said.splitlines()] == [
    str(tmp_path / 'model.safetensors')
  ] * 3
  assert said.count('; it and config.json are not of one model: download') == 3
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


def sharded(folder, tensors, files=('a.safetensors', 'b.safetensors')):
  """Moves the tensors into two files and writes their index."""
  (folder / 'model.safetensors').unlink(missing_ok=True)
  places = {name: files[i % 2] for i, name in enumerate(tensors)}
  for file in files:
    part = {k: v for k, v in tensors.items() if places[k] == file}
    save_file(part, folder / file)
  text = json.dumps({'metadata': {}, 'weight_map': places})
  (folder / 'model.safetensors.index.json').write_text(text)
  return folder


def test_shards_are_one_model(tmp_path):
  disk = tensors()
  _, whole = weights_lib.load(folder_of(tmp_path, disk))
  _, parts = weights_lib.load(sharded(tmp_path, disk))
  jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_missing_and_broken_shards_are_told_with_all_else(tmp_path):
  disk = tensors()
  disk['model.embed_tokens.weight'] = np.zeros((7, 3), np.float32)
  sharded(folder_of(tmp_path, disk), disk)
  held = len(disk) // 2
  (tmp_path / 'b.safetensors').unlink()
  with pytest.raises(UserError) as caught:
    weights_lib.load(tmp_path)
  first, second = str(caught.value).splitlines()
  assert first.endswith(
    'b.safetensors: not found; download or copy it again '
    f'(it holds {held} of {len(disk)} tensors)'
  )
  assert second.startswith(f'{tmp_path}/a.safetensors: model.embed_tokens')
  assert 'weight has shape (7, 3), config.json: (7, 4); it and' in second
  (tmp_path / 'b.safetensors').write_bytes(b'x' * 40)
  with pytest.raises(UserError, match='b.safetensors: broken safetensors'):
    weights_lib.load(tmp_path)


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"weight_map": {"a": "../a.safetensors"}}']
)
def test_an_index_that_is_none_is_named(tmp_path, text):
  sharded(folder_of(tmp_path, tensors()), tensors())
  (tmp_path / 'model.safetensors.index.json').write_text(text)
  with pytest.raises(UserError, match='index.json: no readable .* it again$'):
    weights_lib.load(tmp_path)


def test_pickles_are_refused_with_the_remedy(tmp_path):
  (folder_of(tmp_path, tensors()) / 'model.safetensors').unlink()
  (tmp_path / 'pytorch_model.bin').write_bytes(b'x')
  with pytest.raises(UserError, match='save_pretrained') as caught:
    weights_lib.load(tmp_path)
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('dtype', ['float8_e4m3fn', 'int8'])
def test_quantized_tensors_are_refused(tmp_path, dtype):
  disk = tensors()
  for i in range(2):
    name = f'model.layers.{i}.self_attn.q_proj.weight'
    disk[name] = np.ones((6, 4)).astype(dtype)
  with pytest.raises(UserError) as caught:
    weights_lib.load(folder_of(tmp_path, disk))
  said = str(caught.value)
  assert 'model.layers.{0-1}.self_attn.q_proj.weight is ' in said
  assert len(said.splitlines()) == 1 and 'unquantized' in said


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_are_refused(tmp_path, dtype, value):
  disk = {k: v.astype(dtype) for k, v in tensors().items()}
  disk['model.norm.weight'][0] = ml_dtypes.finfo(dtype).max
  weights_lib.load(folder_of(tmp_path, disk))
  name = 'model.layers.1.mlp.down_proj.weight'
  disk[name][3, 2] = value
  with pytest.raises(UserError) as caught:
    weights_lib.load(folder_of(tmp_path, disk))
  assert str(caught.value) == (
    f'{tmp_path}/model.safetensors: {name} holds nan or inf; download or copy '
    'it again'
  )


def test_a_config_names_its_folder(tmp_path):
  path = folder_of(tmp_path, tensors()) / 'config.json'
  hf = json.loads(path.read_text()) | {'rms_norm_eps': 'x', 'vocab_size': 0}
  path.write_text(json.dumps(hf))
  with pytest.raises(UserError) as caught:
    weights_lib.load(tmp_path)
  told = [x.partition(' is ')[0] for x in str(caught.value).splitlines()]
  assert told == [f'{path}: {x}' for x in ('vocab_size', 'rms_norm_eps')]


def test_half_precision_is_read(tmp_path):
  disk = {k: v.astype(np.float16) for k, v in tensors().items()}
  _, got = weights_lib.load(folder_of(tmp_path, disk))
  np.testing.assert_array_equal(
    got['head'], disk['lm_head.weight'].T.astype(np.float32)
  )


def test_names_that_differ_in_numbers_are_folded():
  layer = 'model.layers.{}.mlp.experts.{}.up_proj.weight'.format
  some = [layer(i, e) for i in (0, 1, 2, 10) for e in range(12)]
  assert files.fold([*some, layer(3, 1), 'model.norm.weight']) == [
    'model.layers.{0-2,10}.mlp.experts.{0-11}.up_proj.weight',
    'model.layers.3.mlp.experts.1.up_proj.weight',
    'model.norm.weight',
  ]


# --- Streaming ---------------------------------------------------------------

EXPERTS = names.Entry(
  'layers.{}.experts.{}.up', (6, 8), transposed=True, stack=(2, 3)
)
TABLE = {
  'layers/up': EXPERTS,
  'layers/norm': names.Entry('layers.{}.norm', (8,), stack=(2,)),
  'embed': names.Entry('embed', (12, 8)),
}


def stored(table):
  rng = np.random.default_rng(0)
  return {
    entry.name.format(*index): rng.normal(size=entry.shape).astype(np.float32)
    for entry in table.values()
    for index in np.ndindex(entry.stack)
  }


@pytest.mark.parametrize('on_host', [True, False])
@pytest.mark.parametrize(
  'specs',
  [
    {},
    {'layers/up': P(None, None, 'a', 'b'), 'embed': P('a', 'b')},
    {'layers/up': P('a', None, None, 'b'), 'embed': P(('a', 'b'))},
  ],
)
def test_pieces_go_where_the_sharding_says(monkeypatch, on_host, specs):
  monkeypatch.setattr(stream, 'PIECE', 100)  # a few rows
  monkeypatch.setattr(stream, '_on_host', lambda device: on_host)
  mesh = jax.make_mesh((2, 2), ('a', 'b'), axis_types=(AxisType.Auto,) * 2)
  place = lambda path: NamedSharding(mesh, specs.get(path, P()))
  disk = stored(TABLE)
  got = stream.tree(TABLE, disk, jnp.dtype('float32'), place)
  stack = lambda i: np.stack(
    [disk[f'layers.{i}.experts.{e}.up'].T for e in range(3)]
  )
  wanted = {
    'layers': {
      'up': np.stack([stack(0), stack(1)]),
      'norm': np.stack([disk['layers.0.norm'], disk['layers.1.norm']]),
    },
    'embed': disk['embed'],
  }
  jax.tree.map(np.testing.assert_array_equal, got, wanted)
  assert got['layers']['up'].sharding == place('layers/up')
  assert got['embed'].sharding == place('embed')


def test_hardly_a_copy_is_in_host_memory(monkeypatch, tmp_path):
  """Of NumPy's memory, that is; the array is a buffer of the device's."""
  monkeypatch.setattr(stream, '_on_host', lambda device: False)
  monkeypatch.setattr(stream, 'PIECE', 2**17)
  entry = names.Entry('{}.w', (1024, 256), transposed=True, stack=(8,))
  disk = stored({'w': entry})
  save_file(disk, tmp_path / 'x.safetensors')
  found = files.read_header(tmp_path / 'x.safetensors')
  whole = NamedSharding(jax.make_mesh((1,), ('a',)), P())
  tracemalloc.start()
  got = stream.tree({'w': entry}, found, jnp.dtype('float32'), lambda _: whole)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  np.testing.assert_array_equal(got['w'][7], disk['7.w'].T)
  assert got['w'].nbytes == 64 * stream.PIECE
  assert peak < 16 * stream.PIECE


def test_a_file_cut_off_while_it_is_read_is_an_error(tmp_path):
  path = tmp_path / 'x.safetensors'
  save_file({'a': np.ones((4, 4), np.float32)}, path)
  tensor = files.read_header(path)['a']
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(UserError, match='x.safetensors: was cut off while'):
    tensor[2:4]
  np.testing.assert_array_equal(tensor[1:2], np.ones((1, 4)))


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
