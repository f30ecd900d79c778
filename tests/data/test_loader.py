import json

import jax
import numpy as np
import pytest

from ealign.data.batch import Row
from ealign.data.loader import Loader
from ealign.runtime.errors import UserError


def make_rows(count, low=3, high=9):
  """Rows told apart by their first token."""
  sizes = np.random.default_rng(1).integers(low, high, count)
  return [
    Row((i + 1, *[500] * (n - 1)), (0,) + (1,) * (n - 1), f'row {i + 1}')
    for i, n in enumerate(sizes)
  ]


def load(rows, **changes):
  options = {'length': 16, 'batch_size': 4, 'seed': 0} | changes
  return Loader(rows, **options)


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def order(loader, count):
  """First tokens in reading order, which packing may permute in a batch."""
  seen = []
  while len(seen) < count:
    batch = loader.next()
    seen += batch.tokens_BT[batch.positions_BT == 0].tolist()
  return seen


def test_shapes_and_reproducibility():
  a, b = load(make_rows(50)), load(make_rows(50))
  for _ in range(20):
    batch = a.next()
    assert batch.tokens_BT.shape == (4, 16)
    same(batch, b.next())
  other = load(make_rows(50), seed=1).next()
  assert (other.tokens_BT != load(make_rows(50)).next().tokens_BT).any()


def test_every_epoch_has_each_row_once_in_its_own_order():
  # Rows as long as a sequence: packing cannot change their order.
  rows = make_rows(12, low=16, high=17)
  seen = order(load(rows, batch_size=1), 36)
  epochs = [seen[:12], seen[12:24], seen[24:]]
  assert all(sorted(epoch) == list(range(1, 13)) for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
  # Neighbouring seeds do not repeat each other's epochs.
  assert epochs[1] != order(load(rows, batch_size=1, seed=1), 12)


def test_no_row_is_lost_between_batches():
  rows = make_rows(40)
  loader, seen = load(rows), []
  while loader.epoch < 5:
    batch = loader.next()
    seen += batch.tokens_BT[batch.positions_BT == 0].tolist()
  counts = np.bincount(seen, minlength=41)[1:]
  assert len(seen) == round(loader.epoch * 40)
  assert set(counts) <= {5, 6}


@pytest.mark.parametrize('done', [0, 1, 7, 30])
def test_resume_gives_the_same_next_batches(done):
  first = load(make_rows(20))
  for _ in range(done):
    first.next()
  state = json.loads(json.dumps(first.state()))
  second = load(make_rows(20))
  second.next()
  second.restore(state)
  assert second.state() == state
  for _ in range(15):
    same(first.next(), second.next())


@pytest.mark.parametrize(
  'other',
  [
    lambda: load(make_rows(21)),
    lambda: load(make_rows(20), seed=1),
    lambda: load(make_rows(20), length=17),
    lambda: load(make_rows(20), batch_size=2),
    lambda: load(make_rows(20, low=4)),
    lambda: load([*make_rows(19), Row((9,) * 3, (0, 1, 1))]),
    lambda: load([*make_rows(19), Row((20, 500, 500), (0, 0, 1))]),
  ],
)
def test_a_position_in_other_data_is_refused(other):
  with pytest.raises(UserError, match='belongs to other'):
    other().restore(load(make_rows(20)).state())


def test_fewer_rows_than_a_batch_wrap():
  batch = load(make_rows(2)).next()
  firsts = batch.tokens_BT[batch.positions_BT == 0]
  assert set(firsts) == {1, 2} and len(firsts) > 4


def test_stats_and_the_truncation_limit():
  rows = [
    Row((1,) * n, (0, 0) + (1,) * (n - 2), name, empty)
    for n, name, empty in ((4, 'a', 1), (6, 'b', 0), (10, 'b', 2), (20, 'c', 0))
  ]
  loader = load(rows, length=8, max_truncated=0.5)
  assert loader.stats == {
    'chats': 3,
    'rows': 4,
    'split': 1,
    'empty': 3,
    'tokens': 4 + 6 + 8 + 8,
    'supervised': (2 + 4 + 6 + 6) / 26,
    'truncated': 0.5,
  }
  assert str(loader) == (
    '3 chats in 4 rows, 26 tokens: 69.2% supervised; 50.0% of the rows '
    'truncated; 1 chats split, since the template rewrites turns; 3 answers '
    'are empty: only their end is trained'
  )
  assert str(load(rows[1:2], length=8)).endswith('; 0.0% of the rows truncated')
  with pytest.raises(UserError, match=r'50.0%.*longer than 8 .*20.* is 49.0%'):
    load(rows, length=8, max_truncated=0.49)
  with pytest.raises(UserError, match='data.max_truncated is 1.0%'):
    load(rows, length=8)


def test_data_that_cannot_be_trained_on():
  with pytest.raises(UserError, match='no rows'):
    load([])
  with pytest.raises(UserError, match='row 9: the prompt has 20 tokens'):
    load([*make_rows(5), Row((1,) * 21, (0,) * 20 + (1,), 'row 9')])
