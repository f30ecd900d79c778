"""Who a process is, of how many."""

import pytest

from ealign.runtime import cluster
from ealign.runtime.errors import UserError


def test_one_process_is_none_of_a_cluster():
  assert cluster.find(env={}) is None


def test_flags_name_the_cluster():
  found = cluster.find('10.0.0.1:1234', '4', '3', env={})
  assert found == cluster.Cluster('10.0.0.1', 1234, 4, 3, explicit=True)


@pytest.mark.parametrize(
  'given, said',
  [
    (('10.0.0.1:1', '2', ''), '--process is missing'),
    (('', '2', '0'), '--coordinator is missing'),
    (('10.0.0.1', '2', '0'), '--coordinator=10.0.0.1: must be the address and'),
    (('a:65535', '2', '0'), '--coordinator=a:65535: .* below 65535'),
    (('a:1', 'two', '0'), '--processes=two: must be a whole number'),
    (('a:1', '2', '2'), '--process=2: must be below --processes=2'),
  ],
)
def test_wrong_flags_are_named(given, said):
  with pytest.raises(UserError, match=said):
    cluster.find(*given, env={})


def test_slurm_names_the_cluster():
  env = {'SLURM_STEP_NUM_TASKS': '16', 'SLURM_PROCID': '5'}
  env['SLURM_JOB_ID'] = '7001'
  for nodes, first in (
    ('node[03-04,7],x', 'node03'),
    ('gpu1,gpu2', 'gpu1'),
    ('a-b[12]', 'a-b12'),
  ):
    found = cluster.find(env=env | {'SLURM_JOB_NODELIST': nodes})
    assert found == cluster.Cluster(first, 23_001, 16, 5)
  # The batch script itself is one process, however many tasks it may start.
  assert cluster.find(env={'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}) is None


def test_gke_names_the_cluster_also_of_several_slices():
  env = {'TPU_WORKER_HOSTNAMES': 'w0.x,w1.x', 'TPU_WORKER_ID': '1'}
  found = cluster.find(env=env)
  assert (found.address, found.count, found.index) == ('w0.x', 2, 1)
  env |= {'MEGASCALE_NUM_SLICES': '3', 'MEGASCALE_SLICE_ID': '2'}
  env |= {'MEGASCALE_COORDINATOR_ADDRESS': 's0.x:8080'}
  found = cluster.find(env=env)
  assert (found.address, found.count, found.index) == ('s0.x', 6, 5)
  one = {'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}
  assert cluster.find(env=one) is None
