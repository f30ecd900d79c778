"""One answer token by token, for somebody who reads along.

  prompt --prefill--> cache, hidden_BD --step--> token --step--> token ...

The tokens are those of `sampler.generate`; its loop runs on the device and
tells nothing until it has ended, so here each token is a call of its own.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ealign.models import transformer
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib
from ealign.sampling import prompts as prompting
from ealign.sampling import sampler
from ealign.sampling.choose import choose
from ealign.sampling.requests import Answers
from ealign.sampling.sampler import Answer


def stream(request: Answers) -> Iterator[Answer]:
  """Samples the answer to the only prompt of a request.

  Yields it after each token, as far as it has come. Until it ends by itself
  its `stop` is 'length': so it is if nobody asks for more.

  Raises:
    UserError: as `sampler.generate`.
  """
  r = request
  settings = sampler.traced(r.settings, 1, r.max_tokens, r.truncate)
  limit = int(settings.max_new_tokens[0])
  prompting.check(r.prompts, r.config.max_positions - limit)
  config, weights, batches, place = sampler.laid_out(r, r.max_tokens)
  (batch,) = batches
  read, _ = sampler.programs(config, r.max_tokens, r.truncate)
  seeds = np.asarray(jax.random.key_data(r.key))
  row_id = 0 if r.row_ids is None else r.row_ids[0]
  at_B = np.zeros(len(batch.index), int)  # empty rows have this one's
  who = seeds[None], np.array([row_id % 2**32], np.uint32), settings
  seeds_B, ids_B, how = jax.tree.map(lambda x: x[at_B], who)
  tokens_BT, positions_BT, rows, how = place(
    (
      *(batch.tokens_BT, batch.positions_BT),
      *((seeds_B, ids_B, batch.index >= 0), how),
    )
  )
  cache, hidden_BD, next_B = read(weights, tokens_BT, positions_BT)
  first = cache['positions'].shape[1] - r.max_tokens
  if sampler.goes_by_layer(config, weights):
    weights, cache = _unstacked(weights, cache)
  take, ids, logps, cut = _step(config, r.truncate), (), [], 0.0
  for t in range(limit):
    at = np.int32(t), np.int32(first + t)
    cache, hidden_BD, out = take(
      weights, cache, hidden_BD, next_B, at, rows, how
    )
    token, logp, own_cut = (mesh_lib.to_host(x)[0] for x in out)
    ids, cut = (*ids, int(token)), cut + float(own_cut)
    logps.append(logp)
    stop = 'stop' if ids[-1] in r.stop_ids else 'length'
    yield Answer(ids, np.array(logps, np.float32), stop, cut / len(ids))
    if stop == 'stop':
      return


@functools.cache
def _step(config: Config, truncate: int | None):
  """`step` of one static setting, jitted."""
  bound = functools.partial(step, config, truncate)
  return jax.jit(
    bound, donate_argnums=1
  )  # the cache, which follows the weights


_unstacked = jax.jit(transformer.unstacked)


def step(config, truncate, weights, cache, hidden_BD, next_B, at, rows, how):
  """One token of each row: what `sampler.decode` does in a turn of its loop.

  at: the index of the token in its answer, and its slot in the cache. The rest
  is as in `sampler.decode`.

  Returns the cache, hidden_BD that the next token is read from, and (token_B,
  logp_B, cut_B).
  """
  (seeds_B, row_ids_B, live_B), (t, slot) = rows, at
  keys_B = jax.random.wrap_key_data(seeds_B)
  keys_B = jax.vmap(jax.random.fold_in)(keys_B, row_ids_B)
  keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, t)
  logits_BV = transformer.logits(config, weights, hidden_BD)
  token_B, cut_B = choose(logits_BV, keys_B, how, truncate)
  logit_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)[:, 0]
  logp_B = logit_B - jax.nn.logsumexp(logits_BV, axis=1)
  position_B = jnp.where(live_B, next_B + t, -1)
  tokens_BT, positions_BT = token_B[:, None], position_B[:, None]
  hidden_BTD, cache, _ = transformer.forward(
    config, weights, tokens_BT, positions_BT, cache=cache, write_B=slot
  )
  return cache, hidden_BTD[:, 0], (token_B, logp_B, cut_B)
