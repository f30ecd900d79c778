"""Models in one GGUF file: config, tokenizer and weights, without torch.

A file is laid out as a model folder in the cache, with config.json, the files
of the tokenizer and `gguf.json`, which says where in the file each tensor lies:
the weights stay there. From then on it is read as any other folder.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from ealign.models import gguf_file, gguf_tokenizer, names
from ealign.models.config import FAMILIES, Config, from_hf
from ealign.runtime.errors import UserError

INDEX = 'gguf.json'
_VERSION = 1  # of what is laid out
_ARCHITECTURES = {
  f.removesuffix('_text'): f for f in FAMILIES if FAMILIES[f].gguf
}
_NAMES = {  # config.json's name -> that in the file, behind the architecture
  'hidden_size': 'embedding_length',
  'num_hidden_layers': 'block_count',
  'intermediate_size': 'feed_forward_length',
  'max_position_embeddings': 'context_length',
  'num_attention_heads': 'attention.head_count',
  'num_key_value_heads': 'attention.head_count_kv',
  'rms_norm_eps': 'attention.layer_norm_rms_epsilon',
  'head_dim': 'attention.key_length',
  'sliding_window': 'attention.sliding_window',
  'rope_theta': 'rope.freq_base',
  'rope_local_base_freq': 'rope.freq_base_swa',
}
_SCALING = ('rope.scaling.type', 'rope.scaling.factor', 'rope.scale_linear')
_WIDTHS = ('attention.value_length', 'rope.dimension_count')  # as head_dim's
_IGNORED = (
  'vocab_size',  # the embedding has as many rows
  'attention.causal',
  'pooling_type',  # of other tasks
  'rope.scaling.finetuned',
  'rope.scaling.original_context_length',  # `linear` does not need it
  'tensor_data_layout',
)
# Llama 3.1 to 3.3 hold RoPE's factors as a tensor; these made them.
_LLAMA3 = {
  'rope_type': 'llama3',
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}
_GEMMA_27B = 62  # layers; there the query is scaled by hidden_size / heads
_TENSORS = {  # path in our tree -> name in the file
  'embed': 'token_embd.weight',
  'norm': 'output_norm.weight',
  'head': 'output.weight',
  'layers/o': 'blk.{}.attn_output.weight',
  'layers/attn_norm': 'blk.{}.attn_norm.weight',
  'layers/mlp_norm': 'blk.{}.ffn_norm.weight',
  'layers/post_attn_norm': 'blk.{}.post_attention_norm.weight',
  'layers/post_mlp_norm': 'blk.{}.post_ffw_norm.weight',
  **{f'layers/{x}': f'blk.{{}}.attn_{x}.weight' for x in 'qkv'},
  **{f'layers/{x}_bias': f'blk.{{}}.attn_{x}.bias' for x in 'qkv'},
  **{f'layers/{x}_norm': f'blk.{{}}.attn_{x}_norm.weight' for x in 'qk'},
  **{f'layers/{x}': f'blk.{{}}.ffn_{x}.weight' for x in ('gate', 'up', 'down')},
}
_FACTORS = 'rope_freqs.weight'


def is_file(path) -> bool:
  """Whether a model's path names a GGUF file."""
  return pathlib.Path(path).suffix == '.gguf' and pathlib.Path(path).is_file()


def unpack(path) -> pathlib.Path:
  """The folder in the cache that lays out a GGUF file, made if need be.

  XDG_CACHE_HOME, or ~/.cache, holds it; a file that changed gets another one.

  Raises:
    UserError: the package gguf is missing, or the file is broken, or of a model
      that is not supported.
  """
  path = pathlib.Path(path).resolve()
  stat = path.stat()
  key = f'{_VERSION} {path} {stat.st_size} {stat.st_mtime_ns}'
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
  name = f'{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}'
  folder = cache.expanduser() / 'ealign' / 'gguf' / name
  gguf_file.package()
  if (folder / INDEX).exists():
    return folder
  said, tensors = gguf_file.read(path)
  try:
    config = _config(said, tensors)
    from_hf(config)  # what is wrong is told of the file, not of its copy
    written = {
      'config.json': _json(config),
      **gguf_tokenizer.files(said),
      INDEX: _json(_index(path, tensors)),
    }
  except UserError as e:
    raise UserError(*(f'{path}: {each}' for each in e.args)) from e
  try:
    _write(folder, written)
  except OSError as e:
    raise UserError(
      f'{folder}: cannot be written ({e.strerror or e}); XDG_CACHE_HOME names '
      'another place'
    ) from e
  return folder


def _json(content) -> str:
  return json.dumps(content, indent=1) + '\n'


