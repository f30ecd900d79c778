"""What prompts of a group begin with is read once, and changes nothing."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import steps

from ealign.models import transformer
from ealign.runtime.mesh import make
from ealign.sampling import labels, requests
from ealign.stack import rows

ALL_DEVICES = True

CONFIG = dataclasses.replace(steps.MODEL, vocab_size=9, max_positions=96)
WEIGHTS = transformer.init(CONFIG, key=jax.random.key(0), std=0.5)
LABELS = ((1, 8), (2, 3, 8), (4, 5, 6, 7, 2, 8))  # the last is padded to 8


def text(seed, length):
  return np.random.default_rng(seed).integers(0, 8, length).tolist()


def asked(starts, rests):
  """Each start with each rest, question by question; and their groups."""
  prompts = [[*text(i, n), *text(100 + r, r)] for r in rests
             for i, n in enumerate(starts)]  # fmt: skip
  return prompts, [*range(len(starts))] * len(rests)


def read(prompts, groups, **more):
  request = requests.Labels(CONFIG, WEIGHTS, prompts, LABELS, 4, **more)
  return dataclasses.replace(request, groups=groups)


def equal(request):
  """Together and whole; was it read together?"""
  whole = labels.label_logps(dataclasses.replace(request, groups=None))
  found = labels.label_logps(request)
  np.testing.assert_allclose(found, whole, atol=1e-5)
  assert found.shape == (len(request.prompts), request.columns)
  assert np.all(found < 0) and len({*found[:, 0]}) == len(found)
  return bool(labels.starts(request))


@pytest.mark.parametrize(
  ('starts', 'rests'),
  [
    ([20, 31, 9], [3, 5]),
    ([32, 32], [1, 30]),  # both fill a bucket; a rest of one token
    ([20, 40, 12], [2, 7, 11, 1]),  # as many rests as you like
    ([30 + i for i in range(9)], [3, 4]),  # more groups than rows, two buckets
  ],
)
def test_groups_equal_prompts_that_are_read_whole(starts, rests):
  assert equal(read(*asked(starts, rests)))


def test_groups_may_be_of_one_and_in_any_order():
  prompts, groups = asked([30, 30, 30], [2, 5, 4])
  prompts.append(text(50, 17))
  groups.append('alone')
  order = np.random.default_rng(1).permutation(len(prompts))
  mixed = [prompts[i] for i in order], [groups[i] for i in order]
  assert equal(read(*mixed))
  assert labels.starts(read(*mixed))['alone'] == tuple(text(50, 17)[:-1])


def test_a_prompt_that_another_begins_with_keeps_a_token_to_read():
  long = text(3, 40)
  request = read([long, long[:-1], long[:-3]], [0, 0, 0])
  assert labels.starts(request) == {0: tuple(long[:36])}
  assert equal(request)


@pytest.mark.parametrize(
  ('prompts', 'groups'),
  [
    ([[1, *text(0, 20)], [2, *text(0, 20)]], [0, 0]),  # nothing is shared
    ([text(0, 20), text(1, 20)], [0, 1]),  # each is alone
    ([[*text(0, 9), *text(i, 12)] for i in (1, 2)], [0, 0]),  # too little
    # One group shares nothing: its prompts have no start to be read.
    ([*asked([40], [1, 2, 3])[0], [1, 2], [2, 3]], [0, 0, 0, 1, 1]),
  ],
)
def test_where_it_does_not_pay_all_is_read_whole(prompts, groups):
  assert not equal(read(prompts, groups))


def test_a_third_must_be_saved():
  shared = lambda n: read([[*text(0, n), i, 0] for i in (1, 2)], [0, 0])
  assert not labels.starts(shared(4))  # 4 of 12 tokens
  assert labels.starts(shared(5)) == {0: tuple(text(0, 5))}  # 5 of 14


def test_each_prompt_may_want_labels_of_its_own():
  request = read(*asked([20, 31, 9], [3, 5]))
  whole = labels.label_logps(request)
  own = [(0, 1)] * 3 + [(2, 1)] * 3
  found = labels.label_logps(dataclasses.replace(request, own=own))
  for at, columns in enumerate(own):
    at = at, list(columns)
    np.testing.assert_allclose(found[at], whole[at], atol=1e-5)
  assert np.isneginf(found[:3, 2]).all() and np.isneginf(found[3:, 0]).all()
  # Where nothing is shared every label is read.
  apart = dataclasses.replace(request, own=own, groups=None)
  np.testing.assert_allclose(labels.label_logps(apart), whole, atol=1e-5)


@pytest.mark.parametrize('own', [None, [(0, 2)] * 3 + [(2, 1)] * 3])
def test_a_tree_with_its_rest_goes_on_from_a_shared_start(own):
  few = ((1, 8), (1, 3, 8), (1, 3, requests.OTHER))
  request = read(*asked([20, 31, 9], [3, 5]), rest=True, top=2, own=own)
  request = dataclasses.replace(request, labels=few)
  assert equal(request)


def test_the_top_behind_a_shared_start_of_labels_of_its_own():
  own = [(0, 1)] * 3 + [(2, 1)] * 3
  request = read(*asked([20, 31, 9], [3, 5]), own=own, top=2)
  assert labels.starts(request)
  whole = labels.label_logps(dataclasses.replace(request, groups=None))
  found = labels.label_logps(request)
  np.testing.assert_allclose(found[:, 3], whole[:, 3], atol=1e-5)
  assert np.isneginf(found[0, 2])


def test_on_devices_and_lanes_all_is_read_whole():
  request = read(*asked([20, 31, 9], [3, 5]))
  one, four = (make(devices=jax.devices()[:n]) for n in (1, 4))
  assert not labels.starts(dataclasses.replace(request, mesh=four))
  assert equal(dataclasses.replace(request, mesh=one))
  assert not labels.starts(dataclasses.replace(request, lanes=[0] * 6))


def test_one_program_serves_others_of_a_bucket():
  labels.label_logps(read(*asked([20, 31, 9], [3, 5])))
  _, extend = labels.shared_programs(CONFIG)
  size = extend._cache_size()
  labels.label_logps(read(*asked([25, 7, 30, 11], [4, 9, 8])))
  assert extend._cache_size() == size


def test_without_prompts():
  assert labels.label_logps(read([], [])).shape == (0, len(LABELS))


@pytest.mark.parametrize('rest', [False, True])
def test_a_stack_reads_the_prompts_of_all_whole(rest):
  each = [
    read(*asked([20], [3, 5]), rest=rest),
    read(*asked([9], [4, 6]), rest=rest),
  ]
  of = lambda lane, request: types.SimpleNamespace(lane=lane, request=request)
  waiting = [of(*item) for item in enumerate(each)]
  for request, found in zip(each, rows.label_logps(waiting, 2), strict=True):
    alone = labels.label_logps(dataclasses.replace(request, groups=None))
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_what_is_asked_otherwise_is_not_asked_together():
  plain = read(*asked([20], [3, 5]))
  for change in ({'rest': True}, {'top': 2}, {'labels': LABELS[:2]}):
    assert dataclasses.replace(plain, **change).alike != plain.alike
