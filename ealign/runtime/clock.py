"""Where a run's wall time goes, and what its chips do in it."""

import contextlib
import time
from collections.abc import Iterator

import jax

from ealign.runtime import peaks, provenance

PHASES = ('sample', 'review', 'revise', 'score', 'train')


class Clock:
  """Seconds spent by phase; tokens and FLOPs of the updates.

  with clock('train'): ...    adds to a phase
  clock.count(tokens, flops)  an update that was started
  """

  def __init__(self, devices):
    self._devices = list(devices)
    self._peak = peaks.peak(self._devices[0].device_kind)
    self._seconds = dict.fromkeys(PHASES, 0.0)
    self._begun = self._last = time.monotonic()
    self._steps = self._tokens = self._flops = 0

  @contextlib.contextmanager
  def __call__(self, phase: str) -> Iterator[None]:
    start = time.monotonic()
    try:
      yield
    finally:
      spent = time.monotonic() - start
      self._seconds[phase] = self._seconds.get(phase, 0.0) + spent

  def count(self, tokens: float, flops: float) -> None:
    """An update: tokens it trains on and FLOPs the model needs for it."""
    self._steps += 1
    self._tokens += tokens
    self._flops += flops

  def metrics(self) -> dict[str, float]:
    """Rates since the last call, and the share of each phase since the start.

    Where the device's peak or memory is not known the metric is absent.
    """
    now = time.monotonic()
    spent = max(now - self._last, 1e-9)
    wall = max(now - self._begun, 1e-9)
    chips = len(self._devices)
    found = {
      f'perf/share_{phase}': seconds / wall
      for phase, seconds in sorted(self._seconds.items())
    }
    found['perf/step_time_s'] = spent / max(self._steps, 1)
    found['perf/tokens_per_s_per_chip'] = self._tokens / spent / chips
    if self._peak:
      done = self._flops / spent / chips
      found['perf/mfu'] = done / self._peak.flops
    if (memory := hbm_peak()) is not None:
      found['perf/hbm_peak_gib'] = memory / peaks.GIB
    found['perf/compiles'] = provenance.compiles()
    self._last, self._steps, self._tokens, self._flops = now, 0, 0, 0
    return found


def hbm_peak() -> int | None:
  """Most bytes in use at once on a device of this host; None on a CPU."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  found = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return max(found, default=None)
