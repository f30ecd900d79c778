"""Programs compiled for TPUs that are not here; needs the extra `tpu`."""

import dataclasses
import importlib.util
import json

import jax
import pytest
from jax.experimental import pallas as pl
from jax.experimental.compilation_cache import compilation_cache

from ealign import fields
from ealign.cli import evaluate
from ealign.models import sharding
from ealign.models.config import Config
from ealign.plan import figures, programs
from ealign.runtime import aot, topology
from ealign.runtime import mesh as mesh_lib

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed: pip install ealign[tpu]',
  ),
]

TINY = Config(
  vocab_size=512,
  d_model=128,
  layers=3,
  heads=4,
  kv_heads=2,
  head_dim=64,
  d_ff=256,
  dtype='bfloat16',
  remat='full',
)


@pytest.fixture(scope='module')
def planned():
  """The figures of programs on four chips: (Figures, Compiled) each."""
  mesh = mesh_lib.make(1, 4, 1, aot.devices(topology.parse('v5e:2x2')))
  change = dataclasses.replace
  config = fields.Config()
  config = change(
    config,
    data=change(config.data, train='rows', length=256, batch_size=4),
    dpo=change(config.dpo, pairs=4, length=128),
    sample=change(config.sample, max_new_tokens=32),
  )
  model = sharding.on_mesh(TINY, mesh)
  run = programs.shapes(config, model, mesh)
  found = {}
  for program in programs.listed(run, programs.Sizes(prompt=64, review=128)):
    if program.name != 'sft':
      compiled = aot.compile(program.run, *program.args, unknown=program.trips)
      found[program.name] = figures.of(program, compiled, run), compiled
  return found


def test_an_evaluation_on_a_slice_that_is_not_here(tmp_path, capsys):
  few = '--limit=1', '--config.eval.suite_tokens=8', '--config.eval.batch=4'
  argv = ['--model=ealign/world/base', '--suite=refusal', *few, '--plan']
  # Its heads are too small for a kernel.
  argv += ['--config.model.attention=xla', f'--workdir={tmp_path}']
  assert evaluate.main(['evaluate', *argv, '--topology=v5e:2x2']) == 0
  said = capsys.readouterr().out
  assert 'all questions of the suites, if each answer' in said
  assert 'in all' in said and 'it fits' in said
  plan = json.loads((tmp_path / 'plan.json').read_text())
  assert [*plan['programs']] == ['ask', 'answer', 'labels helped..']
  assert plan['suites_s']['in all'] > 0
  assert plan['devices']['count'] == 4


@pytest.mark.parametrize('name', ['v5e:4x4', 'v6e:8x8', 'v5p:4x4x4'])
def test_each_shape_of_a_mesh_is_laid_on_the_slice(name):
  devices = aot.devices(topology.parse(name))
  for fsdp in (1, 2, 4, 8, 16):
    for tensor in (1, 2, 4):
      if len(devices) % (fsdp * tensor) == 0:
        mesh = mesh_lib.make(-1, fsdp, tensor, devices)
        assert set(mesh.devices.flat) == set(devices)


def test_a_training_step_on_tpus(planned):
  step, _ = planned['hybrid']
  assert step.limit == 15.75 * 2**30 and 0 < step.bytes < 2**30
  # SFT and pairs, each forward twice and backward once in 3 layers.
  kernels = {'fwd': 0, 'dkv': 0, 'dq': 0}
  for name, runs in step.kernels.items():
    assert name.startswith('splash')
    kernels[next(part for part in kernels if part in name)] += runs
  assert kernels == {'fwd': 12, 'dkv': 6, 'dq': 6}
  assert 1.2 < step.ratio < 1.55
  assert sum(step.collectives.values()) > 0 and step.seconds > 0


def test_all_but_decode_attend_with_splash(planned):
  kernels = {name: found.kernels for name, (found, _) in planned.items()}
  without = [n for n, runs in kernels.items() if 'splash' not in str(runs)]
  assert without == ['decode'] and len(kernels) == 5


def test_decoding_gathers_no_weights(planned):
  decode, compiled = planned['decode']
  assert compiled.counts.unknown == 1  # the loop that ends by its data
  assert not [size for size, times in compiled.counts.gathered if times > 1]
  assert decode.flops > 0 and decode.excess == 0


def test_a_program_that_is_too_large_says_by_how_much():
  (device,) = aot.devices(topology.parse('v5e:1x1'))
  where = jax.sharding.SingleDeviceSharding(device)
  shape = jax.ShapeDtypeStruct(
    (20, 1024, 1024, 1023), 'bfloat16', sharding=where
  )
  found = aot.compile(jax.jit(lambda x: x[::-1] * 2 + 1), shape)
  assert found.counts is None and found.temporaries > found.limit + 60 * 2**30


def test_a_kernel_that_is_too_large_does_not_compile():
  (device,) = aot.devices(topology.parse('v5e:1x1'))
  where = jax.sharding.SingleDeviceSharding(device)
  shape = jax.ShapeDtypeStruct((4096, 4096), 'float32', sharding=where)

  def double(x, o):
    o[...] = x[...] * 2

  whole = pl.pallas_call(double, out_shape=shape)  # of 128 MiB in vmem
  found = aot.compile(jax.jit(whole), shape)
  assert 'memory space vmem' in found.failure and found.temporaries == 0


def test_the_cache_of_programs_is_left_alone(tmp_path):
  (device,) = aot.devices(topology.parse('v5e:1x1'))
  where = jax.sharding.SingleDeviceSharding(device)
  shape = jax.ShapeDtypeStruct((8, 128), 'float32', sharding=where)
  settings = {
    'jax_compilation_cache_dir': str(tmp_path),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  was = {name: getattr(jax.config, name) for name in settings}

  def use(settings):
    for name, value in settings.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()

  use(settings)
  try:
    for _ in range(2):  # a program that is there could not be read
      aot.compile(jax.jit(lambda x: x + 1), shape)
    assert not list(tmp_path.iterdir())
    jax.jit(lambda x: x - 7)(1.0)  # what runs here is still kept
    assert list(tmp_path.iterdir())
  finally:
    use(was)


@pytest.mark.parametrize(
  'name', ['v4:2x2x1', 'v5p:2x2x1', 'v6e:1x1', 'tpu7x:2x2x1']
)
def test_every_kind_of_chip(name, capfd):
  chosen = topology.parse(name)
  assert len(aot.devices(chosen)) == chosen.chips * chosen.chip.devices
  said = capfd.readouterr()
  assert not said.out and not said.err  # libtpu complains of nothing
