"""The method, on one page: state, hybrid loss, update.

        SFT batch ----------------> L_SFT -----------------.
                                                            + -> one update
   replay of pairs --> beta * ((logp_c - ref_c)             |    of `params`
   (alternative c,              - (logp_r - ref_r))         |
    flagged answer r)  -> L_DPO -------------- * lambda ----'

`frozen` is the weights of the conscience and of the reference; `params` is
what is trained (an adapter, or all weights); `bind(params, frozen)` are the
weights of the policy. Emergent Alignment, arXiv 2606.19527:
L = L_SFT + lambda L_DPO. What fills the replay is in `conscience`.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import optax

from ealign import losses
from ealign.align import folding
from ealign.data.batch import Batch, PairBatch, SFTBatch
from ealign.models import layout, moe, sharding, transformer
from ealign.models.config import Config

DPO = {
  'sigmoid': losses.dpo_sigmoid,
  'ipo': losses.dpo_ipo,
  'sft': losses.dpo_alternatives,
}


@flax.struct.dataclass
class Hp:
  """What is traced, so that arms of a grid share one program."""

  lam: jax.Array
  beta: jax.Array
  label_smoothing: jax.Array
  lr: jax.Array


@flax.struct.dataclass
class TrainState:
  """Everything an update changes, and its hyper-parameters; donated."""

  step: jax.Array
  params: dict
  opt: optax.OptState
  hp: Hp


@dataclasses.dataclass(frozen=True)
class Update:
  """The static part of an update.

  bind: (params, frozen) -> policy weights. tx: yields a direction; the step
  multiplies it by hp.lr * schedule(step). variant: key of `DPO`. reference:
  'cached' reads the pairs' ref_logps, 'step' computes them here: the loss is
  the same. microbatches: accumulated with global counts. chunk: tokens whose
  logits exist at a time.
  """

  model: Config
  bind: Callable
  tx: optax.GradientTransformation
  schedule: Callable
  variant: str = 'sigmoid'
  reference: str = 'cached'
  microbatches: int = 1
  chunk: int = 512


def full(params, frozen):
  """The policy of full fine-tuning: the parameters themselves."""
  del frozen
  return params


def schedule(name: str, warmup: int, steps: int) -> Callable:
  """Factor on the learning rate by step: linear warm-up, then the decay.

  name: 'constant', or 'linear' or 'cosine' to zero at `steps`.
  """

  def factor(step):
    warm = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
    span = max(steps - warmup, 1)
    done = jnp.clip((step - warmup) / span, 0.0, 1.0)
    decay = {
      'constant': jnp.ones(()),
      'linear': 1 - done,
      'cosine': 0.5 * (1 + jnp.cos(jnp.pi * done)),
    }[name]
    return warm * decay

  return factor


def init_state(update: Update, params: dict, hp: Hp) -> TrainState:
  """Step 0. hp is copied: a donated state must not share a buffer."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt=update.tx.init(params),
    hp=jax.tree.map(jnp.copy, hp),
  )


def token_stats(update: Update, weights, batch):
  """Statistics of each target token [B, T-1], and the routing.

  The last is that of `transformer.forward_routed`: None without experts.
  """
  hidden_BTD, _, _, routing_B2E = transformer.forward_routed(
    update.model,
    weights,
    batch.tokens_BT,
    batch.positions_BT,
    getattr(batch, 'segments_BT', None),
  )
  stats = losses.token_stats(
    transformer.head(update.model, weights),
    hidden_BTD[:, :-1],
    batch.tokens_BT[:, 1:],
    chunk=update.chunk,
    **layout.scoring(update.model),
  )
  return stats, routing_B2E


def answer_logps(model: Config, weights, pairs: PairBatch, *, chunk: int = 512):
  """log p(answer | prompt) of each row of a pair batch, [2P], nats."""
  hidden_BTD, _, _ = transformer.forward(
    model, weights, pairs.tokens_BT, pairs.positions_BT
  )
  logps_BT = losses.token_logps(
    transformer.head(model, weights),
    hidden_BTD[:, :-1],
    pairs.tokens_BT[:, 1:],
    chunk=chunk,
    **layout.scoring(model),
  )
  return -losses.sft(logps_BT, pairs.loss_mask_BT[:, 1:])


