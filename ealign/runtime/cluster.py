"""Which process of how many this is: flags, Slurm, GKE, xpk or TPU VMs say."""

import dataclasses
import os
import re
import urllib.request
from collections.abc import Mapping

from ealign.runtime.errors import UserError

PORTS = {'slurm': 23_000, 'tpu': 18_476}


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Which process this is, of how many, and where host 0 answers.

  explicit: all of it is passed to JAX; else JAX finds it in the environment.
  """

  address: str
  port: int
  count: int
  index: int
  explicit: bool = False


def find(
  coordinator: str = '',
  processes: str = '',
  process: str = '',
  env: Mapping[str, str] = os.environ,
) -> Cluster | None:
  """The cluster that flags or the environment describe; None: one process.

  Slurm sets SLURM_*, GKE and xpk TPU_WORKER_* (and MEGASCALE_* for several
  slices). A TPU VM without them is asked by `of_tpu_vm`.

  Raises:
    UserError: the flags are incomplete or no numbers.
  """
  given = {
    '--coordinator': coordinator,
    '--processes': processes,
    '--process': process,
  }
  if any(given.values()):
    return _from_flags(given)
  # Only `srun` says so; a batch script alone has the job's SLURM_NTASKS too.
  if int(env.get('SLURM_STEP_NUM_TASKS') or 1) > 1:
    nodes = env.get('SLURM_STEP_NODELIST') or env['SLURM_JOB_NODELIST']
    port = PORTS['slurm'] + int(env.get('SLURM_JOB_ID', 0)) % 1000
    count = int(env['SLURM_STEP_NUM_TASKS'])
    index = int(env['SLURM_PROCID'])
    return Cluster(_first_node(nodes), port, count, index)
  names = [x for x in env.get('TPU_WORKER_HOSTNAMES', '').split(',') if x]
  slices = int(env.get('MEGASCALE_NUM_SLICES', 1))
  if len(names) * slices > 1:
    first = env.get('MEGASCALE_COORDINATOR_ADDRESS', names[0])
    index = int(env.get('MEGASCALE_SLICE_ID', 0)) * len(names)
    index += int(env.get('TPU_WORKER_ID', 0))
    address = first.partition(':')[0]
    return Cluster(address, PORTS['tpu'], len(names) * slices, index)
  return None


def of_tpu_vm(env: Mapping[str, str] = os.environ) -> Cluster | None:
  """The slice that a TPU VM's metadata server describes, as JAX asks it.

  None: there is no such server, one host is all, or there are several slices
  (then only JAX knows: see `hosts.join`).
  """
  if 'TPU_SKIP_MDS_QUERY' in env:
    return None
  server = env.get('GCE_METADATA_IP', 'metadata.google.internal')
  head = f'http://{server}/computeMetadata/v1/instance/attributes/'

  def attribute(key: str) -> str:
    request = urllib.request.Request(head + key)
    request.add_header('Metadata-Flavor', 'Google')
    with urllib.request.urlopen(request, timeout=5) as answer:
      return answer.read().decode()

  try:
    index = int(attribute('agent-worker-number'))
    # Each is an address, or a name, a number and an address.
    workers = attribute('worker-network-endpoints').strip().split(',')
    slices = re.search(r"MEGASCALE_NUM_SLICES:\s*'?(\d+)", attribute('tpu-env'))
  except (OSError, ValueError):
    return None
  if len(workers) == 1 or (slices and int(slices[1]) > 1):
    return None
  first = workers[0].rpartition(':')[2]
  return Cluster(first, PORTS['tpu'], len(workers), index)


def _from_flags(given: dict[str, str]) -> Cluster:
  example = '--coordinator=10.0.0.1:1234 --processes=2 --process=0'
  missing = [name for name, value in given.items() if value == '']
  if missing:
    raise UserError(f'{missing[0]} is missing; give all three, as {example}')
  for name in ('--processes', '--process'):
    if not given[name].isdecimal():
      raise UserError(f'{name}={given[name]}: must be a whole number')
  address, _, port = given['--coordinator'].rpartition(':')
  # The roll call is at the port after it.
  if not address or not port.isdecimal() or not 0 < int(port) < 65_535:
    message = 'must be the address and a free port of process 0, below 65535'
    raise UserError(f'--coordinator={given["--coordinator"]}: {message}')
  count, index = int(given['--processes']), int(given['--process'])
  if index >= count:
    message = f'must be below --processes={count}'
    raise UserError(f'--process={index}: {message}, they are counted from 0')
  return Cluster(address, int(port), count, index, explicit=True)


def _first_node(nodes: str) -> str:
  """'tpu[03-07,9],x' -> 'tpu03': the first name of a Slurm node list."""
  match = re.match(r'([^,\[]+)(?:\[(\w+))?', nodes)
  return match[1] + (match[2] or '')
