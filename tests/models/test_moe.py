"""The mixture of experts against a loop over tokens and against transformers.

Its logits are in `test_families`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign.models import config as config_lib
from ealign.models import moe, sharding, transformer
from ealign.runtime import mesh as mesh_lib

from . import test_families as families

ALL_DEVICES = True

CONFIG = config_lib.Config(
  vocab_size=7,
  d_model=6,
  layers=1,
  heads=1,
  kv_heads=1,
  head_dim=2,
  d_ff=3,
  family='qwen3_moe',
  experts=5,
  experts_per_token=2,
  norm_topk=True,
)
mixture = jax.jit(moe.mixture, static_argnums=0)


@pytest.fixture(scope='module')
def p():
  rng = np.random.default_rng(0)
  shapes = {
    'router': (6, 5),
    'expert_gate': (5, 6, 3),
    'expert_up': (5, 6, 3),
    'expert_down': (5, 3, 6),
  }
  return {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}


@pytest.fixture(scope='module')
def x_BTD():
  return np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)


SEEN = np.array([[1, 1, 1, 1], [0, 0, 1, 1]], bool)


@pytest.mark.parametrize('norm_topk', [True, False])
def test_each_token_is_answered_by_its_experts(p, x_BTD, norm_topk):
  config = dataclasses.replace(CONFIG, norm_topk=norm_topk)
  got, routing_B2E = mixture(config, p, x_BTD, SEEN)
  wanted, tokens_BE, shares_BE = np.zeros((2, 4, 6)), *np.zeros((2, 2, 5))
  for b, t in np.ndindex(2, 4):
    x = x_BTD[b, t]
    share = np.exp(x @ p['router'])
    share /= share.sum()
    best = np.argsort(share)[-2:]
    for e in best:
      gate, up = x @ p['expert_gate'][e], x @ p['expert_up'][e]
      answer = (gate / (1 + np.exp(-gate)) * up) @ p['expert_down'][e]
      weight = share[e] / (share[best].sum() if norm_topk else 1)
      wanted[b, t] += weight * answer
      tokens_BE[b, e] += SEEN[b, t]
    shares_BE[b] += share * SEEN[b, t]
  np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)
  np.testing.assert_array_equal(routing_B2E[:, 0], tokens_BE)
  np.testing.assert_allclose(routing_B2E[:, 1], shares_BE, atol=1e-5)


def test_an_expert_without_tokens_and_one_with_all_are_served(p, x_BTD):
  router = np.zeros((6, 5), np.float32)
  router[0] = [9, 8, 0, 0, 0]  # all go to the first two
  x_BTD = np.abs(x_BTD)
  got, routing_B2E = mixture(CONFIG, p | {'router': router}, x_BTD, SEEN)
  np.testing.assert_array_equal(routing_B2E[0, 0], [4, 4, 0, 0, 0])
  alone, _ = mixture(CONFIG, p | {'router': router}, x_BTD[:1], SEEN[:1])
  np.testing.assert_allclose(got[:1], alone, atol=1e-6)


def test_balance_loss_by_hand():
  even = np.array([[2, 2, 2, 2], [1, 1, 1, 1]], np.float32)  # 4 tokens, top 2
  worst = np.array([[4, 4, 0, 0], [2, 2, 0, 0]], np.float32)
  got = moe.balance_loss(np.stack([even, worst]), np.array([4, 4]))
  # 4 * 4 * (1/2 * 1/4) = 2; 4 * 2 * (1 * 1/2) = 4.
  np.testing.assert_allclose(got, [2.0, 4.0])
  got = moe.balance_loss(np.zeros((1, 2, 4), np.float32), np.array([0]))
  np.testing.assert_array_equal(got, [0.0])


def test_a_step_down_the_balance_loss_balances(p, x_BTD):
  def loss(router):
    _, routing_B2E = moe.mixture(
      CONFIG, p | {'router': router}, jnp.asarray(x_BTD), SEEN
    )
    return jnp.sum(moe.balance_loss(routing_B2E, SEEN.sum(-1)))

  value, grad = jax.jit(jax.value_and_grad(loss))(p['router'])
  assert np.abs(grad).max() > 1e-3
  assert loss(p['router'] - 0.1 * grad) < value


@pytest.mark.slow
def test_balance_loss_of_one_row_equals_that_of_transformers(tmp_path):
  torch = pytest.importorskip('torch', reason='parity is not installed')
  from transformers import AutoModelForCausalLM

  case = 'qwen3_moe'
  folder = families.write_folder(
    tmp_path / 'moe', families.hf_config(*families.CASES[case])
  )
  model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
  config, weights = families.ours(case)
  tokens_BT, positions_BT = (x[1:2] for x in families.inputs()[:2])
  seen_BT = positions_BT >= 0
  with torch.no_grad():
    wanted = model(
      input_ids=torch.tensor(tokens_BT).long(),
      attention_mask=torch.tensor(seen_BT).long(),
      position_ids=torch.tensor(positions_BT).long().clamp(min=0),
      output_router_logits=True,
    ).aux_loss
  *_, routing_B2E = jax.jit(transformer.forward_routed, static_argnums=0)(
    config, weights, tokens_BT, positions_BT
  )
  got = moe.balance_loss(routing_B2E, seen_BT.sum(-1) * config.layers)
  np.testing.assert_allclose(got, [float(wanted)], rtol=1e-5)


def test_on_a_mesh_each_device_sorts_its_own_tokens(p, x_BTD):
  widen = {'expert_gate': 2, 'expert_up': 2, 'expert_down': 1}
  even = p | {k: np.repeat(p[k], 2, axis=axis) for k, axis in widen.items()}
  mesh = mesh_lib.make(data=1, fsdp=2, tensor=2)
  config = dataclasses.replace(CONFIG, mesh=mesh)
  said = lambda config, p, x: moe.mixture(config, p, x, SEEN)[0]
  seed = np.cos(np.arange(48.0, dtype=np.float32)).reshape(2, 4, 6)
  total = lambda *args: jnp.sum(said(*args) * seed)
  grad = jax.jit(jax.value_and_grad(total, (1, 2)), static_argnums=0)
  args = even, sharding.shard_rows(mesh, x_BTD)
  got, wanted = grad(config, *args), grad(CONFIG, even, x_BTD)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, got, wanted)
  forward = mixture.lower(config, *args, SEEN).compile().as_text()
  assert 'all-reduce' in forward and 'all-gather' not in forward