def _sft_sums(update, sft: SFTBatch, stats, routing_B2E):
  mask_BT = sft.loss_mask_BT[:, 1:]
  total = lambda name: jnp.sum(stats[name] * mask_BT)
  sums = {'entropy': total('entropy'), 'top1': total('top1')}
  if routing_B2E is not None:
    tokens_B = jnp.sum(sft.positions_BT >= 0, axis=-1)
    balance_B = moe.balance_loss(routing_B2E, tokens_B * update.model.layers)
    # A row counts as its supervised tokens do, as in the loss beside it.
    sums['balance'] = jnp.sum(balance_B * jnp.sum(mask_BT, axis=-1))
  return jnp.sum(losses.sft(stats['logp'], mask_BT)), sums


def _dpo_sums(update, hp, pairs: PairBatch, stats):
  mask_BT = pairs.loss_mask_BT[:, 1:]
  split = lambda x: x.reshape(-1, 2)
  logps_P2 = split(-losses.sft(stats['logp'], mask_BT))
  ref_P2 = split(pairs.ref_logps_B)
  loss_P = DPO[update.variant](
    logps_P2,
    ref_P2,
    split(jnp.sum(mask_BT, axis=-1)),
    beta=hp.beta,
    label_smoothing=hp.label_smoothing,
  )
  reward_P2 = hp.beta * (logps_P2 - ref_P2)
  logit_P2 = split(jnp.sum(stats['logit'] * mask_BT, axis=-1))
  logit_P2 /= jnp.maximum(split(jnp.sum(mask_BT, axis=-1)), 1.0)
  margin_P = reward_P2[:, 0] - reward_P2[:, 1]
  total = lambda x_P: jnp.sum(x_P * pairs.weight_P)
  sums = {'rewards/margins': total(margin_P)}
  sums['rewards/accuracies'] = total((margin_P > 0).astype(jnp.float32))
  for i, side in enumerate(('chosen', 'rejected')):
    sums[f'rewards/{side}'] = total(reward_P2[:, i])
    sums[f'logps/{side}'] = total(logps_P2[:, i])
    sums[f'logits/{side}'] = total(logit_P2[:, i])
  return total(loss_P), sums


def counts(batch: Batch) -> dict:
  """Supervised tokens and valid pairs of the whole (global) batch."""
  tokens = 0.0 if batch.sft is None else jnp.sum(batch.sft.loss_mask_BT[:, 1:])
  pairs = 0.0 if batch.pairs is None else jnp.sum(batch.pairs.weight_P)
  return {'tokens': jnp.asarray(tokens), 'pairs': jnp.asarray(pairs)}


def hybrid_loss(update: Update, hp: Hp, batch: Batch, count, of_sft, of_pairs):
  """L_SFT + lambda L_DPO, each over the counts of the global batch.

  of_sft, of_pairs: `token_stats` of the rows of either part.

  Returns the loss and a flat dict of metrics; summed over microbatches both
  are those of the whole batch. A batch without pairs is plain SFT, one
  without an SFT part is lambda L_DPO alone. With experts, the load-balancing
  loss of the SFT rows comes on top, times `balance_coef`.
  """
  n_tokens = jnp.maximum(count['tokens'], 1.0)
  n_pairs = jnp.maximum(count['pairs'], 1.0)
  loss, metrics = jnp.zeros(()), {}
  if batch.sft is not None:
    nll, sums = _sft_sums(update, batch.sft, *of_sft)
    loss += nll / n_tokens
    metrics |= {
      'loss_sft': nll / n_tokens,
      'entropy': sums['entropy'] / n_tokens,
      'mean_token_accuracy': sums['top1'] / n_tokens,
    }
    if 'balance' in sums:
      metrics['loss_balance'] = sums['balance'] / n_tokens
      loss += update.model.balance_coef * metrics['loss_balance']
  if batch.pairs is not None:
    dpo, sums = _dpo_sums(update, hp, batch.pairs, of_pairs[0])
    loss += hp.lam * dpo / n_pairs
    metrics |= {k: v / n_pairs for k, v in sums.items()}
    metrics['loss_dpo'] = dpo / n_pairs
  return loss, metrics | {'loss': loss}


