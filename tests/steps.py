"""Steps of a tiny decoder on a batch by hand, for the tests of `align`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ealign import align
from ealign.data import batch as batch_lib
from ealign.models import config as config_lib
from ealign.models import lora, transformer

MODEL = config_lib.Config(
  vocab_size=61,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  tie_embeddings=False,
)
ROWS, LENGTH, SLOTS = 4, 14, 4
KEEP = optax.trace(decay=0.0)  # its state is the gradient: see `gradients`
UPDATE = align.Update(
  model=MODEL,
  bind=functools.partial(lora.bind, 2.0),
  tx=optax.chain(KEEP, optax.scale_by_adam()),
  schedule=align.schedule('constant', 0, 0),
  chunk=100,
)
PAIRS = (  # prompts and answers of unequal lengths
  batch_lib.Pair(0, 0, (1, 2, 3), (10, 11, 12, 9), (20, 21, 9), 0.0, 0.0),
  batch_lib.Pair(1, 0, (4, 5), (13, 9), (22, 23, 24, 25, 9), 0.0, 0.0),
  batch_lib.Pair(2, 0, (1, 6, 7, 8), (14, 15, 9), (26, 27, 9), 0.0, 0.0),
)


def hp(lam=0.1, beta=0.1, label_smoothing=0.0, lr=0.01):
  return align.Hp(*(jnp.float32(x) for x in (lam, beta, label_smoothing, lr)))


def random_tree(like, seed, size):
  rng = np.random.default_rng(seed)
  fill = lambda x: jnp.asarray(size * rng.normal(size=x.shape), jnp.float32)
  return jax.tree.map(fill, like)


def frozen_weights():
  init = functools.partial(transformer.init, MODEL, key=jax.random.key(0))
  return random_tree(jax.eval_shape(init), 0, 0.4)


def fresh_adapter(seed=1):
  init = functools.partial(lora.init, MODEL, key=jax.random.key(0), rank=2)
  adapter = random_tree(jax.eval_shape(init), seed, 0.3)
  zero = lambda ab: ab | {'b': jnp.asarray(np.zeros_like(ab['b']))}
  return {name: zero(ab) for name, ab in adapter.items()}


def moved_adapter():
  """An adapter that has been trained: the policy is not the reference."""
  return random_tree(fresh_adapter(), 2, 0.2)


def sft_batch(supervised=(9, 2, 5, 0)):
  """Packed rows of two segments; so many supervised tokens in each row."""
  tokens = np.random.default_rng(3).integers(0, 61, (ROWS, LENGTH), np.int32)
  positions = np.tile(np.r_[0:8, 0:5, -1].astype(np.int32), (ROWS, 1))
  segments = np.tile(
    np.repeat([1, 2, 0], [8, 5, 1]).astype(np.int32), (ROWS, 1)
  )
  mask = np.zeros((ROWS, LENGTH), np.float32)
  targets = np.r_[2:8, 10:13]  # never a segment's first token
  for row, n in enumerate(supervised):
    mask[row, targets[:n]] = 1
  return batch_lib.SFTBatch(tokens, positions, segments, mask)


def pair_batch(pairs=PAIRS, frozen=None):
  """The pairs in SLOTS slots, with the reference's log-probs if asked."""
  batch = batch_lib.pair_batch(pairs, SLOTS, LENGTH)
  if frozen is not None:
    refs = np.array(scored(frozen, batch))
    batch = batch.replace(ref_logps_B=refs * np.repeat(batch.weight_P > 0, 2))
  return batch


scored = jax.jit(functools.partial(align.answer_logps, MODEL, chunk=5))


# Compiling the gradient of the decoder takes seconds, so few programs do it:
# what does not depend on the decoder is tested with `light` in its place.
@functools.lru_cache
def step_of(update):
  return jax.jit(functools.partial(align.train_step, update), donate_argnums=0)


def per_token(config, weights, tokens_BT, positions_BT, *_):
  """In place of the decoder: one projection, each token by itself."""
  del config, positions_BT
  adapter = jax.tree.map(lambda x: x[0], weights['adapter']['q'])
  low = jax.tree.map(lambda x: x[:, :16] if x.shape[1] == 32 else x, adapter)
  x_BTD = weights['embed'][tokens_BT]
  w = weights['layers']['q'][0, :, :16]
  return jnp.tanh(lora.project(x_BTD, w, low)), None, None, None


@functools.partial(jax.jit, static_argnums=0)
def new_state(update, params, hyper):
  return align.init_state(update, params, hyper)


def gradients(params, frozen, batch, *, lam=0.1, beta=0.1, **fields):
  """(gradient, metrics) of a step; params stay as they are."""
  update = dataclasses.replace(UPDATE, **fields)
  state = new_state(update, params, hp(lam=lam, beta=beta))
  state, metrics = step_of(update)(state, frozen, batch)
  return state.opt[0].trace, metrics


def relative(got, wanted):
  """Relative L2 distance of two trees."""
  flat = lambda tree: np.concatenate(
    [np.ravel(x) for x in jax.tree.leaves(tree)]
  )
  return np.linalg.norm(flat(got) - flat(wanted)) / np.linalg.norm(flat(wanted))


def arrays_of(jaxpr):
  """Every intermediate of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    yield from (v.aval for v in eqn.outvars)
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from arrays_of(inner)
