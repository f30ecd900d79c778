"""What exists at a time: never all logits, in no step, alone or on a mesh."""

import dataclasses
import functools
import math
import re

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
from ealign.sampling import labels as labels_lib
from ealign.sampling import tree as tree_lib

ALL_DEVICES = True

V, B, T = 2000, 8, 16
MODEL = Config(
  vocab_size=V,
  d_model=8,
  layers=2,
  heads=2,
  kv_heads=2,
  head_dim=4,
  d_ff=8,
  max_positions=64,
)
UPDATE = align.Update(
  model=MODEL,
  bind=functools.partial(lora.bind, 1.0),
  tx=optax.scale_by_adam(),
  schedule=align.schedule('constant', 0, 1),
  chunk=5,
)
SPLIT = (1, 2, 2)


def program(step, shape, **fields):
  """(function, its arguments as shapes) of a step on a mesh of a shape."""
  mesh = mesh_lib.make(*shape, devices=jax.devices()[: math.prod(shape)])
  model = dataclasses.replace(sharding.on_mesh(MODEL, mesh), **fields)
  update = dataclasses.replace(UPDATE, model=model)
  key, f32 = jax.random.key(0), jax.ShapeDtypeStruct((), jnp.float32)
  adapter = jax.eval_shape(functools.partial(lora.init, model, rank=2), key=key)
  start = functools.partial(align.init_state, update)
  state = jax.eval_shape(start, adapter, align.Hp(*[f32] * 4))
  ints, floats = np.zeros((B, T), np.int32), np.zeros((B, T), np.float32)
  sft = batch_lib.SFTBatch(ints, ints, ints, floats)
  pairs = batch_lib.empty_pair_batch(B // 2, T)
  place = functools.partial(_placed, mesh)
  frozen = place(transformer.shapes(model))
  train = functools.partial(align.train_step, update)
  tree = tree_lib.of([(0,) * 4] * 3)
  read = functools.partial(labels_lib.score, model, labels_lib.Asked())
  score = functools.partial(align.answer_logps, model, chunk=5)
  rows = place({'tokens_BT': ints, 'positions_BT': ints})
  return {
    'sft': (train, place(state), frozen, place(batch_lib.Batch(sft))),
    'hybrid': (
      train,
      place(state),
      frozen,
      place(batch_lib.Batch(sft, pairs)),
    ),
    'score': (score, frozen, place(pairs)),
    'review': (read, frozen, rows['tokens_BT'], rows['positions_BT'], tree),
  }[step]


def _placed(mesh, tree):
  shape = lambda x, sharding: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=sharding
  )
  return jax.tree.map(shape, tree, sharding.shardings(mesh, tree))


def sizes_of(jaxpr):
  """Elements of every intermediate of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    yield from (math.prod(v.aval.shape) for v in eqn.outvars)
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from sizes_of(inner)


def compiled(step, shape, **fields):
  fn, *args = program(step, shape, **fields)
  donated = (0,) if step in ('sft', 'hybrid') else ()
  return jax.jit(fn, donate_argnums=donated).lower(*args).compile()


@pytest.mark.parametrize('shape', [(1, 1, 1), SPLIT], ids=str)
@pytest.mark.parametrize('step', ['sft', 'hybrid', 'score', 'review'])
def test_no_step_makes_an_array_of_all_logits(step, shape):
  fn, *args = program(step, shape)
  sizes = set(sizes_of(jax.make_jaxpr(fn)(*args).jaxpr))
  seen = B * V if step == 'review' else 5 * V * shape[1]
  assert seen in sizes  # the walk sees the logits that there are
  assert max(sizes) < B * T * V / 4
  # What each device holds, in any shape; its rows, its part of the vocabulary.
  if (step, shape) == ('sft', (1, 1, 1)):
    return  # compiled as part of the hybrid step
  text = compiled(step, shape).as_text()
  found = re.findall(r'\w\d+\[([\d,]+)\]', text)
  most = max(math.prod(map(int, dims.split(','))) for dims in found)
  assert 5 * V / shape[2] <= most < B * T * V / 4 / math.prod(shape)


def test_the_state_is_donated_and_remat_saves_memory():
  state = program('hybrid', SPLIT)[1]
  local = lambda x: math.prod(x.sharding.shard_shape(x.shape))
  size = sum(4 * local(x) for x in jax.tree.leaves(state))
  memory = lambda **kw: compiled('sft', SPLIT, **kw).memory_analysis()
  kept, dropped = (
    memory(remat=how, layers=8, d_ff=64) for how in ('none', 'full')
  )
  assert kept.alias_size_in_bytes == dropped.alias_size_in_bytes > size / 2
  assert dropped.temp_size_in_bytes < 0.8 * kept.temp_size_in_bytes
