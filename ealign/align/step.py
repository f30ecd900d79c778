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
from ealign.align import accumulate
from ealign.align.terms import Term, hybrid
from ealign.data.batch import Batch, PairBatch
from ealign.fields import Config
from ealign.models import config as models
from ealign.models import layout, sharding, transformer

# Fields of `dpo` that are traced, so that cells of a grid share one program.
TRACED = ('lam', *losses.COEFFICIENTS)
Hp = jax.tree_util.register_dataclass(
  dataclasses.make_dataclass('Hp', (*TRACED, 'lr'), frozen=True)
)


def hyper(config: Config) -> Hp:
  """The traced hyper-parameters of a run."""
  dpo = {name: getattr(config.dpo, name) for name in TRACED}
  return jax.tree.map(jnp.float32, Hp(**dpo, lr=config.optim.lr))


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
  multiplies it by hp.lr * schedule(step). terms: of the objective. reference:
  'cached' reads the pairs' ref_logps, 'step' computes them here: the loss is
  the same. microbatches: accumulated with global counts. chunk: tokens whose
  logits exist at a time.
  """

  model: models.Config
  bind: Callable
  tx: optax.GradientTransformation
  schedule: Callable
  terms: tuple[Term, ...] = hybrid()
  reference: str = 'cached'
  microbatches: int = 1
  chunk: int = 512


def full(params, frozen):
  """The policy of full fine-tuning: the parameters themselves."""
  del frozen
  return params


# The decay of the learning rate by the share of the steps that are done.
SCHEDULES = {
  'constant': lambda done: jnp.ones(()),
  'linear': lambda done: 1 - done,
  'cosine': lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
}


def schedule(name: str, warmup: int, steps: int) -> Callable:
  """Factor on the learning rate by step: linear warm-up, then the decay.

  name: key of `SCHEDULES`. Each but 'constant' falls to zero at `steps`.
  """

  def factor(step):
    warm = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
    span = max(steps - warmup, 1)
    done = jnp.clip((step - warmup) / span, 0.0, 1.0)
    return warm * SCHEDULES[name](done)

  return factor


def init_state(update: Update, params: dict, hp: Hp) -> TrainState:
  """Step 0. hp is copied: a donated state must not share a buffer."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt=update.tx.init(params),
    hp=jax.tree.map(jnp.copy, hp),
  )


def of_targets(fn, model: models.Config, weights, batch, *, chunk: int = 512):
  """fn of each target token [B, T-1] of some rows: those after the first.

  fn: `losses.token_stats` or `losses.token_logps`. Returns its result and the
  routing of `transformer.forward_routed`.
  """
  segments_BT = getattr(batch, 'segments_BT', None)
  hidden_BTD, _, _, routing_B2E = transformer.forward_routed(
    model, weights, batch.tokens_BT, batch.positions_BT, segments_BT
  )
  head_DV, sizes = transformer.head(model, weights), layout.scoring(model)
  rows = hidden_BTD[:, :-1], batch.tokens_BT[:, 1:]
  return fn(head_DV, *rows, chunk=chunk, **sizes), routing_B2E


def answer_logps(
  model: models.Config, weights, pairs: PairBatch, *, chunk: int = 512
):
  """log p(answer | prompt) of each row of a pair batch, [2P], nats."""
  own = model, weights, pairs
  logps_BT, _ = of_targets(losses.token_logps, *own, chunk=chunk)
  return -losses.sft(logps_BT, pairs.loss_mask_BT[:, 1:])


def counts(batch: Batch) -> dict:
  """Supervised tokens and weights of pairs of the whole (global) batch."""
  pairs = 0.0 if batch.pairs is None else jnp.sum(batch.pairs.weight_P)
  tokens = jnp.asarray(batch.supervised)
  return {'tokens': tokens, 'pairs': jnp.asarray(pairs)}


def objective(update: Update, hp: Hp, count: dict, weights, piece: Batch):
  """The sum of the terms over a piece of the batch whose `counts` are given.

  Returns the loss and a flat dict of metrics; summed over the pieces both are
  those of the whole batch. A term whose rows are not there adds nothing: a
  batch without pairs is plain SFT, one without SFT rows is lambda L_DPO alone.
  """
  read, *_ = piece.parts.values()  # by the one forward pass
  # Adapters leave the head as it is.
  fn = functools.partial(losses.token_stats, frozen=update.bind is not full)
  of_read, routing_B2E = of_targets(
    fn, update.model, weights, read, chunk=update.chunk
  )
  of_read |= {'routing': routing_B2E}
  loss, metrics = jnp.zeros(()), {}
  for name, rows in piece.parts.items():
    stats, per = of_read, 'pairs' if name == 'pairs' else 'tokens'
    if rows is not read:  # the pairs' answers lie in the SFT rows
      unfold = functools.partial(accumulate.unfold, pairs=rows)
      stats = jax.tree.map(unfold, stats | {'routing': None})
    n = jnp.maximum(count[per], 1.0)
    for term in update.terms:
      summed = term.per == per and term.sums(update.model, hp, stats, rows)
      if summed:
        total, sums = summed
        loss += term.weight(update.model, hp) * total / n
        metrics[f'loss_{term.name}'] = total / n
        metrics |= {k: v / n for k, v in sums.items()}
  return loss, metrics | {'loss': loss}


def gradients(update: Update, state: TrainState, frozen, batch: Batch):
  """Gradient of the objective by `params`, and the metrics of the old ones.

  Accumulated over `update.microbatches` equal slices of the batch; N slices
  equal one batch up to rounding. Within a slice SFT rows and pairs go one
  after the other (`accumulate.over`).
  """
  count, n = counts(batch), update.microbatches

  @functools.partial(jax.grad, has_aux=True)
  def grad(params, frozen, piece):
    weights = update.bind(params, frozen)
    return objective(update, state.hp, count, weights, piece)

  def of_slice(params, frozen, batch):
    if batch.pairs is not None and update.reference == 'step':
      ref = answer_logps(update.model, frozen, batch.pairs, chunk=update.chunk)
      batch = batch.replace(pairs=batch.pairs.replace(ref_logps_B=ref))
    return accumulate.over(grad, params, frozen, batch)

  if n == 1:
    return of_slice(state.params, frozen, batch)
  slices = accumulate.slices(batch, n, layout.shards(update.model))
  return accumulate.scanned(of_slice, state.params, frozen, slices)


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
  if batch.pairs is not None:
    metrics['pairs'] = jnp.sum(batch.pairs.weight_P > 0, dtype=jnp.float32)
  state = state.replace(step=state.step + 1, params=params, opt=opt)
  return sharding.constrain(update.model, state), metrics
