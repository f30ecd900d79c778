"""Programs compiled for devices that are not here.

XLA's compiler for TPUs runs on any x86 host with Linux (`pip install
ealign[tpu]`): it says how much memory a program takes on each chip and what it
sends, before a chip is rented. Nothing is executed and no array exists.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from ealign.runtime import cost, mesh
from ealign.runtime.errors import UserError
from ealign.runtime.topology import Topology

# Without these libtpu looks for the machine it is on, complains, and refuses
# to be loaded by two processes at a time.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_LONGEST = 300  # letters of a message of the compiler


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What a compiled program takes of each device.

  Attributes:
    arguments, temporaries, output: bytes; `output` is what is not donated.
    counts: what it does when it runs once; None: it was not compiled.
    seconds_compile, cpu_seconds_compile: that it took; of all cores together.
    limit: bytes a program may take; None: not known.
    failure: what else the compiler ended with, on one line; '': nothing.
    text: the compiled program, as HLO.
  """

  arguments: float = 0.0
  temporaries: float = 0.0
  output: float = 0.0
  counts: cost.Counts | None = None
  seconds_compile: float = 0.0
  cpu_seconds_compile: float = 0.0
  limit: float | None = None
  failure: str = ''
  text: str = ''


def devices(topology: Topology) -> Sequence[jax.Device]:
  """The devices of a slice, to compile for.

  Raises:
    UserError: libtpu is not installed, or does not know the slice.
  """
  if importlib.util.find_spec('libtpu') is None:
    message = "TPU programs are compiled by libtpu; pip install 'ealign[tpu]'"
    raise UserError(f'--topology={topology}: {message}, or plan without it')
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  # libtpu thinks of hosts with 2x2 chips; smaller slices have less.
  bounds = (*(min(2, side) for side in topology.shape[:2]), 1)
  options = {'chips_per_host_bounds': bounds}
  if topology.kind == 'v4':  # one device a chip, as it is on the machine
    options['chip_config_name'] = 'megacore'
  try:
    return topologies.get_topology_desc(
      str(topology), platform='tpu', **options
    ).devices
  except Exception as error:
    message = str(error).partition('\n')[0]
    raise UserError(f'--topology={topology}: libtpu says: {message}') from error


def compile(program: Callable, *args, unknown: int = 1) -> Compiled:
  """Compiles a jitted program for arguments that are shapes.

  Args:
    program: from `jax.jit`.
    *args: trees of `jax.ShapeDtypeStruct` with shardings, or scalars.
    unknown: trips of a loop that ends when its data says so.
  """
  limit = mesh.memory(_device(args))
  limit = None if limit == math.inf else limit
  lowered = program.lower(*args)
  start, cpu = time.monotonic(), time.process_time()
  try:
    with _without_cache():
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    compiled, message = None, str(error)
  took = {
    'seconds_compile': time.monotonic() - start,
    'cpu_seconds_compile': time.process_time() - cpu,
    'limit': limit,
  }
  if compiled is None:
    needed = _needed(message)
    if limit and needed > limit:
      return Compiled(temporaries=needed, **took)
    return Compiled(failure=' '.join(message.split())[:_LONGEST], **took)
  memory, text = compiled.memory_analysis(), compiled.as_text()
  return Compiled(
    arguments=memory.argument_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    output=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    counts=cost.count(text, unknown=unknown),
    text=text,
    **took,
  )


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
  """JAX cannot read a program from its cache for devices that are not here."""
  was = jax.config.jax_enable_compilation_cache

  def enable(on: bool):
    jax.config.update('jax_enable_compilation_cache', on)
    compilation_cache.reset_cache()  # or it goes by what it was

  enable(False)
  try:
    yield
  finally:
    enable(was)


def _device(args) -> jax.Device:
  """One of the devices that arguments are to lie on."""
  for leaf in jax.tree.leaves(args):
    if sharding := getattr(leaf, 'sharding', None):
      return next(iter(sharding.device_set))
  return jax.local_devices()[0]


def _needed(message: str) -> float:
  """Bytes of HBM that the compiler wanted, from what it says when they lack.

  0 if it says something else, such as that a kernel's own memory (vmem) lacks.
  """
  size = r'([\d.]+)([KMGT])'
  match = re.search(rf'\({size}\) exceeds available HBM', message) or re.search(
    rf'Used {size} of [\d.]+[KMGT] hbm', message
  )
  unit = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
  return float(match[1]) * unit[match[2]] if match else 0.0
