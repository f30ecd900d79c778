"""Several runs as one: what they ask of the devices is answered together.

Each run is a thread with the loop, the replay, the checkpoints and the records
of a single run. What it computes goes through its `calls.Calls`, which waits
until all runs have asked for something. What they ask alike is one program
then, over the one frozen base:

  step          states and batches stacked on a first axis A, vmapped
  generate      rows of all arms in one batch, their adapters by row
  label_logps   likewise
  pair_logps    the pairs of all arms in one batch

An update waits until all arms have come to theirs, so that they stay in step
whatever one of them has to do in between. A run that ends, or whose loss is not
finite, leaves; its place in the stack stays as it was.
"""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ealign import align
from ealign import calls as calls_lib
from ealign.data import batch as batch_lib
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import preempt
from ealign.sampling import labels as labels_lib
from ealign.sampling import sampler

# Metrics of an update that only one with pairs has.
_OF_PAIRS = ('loss_dpo', 'rewards/', 'logps/', 'logits/')


def run(arms: Sequence[Callable], stop: preempt.Stop | None = None) -> list:
  """Runs each of `arms` in a thread, as arm(calls, stop).

  Args:
    arms: functions that call `train.run` with what they are given. Their runs
      may differ in traced values alone: lambda, beta, label smoothing, learning
      rate, threshold, temperature, seed.
    stop: who asks them to stop.

  Returns:
    what each returned, or the exception that it ended with.
  """
  stack = _Stack(len(arms), _Shared(stop or preempt.Stop()))
  results = [None] * len(arms)

  def one(arm, function):
    try:
      results[arm] = function(stack.calls(arm), stack.stop)
    except BaseException as error:
      results[arm] = error
    finally:
      stack.leave(arm)

  threads = [
    threading.Thread(target=one, args=item, name=f'arm {item[0]}', daemon=True)
    for item in enumerate(arms)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return results


class _Shared(preempt.Stop):
  """Another Stop as threads see it: no signal raises anything in them."""

  def __init__(self, of: preempt.Stop):
    super().__init__()
    self._of, self._own = of, threading.local()

  @property
  def requested(self) -> bool:
    return self._of.requested

  @contextlib.contextmanager
  def at_once(self, error: Exception) -> Iterator[None]:
    self._own.error = error
    self.check()
    try:
      yield
    finally:
      self._own.error = None

  def check(self) -> None:
    """Within `at_once` and once it was asked to stop: raises the error."""
    error = getattr(self._own, 'error', None)
    if error and self.requested:
      raise error


class _Request:
  """What an arm waits for; those that are `alike` are answered together."""

  def __init__(self, arm: int, kind: str, alike: Any, given: dict):
    self.arm, self.kind, self.alike = arm, kind, alike
    self.given = types.SimpleNamespace(**given)
    self.result = self.error = None
    self.done = False


class _Lane:
  """An arm's `align.TrainState` within the stack."""

  def __init__(self, stack: '_Stack', arm: int):
    self._stack, self._arm = stack, arm

  def state(self) -> align.TrainState:
    return _take(self._stack.states, self._arm)

  @property
  def params(self) -> dict:
    return _take(self._stack.states.params, self._arm)

  def block_until_ready(self) -> None:
    jax.block_until_ready(self._stack.states)


class _Stack:
  """Where arms meet: each asks for something and waits for its answer."""

  def __init__(self, count: int, stop: _Shared):
    self.count, self.stop = count, stop
    self.states = None  # the TrainStates of all arms, on a first axis
    self._live = set(range(count))
    self._waiting: dict[int, _Request] = {}
    self._turn = threading.Condition()
    self._shared, self._sharing = {}, threading.Lock()
    self._answer = {
      'step': self._step,
      'generate': self._generate,
      'label_logps': self._label_logps,
      'pair_logps': self._pair_logps,
      'apart': lambda asked: [asked[0].given.function(*asked[0].given.args)],
    }

  def calls(self, arm: int) -> calls_lib.Calls:
    """What the arm computes with."""
    ask = functools.partial(self._ask, arm)

    def generate(model, weights, prompts, *, stop_ids, **given):
      if not prompts:
        return []
      given = {'truncate': None, 'mesh': None} | given
      given |= {'prompts': prompts, 'stop_ids': tuple(stop_ids)}
      static = 'stop_ids', 'max_tokens', 'rows', 'truncate', 'mesh'
      return ask('generate', static, model=model, weights=weights, **given)

    def label_logps(model, weights, prompts, labels, **given):
      given = {'mesh': None} | given
      given |= {'prompts': prompts, 'labels': tuple(map(tuple, labels))}
      static = 'labels', 'rows', 'mesh'
      return ask('label_logps', static, model=model, weights=weights, **given)

    def pair_logps(model, weights, pairs, **given):
      if not pairs:
        return calls_lib.pair_logps(model, weights, pairs, **given)
      static = 'slots', 'length'
      given |= {'pairs': pairs, 'model': model, 'weights': weights}
      return ask('pair_logps', static, **given)

    def step(update, state, frozen, batch):
      given = {'model': update.model, 'weights': frozen}
      given |= {'update': update, 'state': state, 'batch': batch}
      return ask('step', ('update',), **given)

    def apart(function, *args):
      return ask('apart', None, function=function, args=args)

    return calls_lib.Calls(
      generate=generate,
      label_logps=label_logps,
      pair_logps=pair_logps,
      step=step,
      state=lambda state: state.state() if isinstance(state, _Lane) else state,
      share=self._share,
      apart=apart,
      alone=False,
    )

  def leave(self, arm: int) -> None:
    """The arm has ended; the others no longer wait for it."""
    with self._turn:
      self._live.discard(arm)
      self._serve()

  def _share(self, name, make):
    with self._sharing:
      if name not in self._shared:
        self._shared[name] = make()
      return self._shared[name]

  def _ask(self, arm, kind, static, **given):
    self.stop.check()
    alike = arm
    if static is not None:
      # Trees of one base are told apart by a leaf: all arms hold the same.
      weights = given['weights']
      which = id(weights['embed']), 'adapter' in weights
      alike = given['model'], which, *(given.get(name) for name in static)
    request = _Request(arm, kind, alike, given)
    with self._turn:
      self._waiting[arm] = request
      self._serve()
      self._turn.wait_for(lambda: request.done)
    if request.error is not None:
      raise request.error
    return request.result

  def _serve(self):
    """Answers what can be answered, once all arms wait."""
    if self._waiting.keys() != self._live:
      return
    groups = {}
    for arm in sorted(self._waiting):
      request = self._waiting[arm]
      groups.setdefault((request.kind, request.alike), []).append(request)
    # An update is made when all have come to theirs.
    early = {key: found for key, found in groups.items() if key[0] != 'step'}
    for (kind, _), asked in (early or groups).items():
      try:
        results = self._answer[kind](asked)
      except Exception as error:
        for request in asked:
          request.error = error
      else:
        for request, result in zip(asked, results, strict=True):
          request.result = result
      for request in asked:
        request.done = True
        del self._waiting[request.arm]
    self._turn.notify_all()

  # ---- What is computed for all that ask alike ------------------------------

  def _step(self, asked):
    first = asked[0].given
    given = {request.arm: request.given for request in asked}
    # The place of an arm that does not ask is filled with another's values.
    places = _width(1, self.count, self.count, _groups(first.model.mesh))
    in_all = [given.get(arm, first) for arm in range(places)]
    if self.states is None:
      states = [each.state for each in in_all]
      self.states = _join_states(first.model, *states)
    learns = [
      arm in given and not given[arm].batch.empty for arm in range(places)
    ]
    if not any(learns):
      return [(request.given.state, {}) for request in asked]
    batches = _alike([each.batch for each in in_all])
    program = stacked_step(first.update, places)
    self.states, metrics = program(
      self.states, first.weights, batches, np.array(learns)
    )
    return [
      (_Lane(self, r.arm), _own(metrics[r.arm], r.given.batch)) for r in asked
    ]

  def _generate(self, asked):
    first = asked[0].given
    prompts, arms = _concat(asked, 'prompts')
    weights, rows, by_row = self._weights(asked, arms)
    of_all = [_per_prompt(r.given) for r in asked]
    key, settings = jax.tree.map(lambda *xs: np.concatenate(xs), *of_all)
    answers = sampler.generate(
      first.model,
      weights,
      prompts,
      key=jax.random.wrap_key_data(key),
      settings=settings,
      stop_ids=first.stop_ids,
      max_tokens=first.max_tokens,
      row_ids=_concat(asked, 'row_ids')[0],
      rows=rows,
      truncate=first.truncate,
      mesh=first.mesh,
      arms=by_row,
    )
    return _parted(answers, arms)

  def _label_logps(self, asked):
    first = asked[0].given
    prompts, arms = _concat(asked, 'prompts')
    weights, rows, by_row = self._weights(asked, arms)
    logps_BM = labels_lib.label_logps(
      first.model,
      weights,
      prompts,
      first.labels,
      rows=rows,
      mesh=first.mesh,
      arms=by_row,
    )
    return _parted(logps_BM, arms)

  def _pair_logps(self, asked):
    first = asked[0].given
    pairs, arms = _concat(asked, 'pairs')
    groups = _groups(first.model.mesh)
    slots = _width(first.slots, len(pairs), self.count, groups)
    logps_P2 = calls_lib.pair_logps(
      first.model, first.weights, pairs, slots=slots, length=first.length
    )
    return _parted(logps_P2, arms)

  def _weights(self, asked, arms):
    """The weights of all that ask, the rows of a batch, the arm of each prompt.

    The frozen weights are those of all arms.
    """
    first = asked[0].given
    groups = _groups(first.mesh)
    if 'adapter' not in first.weights:
      rows = _width(first.rows, len(arms), self.count, groups)
      return first.weights, rows, ()
    adapters = [r.given.weights['adapter'] for r in asked]
    slots = _width(1, len(asked), self.count, groups)
    adapters += adapters[:1] * (slots - len(asked))  # for rows without a prompt
    slot = {r.arm: i for i, r in enumerate(asked)}
    weights = first.weights | {'adapter': _join(1, *adapters)}
    return weights, first.rows * slots, [slot[arm] for arm in arms]


def _width(rows: int, n: int, arms: int, groups: int = 1) -> int:
  """Rows of a batch for n of them: `rows` doubled as often as n needs.

  So there are few shapes to compile, and little padding. Where arms have groups
  of devices, each group has as many.
  """
  times = 1
  while times < arms and rows * times < n:
    times *= 2
  return rows * (-(-min(times, arms) // groups) * groups)


def _concat(asked, name):
  """What all ask for as one list, and the arm of each item."""
  items = [item for r in asked for item in getattr(r.given, name)]
  arms = [r.arm for r in asked for _ in getattr(r.given, name)]
  return items, arms


def _parted(results, arms):
  """The inverse of `_concat`, for the results."""
  ends = [i for i in range(1, len(arms)) if arms[i] != arms[i - 1]]
  starts, ends = [0, *ends], [*ends, len(arms)]
  return [results[i:end] for i, end in zip(starts, ends, strict=True)]


def _per_prompt(given):
  """The key's data and the settings of each prompt of a call."""
  n = len(given.prompts)
  key = np.asarray(jax.random.key_data(given.key))
  each = lambda value: np.broadcast_to(value, (n,))
  return (
    np.broadcast_to(key, (n, key.shape[-1])),
    jax.tree.map(each, given.settings),
  )


def _alike(batches):
  """The batches of all arms, with empty pairs where only others have some."""
  pairs = next((b.pairs for b in batches if b.pairs is not None), None)
  if pairs is None:
    return batches
  slots, length = len(pairs.weight_P), pairs.tokens_BT.shape[1]
  empty = batch_lib.empty_pair_batch(slots, length)
  return [b if b.pairs is not None else b.replace(pairs=empty) for b in batches]


def _own(metrics: dict, batch) -> dict:
  """An arm's metrics as its single run has them."""
  if batch.empty:
    return {}
  if batch.pairs is not None:
    return metrics
  return {k: v for k, v in metrics.items() if not k.startswith(_OF_PAIRS)}


@jax.jit
def _take(tree, arm):
  return jax.tree.map(lambda x: x[arm], tree)


@functools.partial(jax.jit, static_argnums=0)
def _join(axis, *trees):
  return jax.tree.map(lambda *xs: jnp.stack(xs, axis), *trees)


@functools.partial(jax.jit, static_argnums=0)
def _join_states(model, *states):
  return _laid(model, jax.tree.map(lambda *xs: jnp.stack(xs), *states))


def _groups(mesh) -> int:
  """Groups of devices that have arms of their own."""
  return dict(mesh.shape).get('arm', 1) if mesh is not None else 1


def _laid(model, states):
  """Each arm's state on its group of devices, as a run alone has it."""
  if _groups(model.mesh) == 1:
    return states
  one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
  where = mesh_lib.shardings(model.mesh, jax.tree.map(one, states))
  own = lambda x: NamedSharding(x.mesh, PartitionSpec('arm', *x.spec))
  return jax.lax.with_sharding_constraint(states, jax.tree.map(own, where))


@functools.lru_cache(maxsize=16)
def stacked_step(update: align.Update, count: int):
  """The compiled update of `count` arms; see `align.train_step`."""
  step = functools.partial(align.train_step, update)

  def run(states, frozen, batches, active_A):
    batch = jax.tree.map(lambda *xs: jnp.stack(xs), *batches)
    axis = 'arm' if _groups(update.model.mesh) > 1 else None
    all_arms = jax.vmap(step, (0, None, 0), spmd_axis_name=axis)
    new, metrics = all_arms(states, frozen, batch)

    def kept(new, old):
      where_A = jnp.reshape(active_A, (-1,) + (1,) * (new.ndim - 1))
      return jnp.where(where_A, new, old)

    own = [{k: x_A[arm] for k, x_A in metrics.items()} for arm in range(count)]
    return _laid(update.model, jax.tree.map(kept, new, states)), own

  return jax.jit(run, donate_argnums=0)
