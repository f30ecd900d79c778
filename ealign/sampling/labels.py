"""Exact probabilities of given label strings after a prompt, and verdicts.

Nothing is sampled and no text is parsed: a label's probability is the product
over its tokens and its end of turn, read at a fixed place. All labels are read
in one pass behind the prompt, as a tree (`sampling.tree`).
"""

import functools
import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logsumexp

from ealign import losses
from ealign.models import layout, transformer
from ealign.models.config import Config
from ealign.runtime import mesh
from ealign.sampling import prompts as prompting
from ealign.sampling import tree as trees
from ealign.sampling.requests import OTHER, Labels
from ealign.sampling.sampler import laid_out, prefill

_CHUNK = 512  # places whose logits exist at a time, at most


class Asked(NamedTuple):
  """What is wanted beside the labels; static.

  others: the probability of leaving the tree, at each place. rest: the column
  of all of it. top: that of the first token that is so likely; 0 for none.
  """

  others: bool = False
  rest: bool = False
  top: int = 0


PLAIN = Asked()


def label_logps(request: Labels) -> np.ndarray:
  """log P(label | prompt) of each label after each prompt, float32 [B, M].

  With `rest` or `top`, `request.columns` in place of M. As a log-sum-exp of
  what leaves the tree, not as 1 less a sum, the rest is exact where it is tiny.

  Raises:
    UserError: an empty prompt, or one longer than the model's positions.
    ValueError: with `rest`, a label that another begins with.
  """
  prompts, labels = request.prompts, request.labels
  longest = max(len(label) for label in labels)
  prompting.check(prompts, request.config.max_positions - longest)
  if request.rest:
    trees.check(labels)
  size = len(prompts), request.columns
  logps_BM = np.full(size, -np.inf, np.float32)
  shared = starts(request)
  for scored in _together(request, shared) if shared else _each(request):
    index_B, own_BM, scored_BM = scored
    real_B = index_B >= 0
    at = index_B[real_B, None], own_BM[real_B]
    logps_BM[at] = mesh.to_host(scored_BM)[real_B]
  return logps_BM


def wanted(request: Labels) -> Asked:
  """What a request wants beside its labels."""
  ends = any(label[-1] == OTHER for label in request.labels)
  return Asked(request.rest or ends, request.rest, request.top)


def _each(request: Labels):
  """Reads every prompt whole. Yields (index_B, own_BM, log P of them [B, M]).

  index_B: which prompt each row is; -1: none. own_BM: which columns.
  """
  config, weights, batches, place = laid_out(request)
  run = program(config, wanted(request))
  tree = trees.of(request.labels, request.rest)
  for batch in batches:
    per_row = place((batch.tokens_BT, batch.positions_BT))
    every_BM = np.tile(np.arange(request.columns), (len(batch.index), 1))
    yield batch.index, every_BM, run(weights, *per_row, tree)


def starts(request: Labels) -> dict[Hashable, tuple[int, ...]]:
  """The tokens that all prompts of a group begin with, by group.

  {} where to read them once saves less than a third, or where rows are spread
  over devices, each with its own: then every prompt is read whole.
  """
  spread = request.mesh is not None and request.mesh.size > 1
  if not request.groups or spread or request.lanes:
    return {}
  begun = {}
  for group, prompt in zip(request.groups, request.prompts, strict=True):
    start = begun.setdefault(group, prompt)
    same = zip(start, prompt[:-1], strict=False)
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], same)
    begun[group] = tuple(token for token, _ in equal)
  whole = sum(map(len, request.prompts))
  twice = sum(len(begun[group]) for group in request.groups)
  saved = twice - sum(map(len, begun.values()))
  return begun if all(begun.values()) and 3 * saved > whole else {}


