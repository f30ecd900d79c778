"""Several runs as one: what they ask of the devices is answered together.

Each run is a thread with the loop, the replay, the checkpoints and the records
of a single run. What it computes goes through its `engine.Backend`, which waits
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
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ealign import alone
from ealign.engine import Backend
from ealign.runtime import preempt
from ealign.sampling import labels
from ealign.stack import lanes, rows


def run(
  arms: Sequence[Callable],
  stop: preempt.Stop | None = None,
  ended: Callable[[int, Any], bool] = lambda arm, result: False,
) -> list:
  """Runs each of `arms` in a thread, as arm(backend, stop).

  Args:
    arms: functions that call `train.run` with what they are given. Their
      configs are alike to `stack.groups.alike`.
    stop: who asks them to stop.
    ended: called in the thread of an arm that has ended, with its index and
      what stands of it in the results; if true the others stop as by a signal.

  Returns:
    what each returned, or the exception that it ended with.
  """
  stack = _Stack(len(arms), _Shared(stop or preempt.Stop()))
  results = [None] * len(arms)

  def one(arm, function):
    try:
      results[arm] = _outcome(function, stack.backend(arm), stack.stop)
      if ended(arm, results[arm]):
        stack.stop.signal = signal.SIGTERM
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


def _outcome(function, *args):
  try:
    return function(*args)
  except BaseException as error:
    return error


class _Shared(preempt.Stop):
  """Another Stop as threads see it: no signal raises anything in them.

  It may be set by itself, too: then they stop, and the other one goes on.
  """

  def __init__(self, of: preempt.Stop):
    super().__init__()
    self._of, self._own = of, threading.local()

  @property
  def requested(self) -> bool:
    return self._of.requested or super().requested

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


class _Waiting:
  """What an arm waits for; those that are `alike` are answered together."""

  def __init__(self, arm: int, kind: str, alike: Any, given: Any):
    self.arm, self.kind, self.alike, self.given = arm, kind, alike, given
    self.result = self.error = None
    self.done = False


class _Stack:
  """Where arms meet: each asks for something and waits for its answer."""

  def __init__(self, count: int, stop: _Shared):
    self.count, self.stop = count, stop
    self._live = set(range(count))
    self._waiting: dict[int, _Waiting] = {}
    self._turn = threading.Condition()
    self._shared, self._sharing = {}, threading.Lock()
    self._answer = {
      'step': lanes.Lanes(count).step,
      'generate': functools.partial(rows.generate, count=count),
      'label_logps': functools.partial(rows.label_logps, count=count),
      'pair_logps': functools.partial(rows.pair_logps, count=count),
      'apart': lambda asked: [asked[0].given()],
    }

  def backend(self, arm: int) -> Backend:
    """What the arm computes with."""

    def ask(kind, empty, name):
      def call(request):
        if not getattr(request, name):
          return empty(request)
        # Trees of one base are told apart by a leaf: all arms hold the same.
        weights = request.weights
        base = id(weights['embed']), 'adapter' in weights
        return self._ask(arm, kind, (base, request.alike), request)

      return call

    def step(update, state, frozen, batch):
      alike = id(frozen['embed']), update
      return self._ask(
        arm, 'step', alike, lanes.Request(update, state, frozen, batch)
      )

    def apart(function, *args):
      return self._ask(arm, 'apart', arm, functools.partial(function, *args))

    return Backend(
      generate=ask('generate', lambda _: [], 'prompts'),
      label_logps=ask('label_logps', labels.label_logps, 'prompts'),
      pair_logps=ask('pair_logps', alone.pair_logps, 'pairs'),
      step=step,
      state=lanes.alone,
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

  def _ask(self, arm, kind, alike, given):
    self.stop.check()
    request = _Waiting(arm, kind, alike, given)
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
