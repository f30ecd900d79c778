import types

import jax
import pytest

from ealign import fields
from ealign.plan import figures
from ealign.plan.inference import Program
from ealign.runtime import aot, peaks
from ealign.runtime import cost as cost_lib

ALL_DEVICES = True

TRAINING = {'splash_fwd': 4, 'splash_dkv': 2, 'splash_dq': 2}


def program(**changes):
  values = {'name': 'sft', 'run': None, 'args': (), 'flops': 1000.0}
  values |= {'attention': 100.0, 'experts': 10.0, 'holds': ('state',)}
  return Program(**values | changes)


@pytest.mark.parametrize(
  'kernels, train, wanted',
  [
    ({}, 'lora', 0),  # attention is among the dots
    ({'splash_fwd': 7}, 'lora', 100),
    ({'splash_fwd': 7, 'ragged-dot': 3}, 'lora', 110),
    (TRAINING, 'lora', 400),  # forward twice, backward twice forward
    (TRAINING | {'ragged-dot': 1}, 'lora', 400 + 30),
    (TRAINING | {'ragged-dot': 1}, 'full', 400 + 40),
  ],
)
def test_kernels_by_formula(kernels, train, wanted):
  counts = cost_lib.Counts(kernels=kernels)
  assert figures.kernel_flops(program(), counts, train) == wanted


def mesh(kind):
  device = types.SimpleNamespace(device_kind=kind)
  return types.SimpleNamespace(
    size=4, devices=types.SimpleNamespace(flat=[device])
  )


def test_the_estimate_is_the_longest_of_three():
  v5e = mesh('TPU v5 lite')  # 197e12 FLOP/s, 819e9 and 400e9 bytes/s
  counts = cost_lib.Counts(hbm_bytes=819e9, collectives={'all-gather': 100e9})
  assert figures.estimate(v5e, 394e12, counts) == (2.0, 'compute')
  assert figures.estimate(v5e, 0, counts) == (1.0, 'memory')
  counts.collectives = {'all-gather': 100e9, 'all-reduce': 200e9}
  assert figures.estimate(v5e, 0, counts) == (2.5, 'links')
  counts.transfers = 500_000
  # Nothing hides what a transfer takes beside its bytes.
  assert figures.estimate(v5e, 0, counts) == (3.0, 'links')
  assert figures.estimate(v5e, 0, counts, peaks.SLOW) == (7.5, 'latency')
  assert figures.estimate(v5e, 788e12, counts) == (4.5, 'compute')
  assert figures.estimate(mesh('cpu'), 1, counts) == (None, '')


def test_what_a_program_takes_is_held_against_the_limit():
  run = types.SimpleNamespace(mesh=mesh('cpu'), resident={})
  compiled = aot.Compiled(arguments=3, temporaries=4, output=1, limit=10)
  found = figures.of(program(), compiled, run)
  assert (found.bytes, found.headroom, found.excess) == (8, 2, 0)
  assert found.ratio is None  # it was not compiled
  compiled = aot.Compiled(temporaries=16, limit=10)
  assert figures.of(program(), compiled, run).headroom == -6


def test_work_is_held_against_what_the_model_needs():
  run = types.SimpleNamespace(mesh=mesh('TPU v5 lite'), resident={})
  run.config = fields.Config()
  # On each of four devices 200 in dots, and a fourth of the kernels' 400.
  counts = cost_lib.Counts(flops=200.0, hbm_bytes=7.0, kernels=TRAINING)
  compiled = aot.Compiled(counts=counts, seconds_compile=3.0)
  found = figures.of(program(flops=1000.0), compiled, run)
  assert (found.flops, found.ratio) == (300.0, 1.2)
  assert (found.hbm_bytes, found.seconds_compile) == (7.0, 3.0)


def test_what_is_no_argument_of_a_program_lies_beside_it():
  def tree(rows):  # 4 x rows bytes on the one device
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return [jax.ShapeDtypeStruct((rows,), 'float32', sharding=where)]

  resident = {'state': tree(5), 'frozen': tree(2)}
  run = types.SimpleNamespace(mesh=mesh('cpu'), resident=resident)
  compiled = aot.Compiled(arguments=3, temporaries=4, output=1, limit=15)
  found = figures.of(program(holds=('state',)), compiled, run)
  assert (found.beside, found.bytes, found.excess) == (8, 16, 1)
  assert found.headroom == -1
  found = figures.of(program(holds=('state', 'frozen')), compiled, run)
  assert (found.beside, found.excess, found.headroom) == (0, 0, 7)


def test_transfers_are_counted_of_a_program():
  run = types.SimpleNamespace(mesh=mesh('TPU v5 lite'), resident={})
  run.config = fields.Config()
  counts = cost_lib.Counts(collectives={'all-reduce': 2e9}, transfers=1000)
  found = figures.of(program(), aot.Compiled(counts=counts), run)
  assert (found.transfers, found.bound) == (1000, 'links')
  assert found.slow - found.seconds == pytest.approx(1000 * 9e-6)


def test_knobs_are_those_that_would_help():
  config = fields.Config()
  shape = {'data': 4, 'fsdp': 1, 'tensor': 1}
  many = types.SimpleNamespace(size=4, shape=shape)
  one = types.SimpleNamespace(size=1, shape=dict.fromkeys(shape, 1))
  said = figures.knobs(config, types.SimpleNamespace(name='sft'), many)
  assert any('mesh.fsdp=4' in line for line in said)
  arms = types.SimpleNamespace(size=4, shape=shape | {'stack': 2, 'data': 1})
  said = figures.knobs(config, types.SimpleNamespace(name='sft'), arms)
  assert not any('mesh.fsdp' in line for line in said)
  said = ' '.join(
    figures.knobs(config, types.SimpleNamespace(name='decode'), one)
  )
  assert 'fsdp' not in said and 'remat' not in said
  assert 'sample.max_new_tokens' in said
  said = ' '.join(
    figures.knobs(config, types.SimpleNamespace(name='score'), one)
  )
  assert 'dpo.pairs, dpo.length' in said and 'sample' not in said


@pytest.mark.parametrize('rows, offered', [(4, True), (3, False), (1, False)])
def test_microbatches_are_offered_where_a_run_takes_them(rows, offered):
  config = fields.Config(
    data=fields.Data('x', batch_size=rows), dpo=fields.DPO(pairs=2 * rows)
  )
  one = types.SimpleNamespace(size=1, shape={'data': 1, 'fsdp': 1, 'tensor': 1})
  said = figures.knobs(config, types.SimpleNamespace(name='sft'), one)
  assert any('train.microbatches=2' in line for line in said) == offered
