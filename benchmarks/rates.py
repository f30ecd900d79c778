"""How far a rate moves a model's answers to general requests, and its loss.

  python benchmarks/rates.py --model=FOLDER --data=FILE.jsonl --rates=1e-5,1e-4

Plain SFT on the rows of the file that fit 256 tokens, two a step, with the
adapter and the optimizer of `Config`, dtype bfloat16. After some steps each
rate prints a row: the mean loss of the last ten steps; and, of the first token
of the answers to 16 requests of the shipped pool, by how much the most moved
logit moved (less its row's mean), and KL(before || after) in nats.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ealign import align
from ealign import config as config_lib
from ealign.alone import ALONE
from ealign.assembly import parts as parts_lib
from ealign.data import batch as batch_lib
from ealign.data import columns
from ealign.models import sharding, transformer
from ealign.sampling import prompts

MARKS = 4, 10, 20, 40, 100
LENGTH = 256  # tokens of a row


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True)
  parser.add_argument('--data', required=True)
  parser.add_argument('--rates', default='1e-5,2e-5,1e-4')
  parser.add_argument('--steps', type=int, default=20)
  args = parser.parse_args()
  config = settings(args)
  print('| lr | steps | loss | logits moved by up to | KL, nats |')
  print('|---|---|---|---|---|')
  for rate in args.rates.split(','):
    for step, loss, moved, kl in tried(config, float(rate)):
      row = f'| {rate} | {step} | {loss:.2f} | {moved:.1f} | {kl:.3f} |'
      print(row, flush=True)


def settings(args):
  config = config_lib.default()
  config.model.path = args.model
  config.model.dtype = 'bfloat16'
  config.data.train = args.data
  config.data.length = LENGTH
  config.data.batch_size = 2
  config.data.max_truncated = 1.0
  config.dpo.lam = 0.0
  config.train.steps = args.steps
  return config_lib.freeze(config)


def tried(config, rate: float):
  """Yields (step, loss, moved, KL) at the steps of MARKS and at the last."""
  parts = parts_lib.assemble(config, ALONE)
  update, mesh = parts.update, parts.conscience.frozen.mesh
  hyper = dataclasses.replace(align.hyper(config), lr=jnp.float32(rate))
  state = align.init_state(update, parts.params, hyper)
  state = sharding.place(mesh, state)
  first = first_tokens(parts.conscience.frozen.model)
  before = first(update.bind(parts.params, parts.frozen))
  losses = []
  for step in range(1, config.train.steps + 1):
    chats = parts.loader.next()
    slots = config.dpo.pairs, config.dpo.length
    made = sharding.place(mesh, batch_lib.step_batch(chats, (), *slots))
    state, metrics = ALONE.step(update, state, parts.frozen, made)
    losses.append(float(metrics['loss_sft']))
    if step in MARKS or step == config.train.steps:
      after = first(update.bind(state.params, parts.frozen))
      yield step, np.mean(losses[-10:]), *distance(before, after)


def first_tokens(model):
  """weights -> logits [16, V] where the answers to general requests begin."""
  path = 'ealign:data/pool/general.jsonl'
  chats = columns.load_chats(path, 512)[:400:25]
  asked = [model.prompt(chat) for chat in chats]
  (batch,) = prompts.batches(asked, len(asked))

  def logits(weights):
    given = batch.tokens_BT, batch.positions_BT
    hidden_BTD, *_ = transformer.forward(model.config, weights, *given)
    return transformer.logits(model.config, weights, hidden_BTD[:, -1])

  return jax.jit(logits)


def distance(before_BV, after_BV):
  """The largest change of a logit less its row's mean, and the mean KL."""
  moved_BV = after_BV - before_BV
  moved = jnp.abs(moved_BV - moved_BV.mean(1, keepdims=True)).max()
  p_BV, q_BV = jax.nn.log_softmax(before_BV), jax.nn.log_softmax(after_BV)
  kl_B = jnp.sum(jnp.exp(p_BV) * (p_BV - q_BV), axis=1)
  return float(moved), float(kl_B.mean())


if __name__ == '__main__':
  main()
