"""Exact probabilities of given label strings after a prompt, and verdicts.

Nothing is sampled and no text is parsed: a label's probability is the product
over its tokens and its end of turn, read at a fixed place.
"""

import functools
import itertools
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logsumexp

from ealign import losses
from ealign.models import layout, transformer
from ealign.models.config import Config
from ealign.runtime import mesh
from ealign.sampling import prompts as prompting
from ealign.sampling.requests import Labels
from ealign.sampling.sampler import laid_out, prefill

_LABEL = 2  # labels are padded to a multiple of this many tokens


def label_logps(request: Labels) -> np.ndarray:
  """log P(label | prompt) of each label after each prompt, float32 [B, M].

  Raises:
    UserError: an empty prompt, or one longer than the model's positions.
  """
  prompts, labels = request.prompts, request.labels
  longest = max(len(label) for label in labels)
  prompting.check(prompts, request.config.max_positions - longest)
  padded = _pad(labels)
  logps_BM = np.full((len(prompts), len(labels)), -np.inf, np.float32)
  scored = _each(request, *padded)
  if starts := _starts(request):
    scored = _together(request, starts, *padded)
  for index_B, own_BM, scored_BM in scored:
    real_B = index_B >= 0
    at = index_B[real_B, None], own_BM[real_B]
    logps_BM[at] = mesh.to_host(scored_BM)[real_B]
  return logps_BM


def _each(request: Labels, labels_MT, mask_MT):
  """Reads every prompt whole. Yields (index_B, own_BM, log P of them [B, M]).

  index_B: which prompt each row is; -1: none. own_BM: which labels.
  """
  config, weights, batches, place = laid_out(request)
  run = program(config)
  for batch in batches:
    per_row = place((batch.tokens_BT, batch.positions_BT))
    every_BM = np.tile(np.arange(len(labels_MT)), (len(batch.index), 1))
    scored_BM = run(weights, *per_row, labels_MT, mask_MT)
    yield batch.index, every_BM, scored_BM


def _starts(request: Labels) -> dict[Hashable, tuple[int, ...]]:
  """The tokens that all prompts of a group begin with, by group.

  {} where to read them once saves less than a third, or where rows are spread
  over devices, each with its own: then every prompt is read whole.
  """
  spread = request.mesh is not None and request.mesh.size > 1
  if not request.groups or spread or request.lanes:
    return {}
  starts = {}
  for group, prompt in zip(request.groups, request.prompts, strict=True):
    start = starts.setdefault(group, prompt)
    same = zip(start, prompt[:-1], strict=False)
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], same)
    starts[group] = tuple(token for token, _ in equal)
  whole = sum(map(len, request.prompts))
  twice = sum(len(starts[group]) for group in request.groups)
  saved = twice - sum(map(len, starts.values()))
  return starts if all(starts.values()) and 3 * saved > whole else {}


def _together(request: Labels, starts, labels_MT, mask_MT):
  """Reads what a group's prompts begin with once; yields as `_each`.

  The rest of each prompt then extends a copy of the cache.
  """
  every = [range(len(labels_MT))] * len(request.prompts)
  own_NM = np.array(request.own or every)
  names, width = list(starts), request.rows
  read, extend = shared_programs(request.config)
  rests = [
    prompt[len(starts[group]) :]
    for group, prompt in zip(request.groups, request.prompts, strict=True)
  ]
  for first in prompting.batches([*starts.values()], width):
    row_of = {names[at]: row for row, at in enumerate(first.index) if at >= 0}
    own = [i for i, group in enumerate(request.groups) if group in row_of]
    start = read(request.weights, first.tokens_BT, first.positions_BT)
    for rest in prompting.batches([rests[i] for i in own], width):
      at_B = np.where(rest.index >= 0, np.take(own, rest.index), -1)
      from_B = [row_of[request.groups[i]] if i >= 0 else 0 for i in at_B]
      ids = rest.tokens_BT, rest.positions_BT
      own_BM = own_NM[np.maximum(at_B, 0)]
      labels = labels_MT[own_BM.T], mask_MT[own_BM.T]
      of = np.array(from_B, np.int32), *ids, *labels
      yield at_B, own_BM, extend(request.weights, start, *of)