def _together(request: Labels, starts):
  """Reads what a group's prompts begin with once; yields as `_each`.

  The rest of each prompt then extends a copy of the cache.
  """
  names, rows = list(starts), request.rows
  apart = layout.one_cpu(request.config)
  fit = lambda count: prompting.width(count, rows, apart=apart)
  read, extend = shared_programs(request.config, wanted(request))
  of_rows = _trees_of(request)
  rests = [
    prompt[len(starts[group]) :]
    for group, prompt in zip(request.groups, request.prompts, strict=True)
  ]
  for first in prompting.batches([*starts.values()], fit(len(starts))):
    row_of = {names[at]: row for row, at in enumerate(first.index) if at >= 0}
    own = [i for i, group in enumerate(request.groups) if group in row_of]
    start = read(request.weights, first.tokens_BT, first.positions_BT)
    for rest in prompting.batches([rests[i] for i in own], fit(len(own))):
      at_B = np.where(rest.index >= 0, np.take(own, rest.index), -1)
      from_B = [row_of[request.groups[i]] if i >= 0 else 0 for i in at_B]
      ids = rest.tokens_BT, rest.positions_BT
      tree, own_BM = of_rows(np.maximum(at_B, 0))
      of = np.array(from_B, np.int32), *ids, tree
      yield at_B, own_BM, extend(request.weights, start, *of)


def _trees_of(request: Labels):
  """A function of the prompts of some rows: their tree, and which columns.

  Only chains are of a row's own labels; a tree is of all.
  """
  tree = trees.of(request.labels, request.rest)
  every_M = np.arange(request.columns)
  if not tree.apart or not request.own:
    return lambda at_B: (tree, np.tile(every_M, (len(at_B), 1)))
  own_NM = np.array(request.own)
  labels_MT, mask_MT = trees.pad(request.labels)

  def of_rows(at_B):
    own_BM = own_NM[at_B]
    top_BM = np.tile(every_M[len(labels_MT) :], (len(at_B), 1))
    chains = trees.chains(labels_MT[own_BM], mask_MT[own_BM])
    return chains, np.concatenate([own_BM, top_BM], axis=1)

  return of_rows


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


def program(config: Config, asked: Asked = PLAIN):
  """The jitted scorer; compiled once for every bucket it meets."""
  return _programs(config, asked)[0]


def shared_programs(config: Config, asked: Asked = PLAIN):
  """`prefill` without more room, and `score_rest`, jitted."""
  return _programs(config, asked)[1:]


@functools.cache
def _programs(config, asked):
  whole = jax.jit(functools.partial(score, config, asked))
  read = jax.jit(functools.partial(prefill, config, 0))
  return whole, read, jax.jit(functools.partial(score_rest, config, asked))


def score_rest(
  config: Config, asked, weights, start, from_B, tokens_BT, positions_BT, tree
):
  """As `score`, of prompts that go on behind others in a cache.

  start: what `prefill` returns. from_B: the row of it that each prompt begins
  with. positions_BT: of the rest alone, from 0; -1 on padding, on the left.
  """
  T = tokens_BT.shape[1]
  cache, _, next_B = start
  room, slot = T + tree.tokens.shape[1], cache['positions'].shape[1]

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
  return _read(config, asked, weights, *end, slot + T, tree)


def score(config: Config, asked, weights, tokens_BT, positions_BT, tree):
  """log P(label | prompt) [B, M]: the prompt and all labels in one pass.

  The labels go on from the prompt, so the weights are read, and on a mesh
  gathered, once. The prompts are padded on the left.

  config and asked are static.
  """
  T, next_B = tokens_BT.shape[1], positions_BT[:, -1] + 1
  tokens, ahead = _ahead(next_B, tree)
  join = lambda *both: jnp.concatenate(both, axis=1)
  hidden_BTD, _, _ = transformer.forward(
    *(config, weights, join(tokens_BT, tokens), join(positions_BT, ahead)),
    sees_BTT=tree.sees if tree.tokens.shape[1] else None,
  )
  return _scored(config, asked, weights, hidden_BTD[:, T - 1 :], tree)