def gradients(update: Update, state: TrainState, frozen, batch: Batch):
  """Gradient of the hybrid loss by `params`, and the metrics of the old ones.

  Accumulated over `update.microbatches` equal slices of the batch; N slices
  equal one batch up to rounding. The SFT part and the pairs go one after the
  other, so that only one of them has its layers' inputs in memory; where both
  fill rows of one shape, one body computes both, half as much to compile.
  """
  count, n = counts(batch), update.microbatches

  @functools.partial(jax.grad, has_aux=True)
  def one(params, frozen, piece):
    weights = update.bind(params, frozen)
    of = lambda part: part and token_stats(update, weights, part)
    parts = of(piece.sft), of(piece.pairs)
    return hybrid_loss(update, state.hp, piece, count, *parts)

  def grad(params, frozen, piece):
    if piece.pairs is not None and update.reference == 'step':
      ref = answer_logps(update.model, frozen, piece.pairs, chunk=update.chunk)
      piece = piece.replace(pairs=piece.pairs.replace(ref_logps_B=ref))
    if piece.sft is None or piece.pairs is None:
      return one(params, frozen, piece)
    if folding.fits(piece):
      return _folded(update, state.hp, params, frozen, piece, count)
    first = one(params, frozen, Batch(sft=piece.sft))
    # Without the barrier the compiler would run both forward passes first.
    params, (grads, metrics) = jax.lax.optimization_barrier((params, first))
    more, others = one(params, frozen, Batch(pairs=piece.pairs))
    loss = metrics['loss'] + others['loss']
    grads = jax.tree.map(jnp.add, grads, more)
    return grads, metrics | others | {'loss': loss}

  if n == 1:
    return grad(state.params, frozen, batch)
  shards = layout.shards(update.model)

  def cut(x):  # each device's rows, not the first device's rows first
    parts = x.reshape(shards, n, -1, *x.shape[1:]).swapaxes(0, 1)
    return parts.reshape(n, -1, *x.shape[1:])

  return folding.summed(grad, state.params, frozen, jax.tree.map(cut, batch))


def _folded(update, hp, params, frozen, batch: Batch, count):
  """The gradient of both parts in turn, by one body (`folding`)."""

  @functools.partial(jax.grad, has_aux=True)
  def part(params, frozen, piece):
    rows, counted = piece
    stats, routing = token_stats(update, update.bind(params, frozen), rows)
    pairs = batch.pairs.replace(weight_P=counted * batch.pairs.weight_P)
    of_pairs = {k: folding.answers(x, pairs) for k, x in stats.items()}
    parts = (stats, routing), (of_pairs, None)
    return hybrid_loss(update, hp, Batch(rows, pairs), count, *parts)

  pieces = folding.rows(batch), jnp.array([0.0, 1.0])
  return folding.summed(part, params, frozen, pieces)


def train_step(update: Update, state: TrainState, frozen, batch: Batch):
  """One update. Pure; `frozen` is never differentiated, donated or returned.

  Returns the new state and flat scalar metrics of the old parameters.
  """
  grads, metrics = gradients(update, state, frozen, batch)
  direction, opt = update.tx.update(grads, state.opt, state.params)
  lr = state.hp.lr * update.schedule(state.step)
  params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
  metrics |= {'grad_norm': optax.tree.norm(grads), 'learning_rate': lr}
  metrics |= counts(batch)
  state = state.replace(step=state.step + 1, params=params, opt=opt)
  return sharding.constrain(update.model, state), metrics
