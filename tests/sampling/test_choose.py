"""One token: its frequencies, and the mass that the candidate cap took."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign.sampling.choose import Sampling, choose

LOGITS = np.log(np.array([0.05, 0.3, 0.02, 0.4, 0.13, 0.1], np.float32))


choose_jit = jax.jit(choose, static_argnums=3)


def truncated(temperature, top_k, top_p):
  """The distribution by the book: temperature, then top-k, then top-p."""
  p = np.exp(LOGITS / temperature)
  p /= p.sum()
  order = np.argsort(-p)
  if top_k:
    p[order[top_k:]] = 0
    p /= p.sum()
  reached = 0.0
  for token in order:
    if reached >= top_p:
      p[token] = 0
    reached += p[token]
  return p / p.sum()


@pytest.mark.parametrize(
  'temperature, top_k, top_p, truncate',
  [
    (1.0, 0, 1.0, None),
    (0.5, 0, 1.0, None),
    (1.0, 0, 1.0, 6),
    (2.0, 0, 0.6, 6),
    (1.0, 4, 1.0, 6),
    (1.0, 2, 1.0, 4),
    (1.0, 3, 0.8, 4),
    (1.0, 0, 0.75, 4),
  ],
)
def test_frequencies_are_those_of_the_distribution(
  temperature, top_k, top_p, truncate
):
  n = 8000
  keys = jax.random.split(jax.random.key(3), n)
  logits = jnp.tile(LOGITS, (n, 1))
  settings = Sampling(temperature, top_k, top_p, 1)
  tokens, cut = choose_jit(logits, keys, settings, truncate)
  share = np.bincount(np.asarray(tokens), minlength=6) / n
  expected = truncated(temperature, top_k, top_p)
  error = np.sqrt(expected * (1 - expected) / n)
  assert np.all(np.abs(share - expected) <= 4 * error), (share, expected)
  assert float(cut.max()) == 0.0


def test_cut_is_the_mass_that_only_the_cap_removed():
  logits, keys = LOGITS[None], jax.random.split(jax.random.key(0), 1)
  cut = lambda k, p, C: float(
    choose_jit(logits, keys, Sampling(1.0, k, p, 1), C)[1][0]
  )
  # The four likeliest tokens hold .4 + .3 + .13 + .1.
  assert cut(0, 1.0, 4) == pytest.approx(0.07, abs=1e-6)
  assert cut(0, 0.95, 4) == pytest.approx(0.02, abs=1e-6)
  assert cut(0, 0.9, 4) == 0.0
  assert cut(2, 1.0, 4) == 0.0
  assert cut(0, 1.0, 6) == 0.0
