"""A streamed answer is the sampled one, token by token."""

import jax
import numpy as np
import pytest

from ealign.models import transformer
from ealign.models.config import Config
from ealign.runtime.errors import UserError
from ealign.runtime.mesh import make
from ealign.sampling.choose import Sampling
from ealign.sampling.requests import Answers
from ealign.sampling.sampler import generate
from ealign.sampling.stream import stream

ALL_DEVICES = True

CONFIG = Config(
  vocab_size=29,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  max_positions=64,
)
WEIGHTS = transformer.init(CONFIG, key=jax.random.key(0), std=0.5)
PROMPT = [3, 1, 4, 1, 5]


def request(**kw):
  how = {'temperature': 1.0, 'max_new_tokens': 8}
  how |= {
    name: kw.pop(name) for name in ('top_p', 'max_new_tokens') if name in kw
  }
  kw = {'key': jax.random.key(7), 'stop_ids': (), 'rows': 4} | kw
  kw = {'max_tokens': 8, 'settings': Sampling(**how)} | kw
  return Answers(CONFIG, WEIGHTS, [PROMPT], **kw)


@pytest.mark.parametrize(
  'kw',
  [
    {},
    {'rows': 1, 'row_ids': [5]},
    {'top_p': 0.8, 'truncate': 16},
    {'max_new_tokens': 3},
  ],
)
def test_a_streamed_answer_is_the_sampled_one(kw):
  (whole,), parts = generate(request(**kw)), list(stream(request(**kw)))
  assert parts[-1].ids == whole.ids and parts[-1].stop == whole.stop
  np.testing.assert_allclose(parts[-1].logps, whole.logps, atol=1e-5)
  assert parts[-1].cut == pytest.approx(whole.cut, abs=1e-6)
  assert [x.ids for x in parts] == [
    whole.ids[: i + 1] for i in range(len(whole.ids))
  ]


def test_it_ends_by_itself():
  ids = list(stream(request()))[-1].ids
  stop = ids[4]
  parts = list(stream(request(stop_ids=(stop,))))
  assert parts[-1].ids == ids[: ids.index(stop) + 1]
  assert [x.stop for x in parts] == ['length'] * (len(parts) - 1) + ['stop']


def test_over_the_devices_of_a_mesh():
  (whole,) = generate(request())
  *_, last = stream(request(mesh=make(data=4)))
  assert last.ids == whole.ids


def test_a_prompt_without_room_is_refused():
  with pytest.raises(UserError, match='it must have 1 to 2,'):
    next(stream(request(max_tokens=62, max_new_tokens=62)))
