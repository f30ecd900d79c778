"""Arms of one program: each gets what it would get alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ealign import align
from ealign.align import step as step_lib
from ealign.alone import ALONE
from ealign.data.batch import Batch
from ealign.models import lora
from ealign.runtime import preempt
from ealign.runtime.errors import NonFinite, Preempted
from ealign.sampling import requests
from ealign.sampling.choose import Sampling
from ealign.stack import lanes, rows
from ealign.stack import run as stack
from tests import steps

FROZEN = steps.frozen_weights()
ADAPTERS = [steps.random_tree(steps.fresh_adapter(), i, 0.2) for i in range(3)]
HYPER = [steps.hp(lam=0.0), steps.hp(beta=0.3, lr=0.03), steps.hp(lam=0.5)]
SUPERVISED = [(9, 2, 5, 0), (1, 1, 1, 1), (9, 9, 9, 9)]
BATCHES = [  # the first arm has no pairs
  Batch(
    steps.sft_batch(supervised),
    steps.pair_batch(frozen=FROZEN) if i else None,
  )
  for i, supervised in enumerate(SUPERVISED)
]


def state(update, arm):
  params = jax.tree.map(jnp.copy, ADAPTERS[arm])
  return align.init_state(update, params, HYPER[arm])


def trained(update, count):
  """An arm as a function: the parameters and metrics after `count` steps."""

  def run(arm, calls, stop):
    del stop
    now = state(update, arm)
    for _ in range(count):
      now, metrics = calls.step(update, now, FROZEN, BATCHES[arm])
    return calls.state(now), jax.device_get(metrics)

  return run


def both(function, arms=3):
  """[(alone, together)] of each arm."""
  alone = [function(arm, ALONE, preempt.Stop()) for arm in range(arms)]
  together = stack.run([functools.partial(function, a) for a in range(arms)])
  for result in together:
    if isinstance(result, BaseException):
      raise result
  return list(zip(alone, together, strict=True))


def test_the_gradients_of_a_step_are_those_of_each_alone():
  for (alone, wanted), (found, got) in both(trained(steps.UPDATE, 1)):
    trace = lambda state: state.opt[0].trace
    assert steps.relative(trace(found), trace(alone)) <= 1e-5
    assert got.keys() == wanted.keys()
    for name in got:
      np.testing.assert_allclose(got[name], wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'tx, most',
  [
    (optax.identity(), 1e-5),
    (
      optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.01)),
      1e-3,
    ),
  ],
  ids=['SGD', 'AdamW'],
)
def test_20_steps_are_those_of_each_alone(tx, most, monkeypatch):
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', steps.per_token)
  update = dataclasses.replace(steps.UPDATE, tx=tx)
  moved = lambda state, arm: jax.tree.map(
    jnp.subtract, state.params, ADAPTERS[arm]
  )
  for arm, ((alone, _), (found, _)) in enumerate(both(trained(update, 20))):
    assert steps.relative(moved(found, arm), moved(alone, arm)) <= most
    assert int(found.step) == 20


def test_a_kernel_without_a_rule_for_arms_is_not_taken():
  model = dataclasses.replace(steps.MODEL, attention='cudnn')
  update = dataclasses.replace(steps.UPDATE, model=model)
  states = lanes._join(model, *(state(steps.UPDATE, arm) for arm in range(2)))
  step = lanes.stacked_step(update, 2)
  text = step.lower(
    states, FROZEN, [BATCHES[1]] * 2, np.ones(2, bool)
  ).as_text()
  assert 'cudnn' not in text


def test_an_arm_that_has_ended_stays_as_it_was():
  def run(arm, calls, stop):
    del stop
    now = state(steps.UPDATE, arm)
    for _ in range(1 + arm):  # the second goes on alone, as does the third
      now, _ = calls.step(steps.UPDATE, now, FROZEN, BATCHES[arm])
    return jax.device_get(calls.state(now)), now

  for _, (seen, now) in both(run):
    later = jax.device_get(lanes.alone(now))
    jax.tree.map(np.testing.assert_array_equal, seen, later)


def test_an_arm_without_data_is_not_moved(monkeypatch):
  monkeypatch.setattr(step_lib.transformer, 'forward_routed', steps.per_token)
  update = dataclasses.replace(steps.UPDATE, tx=optax.identity())

  def run(arm, calls, stop):
    del stop
    batch = BATCHES[arm].replace(sft=None)  # the first arm has no pairs either
    now, metrics = calls.step(update, state(update, arm), FROZEN, batch)
    return calls.state(now), metrics

  results = stack.run([functools.partial(run, arm) for arm in range(3)])
  first, metrics = results[0]
  assert metrics == {} and int(first.step) == 0
  jax.tree.map(np.testing.assert_array_equal, first.params, ADAPTERS[0])
  assert [int(now.step) for now, _ in results[1:]] == [1, 1]


def asked(arm, calls, stop):
  """What an arm is answered, with prompts, keys and settings of its own."""
  del stop
  policy = lora.bind(2.0, ADAPTERS[arm], FROZEN)
  prompts = [[1 + arm, 2, 3], [4], [5, 6, 7, 8, 9]][: 3 - arm]
  found = []
  for weights in (policy, FROZEN):
    request = requests.Answers(
      steps.MODEL,
      weights,
      prompts,
      key=jax.random.key(arm),
      settings=Sampling(temperature=0.5 * arm, max_new_tokens=6 - arm),
      stop_ids=(3, 5),
      max_tokens=6,
      # The second arm does not say how its rows are numbered.
      row_ids=None if arm == 1 else [10 * arm + i for i in range(len(prompts))],
      rows=2,
    )
    answers = calls.generate(request)
    found += [(answer.ids, answer.stop) for answer in answers]
    labels = (1, 2), (3 + arm % 2,)
    request = requests.Labels(steps.MODEL, weights, prompts, labels, rows=2)
    logps = calls.label_logps(request)
    found.append(np.round(np.asarray(logps), 3).tolist())
  pairs = steps.PAIRS[: 2 * arm]  # none, two, all three
  for weights in (policy, FROZEN):
    request = requests.Pairs(steps.MODEL, weights, pairs, slots=2, length=14)
    logps = calls.pair_logps(request)
    found.append(np.round(np.asarray(logps), 3).tolist())
  return found


def test_answers_verdicts_and_scores_are_those_of_each_alone():
  for alone, together in both(asked):
    assert together == alone


@pytest.mark.parametrize(
  'each, n, arms, parts, wanted',
  [
    (4, 4, 8, 1, 4),
    (4, 5, 8, 1, 8),
    (4, 9, 8, 1, 16),  # not 12
    (4, 999, 8, 1, 32),
    (4, 999, 3, 1, 12),  # one for each arm is enough
    (1, 1, 8, 4, 4),  # each group of devices has as many
    (1, 5, 8, 4, 8),
  ],
)
def test_widths_double(each, n, arms, parts, wanted):
  assert rows.width(each, n, arms, parts) == wanted


def test_rows_are_only_those_that_are_asked_for(monkeypatch):
  seen = []
  real = rows.sampler.generate

  def spied(request):
    seen.append(request.rows)
    return real(request)

  monkeypatch.setattr(rows.sampler, 'generate', spied)
  for result in stack.run([functools.partial(asked, arm) for arm in range(3)]):
    assert not isinstance(result, BaseException)
  assert sorted(seen) == [6, 6]  # two rows of three arms; six prompts


def test_arms_share_what_has_a_name():
  made = []

  def run(arm, calls, stop):
    del stop
    thing = calls.share('thing', lambda: made.append(arm) or object())
    return thing, calls.apart(lambda x: x + 1, arm)

  results = stack.run([functools.partial(run, arm) for arm in range(3)])
  assert len(made) == 1 and len({id(thing) for thing, _ in results}) == 1
  assert [found for _, found in results] == [1, 2, 3]


def test_an_arm_that_fails_does_so_alone():
  def run(arm, calls, stop):
    if arm == 1:
      raise NonFinite('step 1: nan')
    return trained(steps.UPDATE, 2)(arm, calls, stop)

  results = stack.run([functools.partial(run, arm) for arm in range(3)])
  assert isinstance(results[1], NonFinite)
  for arm in (0, 2):
    alone, _ = trained(steps.UPDATE, 2)(arm, ALONE, None)
    assert steps.relative(results[arm][0].params, alone.params) <= 1e-5


def test_an_error_in_what_is_computed_reaches_all_who_asked():
  def run(arm, calls, stop):
    del stop
    if arm == 2:
      return 'not concerned'
    of = steps.MODEL, FROZEN, steps.PAIRS
    return calls.pair_logps(requests.Pairs(*of, slots=2, length=arm + 2))

  first, second, third = stack.run(
    [functools.partial(run, arm) for arm in range(3)]
  )
  assert 'tokens' in str(first) and 'tokens' in str(second)
  assert third == 'not concerned'


def test_who_is_asked_to_stop_does_so_where_nothing_is_lost():
  whole = preempt.Stop()

  def run(arm, calls, stop):
    if arm:
      whole.signal = 15
      return stop.requested
    with stop.at_once(Preempted('stopped')):
      while True:
        calls.apart(lambda: None)

  first, second = stack.run(
    [functools.partial(run, arm) for arm in range(2)], whole
  )
  assert isinstance(first, Preempted) and second is True
