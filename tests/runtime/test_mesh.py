import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ealign.data import batch as batch_lib
from ealign.models import config as config_lib
from ealign.models import int8, layout, lora, sharding, transformer
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError

ALL_DEVICES = True

SIZES = {
  'vocab_size': 29,
  'd_model': 16,
  'layers': 2,
  'heads': 4,
  'kv_heads': 2,
  'head_dim': 8,
  'd_ff': 24,
}
CONFIG = config_lib.Config(**SIZES, tie_embeddings=False)


def test_three_axes_over_all_devices():
  mesh = mesh_lib.make()
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 1, 'tensor': 1}
  assert mesh.axis_types == (AxisType.Auto,) * 3
  mesh = mesh_lib.make(data=1, fsdp=-1, tensor=2)
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 2, 'tensor': 2}
  two = mesh_lib.make(devices=jax.devices()[:2])
  assert two.shape['data'] == 2


@pytest.mark.parametrize(
  'sizes, message',
  [
    ((-1, 3, 1), 'mesh.fsdp=3.* 4 devices; nearest that works: 2 or 4'),
    ((1, 1, 8), 'mesh.tensor=8.*nearest that works: 4'),
    ((-1, 2, 3), 'mesh.tensor=3.*nearest that works: 2'),
    ((2, 1, 1), 'mesh.data=2.*nearest that works: 4'),
    ((1, 1, 1), '1 of 4 devices; set data=-1'),
  ],
)
def test_sizes_that_do_not_make_the_devices(sizes, message):
  with pytest.raises(UserError, match=message):
    mesh_lib.make(*sizes)


# --- Rules -------------------------------------------------------------------


def specs(mesh, tree):
  placed = sharding.shardings(mesh, tree)
  flat, _ = jax.tree_util.tree_flatten_with_path(placed)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {name(path): place.spec for path, place in flat}


def test_factors_and_the_optimizer_follow_their_matrix():
  mesh = mesh_lib.make(data=1, fsdp=2, tensor=2)
  weights = transformer.shapes(CONFIG) | {'embed': jnp.zeros((28, 16))}
  weights |= {'head': jnp.zeros((16, 28))}
  matrices = specs(mesh, weights)
  adapter = lora.init(CONFIG, key=jax.random.key(0), rank=3)
  factors = specs(mesh, adapter)
  for name in lora.TARGETS:
    _, rows, columns = matrices[f'layers/{name}']
    # What `tensor` splits is split over `fsdp` too.
    both = {'tensor': ('tensor', 'fsdp'), 'fsdp': 'fsdp'}
    assert factors[f'{name}/a'] == P(None, both[rows])
    assert factors[f'{name}/b'] == P(None, None, both[columns])
  quantized = jax.eval_shape(lambda w: int8.quantize(w, lora.TARGETS), weights)
  for path, spec in specs(mesh, quantized).items():
    if path.endswith('/q') and path != 'layers/q':
      assert spec == matrices[path.removesuffix('/q')]
    if path.endswith('/scale'):
      matrix = matrices[path.removesuffix('/scale')]
      assert spec == P(None, matrix[-1])
  for params, wanted in ((weights, matrices), (adapter, factors)):
    opt = specs(mesh, jax.eval_shape(optax.adam(1.0).init, params))
    for path, spec in wanted.items():
      assert opt[f'0/mu/{path}'] == opt[f'0/nu/{path}'] == spec
  bound = specs(mesh, lora.bind(1.0, adapter, weights))
  assert bound['adapter/q/a'] == P(None, 'fsdp')


