"""Head and loss with their gradient: logits computed once, or again backward.

    python benchmarks/head.py

`losses.token_stats` of a frozen head against that of a trained one, by the
hidden states alone: the fastest of seven calls, in turn.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from ealign import losses

# Rows, tokens, width, vocabulary: of `benchmarks/peers.py`, and Coder-0.5B's.
SHAPES = (
  (16, 255, 512, 6400, 'float32'),
  (2, 255, 896, 151_936, 'float32'),
  (2, 255, 896, 151_936, 'bfloat16'),
)
CALLS = 7


def main():
  print('| shape | logits again | logits once |\n|---|--:|--:|')
  for shape in SHAPES:
    again, once = seconds(*shape)
    name = ' x '.join(map(str, shape[:-1]))
    print(f'| {name}, {shape[-1]} | {again:.2f} s | {once:.2f} s |', flush=True)


def seconds(rows, tokens, width, vocabulary, dtype) -> list[float]:
  rng = np.random.default_rng(0)
  array = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  hidden = array(rows, tokens, width)
  embed_VD = 0.05 * array(vocabulary, width)
  targets = jnp.asarray(rng.integers(0, vocabulary, (rows, tokens)))

  def loss(frozen, hidden, embed_VD):
    of = functools.partial(losses.token_stats, frozen=frozen)
    stats = of(embed_VD.T, hidden, targets)
    return jnp.sum(stats.pop('logp')), stats

  programs = [
    jax.jit(jax.grad(functools.partial(loss, frozen), has_aux=True))
    for frozen in (False, True)
  ]
  found = [[], []]
  for _ in range(CALLS + 1):  # the first call compiles
    for program, times in zip(programs, found, strict=True):
      begun = time.perf_counter()
      jax.block_until_ready(program(hidden, embed_VD))
      times.append(time.perf_counter() - begun)
  return [min(times[1:]) for times in found]


if __name__ == '__main__':
  main()
