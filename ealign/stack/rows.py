"""Rows of several arms as one batch, over the base that they share.

`asked` are the `grid.stack` requests of the arms that ask alike, `count` is the
number of all arms. Each function returns the results of each request.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ealign import engine as calls
from ealign.sampling import labels, sampler


def generate(asked: Sequence, count: int) -> list:
  """See `sampling.sampler`; each row has its arm's key and settings."""
  first = asked[0].given
  prompts, arms = _concat(asked, 'prompts')
  weights, rows, by_row = _weights(asked, arms, count)
  of_all = [_per_prompt(r.given) for r in asked]
  key, settings = jax.tree.map(lambda *xs: np.concatenate(xs), *of_all)
  answers = sampler.generate(
    first.model,
    weights,
    prompts,
    key=jax.random.wrap_key_data(key),
    settings=settings,
    stop_ids=first.stop_ids,
    max_tokens=first.max_tokens,
    row_ids=_concat(asked, 'row_ids')[0],
    rows=rows,
    truncate=first.truncate,
    mesh=first.mesh,
    arms=by_row,
  )
  return _parted(answers, arms)


def label_logps(asked: Sequence, count: int) -> list:
  """See `sampling.labels`."""
  first = asked[0].given
  prompts, arms = _concat(asked, 'prompts')
  weights, rows, by_row = _weights(asked, arms, count)
  logps_BM = labels.label_logps(
    first.model,
    weights,
    prompts,
    first.labels,
    rows=rows,
    mesh=first.mesh,
    arms=by_row,
  )
  return _parted(logps_BM, arms)


def pair_logps(asked: Sequence, count: int) -> list:
  """See `calls.pair_logps`."""
  first = asked[0].given
  pairs, arms = _concat(asked, 'pairs')
  parts = groups(first.model.mesh)
  slots = width(first.slots, len(pairs), count, parts)
  logps_P2 = calls.pair_logps(
    first.model, first.weights, pairs, slots=slots, length=first.length
  )
  return _parted(logps_P2, arms)


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
