"""Tests run on the CPU with four simulated devices, or EALIGN_TEST_DEVICES.

Nearly all of their time is compilation, so the compiler is told to optimise
little: 39 s of CPU became 21 for tests/sampling, and without the emitters of
fusions 89 became 52 for three files of it, align and models. Programs stay the
same.
"""

import importlib.metadata
import os
import pathlib

_FLAGS = [
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
]
_JAXLIB = importlib.metadata.version('jaxlib').split('.')
if (int(_JAXLIB[0]), int(_JAXLIB[1])) < (0, 11):  # later ones do not know it
  _FLAGS.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *_FLAGS])
# Equal programs compile once: for all files and processes of a run, and for
# the next run.
_CACHE = pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'jax'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_CACHE)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
devices = int(os.environ.get('EALIGN_TEST_DEVICES', 4))
jax.config.update('jax_num_cpu_devices', devices)


_ALL = {name: getattr(jax, name) for name in ('devices', 'device_count')}


@pytest.fixture(autouse=True, scope='module')
def _devices(request):
  """A mesh takes one device, but for files that say `ALL_DEVICES = True`.

  Runs over four that share two cores compute the same in 1.6 times the time.
  """
  if getattr(request.module, 'ALL_DEVICES', False):
    yield
    return
  first = jax.devices()[:1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'devices', lambda *_: first)
    patch.setattr(jax, 'device_count', lambda *_: 1)
    yield


@pytest.fixture
def all_devices(monkeypatch):
  """All devices for one test of a file that has one elsewhere."""
  for name, real in _ALL.items():
    monkeypatch.setattr(jax, name, real)


@pytest.fixture(scope='session')
def frozen():
  """The weights of the decoder of `steps`."""
  import steps

  return steps.frozen_weights()


@pytest.fixture(scope='session')
def batch(frozen):
  """SFT rows and pairs by hand, with the log-probs of that reference."""
  import steps

  from ealign.data.batch import Batch

  return Batch(steps.sft_batch(), steps.pair_batch(frozen=frozen))
