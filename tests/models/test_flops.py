import dataclasses
import types

import numpy as np

from ealign.models import flops
from ealign.models.config import Config

TINY = Config(
  vocab_size=100,
  d_model=8,
  layers=3,
  heads=4,
  kv_heads=2,
  head_dim=4,
  d_ff=16,
  tie_embeddings=True,
)
# q and o 8 x 16, k and v 8 x 8, three of 8 x 16, norms 2 x 8 and 2 x 4.
LAYER = 2 * 8 * 16 + 2 * 8 * 8 + 3 * 8 * 16


def test_parameters():
  assert flops.parameters(TINY) == 3 * (LAYER + 24) + 100 * 8 + 8
  assert flops.multiplied(TINY) == 3 * LAYER + 100 * 8
  widths = 16 + 8 + 8 + 8  # in + out: q 8 + 16, v 8 + 8
  assert flops.adapted(TINY, 2, ('q', 'v')) == 3 * 2 * widths


def test_forward_and_training():
  attention = 3 * 4 * 2 * (5 * 5 / 2) * 4 * 4  # layers, 2 products, 2 rows
  assert flops.attention(TINY, 2, 5) == attention
  dense = 2 * 10 * flops.multiplied(TINY)
  assert flops.forward(TINY, 2, 5) == dense + attention
  assert flops.training(TINY, 2, 5, None) == 3 * (dense + attention)
  trained = 6 * 10 * 240
  assert flops.training(TINY, 2, 5, 240) == 2 * dense + trained + 3 * attention


def test_a_batch_counts_tokens_without_padding_and_flops_with_it():
  row = np.array([[0, 1, -1], [0, -1, -1]])
  part = types.SimpleNamespace(positions_BT=row, tokens_BT=row)
  found = flops.of_batch(TINY, [part, part], None)
  assert found == (6, 2 * flops.training(TINY, 2, 3, None))


def test_a_token_meets_its_own_experts():
  moe = dataclasses.replace(
    TINY, family='qwen3_moe', experts=8, experts_per_token=2
  )
  layer = LAYER - 3 * 8 * 16 + 8 * 8 + 2 * 3 * 8 * 16
  assert flops.multiplied(moe) == 3 * layer + 100 * 8
  assert flops.experts(moe, 5) == 2 * 5 * 3 * (2 * 3 * 8 * 16)
  assert flops.experts(TINY, 5) == 0


def test_local_layers_see_their_window():
  local = dataclasses.replace(TINY, window=2, local=(True, False, True))
  pairs = 2 * (2 * (5 - 1)) + 5 * 2.5
  assert flops.attention(local, 1, 5) == 4 * pairs * 4 * 4
