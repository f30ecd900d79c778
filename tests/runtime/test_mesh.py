import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError


def test_one_axis_over_the_local_devices():
  mesh = mesh_lib.data_mesh()
  assert dict(mesh.shape) == {'data': 4}
  assert mesh.axis_types == (AxisType.Auto,)
  assert mesh_lib.data_mesh(jax.devices()[:2]).shape['data'] == 2


def test_rows_lie_on_their_devices():
  mesh = mesh_lib.data_mesh()
  rows = np.arange(16).reshape(8, 2)
  tree = mesh_lib.shard_rows(mesh, {'x': rows, 'y': rows[:, 0]})
  assert tree['x'].sharding.spec == PartitionSpec('data')
  for i, shard in enumerate(tree['x'].addressable_shards):
    np.testing.assert_array_equal(shard.data, rows[2 * i : 2 * i + 2])
  np.testing.assert_array_equal(tree['y'], rows[:, 0])


def test_replicas_are_whole():
  mesh = mesh_lib.data_mesh()
  tree = mesh_lib.replicate(mesh, {'x': np.arange(3)})
  assert len(tree['x'].addressable_shards) == 4
  for shard in tree['x'].addressable_shards:
    np.testing.assert_array_equal(shard.data, np.arange(3))


def test_rows_that_do_not_divide_are_an_error():
  with pytest.raises(UserError, match='6 rows.*4 devices.*such as 8'):
    mesh_lib.shard_rows(mesh_lib.data_mesh(), np.ones((6, 2)))


def test_a_sum_over_shards_equals_one_device():
  rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
  tree = mesh_lib.shard_rows(mesh_lib.data_mesh(), rows)
  np.testing.assert_allclose(
    jax.jit(lambda x: x.sum(0))(tree), rows.sum(0), 1e-6
  )
