"""What a decoder is: one frozen Config, read from a config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from ealign.models import ignored, positions
from ealign.models.positions import Scaling, is_size, unlike
from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
  """What a model_type means beyond the sizes in its config.json.

  Each trait stands alone and is read where it acts: the tensors of a model in
  `names`, what is computed in `transformer`, positions in `positions`. A new
  family is an entry of `FAMILIES`; a new trait is a field here and its effect.

  Attributes:
    architecture: as config.json names it.
    qkv_bias: q, k and v have biases.
    qk_norm: the heads of q and k are normed.
    norm_offset: norms multiply by 1 + w, in float32, instead of by w.
    post_norms: a norm stands behind each block too, before its output is added.
    scaled_embedding: the embedding is multiplied by sqrt(D).
    gate: the activation of the feed-forward block, as config.json calls it.
    gate_field: the field of config.json that says so.
    rope_theta: where config.json has none.
    local_rope: local layers have a RoPE base of their own and no scaling.
    windows: which layers are local (see `positions.read_windows`): 'none';
      'switch', if `use_sliding_window`; 'unless_null', all unless
      `sliding_window` is null; 'pattern', all but each n-th.
    layer_types: config.json may name the kind of each layer.
    kv_heads: when it is the number of heads: 'never'; 'null', where it is
      null; 'absent', where it is null or absent.
    fields: further fields of Config -> their names in config.json.
    defaults: of absent fields, where they are not those of all families.
    gguf: how a GGUF file holds its q and k (see `gguf`): 'plain' or 'pairs';
      '': such files are not read.
  """

  architecture: str
  qkv_bias: bool = False
  qk_norm: bool = False
  norm_offset: bool = False
  post_norms: bool = False
  scaled_embedding: bool = False
  gate: str = 'silu'
  gate_field: str = 'hidden_act'
  rope_theta: float = 1e4
  local_rope: bool = False
  windows: str = 'none'
  layer_types: bool = False
  kv_heads: str = 'null'
  fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  gguf: str = ''


_MOE = {
  'd_ff': 'moe_intermediate_size',
  'experts': 'num_experts',
  'experts_per_token': 'num_experts_per_tok',
  'norm_topk': 'norm_topk_prob',
  'balance_coef': 'router_aux_loss_coef',
}
FAMILIES = {  # by model_type
  'qwen2': Family(
    'Qwen2ForCausalLM',
    qkv_bias=True,
    windows='switch',
    layer_types=True,
    gguf='plain',
  ),
  'qwen3': Family(
    'Qwen3ForCausalLM',
    qk_norm=True,
    windows='switch',
    layer_types=True,
    defaults={'head_dim': 128},
    gguf='plain',
  ),
  'qwen3_moe': Family(
    'Qwen3MoeForCausalLM',
    qk_norm=True,
    windows='switch',
    kv_heads='never',
    fields=_MOE,
  ),
  'llama': Family('LlamaForCausalLM', kv_heads='absent', gguf='pairs'),
  'mistral': Family('MistralForCausalLM', windows='unless_null'),
  'gemma3_text': Family(
    'Gemma3ForCausalLM',
    qk_norm=True,
    norm_offset=True,
    post_norms=True,
    scaled_embedding=True,
    gate='gelu_pytorch_tanh',
    gate_field='hidden_activation',
    rope_theta=1e6,
    local_rope=True,
    windows='pattern',
    layer_types=True,
    kv_heads='never',
    fields={'query_scalar': 'query_pre_attn_scalar'},
    defaults={'head_dim': 256, 'query_scalar': 256, 'tie_embeddings': True},
    gguf='plain',
  ),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """Sizes and constants of a decoder, and how it is to be computed.

  The first block is the model (config.json); the second is how it runs:
  dtype of activations, what the backward pass keeps (`remat`: 'none' keeps
  all, 'dots' keeps the matrix products, 'full' keeps only layer inputs),
  `scan`, False to unroll the layers when debugging, `wide`, whether products
  come out in float32 and are rounded then, and what
  `sharding.on_mesh` sets: `attention` (`models.attention`), `mesh` (None:
  one device) and the rows of the embedding there.
  """

  vocab_size: int
  d_model: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  d_ff: int  # of one expert, if there are experts
  family: str = 'qwen3'  # a key of FAMILIES
  rope_theta: float = 1e6
  rope_scaling: Scaling | None = None
  norm_eps: float = 1e-6
  tie_embeddings: bool = True
  max_positions: int = 4096
  query_scalar: float = 0  # scores are divided by its root; 0 = head_dim's
  window: int = 0  # tokens that a local layer sees, itself included; 0 = all
  local: tuple[bool, ...] = ()  # by layer, whether it is; () = none is
  local_rope_theta: float = 0.0  # that of the local layers; 0 = rope_theta
  experts: int = 0  # 0 = dense
  experts_per_token: int = 0
  norm_topk: bool = False  # the weights of a token's experts sum to one
  balance_coef: float = 0.0  # of the load-balancing loss

  dtype: str = 'float32'
  remat: str = 'none'
  scan: bool = True
  wide: bool = False  # XLA:CPU multiplies bfloat16 twice as fast so
  attention: str = 'xla'  # splash | cudnn | xla
  mesh: Mesh | None = None
  vocab_rows: int = 0  # vocab_size rounded up to what divides; 0 = vocab_size

  @property
  def traits(self) -> Family:
    return FAMILIES[self.family]


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
    UserError: an architecture that is not known; or fields that are missing
      or ask for what is not supported, all of them named at once (the file is
      for the caller to name).
  """
  family = hf.get('model_type')
  if not isinstance(family, str) or family not in FAMILIES:
    raise UserError(unlike('model_type', family, ', '.join(FAMILIES)))
  traits = FAMILIES[family]
  names = _HF_NAMES | traits.fields
  if 'num_local_experts' in hf:  # as transformers 5 writes it
    hf = hf | {'num_experts': hf['num_local_experts']}
  fields = {field: hf.get(name) for field, name in names.items()}
  for field, value in _defaults(traits, hf, fields).items():
    if field in fields and fields[field] is None:
      fields[field] = value
  problems = [*_unsupported(hf, traits), *_sizes(fields, names)]
  read = {'model_type', 'num_experts', 'num_local_experts', *names.values()}
  read |= {'attention_bias', *positions.FIELDS, *_wanted(traits)}
  problems += ignored.unread(hf, read)
  fields |= positions.read_rope(hf, traits, problems)
  fields |= positions.read_windows(hf, traits, fields['layers'], problems)
  if problems:
    raise UserError(*problems)
  return Config(family=family, **fields, **runtime)


