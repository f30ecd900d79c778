"""Several runs as one: their requests to the devices are answered together.

Each run (a *lane*) is a thread with the loop, the replay, the checkpoints and
the records of a single run. What it computes goes through its `engine.Backend`,
which waits until every run has a request. Requests that are alike then become
one program over the one frozen base:

  step          states and batches stacked on a first axis A, vmapped
  generate      rows of all lanes in one batch, their adapters by row
  label_logps   likewise
  pair_logps    those of the base in one batch, of adapters lane by lane

An update waits until all lanes have come to theirs, so that they stay in step
even if only one of them has to reflect. A run that ends, or whose loss is not
finite, leaves; its place in the stack stays as it was.
"""

import dataclasses
import functools
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ealign.alone import ALONE
from ealign.engine import Backend
from ealign.runtime import preempt
from ealign.stack import lanes, rows


def run(
  runs: Sequence[Callable],
  stop: preempt.Stop | None = None,
  ended: Callable[[int, Any], bool] = lambda lane, result: False,
) -> list:
  """Runs each of `runs` in a thread, as run(backend, stop).

  Args:
    runs: functions that call `train.run` with this backend and stop. Their
      configs have one value of `stack.groups.alike`.
    stop: tells all of them to stop.
    ended: called in the thread of a lane that has ended, with its index and
      its result; if it returns true, the others stop as they do by a signal.

  Returns:
    the result of each: what it returned, or the exception that it ended with.
  """
  stack = _Stack(len(runs), _Shared(stop or preempt.Stop()))
  results = [None] * len(runs)

  def one(lane, function):
    try:
      try:
        results[lane] = function(stack.backend(lane), stack.stop)
      except BaseException as error:
        results[lane] = error
      if ended(lane, results[lane]):
        stack.stop.signal = signal.SIGTERM
    except BaseException as error:
      results[lane] = error
    finally:
      stack.leave(lane)

  threads = [
    threading.Thread(target=one, args=item, name=f'lane {item[0]}', daemon=True)
    for item in enumerate(runs)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return results


class _Shared(preempt.Stop):
  """The stop of a process as its threads see it.

  Setting `signal` here stops the threads, and not the process.
  """

  def __init__(self, of: preempt.Stop):
    super().__init__()
    self._of = of

  @property
  def requested(self) -> bool:
    return self._of.requested or super().requested


@dataclasses.dataclass(eq=False)
class _Waiting:
  """A request of a lane; those of equal `alike` are answered together."""

  lane: int
  alike: tuple
  request: Any
  answer: Future = dataclasses.field(default_factory=Future)


class _Stack:
  """Where lanes meet: each makes a request and waits for its answer."""

  def __init__(self, count: int, stop: _Shared):
    self.count, self.stop = count, stop
    self._live = set(range(count))
    self._waiting: dict[int, _Waiting] = {}
    self._turn = threading.Lock()
    self._shared, self._sharing = {}, threading.Lock()
    self._answer = {
      'step': lanes.Lanes(count).step,
      'generate': functools.partial(rows.generate, count=count),
      'label_logps': functools.partial(rows.label_logps, count=count),
      'pair_logps': functools.partial(rows.pair_logps, count=count),
      'apart': lambda waiting: [waiting[0].request()],
    }

  def backend(self, lane: int) -> Backend:
    """What the lane computes with."""

    def together(kind, items):
      def call(request):
        if not getattr(request, items):
          return getattr(ALONE, kind)(request)
        # All lanes hold the same base: one of its leaves identifies it.
        weights = request.weights
        base = id(weights['embed']), 'adapter' in weights
        return self._answered(lane, (kind, base, request.alike), request)

      return call

    def step(update, state, frozen, batch):
      alike = 'step', id(frozen['embed']), update
      request = lanes.Request(update, state, frozen, batch)
      return self._answered(lane, alike, request)

    def apart(function, *args):
      call = functools.partial(function, *args)
      return self._answered(lane, ('apart', lane), call)

    return Backend(
      generate=together('generate', 'prompts'),
      label_logps=together('label_logps', 'prompts'),
      pair_logps=together('pair_logps', 'pairs'),
      step=step,
      state=lanes.alone,
      share=self._share,
      apart=apart,
      alone=False,
    )

  def leave(self, lane: int) -> None:
    """The lane has ended; the others no longer wait for it."""
    with self._turn:
      self._live.discard(lane)
      self._serve()

  def _share(self, name, make):
    with self._sharing:
      if name not in self._shared:
        self._shared[name] = make()
      return self._shared[name]

  def _answered(self, lane, alike, request):
    self.stop.check()
    mine = _Waiting(lane, alike, request)
    with self._turn:
      self._waiting[lane] = mine
      self._serve()
    return mine.answer.result()

  def _serve(self):
    """Answers what can be answered, once all lanes wait."""
    if self._waiting.keys() != self._live:
      return
    groups = {}
    for lane in sorted(self._waiting):
      waiting = self._waiting[lane]
      groups.setdefault(waiting.alike, []).append(waiting)
    # An update is made when all have come to theirs.
    early = {key: group for key, group in groups.items() if key[0] != 'step'}
    outcomes = []
    for (kind, *_), group in (early or groups).items():
      try:
        results = self._answer[kind](group)
        sets = [waiting.answer.set_result for waiting in group]
        outcomes += zip(sets, results, strict=True)
      except Exception as error:
        outcomes += [(waiting.answer.set_exception, error) for waiting in group]
      for waiting in group:
        del self._waiting[waiting.lane]
    # Only now: a lane that goes on computes, and programs of several devices
    # must not meet those of another thread.
    for tell, outcome in outcomes:
      tell(outcome)
