"""FLOPs that a model needs, from its shapes: what a program is compared with.

Of matrix products only, two for each multiply-add; nothing recomputed and
nothing padded. Attention is causal: half of T x T.
"""

import math

from ealign.models import lora, names
from ealign.models.config import Config


def parameters(config: Config) -> int:
  """The number of parameters of the whole model."""
  return sum(math.prod(e.leaf_shape()) for e in names.table(config).values())


def multiplied(config: Config) -> int:
  """Parameters that one token is multiplied with, the head's among them.

  Of a mixture of experts those of the token's own experts; the embedding is
  looked up.
  """
  total = config.vocab_size * config.d_model  # the head
  for path, entry in names.table(config).items():
    size = math.prod(entry.leaf_shape())
    if path.startswith('layers/expert_'):
      total += size * config.experts_per_token // config.experts
    elif path.startswith('layers/') and len(entry.shape) == 2:
      total += size
  return total


def experts(config: Config, tokens: int) -> float:
  """FLOPs of a forward pass of tokens through the experts they are sent to."""
  weights = 3 * config.d_model * config.d_ff * config.experts_per_token
  return 2.0 * tokens * config.layers * weights if config.experts else 0.0


def adapted(config: Config, rank: int, targets) -> int:
  """The number of parameters of an adapter."""
  widths = lora.widths(config)
  return config.layers * rank * sum(sum(widths[name]) for name in targets)


def attention(config: Config, rows: int, length: int) -> float:
  """FLOPs of attention's scores and values in a forward pass over rows."""
  near = min(config.window, length) if config.window else length
  local = sum(config.local)
  seen = lambda window: window * (length - window / 2)  # pairs of a row
  pairs = (config.layers - local) * seen(length) + local * seen(near)
  return 4.0 * rows * pairs * config.heads * config.head_dim


def forward(config: Config, rows: int, length: int) -> float:
  """FLOPs of a forward pass with logits at every token."""
  dense = 2.0 * rows * length * multiplied(config)
  return dense + attention(config, rows, length)


def reading(config: Config, length: int, logits: int) -> float:
  """FLOPs of a forward pass over a row, with logits at some of its tokens."""
  head = config.vocab_size * config.d_model
  dense = length * (multiplied(config) - head) + logits * head
  return 2.0 * dense + attention(config, 1, length)


def training(
  config: Config, rows: int, length: int, adapter: int | None
) -> float:
  """FLOPs of forward and backward over rows of `length` tokens.

  adapter: its parameters, the others are frozen and have no gradient; None:
  all are trained.
  """
  tokens = rows * length
  weights = multiplied(config)
  own = 6.0 * weights if adapter is None else 4.0 * weights + 6.0 * adapter
  return tokens * own + 3 * attention(config, rows, length)


def of_batch(config: Config, parts, adapter: int | None) -> tuple[float, float]:
  """Tokens of a batch, padding left out, and FLOPs of training on its parts.

  parts: those of a batch (`data.batch`), rows of tokens padded to one length.
  """
  tokens = sum(float((part.positions_BT >= 0).sum()) for part in parts)
  shapes = (part.tokens_BT.shape for part in parts)
  return tokens, sum(training(config, *shape, adapter) for shape in shapes)
