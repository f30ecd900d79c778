"""log p of an answer from plain logits, for tests of what scores or samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ealign.models import transformer


@functools.cache
def _logps(model):
  def logps(weights, tokens_T):
    row = tokens_T[None], jnp.arange(len(tokens_T))[None]
    hidden, _, _ = transformer.forward(model, weights, *row)
    return jax.nn.log_softmax(transformer.logits(model, weights, hidden))[0]

  return jax.jit(logps)


def logp(model, weights, prompt, answer) -> float:
  """log p(answer | prompt), token by token; at most 256 tokens in all."""
  row = np.zeros(256, np.int32)  # what follows changes nothing
  row[: len(prompt) + len(answer)] = [*prompt, *answer]
  logps = np.asarray(_logps(model)(weights, row))
  first = len(prompt) - 1
  return float(sum(logps[first + i, t] for i, t in enumerate(answer)))
