"""One step on a mesh of any shape equals the step on one device."""

import dataclasses
import functools
import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ealign import align
from ealign.data import batch as batch_lib
from ealign.models import lora, sharding, transformer
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib

ALL_DEVICES = True

MODEL = Config(
  vocab_size=61,
  d_model=24,
  layers=2,
  heads=6,
  kv_heads=6,
  head_dim=4,
  d_ff=24,
)
UPDATE = align.Update(
  model=MODEL,
  bind=functools.partial(lora.bind, 2.0),
  tx=optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()),
  schedule=align.schedule('constant', 0, 1),
  chunk=7,
)
B, T = 8, 12
FOUR = jax.device_count() == 4
# Shapes of (data, fsdp, tensor), each with the weights that are trained, and
# the length of a pair's answers: 6 and 12 fill rows as the SFT part's, 10 not.
MESHES = [
  ((1, 4, 1), 'lora', 10),
  ((1, 2, 2), 'lora', 6),
  ((2, 2, 1), 'full', 12),
  ((1, 1, 3), 'full', 12),  # does not divide 61 rows
]
if not FOUR:
  MESHES = [((2, 2, 2), 'lora', 10)]
SPLIT = MESHES[1 if FOUR else 0]


@functools.cache
def batch(length):
  """Packed rows and pairs; rows differ in how much is supervised."""
  rng = np.random.default_rng(0)
  tokens = lambda: rng.integers(0, 61, (B, T)).astype(np.int32)
  lay = lambda *parts: np.tile(np.concatenate(parts), (B, 1)).astype(np.int32)
  positions = lay(np.arange(5), np.arange(6), [-1])
  segments = lay([1] * 5, [2] * 6, [0])
  mask = (positions > 0) & (rng.random((B, T)) < np.linspace(0, 1, B)[:, None])
  sft = batch_lib.SFTBatch(
    tokens(), positions, segments, mask.astype(np.float32)
  )
  rows = B * T // length // 2 * 2
  ids = rng.integers(0, 61, (rows, length)).astype(np.int32)
  spans = np.r_[np.arange(length - 1), -1].astype(np.int32)
  positions = np.tile(spans, (rows, 1))
  pairs = batch_lib.PairBatch(
    ids,
    positions,
    (positions > 3).astype(np.float32),
    rng.normal(size=rows).astype(np.float32) - 20,
    (np.arange(rows // 2) % 4 != 1).astype(np.float32),
  )
  return batch_lib.Batch(sft, pairs)


def start(model, trained):
  """(params, frozen) of a model, on the default device."""
  key = jax.random.key(0)
  frozen = transformer.init(model, key=key, std=0.1)
  if trained == 'full':
    return jax.tree.map(jnp.copy, frozen), frozen
  noise = lambda x: x + 0.1 * jax.random.normal(key, x.shape)
  return jax.tree.map(noise, lora.init(model, key=key, rank=3)), frozen


def prepared(shape, trained, length, **fields):
  """The update, and state, frozen and batch on a mesh; None: one device."""
  devices = jax.devices()[: math.prod(shape or (1,))]
  mesh = mesh_lib.make(*shape or (1, 1, 1), devices=devices)
  model = sharding.on_mesh(MODEL, mesh)
  bind = align.full if trained == 'full' else UPDATE.bind
  update = dataclasses.replace(UPDATE, model=model, bind=bind, **fields)
  hp = align.Hp(*map(jnp.float32, (0.5, 0.1, 0.0, 0.01)))
  params, frozen = sharding.place(mesh, start(model, trained))
  state = sharding.place(mesh, align.init_state(update, params, hp))
  return update, state, frozen, sharding.place(mesh, batch(length))


@functools.cache
def gradients(shape, trained, length, **fields):
  """Those of the vocabulary's rows, the metrics, and the compiled program."""
  update, *args = prepared(shape, trained, length, **fields)
  run = jax.jit(functools.partial(align.gradients, update)).lower(*args)
  run = run.compile()
  grads, metrics = run(*args)
  grads = jax.device_get(sharding.unpadded(update.model, grads))
  return grads, jax.device_get(metrics), run.as_text()


def assert_same(got, wanted):
  square = lambda tree: sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))
  off = jax.tree.map(np.subtract, got[0], wanted[0])
  assert math.sqrt(square(off) / square(wanted[0])) < 1e-5
  assert got[1].keys() == wanted[1].keys()
  for name, value in wanted[1].items():
    np.testing.assert_allclose(got[1][name], value, 1e-5, 1e-6, err_msg=name)
  np.testing.assert_allclose(got[1]['loss'], wanted[1]['loss'], 1e-6)


@pytest.mark.parametrize('shape, trained, length', MESHES, ids=str)
def test_gradients_and_losses_equal_those_of_one_device(shape, trained, length):
  alone = gradients(None, trained, length)
  assert_same(gradients(shape, trained, length), alone)


def collectives(text):
  kinds = 'all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter'
  return set(re.findall(rf' ({kinds})(?:-start)?\(', text))


@pytest.mark.skipif(not FOUR, reason='one mesh is enough')
def test_microbatches_and_chunks_take_rows_of_every_device():
  got = gradients((2, 1, 1), 'lora', 10, microbatches=2)
  assert_same(got, gradients(None, 'lora', 10))
  # Else rows would travel from one device to another.
  assert collectives(got[2]) == {'all-reduce'}


def test_a_step_leaves_the_state_where_it_was():
  shape, trained, length = SPLIT
  update, state, frozen, rows = prepared(shape, trained, length)
  step = jax.jit(functools.partial(align.train_step, update), donate_argnums=0)
  places = jax.tree.map(lambda x: x.sharding, state)
  whole = sum(x.nbytes for x in jax.tree.leaves(state.params))
  shard = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * 4
  assert sum(map(shard, jax.tree.leaves(state.params))) < 0.6 * whole
  for _ in range(2):
    before, (state, _) = state, step(state, frozen, rows)
  assert all(x.is_deleted() for x in jax.tree.leaves(before.params))
  assert step._cache_size() == 1
  same = lambda x, place: x.sharding.is_equivalent_to(place, x.ndim)
  assert all(jax.tree.leaves(jax.tree.map(same, state, places)))


@pytest.mark.slow
@pytest.mark.skipif(not FOUR, reason='these are the eight devices')
def test_eight_devices_change_nothing_either():
  files = [__file__, 'tests/sampling/test_sampler_mesh.py']
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-x', *files],
    env=os.environ | {'EALIGN_TEST_DEVICES': '8'},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stdout[-3000:]
