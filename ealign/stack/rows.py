"""Rows of several lanes as one batch, over the base that they share.

`waiting` are the lanes (`stack.run`) whose requests are alike, `count` is the
number of all lanes. Each function returns the results of each request.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ealign import alone
from ealign.sampling import labels, sampler


def generate(waiting: Sequence, count: int) -> list:
  """See `sampling.sampler`; each row has its lane's key and settings."""
  request, lanes = _together(waiting, count)
  of_all = [_per_prompt(r.request) for r in waiting]
  key, settings, ids = jax.tree.map(lambda *xs: np.concatenate(xs), *of_all)
  request = dataclasses.replace(
    request,
    key=jax.random.wrap_key_data(key),
    settings=settings,
    row_ids=ids.tolist(),
  )
  return _parted(sampler.generate(request), lanes)


def label_logps(waiting: Sequence, count: int) -> list:
  """See `sampling.labels`; every prompt is read whole."""
  request, lanes = _together(waiting, count)
  request = dataclasses.replace(request, groups=None, own=None)
  return _parted(labels.label_logps(request), lanes)


def pair_logps(waiting: Sequence, count: int) -> list:
  """See `alone.pair_logps`; with adapters each lane's by themselves."""
  first = waiting[0].request
  if 'adapter' in first.weights:
    return [alone.pair_logps(w.request) for w in waiting]
  pairs, lanes = _concat(waiting, 'pairs')
  slots = width(first.slots, len(pairs), count, groups(first.config.mesh))
  request = dataclasses.replace(first, pairs=pairs, slots=slots)
  return _parted(alone.pair_logps(request), lanes)


def _together(waiting, count):
  """The prompts of all that ask as one request, and the lane of each prompt.

  The frozen weights are those of all lanes.
  """
  prompts, lanes = _concat(waiting, 'prompts')
  request = dataclasses.replace(waiting[0].request, prompts=prompts)
  parts = groups(request.mesh)
  if 'adapter' not in request.weights:
    rows = width(request.rows, len(lanes), count, parts)
    return dataclasses.replace(request, rows=rows), lanes
  adapters = [r.request.weights['adapter'] for r in waiting]
  slots = width(1, len(waiting), count, parts)
  adapters += adapters[:1] * (slots - len(waiting))  # for rows without a prompt
  slot = {r.lane: i for i, r in enumerate(waiting)}
  own = {
    'weights': request.weights | {'adapter': _join(*adapters)},
    'rows': request.rows * slots,
    'lanes': [slot[lane] for lane in lanes],
  }
  return dataclasses.replace(request, **own), lanes


def width(rows: int, n: int, lanes: int, parts: int = 1) -> int:
  """Rows of a batch for n of them: `rows` doubled as often as n needs.

  So there are few shapes to compile, and little padding. Of `parts` groups
  of devices with lanes of their own, each has as many.
  """
  times = 1
  while times < lanes and rows * times < n:
    times *= 2
  return rows * (-(-min(times, lanes) // parts) * parts)


def groups(mesh) -> int:
  """Groups of devices that have lanes of their own."""
  return dict(mesh.shape).get('stack', 1) if mesh is not None else 1


def _concat(waiting, name):
  """The items of all requests as one list, and the lane each belongs to."""
  items = [item for r in waiting for item in getattr(r.request, name)]
  lanes = [r.lane for r in waiting for _ in getattr(r.request, name)]
  return items, lanes


def _parted(results, lanes):
  """The results of `_concat`'s items as one list for each lane."""
  ends = [i for i in range(1, len(lanes)) if lanes[i] != lanes[i - 1]]
  starts, ends = [0, *ends], [*ends, len(lanes)]
  return [results[i:end] for i, end in zip(starts, ends, strict=True)]


def _per_prompt(request):
  """The key's data, the settings and the row id of each prompt of a call."""
  n = len(request.prompts)
  ids = range(n) if request.row_ids is None else request.row_ids
  key = np.asarray(jax.random.key_data(request.key))
  each = lambda value: np.broadcast_to(value, (n,))
  return (
    np.broadcast_to(key, (n, key.shape[-1])),
    jax.tree.map(each, request.settings),
    np.array(ids, np.int64),
  )


@jax.jit
def _join(*trees):
  return jax.tree.map(lambda *xs: jnp.stack(xs, 1), *trees)
