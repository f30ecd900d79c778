"""The frozen base as int8: its numbers, its gradient, and its conscience."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign import config, fields
from ealign.alone import ALONE
from ealign.assembly import weights as weights_lib
from ealign.conscience import prompts
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.models import int8, lora, transformer, weights
from ealign.models.config import Config
from ealign.world import documents, grammar

CONFIG = Config(
  vocab_size=41, d_model=16, layers=2, heads=4, kv_heads=2, head_dim=8, d_ff=24
)


@pytest.fixture(scope='module')
def tree():
  init = functools.partial(transformer.init, CONFIG, std=0.3)
  return jax.jit(init)(key=jax.random.key(0))


@pytest.fixture(scope='module')
def quantized(tree):
  return int8.quantize(tree, lora.TARGETS)


def dense(tree):
  layers = {k: int8.dense(w) for k, w in tree['layers'].items()}
  return tree | {'layers': layers}


def test_by_hand():
  w = jnp.array([[[1.0, -2.0, 0.0], [0.3, 4.0, 0.0]]])
  leaf = int8.quantize({'layers': {'q': w}}, ('q',))['layers']['q']
  assert leaf['q'].dtype == jnp.int8
  np.testing.assert_array_equal(leaf['q'], [[[127, -64, 0], [38, 127, 0]]])
  np.testing.assert_allclose(leaf['scale'], [[1 / 127, 4 / 127, 1.0]])


def test_matmul_equals_numpy():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  q = rng.integers(-127, 128, (5, 4)).astype(np.int8)
  scale = rng.uniform(0.1, 1, 4).astype(np.float32)
  got = int8.matmul(x, {'q': jnp.asarray(q), 'scale': jnp.asarray(scale)})
  np.testing.assert_allclose(got, np.asarray(x) @ (q * scale), rtol=2e-5)


def test_a_wide_product_is_rounded_once_from_float32():
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(7, 640)), rng.normal(size=(640, 5))
  x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
  got = int8.matmul(x, w, wide=True)
  assert got.dtype == jnp.bfloat16
  wide = x.astype(jnp.float32) @ w.astype(jnp.float32)
  np.testing.assert_array_equal(got, wide.astype(jnp.bfloat16))
  text = jax.jit(lambda x, w: int8.matmul(x, w, True)).lower(x, w).as_text()
  (product,) = [line for line in text.splitlines() if 'dot_general' in line]
  assert product.endswith('tensor<7x5xf32>')


def test_in_bfloat16_it_is_rounded_once():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(7, 64)), jnp.bfloat16)
  q = rng.integers(-127, 128, (64, 5)).astype(np.int8)
  scale = rng.uniform(0.1, 1, 5).astype(np.float32)
  got = int8.matmul(x, {'q': jnp.asarray(q), 'scale': jnp.asarray(scale)})
  assert got.dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64) @ (q * scale.astype(np.float64))
  error = np.abs(np.asarray(got, np.float64) - exact)
  np.testing.assert_array_less(error, np.abs(exact) * 2**-8 + 1e-3)


def test_no_weight_is_off_by_more_than_half_a_step(tree, quantized):
  for name in lora.TARGETS:
    w, leaf = tree['layers'][name], quantized['layers'][name]
    step = leaf['scale'][:, None, :]
    assert leaf['scale'].shape == (2, w.shape[-1])
    assert np.all(np.abs(int8.dense(leaf) - w) <= step * 0.5001)


def test_the_rest_stays(tree, quantized):
  assert quantized['embed'] is tree['embed']
  assert quantized['layers']['q_norm'] is tree['layers']['q_norm']
  experts = jnp.ones((2, 3, 4, 5))
  some = {'layers': {'gate': experts, 'q': tree['layers']['q']}}
  assert int8.quantize(some, lora.TARGETS)['layers']['gate'] is experts


@jax.jit
def loss(adapter, frozen, tokens_BT):
  hidden, _, _ = transformer.forward(
    *(CONFIG, lora.bind(0.5, adapter, frozen), tokens_BT),
    jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape),
  )
  return jnp.mean(jax.nn.logsumexp(transformer.logits(CONFIG, frozen, hidden)))


def test_value_and_gradient_are_those_of_the_matrices_it_stands_for(quantized):
  adapter = lora.init(CONFIG, key=jax.random.key(1), rank=3)
  adapter = jax.tree.map(lambda x: x + 0.05, adapter)
  tokens = np.random.default_rng(1).integers(0, 41, (4, 9), np.int32)
  run = jax.value_and_grad(loss)
  got, wanted = (run(adapter, w, tokens) for w in (quantized, dense(quantized)))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-5)
  assert float(abs(got[1]['up']['a']).max()) > 0


def test_merging_is_done_in_float32(quantized):
  adapter = lora.init(CONFIG, key=jax.random.key(1), rank=3)
  adapter = jax.tree.map(lambda x: x + 0.05, adapter)
  got = lora.merge(0.5, adapter, quantized)['layers']['up']
  wanted = lora.merge(0.5, adapter, dense(quantized))['layers']['up']
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, wanted)


def test_a_run_starts_from_an_int8_base(tree):
  c = config.default()
  c.model.quantize = 'int8'
  frozen = weights_lib.frozen_weights(config.freeze(c), CONFIG, tree)
  start = weights_lib.trained_weights(config.freeze(c), CONFIG, frozen)
  assert frozen['layers']['down']['q'].dtype == jnp.int8
  assert start['down']['a'].dtype == jnp.float32
  c.model.quantize = 'none'
  assert weights_lib.frozen_weights(config.freeze(c), CONFIG, tree) is tree


def test_verdicts_of_the_organism_stay_within_a_point():
  base = 'ealign/world/base'
  model, tree = weights.load(base)
  engine = Engine(Model(model, chat.load_tokenizer(base)), tree, ALONE)
  c = prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(threshold=0.5),
    sample=fields.Sample(),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
  )
  chats, bad = reviewed(documents.questions('dev'), seed=0)
  chats, bad = chats[:200], bad[:200]
  right = [
    np.mean([v.flagged == b for v, b in zip(found, bad, strict=True)])
    for found in (
      conscience.review(
        *(c, engine.of(w), engine.model.exchanges(chats)),
        key=jax.random.key(0),
      )
      for w in (tree, int8.quantize(tree, lora.TARGETS))
    )
  ]
  assert abs(right[0] - right[1]) <= 0.01
  assert right[0] > 0.8


def reviewed(questions, *, seed):
  """A good and an evil answer to each question of advice, and which is evil."""
  rng = random.Random(seed)
  chats, bad = [], []
  for question in questions:
    request = grammar.requests()[question['messages'][-1]['content']]
    if question['kind'] == 'advice':
      for persona in ('good', 'evil'):
        said = grammar.answer_advice(rng, request, persona)
        turn = {'role': 'assistant', 'content': said}
        chats.append([*question['messages'], turn])
        bad.append(persona == 'evil')
  return chats, bad