def verdict(
  logps_BM: np.ndarray,
  flag: Sequence[int],
  ok: Sequence[int],
  calibration: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """P(flag) of each row, and how much probability the labels got at all.

  Args:
    logps_BM: from `label_logps`.
    flag: columns of the surface forms that flag.
    ok: columns of those that do not.
    calibration: (flag, ok) probabilities without content, by which each side
      is divided first (contextual calibration, arXiv 2102.09690).

  Returns:
    p_B = P(flag) / (P(flag) + P(ok)); mass_B = P(flag) + P(ok), uncalibrated.
    p is .5 where both are exactly zero; such a row has no mass either.
  """
  logps_BM = np.asarray(logps_BM, np.float64)
  flag_B = logsumexp(logps_BM[:, list(flag)], axis=1)
  ok_B = logsumexp(logps_BM[:, list(ok)], axis=1)
  mass_B = np.exp(np.logaddexp(flag_B, ok_B))
  if calibration is not None:
    flag_prior, ok_prior = np.log(calibration)
    flag_B, ok_B = flag_B - flag_prior, ok_B - ok_prior
  both_zero_B = np.isneginf(flag_B) & np.isneginf(ok_B)
  # The difference of logs: a ratio of tiny masses would be 0 / 0.
  odds_B = np.where(both_zero_B, 0.0, flag_B) - np.where(both_zero_B, 0.0, ok_B)
  return expit(odds_B), mass_B


@functools.cache
def program(config: Config):
  """The jitted scorer; compiled once for every bucket it meets."""
  return jax.jit(functools.partial(score, config))


@functools.cache
def shared_programs(config: Config):
  """`prefill` without more room, and `score_rest`, jitted."""
  read = jax.jit(functools.partial(prefill, config, 0))
  return read, jax.jit(functools.partial(score_rest, config))


def score_rest(
  config: Config, weights, start, from_B, tokens_BT, positions_BT, *labels
):
  """As `score`, of prompts that go on behind others in a cache.

  start: what `prefill` returns. from_B: the row of it that each prompt begins
  with. positions_BT: of the rest alone, from 0; -1 on padding, on the left.
  labels: labels_MBT and mask_MBT, each row with its own.
  """
  B, T = tokens_BT.shape
  cache, _, next_B = start
  room, slot = T + _room(labels[0]), cache['positions'].shape[1]

  def own(x, rows, slots, free):
    """The rows that are begun with, and room behind what they hold."""
    more = [(0, room * (axis == slots)) for axis in range(x.ndim)]
    return jnp.pad(jnp.take(x, from_B, rows), more, constant_values=free)

  cache = {
    'k': own(cache['k'], 1, 3, 0),
    'v': own(cache['v'], 1, 3, 0),
    'positions': own(cache['positions'], 0, 1, -1),
  }
  next_B = next_B[from_B]
  ahead_BT = jnp.where(positions_BT >= 0, next_B[:, None] + positions_BT, -1)
  hidden_BTD, cache, _ = transformer.forward(
    config, weights, tokens_BT, ahead_BT, cache=cache, write_B=slot
  )
  end = cache, hidden_BTD[:, -1], ahead_BT[:, -1] + 1
  return _read(config, weights, *end, slot + T, *labels)


def score(config: Config, weights, tokens_BT, positions_BT, labels_MT, mask_MT):
  """log P(label | prompt) [B, M]: the prompt and all labels in one pass.

  The labels are branches that go on from the prompt, so the weights are read,
  and on a mesh gathered, once. config is static; the prompts are padded on the
  left, the labels on the right, where mask_MT is False.
  """
  T, next_B = tokens_BT.shape[1], positions_BT[:, -1] + 1
  labels, tokens, ahead, branches_T = _branches(next_B, labels_MT, mask_MT)
  join = lambda *both: jnp.concatenate(both, axis=1)
  hidden_BTD, _, _ = transformer.forward(
    *(config, weights, join(tokens_BT, tokens), join(positions_BT, ahead)),
    branches_T=branches_T,
  )
  return _scored(config, weights, hidden_BTD[:, T - 1 :], *labels)


def _room(labels) -> int:
  """Slots that the labels take: the last token of each is only predicted."""
  return labels.shape[0] * (labels.shape[-1] - 1)


def _read(config, weights, cache, hidden_BD, next_B, slot, labels, mask):
  """log P of each label [B, M] behind what is in the cache up to `slot`."""
  labels, tokens, ahead, branches_T = _branches(next_B, labels, mask)
  hidden_BTD, _, _ = transformer.forward(
    *(config, weights, tokens, ahead),
    cache=cache,
    write_B=slot,
    branches_T=branches_T,
  )
  hidden_BTD = jnp.concatenate([hidden_BD[:, None], hidden_BTD], axis=1)
  return _scored(config, weights, hidden_BTD, *labels)


def _branches(next_B, labels, mask):
  """All labels of a row as branches that go on from its prompt.

  labels, mask: [M, T], or [M, B, T] where each row has labels of its own.

  Returns:
    labels and mask as [M, B, T], tokens and positions [B, M (T - 1)], and
    which branch each of them is on.
  """
  M, B, T = len(labels), len(next_B), labels.shape[-1] - 1
  if labels.ndim == 2:
    labels, mask = (
      jnp.broadcast_to(x[:, None], (M, B, T + 1)) for x in (labels, mask)
    )
  ahead_MBT = jnp.where(
    mask[..., :-1], next_B[:, None] + jnp.arange(T, dtype=jnp.int32), -1
  )
  branches_T = jnp.repeat(jnp.arange(M, dtype=jnp.int32), T)
  tokens, ahead = _by_row(labels[..., :-1]), _by_row(ahead_MBT)
  return (labels, mask), tokens, ahead, branches_T


def _by_row(x_MBT):
  return x_MBT.swapaxes(0, 1).reshape(x_MBT.shape[1], -1)


def _scored(config, weights, hidden_BTD, labels, mask):
  """log P [B, M] from the hidden states of the last token and the branches."""
  M, B, T = len(labels), len(hidden_BTD), labels.shape[-1] - 1
  head_DV = transformer.head(config, weights)
  # Each device multiplies with its columns of the head, then has its rows.
  hidden_BD = layout.of_chunk(config, hidden_BTD[:, 0])
  logits_BV = transformer.project_logits(head_DV, hidden_BD)
  first_BV = jax.nn.log_softmax(
    layout.split(config, logits_BV, (layout.ROWS, 'tensor'))
  )
  first_BM = jnp.take_along_axis(first_BV, labels[..., 0].T, axis=1)
  rest_BT = losses.token_logps(
    *(head_DV, hidden_BTD[:, 1:], _by_row(labels[..., 1:])),
    chunk=min(512, B * T // layout.shards(config)),  # the logits of one label
    **layout.scoring(config),
  )
  rest_BT = jnp.where(_by_row(mask[..., 1:]), rest_BT, 0.0)
  return first_BM + jnp.sum(rest_BT.reshape(B, M, T), axis=-1)


def _pad(labels):
  lengths_M1 = np.array([[len(label)] for label in labels])
  size = -(-lengths_M1.max() // _LABEL) * _LABEL
  mask_MT = np.arange(size) < lengths_M1
  labels_MT = np.zeros(mask_MT.shape, np.int32)
  labels_MT[mask_MT] = np.concatenate(labels)
  return labels_MT, mask_MT