def _write(folder, written) -> None:
  """All files at once: another process may do the same."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  made = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
  try:
    for name, text in written.items():
      (made / name).write_text(text, 'utf-8')
    made.chmod(folder.parent.stat().st_mode & 0o777)  # not for us alone
    made.rename(folder)
  except OSError:
    if not (folder / INDEX).exists():
      raise
  finally:
    shutil.rmtree(made, ignore_errors=True)


# --- What the model is -------------------------------------------------------


def _config(said, tensors) -> dict:
  """The file's config.json."""
  name = said.get('general.architecture')
  if name not in _ARCHITECTURES or said.get('general.type', 'model') != 'model':
    raise UserError(
      f'holds the {said.get("general.type", "model")} {name!r}; supported: the '
      f'models {", ".join(_ARCHITECTURES)}'
    )
  if said.get('split.count', 0) > 1:
    raise UserError(
      f'is one of {said["split.count"]} parts; join them with llama.cpp, by '
      'llama-gguf-split --merge'
    )
  family, of = _ARCHITECTURES[name], f'{name}.'
  own = {k.removeprefix(of): v for k, v in said.items() if k.startswith(of)}
  fields = {new: own[old] for new, old in _NAMES.items() if old in own}
  _check(own, fields, name)
  kinds = {t.kind for t in tensors.values() if len(t.shape) > 1}
  float_ = {'F32': 'float32', 'F16': 'float16'}
  embed = tensors.get(_TENSORS['embed'])
  return {
    'architectures': [FAMILIES[family].architecture],
    'model_type': family,
    'vocab_size': embed.shape[0] if embed else None,
    'tie_word_embeddings': _TENSORS['head'] not in tensors,
    'dtype': float_.get(min(kinds), 'bfloat16')
    if len(kinds) == 1
    else 'bfloat16',
    'rope_scaling': _scaling(own, fields, tensors),
    **gguf_tokenizer.special_ids(said),
    **fields,
  }


def _check(own, fields, name) -> None:
  """Completes the fields, and refuses what nobody reads."""
  heads = fields.get('num_attention_heads')
  fields.setdefault('num_key_value_heads', heads)
  if 'head_dim' not in fields and 'rope.dimension_count' in own:
    fields['head_dim'] = own['rope.dimension_count']
  problems = [
    f'{name}.{key} is {own[key]!r}, the width of a head {width!r}; supported: '
    'the same'
    for key in _WIDTHS
    if own.get(key, width := fields.get('head_dim')) != width
  ]
  if FAMILIES[_ARCHITECTURES[name]].scaled_embedding:
    pattern = own.pop('attention.sliding_window_pattern', None)
    if isinstance(pattern, list):
      kinds = ('full_attention', 'sliding_attention')
      fields['layer_types'] = [kinds[bool(local)] for local in pattern]
    elif pattern:
      fields['sliding_window_pattern'] = pattern
    scalar = fields.get('head_dim', 256)
    if fields.get('num_hidden_layers') == _GEMMA_27B:
      scalar = fields['hidden_size'] // heads
    fields['query_pre_attn_scalar'] = scalar
  known = {*_NAMES.values(), *_SCALING, *_WIDTHS, *_IGNORED}
  if not FAMILIES[_ARCHITECTURES[name]].local_rope:
    known -= {_NAMES['sliding_window'], _NAMES['rope_local_base_freq']}
  problems += [
    f'{name}.{key} is {str(value)[:60]!r}, and it may change what the model '
    'computes: ealign does not know it; take another file of the model'
    for key, value in own.items()
    if value and key not in known
  ]
  if problems:
    raise UserError(*problems)


def _scaling(own, fields, tensors) -> dict | None:
  """The parameters of RoPE's scaling, as config.json has them."""
  kind = own.get('rope.scaling.type', 'linear')
  factor = own.get('rope.scaling.factor', own.get('rope.scale_linear', 1.0))
  if _FACTORS in tensors:
    return _llama3(fields, tensors[_FACTORS])
  if kind == 'none' or (kind == 'linear' and factor in (0.0, 1.0)):
    return None
  return {'rope_type': kind, 'factor': factor}


def _llama3(fields, tensor) -> dict:
  """The scaling whose factors these are."""
  found = tensor[:]
  factor = float(found.max())
  theta = fields.get('rope_theta', 1e4)
  turns = theta ** (-np.arange(found.size) / found.size) / (2 * np.pi)
  low, high = _LLAMA3['low_freq_factor'], _LLAMA3['high_freq_factor']
  times = turns * _LLAMA3['original_max_position_embeddings']
  kept = np.clip((times - low) / (high - low), 0, 1)
  wanted = 1 / ((1 - kept) / factor + kept)
  if not np.allclose(found, wanted, rtol=1e-3):
    raise UserError(
      f'{_FACTORS}: supported are the factors of Llama 3.1 to 3.3; take the '
      "model's Hugging Face folder"
    )
  return _LLAMA3 | {'factor': factor}


# --- Its tensors -------------------------------------------------------------


def _index(path, tensors) -> dict:
  """Where each tensor lies, by its name in the file."""
  places = {
    name: [t.kind, t.shape, t.offset]
    for name, t in tensors.items()
    if name != _FACTORS
  }
  return {'path': str(path), 'tensors': places}


def tensors(folder: pathlib.Path, config: Config) -> tuple:
  """What `files.read_folder` returns, of a folder that `unpack` made.

  Tensors have the names and the layout of Hugging Face's files: ggml has the
  rows of Llama's q and k in another order, and Gemma's norms as 1 + w.
  """
  index = json.loads((folder / INDEX).read_text('utf-8'))
  path, traits = pathlib.Path(index['path']), config.traits
  if not path.exists():
    raise UserError(f'{path}: not found; put it back')
  ours = {}  # name in the file -> (our path, name of Hugging Face)
  for own, entry in names.table(config).items():
    for i in np.ndindex(entry.stack):
      ours[_TENSORS[own].format(*i)] = own, entry.name.format(*i)
  found = {}
  for name, (kind, shape, offset) in index['tensors'].items():
    own, theirs = ours.get(name, ('', name))
    turned = traits.gguf == 'pairs' and own in ('layers/q', 'layers/k')
    less = float(traits.norm_offset and own.endswith('norm'))
    found[theirs] = gguf_file.Tensor(
      path, kind, tuple(shape), offset, config.head_dim * turned, less
    )
  return path, found, [], set()