def test_every_rule_is_of_use():
  families = [
    CONFIG,
    config_lib.Config(**SIZES, family='qwen2'),
    config_lib.Config(**SIZES, family='gemma3_text'),
    config_lib.Config(**SIZES, family='qwen3_moe', experts=4),
  ]
  batch = batch_lib.SFTBatch(*np.zeros((4, 4, 8), np.int32))
  tree = [
    *map(transformer.shapes, families),
    int8.quantize(
      transformer.init(CONFIG, key=jax.random.key(0)), lora.TARGETS
    ),
    lora.init(CONFIG, key=jax.random.key(0), rank=3),
    batch_lib.Batch(batch, batch_lib.empty_pair_batch(4, 8)),
    {'cache': transformer.init_cache(CONFIG, 4, 8)},
  ]
  sharding.shardings(mesh_lib.make(), tree)
  paths = [path for path, leaf in jax.tree.leaves_with_path(tree) if leaf.ndim]
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  used = [layout.rule(name(path)) for path in paths]
  assert [rule for rule in layout.RULES if rule not in used] == []


def test_what_the_rules_do_not_settle_is_all_named():
  mesh = mesh_lib.make(data=1, fsdp=4)
  tree = {'embed': np.ones((6, 6)), 'scales': np.ones((2, 2))}
  with pytest.raises(UserError) as error:
    sharding.shardings(mesh, tree)
  for said in (
    'mesh.fsdp=4 does not divide the 6 of embed (6, 6)',
    'nearest that works: 3 or 6',
    'scales (2, 2): no rule',
  ):
    assert said in str(error.value)
  with pytest.raises(UserError, match='tensor=4.* 2 key and value heads.*: 2'):
    sharding.on_mesh(CONFIG, mesh_lib.make(data=1, tensor=4))


def test_the_vocabulary_is_padded_to_what_divides():
  mesh = mesh_lib.make(data=1, fsdp=2, tensor=2)
  config = sharding.on_mesh(CONFIG, mesh)
  assert (config.vocab_rows, config.attention, config.mesh) == (30, 'xla', mesh)
  init = lambda config: transformer.init(config, key=jax.random.key(0))
  wide, plain = init(config), init(CONFIG)
  sharding.place(mesh, wide)
  assert not wide['embed'][29:].any() and not wide['head'][:, 29:].any()
  equal = np.testing.assert_array_equal
  jax.tree.map(equal, sharding.unpadded(config, wide), plain)
  jax.tree.map(equal, sharding.padded(config, plain), wide)
  assert sharding.unpadded(CONFIG, plain) is plain
  one = mesh_lib.make(devices=jax.devices()[:1])
  assert sharding.on_mesh(CONFIG, one).mesh is None


# --- Rows and copies ---------------------------------------------------------


def test_rows_lie_on_their_devices():
  mesh = mesh_lib.make(fsdp=2)
  rows = np.arange(16).reshape(8, 2)
  tree = sharding.shard_rows(mesh, {'x': rows, 'y': rows[:, 0]})
  assert tree['x'].sharding.spec == P(('data', 'fsdp'))
  for i, shard in enumerate(tree['x'].addressable_shards):
    np.testing.assert_array_equal(shard.data, rows[2 * i : 2 * i + 2])
  np.testing.assert_array_equal(tree['y'], rows[:, 0])


def test_rows_that_do_not_divide_are_an_error():
  with pytest.raises(UserError, match='6 rows.*4 devices.*such as 8'):
    sharding.shard_rows(mesh_lib.make(), np.ones((6, 2)))


def test_a_sum_over_shards_equals_one_device():
  rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
  tree = sharding.shard_rows(mesh_lib.make(), rows)
  np.testing.assert_allclose(
    jax.jit(lambda x: x.sum(0))(tree), rows.sum(0), 1e-6
  )


@pytest.mark.parametrize(
  'platform, kind, stats, wanted',
  [
    ('tpu', 'TPU v5 lite', None, 15.75 * 2**30),
    ('gpu', 'NVIDIA H200', {'bytes_limit': 1e11}, 93 * 2**30),  # what JAX may
    ('gpu', 'NVIDIA H200', None, 141e9),
    ('gpu', 'another', {'bytes_limit': 7 * 2**30 + 1}, 7 * 2**30),
    ('cpu', 'cpu', None, float('inf')),
  ],
)
def test_memory_of_a_device(platform, kind, stats, wanted):
  device = types.SimpleNamespace(
    platform=platform,
    device_kind=kind,
    memory_stats=lambda: stats,
    process_index=0,
  )
  assert mesh_lib.memory(device) == wanted
