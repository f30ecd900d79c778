"""What is made of a compiler that gives up; libtpu's own: plan/test_tpu.py."""

import types

import jax
import pytest

from ealign.runtime import aot
from ealign.runtime import mesh as mesh_lib

GIB = 2**30


@pytest.fixture
def end(monkeypatch):
  """Compiles a program for 16 GiB, which ends with a message."""
  monkeypatch.setattr(mesh_lib, 'memory', lambda device: 16.0 * GIB)

  def run(message):
    def compile():
      raise jax.errors.JaxRuntimeError(message)

    lowered = types.SimpleNamespace(compile=compile)
    return aot.compile(types.SimpleNamespace(lower=lambda: lowered))

  return run


@pytest.mark.parametrize(
  'said',
  [
    'Ran out of memory on HBM, the total memory required for HLO temporaries '
    '(20.50G) exceeds available HBM (16.00G).',
    'Ran out of memory in memory space hbm. Used 20.50G of 16.00G hbm. '
    'Exceeded hbm capacity by 4.50G.\nMore lines.',
  ],
)
def test_memory_that_lacks_is_an_excess(end, said):
  found = end(f'RESOURCE_EXHAUSTED: {said}')
  assert (found.temporaries, found.limit) == (20.5 * GIB, 16 * GIB)
  assert not found.failure and found.counts is None


@pytest.mark.parametrize(
  'said',
  [
    'RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20.50M '
    'of 16.00M vmem. Exceeded vmem capacity by 4.50M.',
    'RESOURCE_EXHAUSTED: Scoped allocation (20.50G) exceeds scoped vmem',
    'RESOURCE_EXHAUSTED: temporaries (14.00G) exceeds available HBM (12.00G).',
    'INTERNAL: Mosaic failed to compile TPU kernel: no layout',
  ],
)
def test_all_else_is_a_failure(end, said):
  found = end(said.replace(': ', ':\n', 1))  # libtpu breaks its lines so
  assert found.failure == said
  assert found.temporaries == 0


def test_a_long_message_is_cut(end):
  assert len(end('x' * 10_000).failure) < 1000
