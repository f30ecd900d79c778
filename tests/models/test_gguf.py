"""GGUF files against the same weights in a Hugging Face folder.

The files are written here, as llama.cpp's converter does: names, rows of
Llama's q and k in pairs, Gemma's norms plus one. That transformers reads the
same out of them is checked where torch is there.
"""

import json
import os
import pathlib
import struct

import jax
import numpy as np
import pytest

from ealign.data import chat, sources
from ealign.models import gguf as gguf_lib
from ealign.models import gguf_file, hub, names
from ealign.models import weights as weights_lib
from ealign.models.config import FAMILIES, from_hf
from ealign.runtime.errors import UserError

from . import test_families as families

gguf = pytest.importorskip('gguf', reason='the gguf extra is not installed')
import ggufs  # noqa: E402

BASE = sources.resolve('ealign:world/base')
REAL = pathlib.Path(__file__).parents[2] / '../shared/data/tokenizers/qwen3'
# Rows are whole blocks of 32 numbers; transformers takes Qwen3's heads to be
# 128 wide, whatever the file says.
SIZES = {'hidden_size': 32, 'intermediate_size': 64, 'head_dim': 8}
CASES = {  # name: (model_type, what is special in its config.json)
  'llama': ('llama', {'rope_theta': 5e4, 'tie_word_embeddings': False}),
  'qwen2': ('qwen2', {'rope_theta': 1e6, 'tie_word_embeddings': True}),
  'qwen3': (
    'qwen3',
    {'rope_theta': 1e6, 'tie_word_embeddings': False, 'head_dim': 128},
  ),
  'gemma3_text': (
    'gemma3_text',
    {
      'rope_theta': 1e6,
      'tie_word_embeddings': True,
      'query_pre_attn_scalar': 8,
      'sliding_window': families.WINDOW,
    },
  ),
}
LLAMA3 = {'factor': 8.0, **gguf_lib._LLAMA3}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'ealign' / 'gguf'


def hf_of(case, **more):
  family, special = CASES[case]
  return families.hf_config(family, SIZES | special | more)


def write(path, hf, kind='F32', **said):
  """A GGUF file of the family's random weights."""
  tokens = [f't{i}' for i in range(hf['vocab_size'])]
  return ggufs.write(path, hf, families.hf_tensors(hf), tokens, kind, **said)


def plain(hf):
  """Our Config and weights of the same tensors in a Hugging Face folder."""
  import jax.numpy as jnp

  from ealign.models import stream

  config = from_hf(hf)
  tree = stream.tree(
    names.table(config),
    families.hf_tensors(hf),
    jnp.dtype('float32'),
    lambda path: None,
  )
  return config, tree


# --- Weights and config ------------------------------------------------------


@pytest.mark.parametrize('case', CASES)
def test_plain_numbers_are_those_of_a_folder(case, tmp_path, monkeypatch):
  monkeypatch.setattr('ealign.models.stream.PIECE', 4 * 32 * 5)  # 5 rows
  hf = hf_of(case)
  config, got = weights_lib.load(write(tmp_path / 'x.gguf', hf))
  wanted, tree = plain(hf)
  assert config.window == wanted.window and config.local == wanted.local
  assert config == wanted
  # Gemma's norms lose a bit by the 1 that is added in the file.
  near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
  jax.tree.map(near, got, tree)


