"""FLOPs that a model needs for what a run asks of it."""

import dataclasses

import numpy as np
import pytest

from ealign.alone import ALONE
from ealign.assembly import spent as spent_lib
from ealign.data.batch import Pair
from ealign.models import flops
from ealign.models.config import Config
from ealign.sampling import requests
from ealign.sampling.choose import Sampling
from ealign.sampling.sampler import Answer

MODEL = Config(
  vocab_size=50,
  d_model=8,
  layers=2,
  heads=2,
  kv_heads=1,
  head_dim=4,
  d_ff=16,
)
LAYER = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
HEAD = 50 * 8


def by_hand(length, logits):
  """Two for each multiply-add; attention over half of length x length."""
  dense = 2 * (2 * LAYER * length + HEAD * logits)
  return dense + 4 * 2 * (length * length / 2) * 2 * 4


def test_reading_is_counted_as_by_hand():
  assert flops.reading(MODEL, 7, 3) == by_hand(7, 3)
  assert flops.reading(MODEL, 7, 7) == flops.forward(MODEL, 1, 7)


@pytest.fixture
def asked():
  """(backend, what it spent), of answers that cost no time."""
  answer = Answer((1, 2, 3), np.zeros(3, np.float32), 'stop', 0.0)
  backend = dataclasses.replace(
    ALONE,
    generate=lambda request: [answer] * len(request.prompts),
    label_logps=lambda request: np.zeros((len(request.prompts), 2)),
    pair_logps=lambda request: np.zeros((len(request.pairs), 2)),
  )
  return spent_lib.counted(backend)


def test_answers_labels_and_pairs_add_up(asked):
  backend, spent = asked
  settings = Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)
  how = {'key': None, 'settings': settings, 'stop_ids': (0,), 'max_tokens': 8}
  prompts = [(1,) * 4, (1,) * 6]
  made = backend.generate(requests.Answers(MODEL, {}, prompts, **how))
  assert len(made) == 2
  total = by_hand(7, 3) + by_hand(9, 3)
  assert spent.flops == total
  backend.label_logps(requests.Labels(MODEL, {}, prompts[:1], ((5, 0), (6,))))
  total += by_hand(4 + 3, 1 + 3)
  assert spent.flops == total
  pairs = [Pair(0, 0, (1,) * 5, (2, 3), (4,)), Pair(0, 0, (1,) * 5, (2, 3))]
  backend.pair_logps(requests.Pairs(MODEL, {}, pairs, 2, 16))
  assert spent.flops == total + 2 * by_hand(7, 2) + by_hand(6, 1)
