import types

import jax
import pytest

from ealign.runtime import clock as clock_lib
from ealign.runtime import peaks, provenance, topology
from ealign.runtime.clock import Clock


@pytest.fixture
def now(monkeypatch):
  """Time that stands still until a test moves it."""
  now = [100.0]
  fake = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(clock_lib, 'time', fake)
  return now


def device(kind='cpu'):
  return types.SimpleNamespace(device_kind=kind)


def test_shares_of_wall_time(now):
  clock = Clock([device()])
  with clock('sample'):
    now[0] += 3
  with clock('train'), clock('eval'):
    now[0] += 1
  now[0] += 4  # of nothing that is timed
  found = clock.metrics()
  shares = {k: v for k, v in found.items() if k.startswith('perf/share_')}
  assert shares == {
    'perf/share_sample': 3 / 8,
    'perf/share_train': 1 / 8,
    'perf/share_eval': 1 / 8,
    'perf/share_review': 0,
    'perf/share_revise': 0,
    'perf/share_score': 0,
  }
  now[0] += 8
  assert clock.metrics()['perf/share_sample'] == 3 / 16  # since its start


def test_rates_are_those_since_the_last_time(now):
  clock = Clock([device('TPU v5 lite')] * 2)
  now[0] += 10
  clock.count(tokens=5, flops=1)
  clock.metrics()
  for _ in range(4):
    clock.count(tokens=100, flops=197e12)
  now[0] += 8
  found = clock.metrics()
  assert found['perf/step_time_s'] == 2
  assert found['perf/tokens_per_s_per_chip'] == 400 / 8 / 2
  assert found['perf/mfu'] == 4 / 8 / 2


def test_a_cpu_has_no_utilisation_and_no_memory():
  found = Clock(jax.devices()).metrics()
  assert not {'perf/mfu', 'perf/hbm_peak_gib'} & set(found)
  assert found['perf/compiles'] == provenance.compiles()


def test_the_fullest_device_counts(now, monkeypatch):
  stats = lambda n: lambda: {'peak_bytes_in_use': n * 2**30}
  found = [types.SimpleNamespace(memory_stats=stats(n)) for n in (3, 5, 4)]
  monkeypatch.setattr(clock_lib.jax, 'local_devices', lambda: found)
  assert Clock([device()]).metrics()['perf/hbm_peak_gib'] == 5


def test_peaks_of_a_device():
  half = topology.CHIPS['tpu7x'].flops / 2  # jax shows two devices a chip
  assert peaks.peak('TPU7x').flops == half
  assert peaks.peak('TPU v6 lite').memory < 32 * 2**30
  assert peaks.peak('NVIDIA H100 80GB HBM3').flops == 989e12
  assert peaks.peak('cpu') is None


def test_the_trace_of_some_steps(tmp_path):
  from ealign.runtime.profile import Profile

  with Profile(tmp_path, (2, 4)) as profile:
    for step in range(6):
      profile.at(step, jax.numpy.ones(3) * step)
      written = list(tmp_path.rglob('*.xplane.pb'))
      assert bool(written) == (step >= 4)


def test_a_trace_ends_with_its_run(tmp_path):
  from ealign.runtime.profile import Profile

  with Profile(tmp_path, (1, 9)) as profile:
    for step in range(3):
      profile.at(step, ())
  assert list(tmp_path.rglob('*.xplane.pb'))


def test_no_trace_unless_asked(tmp_path):
  from ealign.runtime.profile import Profile

  with Profile(tmp_path, None) as profile:
    profile.at(0, ())
  assert not list(tmp_path.iterdir())


def test_each_compiled_program_is_counted_once():
  before = provenance.compiles()
  program = jax.jit(lambda x: x * 3 + 1)
  program(1.0), program(2.0)
  assert provenance.compiles() == before + 1
