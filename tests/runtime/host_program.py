"""One process of several that gather at every step; run by test_hosts.py."""

import argparse
import os
import sys
import time

import jax

from ealign.runtime import cluster as cluster_lib
from ealign.runtime import hosts
from ealign.runtime.errors import UserError


def main() -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument('--coordinator')
  parser.add_argument('--processes')
  parser.add_argument('--process')
  parser.add_argument('--steps', type=int, default=400)
  parser.add_argument('--about', default='')
  parser.add_argument('--fail_at', type=int, default=-1)
  parser.add_argument('--error_at', type=int, default=-1)
  parser.add_argument('--gone', type=int, default=0, help='after the roll call')
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  # The same protocol, with less patience.
  hosts.BEAT_S, hosts.SILENCE_S, hosts.ROLL_CALL_S = 0.5, 3.0, 12.0
  cluster = cluster_lib.find(args.coordinator, args.processes, args.process)
  if args.gone:
    jax.distributed.initialize = lambda **_: os._exit(args.gone)
  try:
    here = hosts.join(cluster, args.about)
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  with here:
    return steps(here, args)


def steps(here, args) -> int:
  """Gathers until something ends it; returns the exit code."""
  for step in range(args.steps):
    if here.stopping():
      print(f'saved at {step}')
      return 143
    if step == args.fail_at:
      raise UserError('no such file')
    if step == args.error_at:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')
    found = here.gather({'host': here.index, 'text': 'ä' * here.index})
    wanted = [{'host': i, 'text': 'ä' * i} for i in range(here.count)]
    assert found == wanted, found
    if step == 0:
      print('together', flush=True)
    time.sleep(0.05)
  print('all done')
  return 0


if __name__ == '__main__':
  sys.exit(main())