@pytest.mark.parametrize(
  'kind', ['F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_1']
)
@pytest.mark.parametrize('case', ['llama', 'gemma3_text'])
def test_blocks_are_those_of_the_package(case, kind, tmp_path, monkeypatch):
  """The rows are turned after they are unpacked, in pieces of a few rows."""
  monkeypatch.setattr('ealign.models.stream.PIECE', 4 * 32 * 5)
  hf = hf_of(case)
  config, got = weights_lib.load(write(tmp_path / 'x.gguf', hf, kind))
  quantize = lambda x: gguf.quants.dequantize(
    gguf.quants.quantize(x, getattr(gguf.GGMLQuantizationType, kind)),
    getattr(gguf.GGMLQuantizationType, kind),
  )
  disk = families.hf_tensors(hf)
  for name, theirs in {
    'q': 'self_attn.q_proj',
    'down': 'mlp.down_proj',
  }.items():
    x = quantize(disk[f'model.layers.1.{theirs}.weight'])
    np.testing.assert_array_equal(got['layers'][name][1], x.T)
  table = quantize(disk['model.embed_tokens.weight'])
  np.testing.assert_array_equal(got['embed'], table)
  hf = json.loads((hub.fetch(tmp_path / 'x.gguf') / 'config.json').read_text())
  assert hf['dtype'] == ('float16' if kind == 'F16' else 'bfloat16')