def _read(config, asked, weights, cache, hidden_BD, next_B, slot, tree):
  """log P of each label [B, M] behind what is in the cache up to `slot`."""
  hidden_BTD = hidden_BD[:, None]
  if tree.tokens.shape[1]:
    behind_BTD, _, _ = transformer.forward(
      *(config, weights, *_ahead(next_B, tree)),
      cache=cache,
      write_B=slot,
      sees_BTT=tree.sees,
    )
    hidden_BTD = jnp.concatenate([hidden_BTD, behind_BTD], axis=1)
  return _scored(config, asked, weights, hidden_BTD, tree)


def _ahead(next_B, tree):
  """Tokens and positions of the nodes of each row, [B, N]."""
  depths = jnp.where(tree.depths >= 0, next_B[:, None] + tree.depths, -1)
  return jnp.broadcast_to(tree.tokens, depths.shape), depths


def _scored(config, asked, weights, hidden_BTD, tree):
  """The columns [B, M] from the hidden states of the last token and nodes."""
  B, others = len(hidden_BTD), asked.others
  head_DV = transformer.head(config, weights)
  # Each device multiplies with its columns of the head, then has its rows.
  hidden_BD = layout.of_chunk(config, hidden_BTD[:, 0])
  logits_BV = transformer.project_logits(head_DV, hidden_BD)
  logits_BV = layout.split(config, logits_BV, (layout.ROWS, 'tensor'))
  starts_BM = jnp.broadcast_to(tree.starts, (B, tree.starts.shape[1]))
  first_BM, out_B, norm_B = losses.next_logps(
    logits_BV, starts_BM, others=others
  )
  edges_BE, out_BN = _at_nodes(config, others, head_DV, hidden_BTD[:, 1:], tree)
  edges_BE = jnp.concatenate([first_BM, edges_BE], axis=1)
  # The way to each node; nothing leads to the root.
  way_BNN = jnp.where(tree.sees, _pick(edges_BE, tree.into)[:, None], 0.0)
  way_BN = jnp.pad(jnp.sum(way_BNN, axis=-1), [(0, 0), (1, 0)])
  if others:
    out_BN = jnp.concatenate([out_B[:, None], out_BN], axis=1)
    edges_BE = jnp.concatenate([edges_BE, out_BN], axis=1)
  columns = [_pick(edges_BE, tree.ends) + _pick(way_BN, tree.at)]
  if asked.rest:
    left_BN = jnp.where(tree.left, out_BN + way_BN, -jnp.inf)
    columns.append(jax.nn.logsumexp(left_BN, axis=1, keepdims=True))
  if asked.top:
    # Less the same norm, so that the label of that very token equals it.
    top_BK, _ = jax.lax.top_k(logits_BV, min(asked.top, config.vocab_size))
    columns.append(top_BK[:, -1:] - norm_B[:, None])
  return jnp.concatenate(columns, axis=1)


def _at_nodes(config, others, head_DV, hidden_BND, tree):
  """log P of each edge at the nodes [B, N K], and of leaving there [B, N]."""
  (B, N, _), K = hidden_BND.shape, tree.nexts.shape[-1]
  if not N:
    return jnp.zeros((B, 0)), jnp.zeros((B, 0))

  def fn(head_DV, hidden_CD, nexts_CK):
    logits_CV = transformer.project_logits(head_DV, hidden_CD)
    return losses.next_logps(logits_CV, nexts_CK, others=others)[:2]

  # The logits of one chain; of a tree, parts of one size.
  count = B * N // layout.shards(config)
  parts = tree.starts.shape[1] if tree.apart else 1
  parts = -(-count // min(_CHUNK, count // parts))
  nexts_BNK = jnp.broadcast_to(tree.nexts, (B, N, K))
  edges_BNK, out_BN = losses.over_tokens(
    *(fn, head_DV, hidden_BND, nexts_BNK),
    chunk=-(-count // parts),
    **layout.scoring(config),
  )
  return edges_BNK.reshape(B, N * K), out_BN


def _pick(x_BE, at):
  """x_BE at some columns [B, M], or at [1, M] of every row."""
  if len(at) == 1:
    return jnp.take(x_BE, at[0], axis=1)
  return jnp.take_along_axis(x_BE, at, axis=1)
