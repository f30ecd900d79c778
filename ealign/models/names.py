"""What the tensors of a checkpoint are called, family by family.

The one place that knows names: loading, saving, `transformer.init` and
`lora.widths` go by this table.
"""

import dataclasses

import numpy as np

from ealign.models.config import Config


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A leaf of the weights, and the tensors of a checkpoint that make it up.

  name: as on the Hugging Face Hub, with a {} for each axis of `stack`.
  shape: of one such tensor, in the checkpoint.
  stack: the axes that the leaf has before those, () | (L,) | (L, E).
  transposed: the leaf holds the transpose of each.
  """

  name: str
  shape: tuple[int, ...]
  stack: tuple[int, ...] = ()
  transposed: bool = False

  def parts(self) -> dict[tuple[int, ...], str]:
    """Index into the leaf -> name of the tensor that belongs there."""
    return {i: self.name.format(*i) for i in np.ndindex(*self.stack)}

  def leaf_shape(self) -> tuple[int, ...]:
    return self.stack + (self.shape[::-1] if self.transposed else self.shape)


def table(config: Config) -> dict:
  """One `Tensor` for each leaf, nested as the weights are."""
  V, D = config.vocab_size, config.d_model
  layers = _attention(config) | _norms(config)
  layers |= _experts(config) if config.experts else _mlp(config)
  tree = {
    'embed': Tensor('model.embed_tokens.weight', (V, D)),
    'norm': Tensor('model.norm.weight', (D,)),
    'layers': layers,
  }
  if not config.tie_embeddings:
    tree['head'] = Tensor('lm_head.weight', (V, D), transposed=True)
  return tree


def _layer(config, name, *shape):
  """A tensor of each layer; a matrix is kept transposed."""
  name = f'model.layers.{{}}.{name}'
  return Tensor(name, shape, (config.layers,), transposed=len(shape) == 2)


def _attention(config):
  D, H = config.d_model, config.head_dim
  q, kv = config.heads * H, config.kv_heads * H
  layer = lambda name, *shape: _layer(config, f'self_attn.{name}', *shape)
  tree = {
    'q': layer('q_proj.weight', q, D),
    'k': layer('k_proj.weight', kv, D),
    'v': layer('v_proj.weight', kv, D),
    'o': layer('o_proj.weight', D, q),
  }
  if config.traits.qkv_bias:
    tree |= {
      'q_bias': layer('q_proj.bias', q),
      'k_bias': layer('k_proj.bias', kv),
      'v_bias': layer('v_proj.bias', kv),
    }
  if config.traits.qk_norm:
    tree |= {
      'q_norm': layer('q_norm.weight', H),
      'k_norm': layer('k_norm.weight', H),
    }
  return tree


def _norms(config):
  # Gemma's post_attention_layernorm is what its name says; elsewhere the norm
  # of that name comes before the feed-forward block.
  names = {
    'attn_norm': 'input_layernorm',
    'mlp_norm': 'post_attention_layernorm',
  }
  if config.traits.gemma:
    names |= {
      'post_attn_norm': 'post_attention_layernorm',
      'mlp_norm': 'pre_feedforward_layernorm',
      'post_mlp_norm': 'post_feedforward_layernorm',
    }
  D = config.d_model
  return {k: _layer(config, f'{v}.weight', D) for k, v in names.items()}


def _mlp(config):
  D, F = config.d_model, config.d_ff
  return {
    'gate': _layer(config, 'mlp.gate_proj.weight', F, D),
    'up': _layer(config, 'mlp.up_proj.weight', F, D),
    'down': _layer(config, 'mlp.down_proj.weight', D, F),
  }


def _experts(config):
  D, F, E = config.d_model, config.d_ff, config.experts
  expert = lambda name, *shape: Tensor(
    f'model.layers.{{}}.mlp.experts.{{}}.{name}.weight',
    shape,
    (config.layers, E),
    transposed=True,
  )
  return {
    'router': _layer(config, 'mlp.gate.weight', E, D),
    'expert_gate': expert('gate_proj', F, D),
    'expert_up': expert('up_proj', F, D),
    'expert_down': expert('down_proj', D, F),
  }
