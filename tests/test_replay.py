import dataclasses

import numpy as np
import pytest

from ealign import fields
from ealign import replay as replay_lib
from ealign.data.batch import Pair


def pair(row, step=0, uses=0):
  return Pair(
    row=row,
    step=step,
    prompt=(row, 1),
    chosen=(2, row, 9),
    rejected=(3, 9),
    ref_chosen=-row / 3,
    ref_rejected=-0.1,
    uses=uses,
    weight=1.0 + row % 2,
  )


def buffer(seed=0, pairs=(), **settings):
  settings = fields.Replay(**settings)
  return replay_lib.Replay(settings, seed=seed, pairs=pairs)


def filled(rows, **settings):
  replay = buffer(**settings)
  for row in rows:
    replay = replay_lib.push(replay, [pair(row)])
  return replay


def rows_of(pairs):
  return [p.row for p in pairs]


# --- Push --------------------------------------------------------------------


def test_golden_order_by_row_within_a_push_and_by_arrival_between():
  replay = buffer(capacity=10)
  replay = replay_lib.push(replay, [pair(7), pair(5), pair(6)])
  replay = replay_lib.push(replay, [pair(2), pair(1)])
  assert rows_of(replay.pairs) == [5, 6, 7, 1, 2]
  assert replay.seen == 5


@pytest.mark.parametrize(
  'eviction', ['oldest', 'newest', 'reservoir', 'flagged']
)
def test_the_order_within_a_push_does_not_matter(eviction):
  new = [pair(row) for row in range(12)]
  replay = buffer(capacity=4, eviction=eviction, seed=3)
  wanted = replay_lib.push(replay, new)
  assert replay_lib.push(replay, new[::-1]) == wanted
  assert replay_lib.push(replay, new[5:] + new[:5]) == wanted


@pytest.mark.parametrize(
  'eviction, kept',
  [('oldest', [3, 4, 5]), ('newest', [0, 1, 2]), ('flagged', range(6))],
)
def test_who_stays_when_it_is_full(eviction, kept):
  replay = filled(range(6), capacity=3, eviction=eviction)
  assert rows_of(replay.pairs) == list(kept)
  assert replay.seen == 6


def test_a_reservoir_is_a_uniform_sample_of_all_that_came():
  hits = np.zeros(12)
  for seed in range(400):
    replay = filled(range(12), capacity=3, eviction='reservoir', seed=seed)
    assert len(set(rows_of(replay.pairs))) == 3
    hits[rows_of(replay.pairs)] += 1
  # 400 draws of 3 in 12: 100 each, standard deviation 8.7.
  assert hits.sum() == 1200 and (np.abs(hits - 100) < 35).all()


def test_a_reservoir_depends_on_its_seed_and_on_nothing_else():
  settings = {'capacity': 3, 'eviction': 'reservoir'}
  make = lambda seed: filled(range(30), seed=seed, **settings)
  assert make(1) == make(1)
  assert make(1).pairs != make(2).pairs


def test_push_leaves_the_old_buffer_as_it_was():
  replay = filled(range(3), capacity=3)
  before = dataclasses.asdict(replay)
  replay_lib.push(replay, [pair(9)])
  replay_lib.draw(replay, step=1, slots=2)
  assert dataclasses.asdict(replay) == before


# --- Draw --------------------------------------------------------------------


def test_golden_draw():
  drawn, _ = replay_lib.draw(filled(range(10), seed=5), step=3, slots=4)
  order = np.random.default_rng(np.random.SeedSequence((5, 3, 0)))
  assert rows_of(drawn) == order.permutation(10)[:4].tolist()


def test_draws_depend_on_seed_and_step_alone():
  draw = lambda replay, step: rows_of(
    replay_lib.draw(replay, step=step, slots=4)[0]
  )
  replay = filled(range(20), seed=1)
  _, used = replay_lib.draw(replay, step=2, slots=4)
  assert draw(replay, 3) == draw(used, 3)
  assert draw(replay, 3) != draw(replay, 4)
  assert draw(replay, 3) != draw(filled(range(20), seed=2), 3)


def test_a_uniform_draw_is_uniform_and_without_replacement():
  replay, hits = filled(range(8)), np.zeros(8)
  for step in range(400):
    drawn, _ = replay_lib.draw(replay, step=step, slots=2)
    assert len(set(rows_of(drawn))) == 2
    hits[rows_of(drawn)] += 1
  assert (np.abs(hits - 100) < 35).all()  # standard deviation 8.7


def test_the_newest_are_drawn_in_order():
  replay = filled(range(6), draw='newest')
  assert rows_of(replay_lib.draw(replay, step=0, slots=3)[0]) == [3, 4, 5]


