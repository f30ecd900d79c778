"""Token log-probabilities in chunks, and the losses of the method."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ealign.models.transformer import project_logits


def over_tokens(
  fn,
  head_DV,
  hidden,
  *args,
  chunk: int = 512,
  shards: int = 1,
  place=lambda tokens: tokens,
):
  """Maps fn(head, hidden_CD, *args_C) over chunks of tokens.

  The one loop every per-token statistic goes through: logits exist for
  `chunk` tokens at a time and are recomputed in the backward pass, so no
  [B, T, V] array is ever made.

  Args:
    fn: returns a pytree of [C, ...] arrays.
    head_DV: output matrix; no gradient is computed for it when frozen.
    hidden: [..., D].
    *args: arrays [...] or [..., K] that go with the tokens, e.g. targets.
    chunk: static, tokens at a time of each shard.
    shards: parts that the leading axis is split into on a mesh. A chunk takes
      tokens of all of them, else one device would work at a time.
    place: puts the arrays of a chunk where the columns of the head need them.

  Returns:
    The pytree with leaves [..., ...].
  """
  shape = hidden.shape[:-1]
  n = hidden.size // hidden.shape[-1] // shards
  chunk = min(chunk, n)
  pad = -n % chunk

  def split(x, tail):
    zeros = [(0, 0), (0, pad)] + [(0, 0)] * len(tail)
    flat = jnp.pad(x.reshape(shards, n, *tail), zeros)
    parts = flat.reshape(shards, -1, chunk, *tail).swapaxes(0, 1)
    return parts.reshape(-1, shards * chunk, *tail)

  def merge(y):
    tail = y.shape[2:]
    parts = y.reshape(-1, shards, chunk, *tail).swapaxes(0, 1)
    return parts.reshape(shards, -1, *tail)[:, :n].reshape(*shape, *tail)

  xs = [split(x, x.shape[len(shape) :]) for x in (hidden, *args)]
  body = jax.checkpoint(lambda x: fn(head_DV, *place(x)))
  return jax.tree.map(merge, jax.lax.map(body, xs))


def token_logps(head_DV, hidden, targets, **sizes):
  """log p(target) of each token, float32, shaped as targets.

  sizes: chunk, shards and place, as in `over_tokens`.
  """

  def fn(head_DV, hidden_CD, targets_C):
    logits_CV = project_logits(head_DV, hidden_CD)
    return _pick(logits_CV, targets_C) - jax.nn.logsumexp(logits_CV, axis=-1)

  return over_tokens(fn, head_DV, hidden, targets, **sizes)


def next_logps(logits_CV, nexts_CK, *, others: bool = False):
  """log p of each of several tokens that may follow, float32 [C, K].

  Args:
    logits_CV: float32.
    nexts_CK: tokens; -1 is none, and gets 0.
    others: whether the log p of all tokens but these is wanted too. They are
      then each there once.

  Returns:
    logp_CK, with `others` log p of all others [C], else None, and the
    log-sum-exp of the logits [C] that both are less. The others have one of
    their own: of 1 - sum little is left where the sum is near 1.
  """
  V, is_CK = logits_CV.shape[-1], nexts_CK >= 0
  own_CK = jnp.take_along_axis(logits_CV, jnp.maximum(nexts_CK, 0), axis=-1)
  if not others:
    norm_C = jax.nn.logsumexp(logits_CV, axis=-1)
    return jnp.where(is_CK, own_CK - norm_C[:, None], 0.0), None, norm_C
  at_C1 = jnp.arange(len(logits_CV))[:, None]
  out_CK = jnp.where(is_CK, nexts_CK, V)  # none: outside, where none is set
  other_CV = logits_CV.at[at_C1, out_CK].set(-jnp.inf, mode='drop')
  other_C = jax.nn.logsumexp(other_CV, axis=-1)
  named_C = jax.nn.logsumexp(jnp.where(is_CK, own_CK, -jnp.inf), axis=-1)
  norm_C = jnp.logaddexp(other_C, named_C)
  logp_CK = jnp.where(is_CK, own_CK - norm_C[:, None], 0.0)
  return logp_CK, other_C - norm_C, norm_C


def token_stats(head_DV, hidden, targets, *, frozen: bool = False, **sizes):
  """logp of the target, entropy (nats), top1 hit (0/1), mean logit.

  float32 dict, each shaped as targets; only logp carries a gradient. frozen:
  whether the head is: then the gradient by the hidden states comes of the same
  pass, and no logits are computed again for it. sizes: chunk, shards and place,
  as in `over_tokens`.
  """

  def fn(head_DV, hidden_CD, targets_C):
    logits_CV = project_logits(head_DV, hidden_CD)
    norm_C = jax.nn.logsumexp(logits_CV, axis=-1)
    logp_C = _pick(logits_CV, targets_C) - norm_C
    fixed_CV = jax.lax.stop_gradient(logits_CV)
    share_CV = jnp.exp(fixed_CV - jax.lax.stop_gradient(norm_C)[:, None])
    mean_C = jnp.sum(share_CV * fixed_CV, axis=-1)
    stats = {
      'logp': logp_C,
      'entropy': jax.lax.stop_gradient(norm_C) - mean_C,
      'top1': _is_first(fixed_CV, targets_C).astype(jnp.float32),
      'logit': jnp.mean(fixed_CV, axis=-1),
    }
    if frozen:
      stats['slope'] = _slope(head_DV, hidden_CD, targets_C, share_CV)
    return stats

  if not frozen:
    return over_tokens(fn, head_DV, hidden, targets, **sizes)
  fixed = jax.lax.stop_gradient(hidden)
  stats = over_tokens(fn, head_DV, fixed, targets, **sizes)
  slope = stats.pop('slope')
  return stats | {'logp': _sloped(hidden, slope, stats['logp'])}


def _slope(head_DV, hidden_CD, targets_C, share_CV):
  """The gradient of the target's log p by the hidden state, [C, D]."""
  column_CV = jax.lax.broadcasted_iota(targets_C.dtype, share_CV.shape, 1)
  is_target_CV = column_CV == targets_C[:, None]
  by_logit_CV = jnp.where(is_target_CV, 1 - share_CV, -share_CV)
  return jnp.einsum(
    'cv,dv->cd',
    by_logit_CV.astype(hidden_CD.dtype),
    head_DV.astype(hidden_CD.dtype),
  )


