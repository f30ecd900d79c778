"""What the tensors of a model are called in its Hugging Face files.

A family is a table: path in our tree -> Entry. Reading, writing, merging,
PEFT's key names, `transformer.init` and `lora.widths` all follow from it.
"""

from typing import NamedTuple

from ealign.models.config import Config

EMBED, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'


class Entry(NamedTuple):
  """One array of our tree, stacked from `stack` tensors of `shape`.

  `name` holds one `{}` per stacked axis: the layer, then the expert.
  """

  name: str
  shape: tuple[int, ...]  # of each tensor, as stored
  transposed: bool = False  # stored [out, in], used as [in, out]
  stack: tuple[int, ...] = ()
  pad: int = 0  # rows of zeros behind those stored, on the devices only

  def leaf_shape(self) -> tuple[int, ...]:
    """The shape of the array in our tree."""
    shape = (self.shape[0] + self.pad, *self.shape[1:])
    return self.stack + (shape[::-1] if self.transposed else shape)


def table(config: Config) -> dict[str, Entry]:
  """Path in our tree, such as 'layers/q', -> Entry; complete for the model."""
  V, D = config.vocab_size, config.d_model
  pad = max(config.vocab_rows - V, 0)
  found = {
    'embed': Entry(EMBED, (V, D), pad=pad),
    'norm': Entry('model.norm.weight', (D,)),
  }
  if not config.tie_embeddings:
    found['head'] = Entry(HEAD, (V, D), transposed=True, pad=pad)
  layers = _attention(config) | _norms(config)
  layers |= _experts(config) if config.experts else _mlp(config)
  return found | {f'layers/{name}': entry for name, entry in layers.items()}


def ignored(config: Config, name: str) -> bool:
  """Whether a tensor may lie in the files though the model has no use for it.

  A tied model may carry its head twice (another one makes it untied, see
  `weights.read_config`), and old files carry RoPE's angles.
  """
  twice = config.tie_embeddings and name == HEAD
  return twice or name.endswith('.rotary_emb.inv_freq')


def _layer(config, name, *shape):
  """A tensor of every layer; a matrix is stored [out, in] and transposed."""
  return Entry(
    f'model.layers.{{}}.{name}',
    shape,
    transposed=len(shape) == 2,
    stack=(config.layers,),
  )


def _attention(config):
  D, H = config.d_model, config.head_dim
  rows = {name: config.kv_heads * H for name in 'qkv'}
  rows['q'] = config.heads * H
  layer = lambda name, *shape: _layer(config, f'self_attn.{name}', *shape)
  tree = {name: layer(f'{name}_proj.weight', n, D) for name, n in rows.items()}
  tree['o'] = layer('o_proj.weight', D, rows['q'])
  if config.traits.qkv_bias:
    tree |= {f'{x}_bias': layer(f'{x}_proj.bias', n) for x, n in rows.items()}
  if config.traits.qk_norm:
    tree |= {f'{x}_norm': layer(f'{x}_norm.weight', H) for x in 'qk'}
  return tree


def _norms(config):
  # With norms behind the blocks, post_attention_layernorm is what its name
  # says; elsewhere that one comes before the feed-forward block.
  names = {
    'attn_norm': 'input_layernorm',
    'mlp_norm': 'post_attention_layernorm',
  }
  if config.traits.post_norms:
    names |= {
      'post_attn_norm': 'post_attention_layernorm',
      'mlp_norm': 'pre_feedforward_layernorm',
      'post_mlp_norm': 'post_feedforward_layernorm',
    }
  D = config.d_model
  return {k: _layer(config, f'{v}.weight', D) for k, v in names.items()}


def _gated(config):
  """Shapes of a feed-forward block, or of one expert."""
  D, F = config.d_model, config.d_ff
  return {'gate': (F, D), 'up': (F, D), 'down': (D, F)}


def _mlp(config):
  layer = lambda name, shape: _layer(config, f'mlp.{name}_proj.weight', *shape)
  return {name: layer(name, shape) for name, shape in _gated(config).items()}


def _experts(config):
  D, E = config.d_model, config.experts
  router = _layer(config, 'mlp.gate.weight', E, D)
  stem, stack = 'model.layers.{}.mlp.experts.{}', (config.layers, E)
  return {'router': router} | {
    f'expert_{name}': Entry(
      f'{stem}.{name}_proj.weight', shape, transposed=True, stack=stack
    )
    for name, shape in _gated(config).items()
  }
