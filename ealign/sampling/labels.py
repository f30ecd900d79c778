"""Exact probabilities of given label strings after a prompt, and verdicts.

Nothing is sampled and no text is parsed: a label's probability is the product
over its tokens and its end of turn, read at a fixed place.
"""

import functools
from collections.abc import Sequence

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

_LABEL = 4  # labels are padded to a multiple of this many tokens


def label_logps(request: Labels) -> np.ndarray:
  """log P(label | prompt) of each label after each prompt, float32 [B, M].

  Raises:
    UserError: an empty prompt, or one longer than the model's positions.
  """
  prompts, labels = request.prompts, request.labels
  longest = max(len(label) for label in labels)
  prompting.check(prompts, request.config.max_positions - longest)
  labels_MT, mask_MT = _pad(labels)
  config, weights, batches, place = laid_out(request)
  run = program(config)
  logps_BM = np.zeros((len(prompts), len(labels)), np.float32)
  for batch in batches:
    per_row = place((batch.tokens_BT, batch.positions_BT))
    scored_BM = mesh.to_host(run(weights, *per_row, labels_MT, mask_MT))
    real_B = batch.index >= 0
    logps_BM[batch.index[real_B]] = scored_BM[real_B]
  return logps_BM


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


def score(config: Config, weights, tokens_BT, positions_BT, labels_MT, mask_MT):
  """log P(label | prompt) [B, M]: the prompt is read once, then each label.

  config is static; the prompts are padded on the left, the labels on the right,
  where mask_MT is False.
  """
  B, slot = tokens_BT.shape
  T = labels_MT.shape[1] - 1  # the last token is only predicted
  cache, hidden_BD, next_B = prefill(
    config, T, weights, tokens_BT, positions_BT
  )
  head_DV = transformer.head(config, weights)
  # Each device multiplies with its columns of the head, then has its rows.
  hidden_BD = layout.of_chunk(config, hidden_BD)
  logits_BV = transformer.project_logits(head_DV, hidden_BD)
  first_BV = jax.nn.log_softmax(
    layout.split(config, logits_BV, (layout.ROWS, 'tensor'))
  )

  def one(_, label):
    ids_T, mask_T = label
    inputs_BT = jnp.broadcast_to(ids_T[:-1], (B, T))
    ahead_BT = next_B[:, None] + jnp.arange(T)
    # Each label extends the same cache; what it writes is dropped again.
    hidden_BTD, _, _ = transformer.forward(
      *(config, weights, inputs_BT, jnp.where(mask_T[:-1], ahead_BT, -1)),
      cache=cache,
      write_B=slot,
    )
    targets_BT = jnp.broadcast_to(ids_T[1:], (B, T))
    rest_BT = losses.token_logps(
      head_DV, hidden_BTD, targets_BT, **layout.scoring(config)
    )
    rest_B = jnp.sum(jnp.where(mask_T[1:], rest_BT, 0.0), axis=1)
    return None, first_BV[:, ids_T[0]] + rest_B

  _, logps_MB = jax.lax.scan(one, None, (labels_MT, mask_MT))
  return logps_MB.T


def _pad(labels):
  lengths_M1 = np.array([[len(label)] for label in labels])
  size = -(-lengths_M1.max() // _LABEL) * _LABEL
  mask_MT = np.arange(size) < lengths_M1
  labels_MT = np.zeros(mask_MT.shape, np.int32)
  labels_MT[mask_MT] = np.concatenate(labels)
  return labels_MT, mask_MT