@jax.custom_vjp
def _sloped(hidden, slope, logp):
  """logp [...], whose gradient by hidden [..., D] is `slope`."""
  del hidden, slope
  return logp


def _sloped_fwd(hidden, slope, logp):
  del hidden
  return logp, slope


def _sloped_bwd(slope, dlogp):
  dhidden = dlogp[..., None] * slope.astype(jnp.float32)
  return dhidden.astype(slope.dtype), None, None


_sloped.defvjp(_sloped_fwd, _sloped_bwd)


def _is_first(logits_CV, targets_C):
  """Whether argmax gives the target, bool [C].

  Without argmax itself: where columns are split over devices it would send an
  index for each of them.
  """
  own_C1 = _pick(logits_CV, targets_C)[:, None]
  column_CV = jax.lax.broadcasted_iota(targets_C.dtype, logits_CV.shape, 1)
  ties_CV = (logits_CV == own_C1) & (column_CV < targets_C[:, None])
  return ~jnp.any((logits_CV > own_C1) | ties_CV, axis=-1)


def _pick(logits_CV, targets_C):
  return jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0]


def sft(logps_BT, mask_BT):
  """Negative log-likelihood of each row's supervised tokens, nats, [B]."""
  return -jnp.sum(logps_BT * mask_BT, axis=-1)


def dpo_sigmoid(logps_P2, ref_P2, lengths_P2, *, beta, label_smoothing):
  """Direct preference optimisation, eq. 7 of arXiv 2305.18290.

  At policy = reference the loss is log 2 = 0.6931, not 0.

  Args:
    logps_P2: policy log-probs of the (chosen, rejected) answers, summed over
      their tokens.
    ref_P2: the same under the reference.
    lengths_P2: answer tokens; unused here, see `dpo_alternatives`.
    beta: strength of the implicit KL constraint.
    label_smoothing: probability that the preference is wrong, eq. 3 of the
      cDPO note (https://ericmitchell.ai/cdpo.pdf).

  Returns:
    loss_P.
  """
  del lengths_P2
  margin_P = beta * _margin(logps_P2, ref_P2)
  right = jax.nn.log_sigmoid(margin_P)
  wrong = jax.nn.log_sigmoid(-margin_P)
  return -(1 - label_smoothing) * right - label_smoothing * wrong


def dpo_ipo(logps_P2, ref_P2, lengths_P2, *, beta):
  """IPO, eq. 17 of arXiv 2310.12036: (margin - 1 / (2 beta))^2, [P]."""
  del lengths_P2
  return jnp.square(_margin(logps_P2, ref_P2) - 1 / (2 * beta))


def dpo_alternatives(logps_P2, ref_P2, lengths_P2):
  """No negatives: mean negative log-likelihood a token of the chosen, [P]."""
  del ref_P2
  return -logps_P2[:, 0] / jnp.maximum(lengths_P2[:, 0], 1.0)


def _margin(logps_P2, ref_P2):
  ratio_P2 = logps_P2 - ref_P2
  return ratio_P2[:, 0] - ratio_P2[:, 1]


class Variant(NamedTuple):
  """A form of the preference loss.

  loss: fn(logps_P2, ref_P2, lengths_P2, **coefficients) -> loss_P.
  coefficients: its keyword arguments. Each is a field of `fields.DPO`, and is
    traced: a grid may vary it within one program.
  control: it is there to be compared with, and is not the method.
  """

  loss: Callable
  coefficients: tuple[str, ...] = ()
  control: bool = False


# By the value of dpo.variant. What a config may say, `align.Hp`, the roles in
# reports and the table in docs/method.md all follow from these rows.
VARIANTS = {
  'sigmoid': Variant(dpo_sigmoid, ('beta', 'label_smoothing')),
  'ipo': Variant(dpo_ipo, ('beta',)),
  'sft': Variant(dpo_alternatives, control=True),
}
COEFFICIENTS = tuple(
  dict.fromkeys(name for v in VARIANTS.values() for name in v.coefficients)
)
