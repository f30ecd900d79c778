"""Rows of several arms as one batch, over the base that they share.

`asked` are the waiting arms (`stack.run`) whose requests are alike, `count` is
the number of all arms. Each function returns the results of each request.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ealign import alone
from ealign.sampling import labels, sampler


def generate(asked: Sequence, count: int) -> list:
  """See `sampling.sampler`; each row has its arm's key and settings."""
  prompts, arms = _concat(asked, 'prompts')
  weights, rows, by_row = _weights(asked, arms, count)
  of_all = [_per_prompt(r.given) for r in asked]
  key, settings = jax.tree.map(lambda *xs: np.concatenate(xs), *of_all)
  request = dataclasses.replace(
    asked[0].given,
    weights=weights,
    prompts=prompts,
    key=jax.random.wrap_key_data(key),
    settings=settings,
    row_ids=_concat(asked, 'row_ids')[0],
    rows=rows,
    arms=by_row,
  )
  return _parted(sampler.generate(request), arms)


def label_logps(asked: Sequence, count: int) -> list:
  """See `sampling.labels`."""
  prompts, arms = _concat(asked, 'prompts')
  weights, rows, by_row = _weights(asked, arms, count)
  own = {'weights': weights, 'prompts': prompts, 'rows': rows, 'arms': by_row}
  request = dataclasses.replace(asked[0].given, **own)
  return _parted(labels.label_logps(request), arms)


def pair_logps(asked: Sequence, count: int) -> list:
  """See `alone.pair_logps`."""
  first = asked[0].given
  pairs, arms = _concat(asked, 'pairs')
  slots = width(first.slots, len(pairs), count, groups(first.config.mesh))
  request = dataclasses.replace(first, pairs=pairs, slots=slots)
  return _parted(alone.pair_logps(request), arms)


def _weights(asked, arms, count):
  """The weights of all that ask, the rows of a batch, the arm of each prompt.

  The frozen weights are those of all arms.
  """
  first = asked[0].given
  parts = groups(first.mesh)
  if 'adapter' not in first.weights:
    rows = width(first.rows, len(arms), count, parts)
    return first.weights, rows, ()
  adapters = [r.given.weights['adapter'] for r in asked]
  slots = width(1, len(asked), count, parts)
  adapters += adapters[:1] * (slots - len(asked))  # for rows without a prompt
  slot = {r.arm: i for i, r in enumerate(asked)}
  weights = first.weights | {'adapter': _join(*adapters)}
  return weights, first.rows * slots, [slot[arm] for arm in arms]


def width(rows: int, n: int, arms: int, parts: int = 1) -> int:
  """Rows of a batch for n of them: `rows` doubled as often as n needs.

  So there are few shapes to compile, and little padding. Of `parts` groups
  of devices with arms of their own, each has as many.
  """
  times = 1
  while times < arms and rows * times < n:
    times *= 2
  return rows * (-(-min(times, arms) // parts) * parts)


def groups(mesh) -> int:
  """Groups of devices that have arms of their own."""
  return dict(mesh.shape).get('arm', 1) if mesh is not None else 1


def _concat(asked, name):
  """What all ask for as one list, and the arm of each item."""
  items = [item for r in asked for item in getattr(r.given, name)]
  arms = [r.arm for r in asked for _ in getattr(r.given, name)]
  return items, arms


def _parted(results, arms):
  """The inverse of `_concat`, for the results."""
  ends = [i for i in range(1, len(arms)) if arms[i] != arms[i - 1]]
  starts, ends = [0, *ends], [*ends, len(arms)]
  return [results[i:end] for i, end in zip(starts, ends, strict=True)]


def _per_prompt(given):
  """The key's data and the settings of each prompt of a call."""
  n = len(given.prompts)
  key = np.asarray(jax.random.key_data(given.key))
  each = lambda value: np.broadcast_to(value, (n,))
  return (
    np.broadcast_to(key, (n, key.shape[-1])),
    jax.tree.map(each, given.settings),
  )


@jax.jit
def _join(*trees):
  return jax.tree.map(lambda *xs: jnp.stack(xs, 1), *trees)
