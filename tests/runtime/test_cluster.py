"""Who a process is, of how many."""

import http.server
import threading

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


@pytest.fixture
def metadata():
  """A metadata server on loopback: what it tells, and the environment."""
  told = {}

  class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      head, _, key = self.path.rpartition('/')
      sound = head == '/computeMetadata/v1/instance/attributes'
      sound &= self.headers['Metadata-Flavor'] == 'Google' and key in told
      self.send_response(200 if sound else 404)
      self.end_headers()
      self.wfile.write(told.get(key, '').encode())

    def log_message(self, *_):
      pass

  with http.server.HTTPServer(('127.0.0.1', 0), Answer) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told, {'GCE_METADATA_IP': f'127.0.0.1:{server.server_port}'}
    server.shutdown()


def test_a_tpu_vm_asks_its_metadata_server(metadata):
  told, env = metadata
  assert cluster.of_tpu_vm(env) is None  # there is nothing
  told |= {'agent-worker-number': '2', 'tpu-env': "ZONE: 'x'\n"}
  told['worker-network-endpoints'] = 'a:0:10.0.0.5,b:1:10.0.0.6,c:2:10.0.0.7'
  assert cluster.of_tpu_vm(env) == cluster.Cluster('10.0.0.5', 18_476, 3, 2)
  told['worker-network-endpoints'] = 't-0.x,t-1.x,t-2.x'
  assert cluster.of_tpu_vm(env).address == 't-0.x'
  assert cluster.of_tpu_vm(env | {'TPU_SKIP_MDS_QUERY': '1'}) is None
  told['tpu-env'] = "MEGASCALE_NUM_SLICES: '2'\n"
  assert cluster.of_tpu_vm(env) is None  # JAX alone knows of several
  told |= {'tpu-env': '', 'worker-network-endpoints': 't-0.x'}
  assert cluster.of_tpu_vm(env) is None  # one host is all
