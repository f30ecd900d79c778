"""Sampling on the device: one prefill and one decode program a bucket.

  prompts --sort by length, pad left--> tokens_BT
    --prefill--> cache, hidden_BD of the last prompt token
    --decode (while_loop until every row has ended)--> ids, logps, why it ended

Shapes are static: the prompt length is padded up to a bucket, the rows to
`rows`, the cache to bucket + max_tokens, on one CPU in parts as it is filled.
Everything else is a traced value, so another temperature, stop id or length
limit compiles nothing.

In float32 an answer depends on its prompt, key and row id alone, never on its
neighbours, the padding or the mesh. In bfloat16 near-ties may flip.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ealign.models import layout, sharding, transformer
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError
from ealign.sampling import prompts as prompting
from ealign.sampling.choose import Sampling, choose
from ealign.sampling.requests import Answers

_STOPS = 8  # stop ids are padded to a multiple of this
_PART = 200  # tokens for which a CPU's cache is made larger


@dataclasses.dataclass(frozen=True)
class Answer:
  """One sampled answer.

  Attributes:
    ids: its tokens, with the stop id if it ended by one.
    logps: float32, the model's own log-probability of each token at
      temperature 1 and untruncated: what teacher forcing gives.
    stop: 'stop' (ended by itself) or 'length' (cut at max_new_tokens).
    cut: probability mass a token that top_k and top_p allow but the cap on
      candidates (`truncate`) removed, averaged over the tokens.
  """

  ids: tuple[int, ...]
  logps: np.ndarray
  stop: str
  cut: float


def generate(request: Answers) -> list[Answer]:
  """Samples one answer to each prompt, in the order of the prompts.

  Raises:
    UserError: an empty prompt, one longer than the model's positions, or
      settings that the static sizes do not allow.
  """
  r, n = request, len(request.prompts)
  if not n:
    return []
  settings = traced(r.settings, n, r.max_tokens, r.truncate)
  limit = int(np.max(settings.max_new_tokens))
  prompting.check(r.prompts, r.config.max_positions - limit)
  config, weights, batches, place = laid_out(r, r.max_tokens)
  read, sample = programs(config, r.max_tokens, r.truncate)
  stop_K = pad_stops(r.stop_ids)
  ids_N = range(n) if r.row_ids is None else r.row_ids
  ids_N = np.array([i % 2**32 for i in ids_N], np.uint32)
  seeds = np.asarray(jax.random.key_data(r.key))
  seeds_N = np.broadcast_to(seeds, (n, seeds.shape[-1]))
  answers = [None] * n
  for batch in batches:
    at_B = np.maximum(batch.index, 0)  # an empty row has another's, unused
    pick = functools.partial(np.take, indices=at_B, axis=0)
    per_row = jax.tree.map(pick, (seeds_N, ids_N, settings))
    tokens_BT, positions_BT, (seeds_B, ids_B, how), live_B = place(
      (batch.tokens_BT, batch.positions_BT, per_row, batch.index >= 0)
    )
    start = read(weights, tokens_BT, positions_BT)
    rows = seeds_B, ids_B, live_B
    _, out = sample(weights, *start, rows, how, stop_K)
    for i, answer in zip(batch.index, _answers(out), strict=True):
      if i >= 0:
        answers[i] = answer
  return answers


def laid_out(request, new: int = 0):
  """How the prompts of a request (`sampling.requests`) are read, in batches.

  new: tokens that may be sampled behind each; 0: none are.

  Returns:
    the model and its weights as they are gathered to be sampled from, the
    batches of prompts, and what puts the rows of a batch on the mesh.
  """
  config, weights, place = request.config, request.weights, lambda rows: rows
  if request.mesh is not None:
    of = config, request.mesh, weights
    config, mesh, weights = sharding.gathered(*of, request.rows, new)
    place = functools.partial(sharding.shard_rows, mesh)
  count, rows = _lane_count(weights), request.rows
  if count == 1:
    parts, apart = layout.shards(config), layout.one_cpu(config) and not new
    rows = prompting.width(len(request.prompts), rows, parts, apart=apart)
  own = {'lanes': request.lanes, 'count': count}
  batches = prompting.batches(request.prompts, rows, **own)
  return config, weights, batches, place


def _lane_count(weights: dict) -> int:
  """Lanes of the adapter in `weights` if it is [L, A, in, R], else 1."""
  shapes = (pair['a'].shape for pair in weights.get('adapter', {}).values())
  return next((shape[1] for shape in shapes if len(shape) == 4), 1)


@functools.cache
def programs(config: Config, max_tokens: int, truncate: int | None):
  """`prefill` and `decode` of one static setting, jitted.

  Built once; jit then compiles each for every bucket it meets.
  """
  return (
    jax.jit(functools.partial(prefill, config, max_tokens)),
    jax.jit(
      functools.partial(decode, config, max_tokens, truncate),
      donate_argnums=1,  # the cache, which follows the weights
    ),
  )


def prefill(config: Config, room: int, weights, tokens_BT, positions_BT):
  """Reads left-padded prompts into a cache with `room` more slots.

  Returns:
    cache, hidden_BD of each last token, next_B: the position that follows.
  """
  B, T = tokens_BT.shape
  cache = transformer.init_cache(config, B, T + room)
  cache = sharding.constrain(config, cache)
  hidden_BTD, cache, _ = transformer.forward(
    config, weights, tokens_BT, positions_BT, cache=cache
  )
  return cache, hidden_BTD[:, -1], positions_BT[:, -1] + 1


def decode(
  config, room, truncate, weights, cache, hidden_BD, next_B, rows, how, stop_K
):
  """Samples until every row has ended.

  config, room and truncate are static; weights, cache, hidden_BD and next_B are
  those of `prefill` with that room. rows: key data, row id and live_B (False
  without a prompt). how: the `Sampling` of each row. stop_K: padded with -1.

  Returns the cache, which now holds the answers too, and a dict: ids_BT and
  logps_BT [B, room], length_B (the tokens that count), stopped_B and cut_B
  (summed over the tokens).
  """
  seeds_B, row_ids_B, live_B = rows
  keys_B = jax.random.wrap_key_data(seeds_B)
  keys_B = jax.vmap(jax.random.fold_in)(keys_B, row_ids_B)
  first_slot = cache['positions'].shape[1] - room
  by_layer = goes_by_layer(config, weights)
  if by_layer:
    weights, cache = transformer.unstacked(weights, cache)

  def body(state):
    cache, hidden_BD, t, live_B, out = state
    logits_BV = transformer.logits(config, weights, hidden_BD)
    token_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, t)
    token_B, cut_B = choose(logits_BV, token_keys_B, how, truncate)
    stop_B = live_B & jnp.any(token_B[:, None] == stop_K, axis=1)
    out = _record(out, t, live_B, stop_B, token_B, cut_B, logits_BV)
    # A row that had ended writes free slots (position -1): harmless.
    position_B = jnp.where(live_B, next_B + t, -1)
    tokens_BT, positions_BT = token_B[:, None], position_B[:, None]
    slot = first_slot + t  # one for all rows: a slice, not a scatter
    hidden_BTD, cache, _ = transformer.forward(
      config, weights, tokens_BT, positions_BT, cache=cache, write_B=slot
    )
    live_B &= ~stop_B & (t + 1 < how.max_new_tokens)
    return cache, hidden_BTD[:, 0], t + 1, live_B, out

  out = _no_tokens(len(live_B), room)
  state = hidden_BD, jnp.int32(0), live_B, out
  # By layer a token reads all slots that there are, so they are few at first.
  parts = -(-room // _PART) if by_layer else 1
  for part in range(1, parts + 1):
    end = room * part // parts
    if parts > 1:
      cache = transformer.resized(cache, first_slot + end)
    goes_on = lambda state, end=end: jnp.any(state[3]) & (state[2] < end)
    cache, *state = jax.lax.while_loop(goes_on, body, (cache, *state))
  cache = transformer.stacked(cache) if by_layer else cache
  return cache, state[-1]


def goes_by_layer(config: Config, weights: dict) -> bool:
  """Whether a loop over tokens takes `transformer.unstacked` weights."""
  # Not int8 leaves: XLA would keep them in float32 for the whole loop.
  arrays = not any(isinstance(w, dict) for w in weights['layers'].values())
  return layout.one_cpu(config) and arrays


def _no_tokens(B, T):
  return {
    'ids_BT': jnp.zeros((B, T), jnp.int32),
    'logps_BT': jnp.zeros((B, T), jnp.float32),
    'length_B': jnp.zeros(B, jnp.int32),
    'stopped_B': jnp.zeros(B, bool),
    'cut_B': jnp.zeros(B, jnp.float32),
  }


def _record(out, t, live_B, stop_B, token_B, cut_B, logits_BV):
  logit_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)[:, 0]
  logp_B = logit_B - jax.nn.logsumexp(logits_BV, axis=1)
  column = lambda x_BT, x_B: jax.lax.dynamic_update_slice_in_dim(
    x_BT, x_B[:, None], t, axis=1
  )
  return {
    'ids_BT': column(out['ids_BT'], token_B),
    'logps_BT': column(out['logps_BT'], logp_B),
    'length_B': out['length_B'] + live_B,
    'stopped_B': out['stopped_B'] | stop_B,
    'cut_B': out['cut_B'] + jnp.where(live_B, cut_B, 0.0),
  }


def traced(settings, count, max_tokens, truncate):
  """The settings of each prompt, of fixed dtypes; checked."""
  s, f, i = settings, np.float32, np.int32
  values = (s.temperature, f), (s.top_k, i), (s.top_p, f), (s.max_new_tokens, i)
  each = [np.broadcast_to(np.asarray(x, kind), (count,)) for x, kind in values]
  problems = [
    problem
    for values in sorted(set(zip(*(x.tolist() for x in each), strict=True)))
    for problem in _problems(*values, max_tokens, truncate)
  ]
  if problems:
    raise UserError(*problems)
  return Sampling(*each)


def _problems(temperature, top_k, top_p, limit, max_tokens, truncate):
  if not temperature >= 0:
    yield f'temperature is {temperature}; it must be 0 or more'
  if not 0 < top_p <= 1:
    yield f'top_p is {top_p}; it must be above 0 and at most 1'
  if truncate is None and (top_k > 0 or top_p < 1):
    yield 'top_k and top_p need a static number of candidates'
  elif not 0 <= top_k <= (truncate or 0):
    yield f'top_k is {top_k}; it must be 0 (off) to {truncate}'
  if not 1 <= limit <= max_tokens:
    yield f'max_new_tokens is {limit}; it must be 1 to {max_tokens}'


def pad_stops(stop_ids) -> np.ndarray:
  """Stop ids padded with -1, so that another one compiles nothing."""
  size = -(-max(len(stop_ids), 1) // _STOPS) * _STOPS
  return np.array([*stop_ids, *[-1] * (size - len(stop_ids))], np.int32)


def _answers(out):
  out = jax.tree.map(mesh_lib.to_host, out)
  for row, length in enumerate(out['length_B']):
    yield Answer(
      ids=tuple(out['ids_BT'][row, :length].tolist()),
      logps=out['logps_BT'][row, :length],
      stop='stop' if out['stopped_B'][row] else 'length',
      cut=float(out['cut_B'][row]) / max(int(length), 1),
    )
