"""Arms on a mesh: with devices of their own, and without."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ealign import alone
from ealign.models import lora, sharding
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError
from ealign.runtime.preempt import Stop
from ealign.sampling import requests
from ealign.sampling.choose import Sampling
from ealign.stack import lanes
from ealign.stack import run as stack
from tests import steps
from tests.stack import test_stack

ALL_DEVICES = True

COUNT = 3  # with two groups of devices one place of four stays empty
ALONE = {}


def one(arm):
  """Where an arm is after three updates alone, on one device."""
  if arm not in ALONE:
    run = test_stack.trained(steps.UPDATE, 3)
    ALONE[arm] = run(arm, alone.ALONE, Stop())
  return ALONE[arm]


@pytest.mark.slow
@pytest.mark.parametrize('arm, data', [(2, 2), (1, 2)])
def test_updates_are_those_of_one_device(arm, data):
  if jax.device_count() < 4:
    pytest.skip('needs four devices')
  mesh = mesh_lib.make(
    stack=arm, data=data, devices=jax.devices()[: arm * data]
  )
  model = sharding.on_mesh(steps.MODEL, mesh)
  update = dataclasses.replace(steps.UPDATE, model=model)
  frozen = sharding.place(mesh, test_stack.FROZEN)

  def run(i, calls, stop):
    del stop
    now = sharding.place(mesh, test_stack.state(update, i))
    for _ in range(3):
      batch = sharding.place(mesh, test_stack.BATCHES[i])
      now, metrics = calls.step(update, now, frozen, batch)
    return calls.state(now), jax.device_get(metrics)

  results = stack.run([functools.partial(run, i) for i in range(COUNT)])
  for i, found in enumerate(results):
    assert not isinstance(found, BaseException), found
    (state, metrics), (alone, wanted) = found, one(i)
    assert steps.relative(state.params, alone.params) <= 1e-5
    assert metrics.keys() == wanted.keys()
    np.testing.assert_allclose(metrics['loss'], wanted['loss'], rtol=1e-5)


def test_states_lie_with_their_arms():
  if jax.device_count() < 4:
    pytest.skip('needs four devices')
  mesh = mesh_lib.make(stack=2, data=1, fsdp=2, devices=jax.devices()[:4])
  model = sharding.on_mesh(steps.MODEL, mesh)
  states = [test_stack.state(steps.UPDATE, i) for i in range(2)]
  joined = lanes._join(model, *states)
  a = joined.params['q']['a']  # [A, L, in, R]: `in` over fsdp
  assert a.sharding.shard_shape(a.shape) == (1, 2, a.shape[2] // 2, a.shape[3])
  assert joined.step.sharding.shard_shape((2,)) == (1,)


@pytest.mark.slow
def test_answers_are_those_of_one_device():
  if jax.device_count() < 4:
    pytest.skip('needs four devices')
  mesh = mesh_lib.make(stack=2, data=2, devices=jax.devices()[:4])
  model = sharding.on_mesh(steps.MODEL, mesh)
  frozen = sharding.place(mesh, test_stack.FROZEN)

  def ask(
    arm, calls, stop, *, model=steps.MODEL, frozen=test_stack.FROZEN, mesh=None
  ):
    del stop
    weights = lora.bind(2.0, test_stack.ADAPTERS[arm], frozen)
    answers = requests.Answers(
      model,
      weights,
      [[1 + arm, 2], [3], [4, 5, 6], [7]],
      key=jax.random.key(arm),
      settings=Sampling(max_new_tokens=6),
      stop_ids=(3,),
      max_tokens=6,
      row_ids=range(4),
      rows=4,
      mesh=mesh,
    )
    labels = requests.Labels(
      model, frozen, [[1], [2 + arm]], ((5,),), rows=4, mesh=mesh
    )
    pairs = requests.Pairs(model, frozen, steps.PAIRS[:2], slots=2, length=14)
    return (
      [x.ids for x in calls.generate(answers)],
      calls.label_logps(labels),
      calls.pair_logps(pairs),
    )

  split = functools.partial(ask, model=model, frozen=frozen, mesh=mesh)
  found = stack.run([functools.partial(split, arm) for arm in range(COUNT)])
  for arm, result in enumerate(found):
    assert not isinstance(result, BaseException), result
    ids, labels, logps = ask(arm, alone.ALONE, Stop())
    assert result[0] == ids
    np.testing.assert_allclose(result[1], labels, atol=1e-4)
    np.testing.assert_allclose(result[2], logps, atol=1e-4)


def test_a_size_that_does_not_divide_the_devices():
  with pytest.raises(UserError, match='mesh.stack=3: does not divide 2'):
    mesh_lib.make(stack=3, devices=jax.devices()[:2])