def test_the_newest_are_the_newest_in_a_reservoir_too():
  replay = buffer(capacity=4, eviction='reservoir', draw='newest')
  for step in range(30):
    replay = replay_lib.push(replay, [pair(step, step=step)])
  drawn, _ = replay_lib.draw(replay, step=30, slots=2)
  assert rows_of(drawn) == sorted(rows_of(replay.pairs))[-2:]


def test_fewer_pairs_than_slots_and_none_at_all():
  drawn, _ = replay_lib.draw(filled([4, 2]), step=0, slots=8)
  assert sorted(rows_of(drawn)) == [2, 4]
  empty = buffer()
  assert replay_lib.draw(empty, step=0, slots=8) == ([], empty)


def test_uses_are_counted_of_what_was_drawn_only():
  drawn, replay = replay_lib.draw(filled(range(6)), step=0, slots=2)
  assert rows_of(replay.pairs) == list(range(6))
  for p in replay.pairs:
    assert p.uses == (p.row in rows_of(drawn))


def test_a_pair_leaves_after_max_uses():
  replay = filled(range(3), max_uses=2)
  for step in range(2):
    drawn, replay = replay_lib.draw(replay, step=step, slots=3)
    assert len(drawn) == 3
  assert replay_lib.draw(replay, step=2, slots=3)[0] == []


def test_a_pair_leaves_when_it_is_older_than_max_age():
  replay = buffer(max_age=4)
  replay = replay_lib.push(replay, [pair(0, step=0), pair(1, step=2)])
  at = lambda step: replay_lib.draw(replay, step=step, slots=2)
  assert sorted(rows_of(at(4)[0])) == [0, 1]
  drawn, kept = at(5)
  assert rows_of(drawn) == rows_of(kept.pairs) == [1]
  assert at(7)[0] == []


def test_metrics_by_hand():
  pairs = (pair(0, step=2, uses=1), pair(1, step=6, uses=4))
  got = replay_lib.metrics(buffer(pairs=pairs), step=10)
  assert got == {
    'replay/size': 2,
    'replay/age_mean': 6.0,
    'replay/uses_mean': 2.5,
  }
  empty = replay_lib.metrics(buffer(), step=10)
  assert set(empty.values()) == {0}


# --- Checkpoints -------------------------------------------------------------


def float32_refs(replay):
  """As the scorer leaves them: log-probs that were float32 on the device."""
  exact = lambda x: float(np.float32(x))
  fix = lambda p: dataclasses.replace(
    p, ref_chosen=exact(p.ref_chosen), ref_rejected=exact(p.ref_rejected)
  )
  return dataclasses.replace(replay, pairs=tuple(map(fix, replay.pairs)))


@pytest.mark.parametrize('rows', [[], [5], range(9)], ids=['0', '1', 'full'])
def test_arrays_hold_everything_exactly(rows):
  settings = {'capacity': 4, 'eviction': 'reservoir', 'seed': 2}
  replay = float32_refs(filled(rows, **settings))
  _, replay = replay_lib.draw(replay, step=1, slots=2)
  arrays = replay_lib.to_arrays(replay)
  assert all(isinstance(x, np.ndarray) for x in arrays.values())
  got = replay_lib.from_arrays(buffer(**settings), arrays)
  assert got == replay
  for p in got.pairs:
    assert all(type(t) is int for t in (*p.prompt, *p.chosen, *p.rejected))


def test_a_buffer_of_an_older_version_has_pairs_of_weight_1():
  replay = float32_refs(filled(range(3)))
  arrays = replay_lib.to_arrays(replay)
  old = arrays | {'refs': arrays['refs'][:, :2]}
  got = replay_lib.from_arrays(buffer(), old)
  assert [p.weight for p in got.pairs] == [1.0] * 3
  assert [p.uses for p in got.pairs] == [p.uses for p in replay.pairs]


def test_a_restored_buffer_goes_on_as_the_first_would():
  settings = {'capacity': 5, 'eviction': 'reservoir', 'seed': 2, 'max_uses': 3}

  def go_on(replay, steps):
    drawn = []
    for step in steps:
      new = float32_refs(filled([2 * step + 1, 2 * step])).pairs
      replay = replay_lib.push(replay, list(new))
      some, replay = replay_lib.draw(replay, step=step, slots=3)
      drawn.append(some)
    return drawn, replay

  _, half = go_on(buffer(**settings), range(10))
  restored = replay_lib.from_arrays(
    buffer(**settings), replay_lib.to_arrays(half)
  )
  assert go_on(restored, range(10, 20)) == go_on(half, range(10, 20))
