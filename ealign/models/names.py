"""What the tensors of a model are called in its Hugging Face files.

A family is a table: path in our tree -> Entry. Reading, writing, merging and
PEFT's key names all follow from it.
"""

from typing import NamedTuple

from ealign.models.config import Config
from ealign.models.lora import widths


class Entry(NamedTuple):
  """One array of our tree, stacked from `stack` tensors of `shape`.

  `name` holds one `{}` per stacked axis: the layer, then the expert.
  """

  name: str
  shape: tuple[int, ...]  # of each tensor, as stored
  transposed: bool = False  # stored [out, in], used as [in, out]
  stack: tuple[int, ...] = ()


_LAYER = {  # our name -> Hugging Face name in a layer
  'attn_norm': 'input_layernorm',
  'q': 'self_attn.q_proj',
  'k': 'self_attn.k_proj',
  'v': 'self_attn.v_proj',
  'o': 'self_attn.o_proj',
  'q_norm': 'self_attn.q_norm',
  'k_norm': 'self_attn.k_norm',
  'mlp_norm': 'post_attention_layernorm',
  'gate': 'mlp.gate_proj',
  'up': 'mlp.up_proj',
  'down': 'mlp.down_proj',
}


def table(config: Config) -> dict[str, Entry]:
  """Path in our tree, such as 'layers/q', -> Entry; complete for the model."""
  V, D, H = config.vocab_size, config.d_model, config.head_dim
  found = {
    'embed': Entry('model.embed_tokens.weight', (V, D)),
    'norm': Entry('model.norm.weight', (D,)),
  }
  if not config.tie_embeddings:
    found['head'] = Entry('lm_head.weight', (V, D), transposed=True)
  norms = {'attn_norm': (D,), 'mlp_norm': (D,), 'q_norm': (H,), 'k_norm': (H,)}
  matrices = {k: (out, into) for k, (into, out) in widths(config).items()}
  for name, hf in _LAYER.items():
    found[f'layers/{name}'] = Entry(
      f'model.layers.{{}}.{hf}.weight',
      (norms | matrices)[name],
      transposed=name in matrices,
      stack=(config.layers,),
    )
  return found


def ignored(config: Config, name: str) -> bool:
  """Whether a tensor may lie in the files though the model has no use for it.

  A tied model may carry its head twice, and old files carry RoPE's angles.
  """
  twice = config.tie_embeddings and name == 'lm_head.weight'
  return twice or name.endswith('.rotary_emb.inv_freq')