def _defaults(traits, hf, fields):
  """What transformers takes for an absent field, where models rely on it."""
  defaults = {
    'tie_embeddings': False,
    'max_positions': 4096,
    'norm_eps': 1e-6,
    'norm_topk': False,
    'balance_coef': 0.001,
  }
  # Elsewhere an absent one is a number of its own, and null is refused.
  null = 'num_key_value_heads' in hf and traits.kv_heads == 'null'
  if null or traits.kv_heads == 'absent':
    defaults['kv_heads'] = fields['heads']
  sizes = fields['d_model'], fields['heads']
  if all(map(is_size, sizes)):
    defaults['head_dim'] = sizes[0] // sizes[1]
  return defaults | traits.defaults


def _wanted(traits) -> dict:
  """Fields that would change what is computed at any other value than this."""
  wanted = {
    'architectures': [traits.architecture],
    traits.gate_field: traits.gate,
    'mlp_bias': False,
    'partial_rotary_factor': 1.0,
    'rope_interleaved': False,
    'use_mrope': False,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'use_bidirectional_attention': False,
    'is_causal': True,
    'is_encoder_decoder': False,
    'add_cross_attention': False,
    'mlp_only_layers': [],
    'decoder_sparse_step': 1,
  }
  if not traits.qkv_bias:  # Qwen2 has them and does not read this field
    wanted['attention_bias'] = False
  return wanted | dict.fromkeys(_QUANTIZED) | {'auto_map': None}


# Where tools that quantize write how; the last is MLX's.
_QUANTIZED = ('quantization_config', 'compression_config', 'quantization')


def _unsupported(hf, traits):
  """Fields that would change what is computed, at other values than ours."""
  for field, value in _wanted(traits).items():
    have = hf.get(field)
    if have is None or have == value or (value is None and not have):
      continue
    if field in _QUANTIZED:
      by = have.get('quant_method') if isinstance(have, dict) else have
      yield (
        f'{field}: the weights are quantized{f" by {by!r:.40}" if by else ""}; '
        "take the model's unquantized files, and model.quantize='int8' where "
        'memory is short'
      )
    elif field == 'auto_map':
      # Code of a tokenizer alone is never run and changes no logit.
      if any('Model' in str(name) for name in have):
        yield f'{field}: the model has code of its own, which is never run'
    else:
      yield unlike(field, have, repr(value))


def _sizes(fields, names):
  """What is missing or of the wrong form, or does not fit the others."""
  types = {f: Config.__annotations__[f] for f in fields}
  for field, name in names.items():
    value, (right, wanted) = fields[field], positions.FORMS[types[field]]
    if value is None:
      yield f'field {name!r} is missing'
    elif not right(value) and not (field == 'balance_coef' and value == 0):
      yield f'{name} is {value!r}; it must be {wanted}'
  if any(not is_size(fields[f]) for f, kind in types.items() if kind is int):
    return
  if fields['head_dim'] % 2:  # RoPE turns pairs
    yield f'head_dim is {fields["head_dim"]}; it must be even'
  for part, of in ('kv_heads', 'heads'), ('experts_per_token', 'experts'):
    have, most = fields.get(part, 0), fields.get(of, 0)
    if have > most or (part == 'kv_heads' and most % have):
      message = f'it must {"divide" if part == "kv_heads" else "be at most"}'
      yield f'{names[part]} is {have}; {message} {names[of]} {most}'


def to_hf(config: Config, *, dtype: str = 'bfloat16', **extra) -> dict:
  """Returns a config.json dict in both spellings (transformers 4 and 5).

  Args:
    config: the model.
    dtype: dtype of the weights on disk.
    **extra: further fields, e.g. eos_token_id.
  """
  traits = config.traits
  names = _HF_NAMES | traits.fields
  return {
    'architectures': [traits.architecture],
    'model_type': config.family,
    **{name: getattr(config, field) for field, name in names.items()},
    traits.gate_field: traits.gate,
    **({} if traits.qkv_bias else {'attention_bias': False}),
    'attention_dropout': 0.0,
    **positions.write_rope(config),
    **positions.write_windows(config),
    'dtype': dtype,
    'torch_dtype': dtype,
    **extra,
  }
