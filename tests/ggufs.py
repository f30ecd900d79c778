"""GGUF files as llama.cpp's converter writes them: names, the rows of Llama's q
and k in pairs, Gemma's norms plus one.
"""

import json

import gguf
import numpy as np

from ealign.models import gguf as gguf_lib
from ealign.models import names
from ealign.models.config import from_hf

TEMPLATE = '{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}'


def vocabulary(folder):
  """Tokens, kinds and merges of the byte-level tokenizer of a folder."""
  spec = json.loads((folder / 'tokenizer.json').read_text())
  vocab = dict(spec['model']['vocab'])
  added = {x['id']: x for x in spec['added_tokens']}
  vocab |= {x['content']: i for i, x in added.items()}
  tokens = sorted(vocab, key=vocab.get)
  kinds = [
    1 if i not in added else 3 if added[i]['special'] else 4
    for i in range(len(tokens))
  ]
  merges = spec['model']['merges']
  merges = [' '.join(x) if isinstance(x, list) else x for x in merges]
  return tokens, kinds, merges


def stored(hf, name, x):
  """A tensor as llama.cpp's converter lays it out."""
  if hf['model_type'] == 'llama' and ('q_proj' in name or 'k_proj' in name):
    halves = x.reshape(-1, 2, hf['head_dim'] // 2, x.shape[-1])
    return halves.swapaxes(1, 2).reshape(x.shape)
  gemma = hf['model_type'] == 'gemma3_text'
  return x + 1 if gemma and 'norm' in name else x


def write(path, hf, tensors, tokens, kind='F32', **said):
  """A GGUF file of a model.

  Args:
    path: to write.
    hf, tensors: its config.json, and its tensors by Hugging Face's names.
    tokens: its vocabulary, or the folder of its tokenizer.
    kind: of the blocks of its matrices.
    **said: what else it says, ARCH standing for the architecture.
  """
  config = from_hf(hf)
  name = hf['model_type'].removesuffix('_text')
  writer = gguf.GGUFWriter(path, name)
  for new, old in gguf_lib._NAMES.items():
    if new in hf and old != gguf_lib._NAMES['rope_local_base_freq']:
      add = writer.add_float32 if 'rope' in new or 'eps' in new else None
      (add or writer.add_uint32)(f'{name}.{old}', hf[new])
  writer.add_uint32(f'{name}.rope.dimension_count', hf['head_dim'])
  writer.add_uint32(f'{name}.vocab_size', hf['vocab_size'])
  if isinstance(tokens, list):
    write_tokenizer(writer, tokens)
  else:
    vocab, kinds, merges = vocabulary(tokens)
    template = (tokens / 'chat_template.jinja').read_text()
    more = {'merges': merges, 'template': template, 'eos': hf['eos_token_id']}
    write_tokenizer(writer, vocab, kinds, **more)
  for key, value in said.items():
    key = key.replace('ARCH', name)
    add = {
      str: writer.add_string,
      int: writer.add_uint32,
      list: writer.add_array,
    }
    add[float] = writer.add_float32
    add[type(value)](key, value)
  kind = getattr(gguf.GGMLQuantizationType, kind)
  for own, entry in names.table(config).items():
    for i in np.ndindex(entry.stack):
      theirs = entry.name.format(*i)
      x = stored(hf, theirs, tensors[theirs])
      small = x.ndim == 1 or kind == gguf.GGMLQuantizationType.F32
      as_kind = gguf.GGMLQuantizationType.F32 if small else kind
      writer.add_tensor(
        gguf_lib._TENSORS[own].format(*i),
        gguf.quants.quantize(np.ascontiguousarray(x), as_kind),
        raw_dtype=as_kind,
      )
  if hf.get('rope_scaling'):
    writer.add_tensor('rope_freqs.weight', factors(hf))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def factors(hf):
  """What llama.cpp's converter writes for the scaling of Llama 3."""
  made, scaling = [], hf['rope_scaling']
  for i in range(0, hf['head_dim'], 2):
    length = 2 * np.pi * hf['rope_theta'] ** (i / hf['head_dim'])
    original = scaling['original_max_position_embeddings']
    if length < original / scaling['high_freq_factor']:
      made.append(1)
    elif length > original / scaling['low_freq_factor']:
      made.append(scaling['factor'])
    else:
      low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
      smooth = (original / length - low) / (high - low)
      made.append(1 / ((1 - smooth) / scaling['factor'] + smooth))
  return np.array(made, np.float32)


def write_tokenizer(
  writer, tokens, kinds=(), model='gpt2', pre='qwen2', **more
):
  writer.add_tokenizer_model(model)
  writer.add_tokenizer_pre(pre if model == 'gpt2' else 'default')
  writer.add_token_list(tokens)
  writer.add_token_types(list(kinds) or [3, *[1] * (len(tokens) - 1)])
  if model == 'gpt2':
    writer.add_token_merges(more.get('merges', []))
  else:
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
  writer.add_eos_token_id(more.get('eos', 0))
  writer.add_chat_template(more.get('template', TEMPLATE))