@pytest.mark.parametrize('kind', ['Q4_K', 'Q5_K', 'Q6_K', 'Q2_K', 'IQ4_XS'])
def test_rows_of_large_blocks(kind, tmp_path):
  """The package cannot write these: any bytes are blocks, but for scales."""
  width, kind_ = 512, getattr(gguf.GGMLQuantizationType, kind)
  block, size = gguf.GGML_QUANT_SIZES[kind_]
  raw = np.random.default_rng(0).integers(0, 60, (8, width // block * size))
  raw = raw.astype(np.uint8)
  (tmp_path / 'x').write_bytes(b'head' + raw.tobytes())
  tensor = gguf_file.Tensor(tmp_path / 'x', kind, (8, width), 4, pairs=4)
  whole = gguf.quants.dequantize(raw, kind_)
  assert np.isfinite(whole).all() and np.abs(whole).max() > 0
  for rows in (slice(0, 8), slice(1, 3), slice(3, 6), slice(7, 8)):
    got = tensor[rows]
    np.testing.assert_array_equal(got, whole[[0, 2, 1, 3, 4, 6, 5, 7]][rows])


def test_the_factors_of_rope_are_those_of_llama_3(tmp_path):
  hf = hf_of('llama', rope_scaling=LLAMA3, head_dim=64)
  config, got = weights_lib.load(write(tmp_path / 'x.gguf', hf))
  wanted, tree = plain(hf)
  assert config == wanted and config.rope_scaling.kind == 'llama3'
  np.testing.assert_array_equal(got['layers']['q'], tree['layers']['q'])
  odd = hf | {'rope_scaling': LLAMA3 | {'high_freq_factor': 3.0}}
  with pytest.raises(
    UserError, match=r'rope_freqs.weight: supported are the f'
  ):
    weights_lib.load(write(tmp_path / 'y.gguf', odd))


def test_gemma_scales_its_global_layers(tmp_path):
  scaled = {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}
  hf = hf_of('gemma3_text')
  said = {'ARCH.rope.scaling.type': 'linear', 'ARCH.rope.scaling.factor': 8.0}
  said['ARCH.attention.sliding_window_pattern'] = 2
  said['ARCH.rope.freq_base_swa'] = 30.0
  config = weights_lib.load(write(tmp_path / 'x.gguf', hf, **said))[0]
  more = {'sliding_window_pattern': 2, 'rope_local_base_freq': 30.0}
  assert config == from_hf(hf | scaled | more)


def test_the_largest_gemma_scales_its_query_by_its_width():
  said = {
    'general.architecture': 'gemma3',
    'gemma3.block_count': 62,
    'gemma3.embedding_length': 5376,
    'gemma3.attention.head_count': 32,
    'gemma3.attention.key_length': 128,
  }
  config = gguf_lib._config(said, {})
  assert config['query_pre_attn_scalar'] == 168
  config = gguf_lib._config(said | {'gemma3.block_count': 48}, {})
  assert config['query_pre_attn_scalar'] == 128


def test_a_file_is_laid_out_once_and_again_when_it_changes(tmp_path, cache):
  path = write(tmp_path / 'x.gguf', hf_of('qwen2'))
  folder = hub.fetch(path)
  assert folder.parent == cache and hub.fetch(str(path)) == folder
  assert list(cache.iterdir()) == [folder]
  assert folder.stat().st_mode == cache.stat().st_mode
  os.utime(path, ns=(1, 1))
  again = hub.fetch(path)
  assert again != folder and again.parent == cache
  path.unlink()
  with pytest.raises(UserError, match=r'x.gguf: not found; put it back'):
    weights_lib.load(again)


# --- Tokenizers --------------------------------------------------------------

TEXTS = (
  'Hello, world! It is 12345 past 7.',
  "I'll say:\n\n  x = [1, 2]\t# don't\r\n",
  'Grüße aus Köln — 你好 😀 e\u0301',
  '   three blanks, and one behind ',
  '',
)


def tokenizer_of(path, tokens, **more):
  writer = gguf.GGUFWriter(path, 'llama')
  for key in ('embedding_length', 'block_count', 'feed_forward_length'):
    writer.add_uint32(f'llama.{key}', 4)
  writer.add_uint32('llama.attention.head_count', 2)
  writer.add_tensor('token_embd.weight', np.ones((len(tokens), 4), np.float32))
  for key in [k for k in more if '.' in k]:
    value = more.pop(key)
    (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(
      key, value
    )
  ggufs.write_tokenizer(writer, tokens, **more)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return chat.load_tokenizer(hub.fetch(path))


@pytest.mark.parametrize('folder', [BASE, REAL], ids=['world', 'qwen3'])
def test_a_tokenizer_of_bytes_is_the_one_it_was_made_from(folder, tmp_path):
  if not (folder / 'tokenizer.json').exists():
    pytest.skip('needs the public tokenizers in ../shared/data')
  tokens, kinds, merges = ggufs.vocabulary(folder)
  got = tokenizer_of(tmp_path / 'x.gguf', tokens, kinds=kinds, merges=merges)
  wanted = chat.load_tokenizer(folder)
  assert len(got) == len(wanted)
  for text in (*TEXTS, f'{tokens[-1]} <think> a{tokens[-2]}'):
    assert got.encode(text) == wanted.encode(text)
    assert got.decode(got.encode(text)) == wanted.decode(wanted.encode(text))
  assert got.eos_token == tokens[0]
  special = lambda tok: {
    i: t.special for i, t in tok.added_tokens_decoder.items()
  }
  assert special(got) == special(wanted) | ({0: True} if kinds[0] == 1 else {})


def test_how_text_is_split_is_what_the_name_says(tmp_path):
  tokens = ['<s>', *'ab1Ġ', '11', '111', 'Ġ1', 'ab', 'ba', 'aba']
  merges = ['1 1', '11 1', 'Ġ 1', 'a b', 'b a']
  read = lambda pre: tokenizer_of(
    tmp_path / f'{pre}.gguf', tokens, pre=pre, merges=merges
  ).tokenize('aba 1111 1')
  single = ['Ġ', '1', '1', '1', '1', 'Ġ', '1']
  assert read('qwen2') == ['ab', 'a', *single]
  assert read('smollm') == ['ab', 'a', *single]
  # Three digits at a time; a word that is a token is taken though no merge
  # leads to it.
  assert read('llama-bpe') == ['aba', 'Ġ', '111', '1', 'Ġ', '1']
  assert read('gpt-2') == ['ab', 'a', 'Ġ', '11', '11', 'Ġ1']
  with pytest.raises(UserError, match=r"ggml.pre is 'tekken'; supported: def"):
    read('tekken')


SPM = [  # as sentencepiece orders them: special, bytes, merges, letters
  *('<unk>', '<s>', '</s>'),
  *(f'<0x{i:02X}>' for i in range(256)),
  *('he', '▁t', '▁the', 'll', '\n\n', '  '),
  *('▁', 'h', 'e', 't', 'l', 'o', '\n', 'x'),
]
SPM_KINDS = [2, 3, 3, *[6] * 256, *[1] * 4, 4, 4, *[1] * 8]


def spm(path, **more):
  return tokenizer_of(path, SPM, kinds=SPM_KINDS, model='llama', **more)


def test_golden_sentencepiece(tmp_path):
  more = {'tokenizer.ggml.bos_token_id': 1}
  tok = spm(
    tmp_path / 'x.gguf', **more, **{'tokenizer.ggml.unknown_token_id': 0}
  )
  read = lambda text: tok.tokenize(text)
  assert read('the hello') == ['▁the', '▁', 'he', 'll', 'o']
  assert read('x\n\nx') == ['▁', 'x', '\n\n', '▁', 'x']  # users gave it
  assert read('é') == ['▁', '<0xC3>', '<0xA9>']
  assert chat.decode(tok, tok.encode('the é')) == 'the é'
  assert tok.encode('')[0] == 1  # a text starts with bos
  bare = spm(tmp_path / 'y.gguf', **{'tokenizer.ggml.add_space_prefix': False})
  assert bare.tokenize('the  the') == ['t', 'he', '▁', '▁the']
  assert bare.decode(bare.encode('  the')) == '  the'


GEMMA = [  # as Gemma's converter spells them: users gave runs of blanks
  *('<pad>', '<eos>', '<bos>', '<unk>', '<end_of_turn>'),
  *('\n', '\n\n', '  ', '<table>', *(f'<0x{i:02X}>' for i in range(256))),
  *('in', '▁t', 'he', '▁the', '▁▁▁▁', 'ing', '<s', '▁', *'abeghinorst<>'),
]
GEMMA_KINDS = [3, 3, 3, 2, 3, 1, 4, 4, 4, *[6] * 256, *[1] * 21]


def test_golden_sentencepiece_of_gemma(tmp_path):
  """The scores say nothing there, only the order; so it is in transformers."""
  more = {'tokenizer.ggml.add_space_prefix': False}
  more['tokenizer.ggml.unknown_token_id'] = 3
  path = tmp_path / 'x.gguf'
  tok = tokenizer_of(path, GEMMA, kinds=GEMMA_KINDS, model='llama', **more)
  assert tok.tokenize('the  sing\n\n\non the<table>     <s <end_of_turn>é') == (
    ['t', 'he', '▁▁', 's', 'ing', '\n\n', '\n', 'o', 'n', '▁the', '<table>']
    + ['▁▁▁▁', '▁', '<s', '▁', '<end_of_turn>', '<0xC3>', '<0xA9>']
  )


# --- What is refused ---------------------------------------------------------


@pytest.mark.parametrize(
  'said, message',
  [
    ({'ARCH.attention.scale': 0.5}, "qwen2.attention.scale is '0.5', and it m"),
    ({'ARCH.attention.sliding_window': 8}, 'qwen2.attention.sliding_window is'),
    ({'ARCH.attention.value_length': 9}, 'value_length is 9, the width of a h'),
    ({'ARCH.rope.scaling.type': 'yarn'}, "rope_type is 'yarn'; supported: def"),
    (
      {'ARCH.attention.head_count_kv': [1, 2]},
      'num_key_value_heads is .1, 2.;',
    ),
    ({'general.type': 'adapter'}, "holds the adapter 'qwen2'; supported: the"),
    ({'split.count': 3}, 'is one of 3 parts; join them with llama.cpp, by'),
  ],
)
def test_what_is_not_supported_is_named(tmp_path, said, message):
  hf = hf_of('qwen2')
  if any('head_count_kv' in key for key in said):
    hf.pop('num_key_value_heads')
    hf['num_attention_heads'] = 2
    said |= {}
  path = tmp_path / 'x.gguf'
  with pytest.raises(UserError, match=message) as caught:
    weights_lib.load(write(path, hf_of('qwen2') if said else hf, **said))
  assert all(str(line).startswith(f'{path}: ') for line in caught.value.args)


def test_architectures_and_templates_that_are_missing(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'x.gguf', 'falcon')
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  with pytest.raises(
    UserError, match="model 'falcon'; supported: the models q"
  ):
    hub.fetch(tmp_path / 'x.gguf')
  from ealign.models import gguf_tokenizer

  with pytest.raises(UserError, match='holds no chat template'):
    gguf_tokenizer.files({})


@pytest.mark.parametrize('keep', [0, 3, 10, 30, 200, 1000, -1])
def test_a_file_that_was_cut_off_is_named(tmp_path, keep):
  path = write(tmp_path / 'x.gguf', hf_of('qwen2'))
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match=r'x.gguf: no readable GGUF file \(it '):
    hub.fetch(path)


@pytest.mark.parametrize(
  'behind',
  [
    struct.pack('<QQ', 2**60, 0),  # tensors
    struct.pack('<QQ', 0, 2**60),  # values
    struct.pack('<QQQ1sIIQ', 0, 1, 1, b'a', 9, 8, 2**60),  # texts
    struct.pack('<QQQ1sIIQ', 0, 1, 1, b'a', 9, 4, 2**60),  # numbers
    struct.pack('<QQQ1sI', 0, 1, 1, b'a', 99),
    struct.pack('<QQQ1sIQ1s', 0, 1, 1, b'a', 8, 1, b'\xff'),
  ],
)
def test_hostile_lengths_end_at_once(tmp_path, behind):
  path = tmp_path / 'x.gguf'
  path.write_bytes(b'GGUF' + struct.pack('<I', 3) + behind)
  with pytest.raises(UserError, match='x.gguf: no readable GGUF file'):
    hub.fetch(path)


def test_without_the_package_one_line_says_what_to_install(
  tmp_path, monkeypatch
):
  path = write(tmp_path / 'x.gguf', hf_of('qwen2'))
  gguf_file.package.cache_clear()
  monkeypatch.setitem(__import__('sys').modules, 'gguf', None)
  with pytest.raises(UserError) as caught:
    hub.fetch(path)
  assert str(caught.value) == (
    "model.path: a GGUF file needs the package gguf; pip install 'ealign[gguf]'"
  )


# --- transformers itself -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['F32', 'F16', 'Q8_0', 'Q4_1'])
@pytest.mark.parametrize('case', CASES)
def test_logits_equal_those_of_transformers(case, kind, tmp_path):
  torch = pytest.importorskip('torch', reason='the parity extra is missing')
  from transformers import AutoModelForCausalLM

  path = write(tmp_path / 'x.gguf', hf_of(case), kind)
  config, weights = weights_lib.load(path)
  more = {}
  if case == 'gemma3_text':  # transformers takes 256, whatever the heads
    more['query_pre_attn_scalar'] = 8
  from transformers import AutoConfig

  theirs = AutoConfig.from_pretrained(tmp_path, gguf_file='x.gguf', **more)
  model = AutoModelForCausalLM.from_pretrained(
    tmp_path,
    gguf_file='x.gguf',
    config=theirs,
    dtype=torch.float32,
    attn_implementation='eager',
  )
  tokens = families.inputs()[0][:1]
  with torch.no_grad():
    wanted = model(input_ids=torch.tensor(tokens).long()).logits.numpy()
  got = families.logits_of(config, weights)[:1]
  assert np.abs(wanted).max() > 1
  np.testing.assert_allclose(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_sentencepiece_is_that_of_transformers(tmp_path):
  """But behind an added token, where it puts no blank.

  llama.cpp does, and so do the tokenizer.json of Llama 2 and its like.
  """
  pytest.importorskip('torch', reason='the parity extra is missing')
  from transformers import AutoTokenizer

  got = spm(tmp_path / 'x.gguf', **{'tokenizer.ggml.unknown_token_id': 0})
  wanted = AutoTokenizer.from_pretrained(tmp_path, gguf_file='x.gguf')
  for text in ('the hello', 'é the', 'hellothe'):
    ids = [tok.encode(text, add_special_tokens=False) for tok in (got, wanted)]
    assert ids[0] == ids[1], text


def test_every_family_that_is_read_has_a_case():
  assert CASES.keys() == {k for k, family in FAMILIES.items() if family.gguf}
