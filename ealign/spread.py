"""Between updates each host works alone: how it gets there, and comes back."""

import dataclasses
import functools

import jax

from ealign.data import batch as batch_lib
from ealign.prompts import Mind
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.hosts import Hosts


def alone(mind: Mind, hosts: Hosts):
  """The Mind on this host's own devices, and how a tree of weights gets there.

  Its `settings.prompts` are its share of those of a reflection. One host has
  all there is, and nothing is moved.
  """
  if hosts.count == 1:
    return mind, lambda tree: tree
  here = mesh_lib.of_host(mind.mesh)
  share = -(-mind.settings.prompts // hosts.count)
  own = dataclasses.replace(
    mind,
    mesh=here,
    model=mesh_lib.resized(mind.model, here),
    settings=dataclasses.replace(mind.settings, prompts=share),
  )
  return own, functools.partial(mesh_lib.at_host, here)


def together(hosts: Hosts, pairs, records):
  """The pairs and records of all hosts, in the order of the rows, on each."""
  if hosts.count == 1:
    return pairs, records
  found = hosts.concat([dataclasses.asdict(pair) for pair in pairs])
  tokens = ('prompt', 'chosen', 'rejected')
  return [
    batch_lib.Pair(**pair | {name: tuple(pair[name]) for name in tokens})
    for pair in found
  ], hosts.concat(records)


def whole(hosts: Hosts, params):
  """What was trained, as every host can write it."""
  if hosts.count == 1:
    return params
  return jax.tree.map(mesh_lib.to_host, params)
