"""The terms of the objective: L = sum of weight * loss / count over the terms.

    term      weight         read from   divided by, of the global batch
    sft       1              SFT rows    supervised tokens
    balance   balance_coef   SFT rows    supervised tokens; only with experts
    dpo       lambda         pairs       valid pairs

A method may have terms of its own: a `Term` here or beside it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ealign import losses
from ealign.data.batch import PairBatch, SFTBatch
from ealign.models import moe
from ealign.models.config import Config


@dataclasses.dataclass(frozen=True)
class Term:
  """One part of the objective. Compared by identity: make each once.

  name: its mean is logged as 'loss_<name>'.
  per: 'tokens' or 'pairs': what it is a mean over. It reads the SFT rows of
    the data and of a method, or the pairs.
  weight: fn(model, hp) -> the factor of its mean in the objective.
  sums: fn(model, hp, stats, rows) -> (loss, {metric: value}), both summed over
    tokens or pairs, or None where the model has nothing of it. stats are
    those of `losses.token_stats` of these rows, and 'routing', that of
    `transformer.forward_routed`: None without experts.
  """

  name: str
  per: str
  weight: Callable[..., Any]
  sums: Callable[..., tuple[jax.Array, dict] | None]


def _sft(model, hp, stats, sft: SFTBatch):
  del model, hp
  mask_BT = sft.loss_mask_BT[:, 1:]
  total = lambda name: jnp.sum(stats[name] * mask_BT)
  metrics = {'entropy': total('entropy'), 'mean_token_accuracy': total('top1')}
  return jnp.sum(losses.sft(stats['logp'], mask_BT)), metrics


def _balance(model: Config, hp, stats, sft: SFTBatch):
  del hp
  if stats['routing'] is None:  # no experts
    return None
  tokens_B = jnp.sum(sft.positions_BT >= 0, axis=-1)
  balance_B = moe.balance_loss(stats['routing'], tokens_B * model.layers)
  # A row counts as its supervised tokens do, as in the loss beside it.
  return jnp.sum(balance_B * jnp.sum(sft.loss_mask_BT[:, 1:], axis=-1)), {}


class _Answers(NamedTuple):
  """Of the (chosen, rejected) answers.

  beta * (log p - ref), log p, mean logit, and tokens.
  """

  reward_P2: jax.Array
  logps_P2: jax.Array
  logit_P2: jax.Array
  tokens_P2: jax.Array

  @property
  def margin_P(self):
    return self.reward_P2[:, 0] - self.reward_P2[:, 1]


# What is logged of pairs: the mean of each over the valid ones.
PAIR_METRICS = {
  'rewards/margins': lambda x: x.margin_P,
  'rewards/accuracies': lambda x: (x.margin_P > 0).astype(jnp.float32),
  'rewards/chosen': lambda x: x.reward_P2[:, 0],
  'rewards/rejected': lambda x: x.reward_P2[:, 1],
  'logps/chosen': lambda x: x.logps_P2[:, 0],
  'logps/rejected': lambda x: x.logps_P2[:, 1],
  'logps/chosen_per_token': lambda x: x.logps_P2[:, 0] / x.tokens_P2[:, 0],
  'logits/chosen': lambda x: x.logit_P2[:, 0],
  'logits/rejected': lambda x: x.logit_P2[:, 1],
}


def _dpo(variant: losses.Variant, model, hp, stats, pairs: PairBatch):
  del model
  mask_BT = pairs.loss_mask_BT[:, 1:]
  split = lambda x: x.reshape(-1, 2)
  logps_P2 = split(-losses.sft(stats['logp'], mask_BT))
  ref_P2 = split(pairs.ref_logps_B)
  lengths_P2 = split(jnp.sum(mask_BT, axis=-1))
  logit_P2 = split(jnp.sum(stats['logit'] * mask_BT, axis=-1))
  own = {name: getattr(hp, name) for name in variant.coefficients}
  loss_P = variant.loss(logps_P2, ref_P2, lengths_P2, **own)
  answers = _Answers(
    reward_P2=hp.beta * (logps_P2 - ref_P2),
    logps_P2=logps_P2,
    logit_P2=logit_P2 / jnp.maximum(lengths_P2, 1.0),
    tokens_P2=jnp.maximum(lengths_P2, 1.0),
  )
  total = lambda x_P: jnp.sum(x_P * pairs.weight_P)
  metrics = {name: total(of(answers)) for name, of in PAIR_METRICS.items()}
  return total(loss_P), metrics


SFT = Term('sft', 'tokens', lambda model, hp: 1.0, _sft)
BALANCE = Term(
  'balance', 'tokens', lambda model, hp: model.balance_coef, _balance
)
DPO = {
  name: Term(
    'dpo', 'pairs', lambda model, hp: hp.lam, functools.partial(_dpo, variant)
  )
  for name, variant in losses.VARIANTS.items()
}


def hybrid(variant: str = 'sigmoid') -> tuple[Term, ...]:
  """The terms of the paper's method. variant: key of `losses.VARIANTS`."""
  return SFT, BALANCE, DPO[variant]
