"""What a decoder is: one frozen Config, read from a config.json."""

import dataclasses

from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Sizes and constants of a decoder, and how it is to be computed.

  The first block is the model (config.json); the second is how it runs:
  dtype of activations, what the backward pass keeps (`remat`: 'none' keeps
  all, 'dots' keeps the matrix products, 'full' keeps only layer inputs), and
  `scan`, False to unroll the layers when debugging.
  """

  vocab_size: int
  d_model: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  d_ff: int
  rope_theta: float = 1e6
  norm_eps: float = 1e-6
  tie_embeddings: bool = True
  max_positions: int = 4096

  dtype: str = 'float32'
  remat: str = 'none'
  scan: bool = True


_HF_NAMES = {
  'vocab_size': 'vocab_size',
  'd_model': 'hidden_size',
  'layers': 'num_hidden_layers',
  'heads': 'num_attention_heads',
  'kv_heads': 'num_key_value_heads',
  'head_dim': 'head_dim',
  'd_ff': 'intermediate_size',
  'norm_eps': 'rms_norm_eps',
  'tie_embeddings': 'tie_word_embeddings',
  'max_positions': 'max_position_embeddings',
}


def from_hf(hf: dict, **runtime) -> Config:
  """Reads a config.json dict, in the spelling of transformers 4 or 5.

  Args:
    hf: the parsed config.json; `rope_parameters` wins over `rope_theta`, and
      a field that is absent has the default of transformers.
    **runtime: fields of the second block, e.g. dtype='bfloat16'.

  Raises:
    UserError: a field is missing or asks for what is not supported; all such
      fields are named at once.
  """
  rope = hf.get('rope_parameters') or hf.get('rope_scaling') or {}
  theta = rope.get('rope_theta', hf.get('rope_theta', 1e4))
  scaling = rope.get('rope_type', rope.get('type', 'default'))
  problems = [
    f'config.json: {field} is {value!r}; supported: {wanted!r}'
    for field, value, wanted in [
      ('model_type', hf.get('model_type'), 'qwen3'),
      ('hidden_act', hf.get('hidden_act', 'silu'), 'silu'),
      ('rope_type', scaling, 'default'),
      ('attention_bias', hf.get('attention_bias', False), False),
      ('use_sliding_window', hf.get('use_sliding_window', False), False),
    ]
    if value != wanted
  ]
  optional = {'tie_embeddings': False, 'max_positions': 4096, 'norm_eps': 1e-6}
  problems += [
    f'config.json: field {name!r} is missing'
    for field, name in _HF_NAMES.items()
    if name not in hf and field not in optional
  ]
  problems += [
    f'config.json: {name} is {hf[name]!r}; it must be a whole number above 0'
    for field, name in _HF_NAMES.items()
    if name in hf and _is_size(field) and not _is_positive(hf[name])
  ]
  if problems:
    raise UserError(*problems)
  fields = {
    field: hf.get(name, optional.get(field))
    for field, name in _HF_NAMES.items()
  }
  return Config(**fields, rope_theta=float(theta), **runtime)


def _is_size(field: str) -> bool:
  return Config.__annotations__[field] is int


def _is_positive(value) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value > 0


def to_hf(config: Config, *, dtype: str = 'bfloat16', **extra) -> dict:
  """Returns a config.json dict in both spellings (transformers 4 and 5).

  Args:
    config: the model.
    dtype: dtype of the weights on disk.
    **extra: further fields, e.g. eos_token_id.
  """
  hf = {name: getattr(config, field) for field, name in _HF_NAMES.items()}
  return {
    'architectures': ['Qwen3ForCausalLM'],
    'model_type': 'qwen3',
    **hf,
    'hidden_act': 'silu',
    'attention_bias': False,
    'attention_dropout': 0.0,
    'rope_theta': config.rope_theta,
    'rope_parameters': {
      'rope_theta': config.rope_theta,
      'rope_type': 'default',
    },
    'use_sliding_window': False,
    'dtype': dtype,
    'torch_dtype': dtype,
    **extra,
  }
