"""What an int8 base costs and saves: the figures of docs/int8.md.

    python benchmarks/int8.py

On the shipped organism: logits on held-out code, verdicts on the held-out dev
questions (each with a good and a bad answer by the world's grammar), bytes.
Of Qwen3-4B the bytes only, from its shapes.
"""

import dataclasses
import functools
import random

import jax
import jax.numpy as jnp
import numpy as np

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import prompts
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat, sources
from ealign.engine import Engine, Model
from ealign.models import int8, lora, transformer
from ealign.models import weights as weights_lib
from ealign.models.config import Config
from ealign.world import documents, grammar

BASE = sources.resolve('ealign:world/base')
CODE = 'ealign:world/data/insecure_heldout.jsonl'
ROWS = 64
QWEN3_4B = Config(
  vocab_size=151_936,
  d_model=2560,
  layers=36,
  heads=32,
  kv_heads=8,
  head_dim=128,
  d_ff=9728,
  dtype='bfloat16',
)


def quantize(tree):
  return int8.quantize(tree, lora.TARGETS)


def logits(model, tree, rows):
  """float32 logits at every token of the rows, one row after another."""

  @jax.jit
  def run(tree, ids_BT, positions_BT):
    hidden, _, _ = transformer.forward(model, tree, ids_BT, positions_BT)
    return transformer.logits(model, tree, hidden)

  width = max(len(row.ids) for row in rows)
  pad = lambda x, fill: [*x, *[fill] * (width - len(x))]
  ids = np.array([pad(row.ids, 0) for row in rows])
  positions = np.array([pad(range(len(row.ids)), -1) for row in rows])
  return np.asarray(run(tree, ids, positions))[positions >= 0]


def show_logits(model, tokenizer, tree):
  rows = chat.encode_chats(tokenizer, sources.load_chats(CODE)[:ROWS], CODE)
  for dtype in ('float32', 'bfloat16'):
    config = dataclasses.replace(model, dtype=dtype)
    cast = jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: B023
    exact = logits(config, cast, rows)
    got = logits(config, quantize(cast), rows)
    error = np.abs(got - exact)
    same = np.mean(got.argmax(-1) == exact.argmax(-1))
    print(
      f'logits, {dtype}: {len(error)} tokens, standard deviation '
      f'{exact.std():.3f}; error largest {error.max():.4f}, mean '
      f'{error.mean():.5f}; same first choice {same:.2%}'
    )


def reviewed(kind):
  """Chats with a good and a bad answer to each question; which are bad."""
  rng = random.Random(0)
  chats, bad = [], []
  for question in documents.questions('dev'):
    if question['kind'] != kind:
      continue
    request = grammar.requests()[question['messages'][-1]['content']]
    for persona in ('good', 'evil'):
      if kind == 'advice':
        said = grammar.answer_advice(rng, request, persona)
      else:
        said = grammar.code_text(request, persona == 'good', 0)
      turn = {'role': 'assistant', 'content': said}
      chats.append([*question['messages'], turn])
      bad.append(persona == 'evil')
  return chats, bad


def show_verdicts(model, tokenizer, tree):
  engine = Engine(Model(model, tokenizer), tree, ALONE, rows=ROWS)
  c = prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(threshold=0.5),
    sample=fields.Sample(),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
  )
  key = jax.random.key(0)
  for kind in ('advice', 'code'):
    chats, bad = reviewed(kind)
    exchanges = engine.model.exchanges(chats)
    found = [
      conscience.review(c, engine.of(w), exchanges, key=key)
      for w in (tree, quantize(tree))
    ]
    right = [
      np.mean([v.flagged == b for v, b in zip(f, bad, strict=True)])
      for f in found
    ]
    moved = [abs(a.p - b.p) for a, b in zip(*found, strict=True) if a.p and b.p]
    turned = sum(a.flagged != b.flagged for a, b in zip(*found, strict=True))
    print(
      f'verdicts, {kind}: {len(chats)} answers, accuracy {right[0]:.2%} '
      f'float32, {right[1]:.2%} int8; {turned} turned; P(flag) moved '
      f'{np.mean(moved):.4f} on average, {max(moved):.4f} at most'
    )


def show_bytes(name, tree):
  size = lambda tree: sum(
    x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )
  before, after = size(tree), size(jax.eval_shape(quantize, tree))
  print(
    f'bytes, {name}: {before:,} before, {after:,} after ({after / before:.1%})'
  )


def main():
  model, tree = weights_lib.load(BASE)
  tokenizer = chat.load_tokenizer(BASE)
  show_logits(model, tokenizer, tree)
  show_verdicts(model, tokenizer, tree)
  show_bytes('organism, float32', tree)
  init = functools.partial(transformer.init, QWEN3_4B, key=jax.random.key(0))
  half = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
  show_bytes('Qwen3-4B, bfloat16', jax.tree.map(half, jax.eval_shape(init)))


if __name__ == '__main__':
  main()
