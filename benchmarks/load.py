"""Time and memory of loading a checkpoint, against plain reading of its files.

    python benchmarks/load.py --folder=/tmp/random [--gb=8] [--dtype=bfloat16]

Writes a random Qwen3 of that size (layers as wide as those of Qwen3-4B) unless
the folder has one, then reads it, once plainly and once as weights, each from
disk and not from the cache of files. On a CPU the arrays themselves are host
memory and are subtracted. Linux only.

With --gb=8 --rounds=5 on two CPU cores shared with other work (load average 4),
best of each: 1.32 times reading through a buffer and 1.33 times reading into
memory (16.2 s against 12.3 and 12.2), 2.20 and 1.84 times their CPU time; .03
GiB above the arrays. From cached files 10 to 14 s, of which the work is 5 CPU
seconds and the rest the system's for the arrays' fresh memory.
"""

import argparse
import json
import math
import os
import pathlib
import re
import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from ealign.models import config as config_lib
from ealign.models import files, names, weights

WIDE = {
  'vocab_size': 151_936,
  'd_model': 2560,
  'heads': 32,
  'kv_heads': 8,
  'head_dim': 128,
  'd_ff': 9728,
}


def write(folder: pathlib.Path, size: float) -> None:
  """A random checkpoint of about `size` GB in bfloat16, a layer a shard."""
  bytes_of = lambda layers: (
    2
    * sum(
      math.prod(e.stack + e.shape)
      for e in names.table(config_lib.Config(**WIDE, layers=layers)).values()
    )
  )
  layer = bytes_of(2) - bytes_of(1)
  layers = max(1, round((size * 1e9 - bytes_of(0)) / layer))
  config = config_lib.Config(**WIDE, layers=layers)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config_lib.to_hf(config)))
  shards = {}
  for entry in names.table(config).values():
    for index in np.ndindex(entry.stack):
      shard = index[0] if index else layers
      shards.setdefault(shard, {})[entry.name.format(*index)] = entry.shape
  places = {}
  for shard, tensors in shards.items():
    rng = np.random.default_rng(shard)
    file = f'model-{shard + 1:05d}-of-{layers + 1:05d}.safetensors'
    save_file({k: _random(rng, v) for k, v in tensors.items()}, folder / file)
    places |= dict.fromkeys(tensors, file)
  (folder / files.INDEX).write_text(json.dumps({'weight_map': places}))


def _random(rng, shape):
  """bfloat16 of random sign and mantissa, between 1/64 and 1/32."""
  bits = rng.integers(0, 2**16, shape, np.uint16)
  return (bits & 0x807F | 0x3C80).view(files.DTYPES['BF16'])


def forget(paths) -> None:
  """Drops files from the system's cache."""
  for path in paths:
    with open(path, 'rb') as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(paths, action) -> np.ndarray:
  """[wall, CPU] seconds that an action takes with the files on disk alone."""
  clocks = lambda: np.array([time.monotonic(), time.process_time()])
  forget(paths)
  start = clocks()
  action()
  return clocks() - start


def pass_through(paths) -> None:
  """Reads all into one small buffer: no memory to be had, nothing kept."""
  buffer = bytearray(16 * 2**20)
  for path in paths:
    with open(path, 'rb', buffering=0) as file:
      while file.readinto(buffer):
        pass


def into_memory(paths) -> None:
  """Reads one file after the other into fresh memory, as any loader must."""
  for path in paths:
    path.read_bytes()


def memory(field: str) -> float:
  """GiB that the process has (VmRSS) or had at most (VmHWM)."""
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(rf'{field}:\s+(\d+)', status)[1]) / 2**20


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', required=True, type=pathlib.Path)
  parser.add_argument('--gb', type=float, default=8.0, help='of a new one')
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  if not (args.folder / files.INDEX).exists():
    write(args.folder, args.gb)
  paths = sorted(args.folder.glob('*.safetensors'))
  size = sum(path.stat().st_size for path in paths) / 1e9
  devices = jax.local_devices()
  copies = jax.make_mesh((len(devices),), ('data',), devices=devices)
  whole = NamedSharding(copies, PartitionSpec())
  on_host = jax.default_backend() == 'cpu'

  def load():
    tree = weights.load(
      args.folder, shardings=lambda path: whole, dtype=args.dtype
    )[1]
    jax.block_until_ready(tree)
    nbytes.append(sum(x.nbytes for x in jax.tree.leaves(tree)) / 2**30)

  rounds, above = [], []
  for _ in range(args.rounds):  # interleaved: what else runs disturbs all alike
    through = timed(paths, lambda: pass_through(paths))
    slurp = timed(paths, lambda: into_memory(paths))
    nbytes, before = [], memory('VmRSS')
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # VmHWM from here on
    rounds.append((through, slurp, timed(paths, load)))
    above.append(memory('VmHWM') - before - nbytes[0] * on_host)
    print('wall, CPU seconds: through, into memory, load', flush=True)
    print(np.round(rounds[-1], 1).tolist(), flush=True)
  through, slurp, loading = np.min(rounds, axis=0)
  print(f'{size:.2f} GB, best of {args.rounds} each; loading takes')
  for name, base in (('through a buffer', through), ('into memory', slurp)):
    wall, cpu = loading / base
    print(f'  {wall:.2f} times reading {name} ({cpu:.2f} of its CPU time)')
  print(f'arrays: {nbytes[0]:.2f} GiB on {len(devices)} x {_device(devices)}')
  print(f'host memory above the arrays, at most: {max(above):.2f} GiB')


def _device(devices) -> str:
  return devices[0].device_kind


if __name__ == '__main__':
  main()
