"""Steps of a tiny decoder on a mesh over all processes; run by test_hosts.py.

Host 0 writes the gradient of the first step, and what SGD and Adam each make of
the parameters in 20, with the metrics on the way.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys

import jax

from ealign.models import sharding

sys.path.append(str(pathlib.Path(__file__).parents[1]))


def main() -> int:
  parser = argparse.ArgumentParser()
  for name in ('coordinator', 'processes', 'process'):
    parser.add_argument(f'--{name}', default='')
  parser.add_argument('--devices', type=int, default=1, help='of each process')
  parser.add_argument('--fsdp', type=int, default=1)
  parser.add_argument('--to')
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', args.devices)
  from ealign.runtime import cluster, hosts

  found = cluster.find(args.coordinator, args.processes, args.process)
  here = hosts.join(found)
  import numpy as np
  import optax
  import steps

  from ealign import align
  from ealign.data import batch as batch_lib
  from ealign.runtime import mesh as mesh_lib

  mesh = mesh_lib.make(fsdp=args.fsdp)
  model = sharding.resized(steps.MODEL, mesh)
  frozen = steps.frozen_weights()
  batch = batch_lib.Batch(steps.sft_batch(), steps.pair_batch(frozen=frozen))
  frozen = sharding.place(mesh, frozen)
  batch = sharding.shard_rows(mesh, batch)
  flat = lambda tree: np.concatenate(
    [mesh_lib.to_host(x).ravel() for x in jax.tree.leaves(tree)]
  )
  start = steps.moved_adapter()
  found = {'start': flat(start)}
  for name, tx in (('sgd', steps.KEEP), ('adam', optax.scale_by_adam())):
    update = dataclasses.replace(steps.UPDATE, model=model, tx=tx)
    state = align.init_state(update, start, steps.hp(lam=1.0))
    state = sharding.place(mesh, state)
    step = jax.jit(functools.partial(align.train_step, update))
    told = []
    for i in range(20):
      state, metrics = step(state, frozen, batch)
      told.append({k: float(v) for k, v in metrics.items()})
      if i == 0 and name == 'sgd':
        found['grads'] = flat(state.opt.trace)
    found[name] = flat(state.params)
    for key in told[0]:
      found[f'{name}/{key}'] = np.array([metrics[key] for metrics in told])
  with here:
    if here.writes:
      np.savez(args.to, **found)
  return 0


if __name__ == '__main__':
  sys.exit(main())
