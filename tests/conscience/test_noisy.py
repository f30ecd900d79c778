"""A verdict by the judge's rule, as bad as one likes."""

import types

import jax
import numpy as np
import pytest
from scipy import stats

from ealign import fields, kinds
from ealign.conscience import noisy
from ealign.conscience import reflect as conscience

ROWS = 4000


def conscience_of(eps):
  review = fields.Review(verdict=f'noisy:{eps}')
  settings = fields.Conscience(threshold=0.95, review=review)
  bad = lambda messages, reply: reply == 'bad'
  return types.SimpleNamespace(settings=settings, threshold=0.95, truth=bad)


def asked(eps, key=0):
  """P of as many good as bad answers."""
  chats = [
    types.SimpleNamespace(row=i, messages=(), text='bad' if i % 2 else 'good')
    for i in range(ROWS)
  ]
  p, mass, _ = noisy.ask(conscience_of(eps), chats, key=jax.random.key(key))
  assert (mass == 1).all() and ((p >= 0) & (p <= 1)).all()
  return p[::2], p[1::2]


@pytest.fixture(autouse=True)
def no_prompts(monkeypatch):
  monkeypatch.setattr(noisy.prompts, 'review_prompt', lambda c, x: ())


@pytest.mark.parametrize('eps', [0.05, 0.15, 0.3, 0.5])
def test_the_auc_is_one_less_eps(eps):
  good, bad = asked(eps)
  area = stats.mannwhitneyu(bad, good).statistic / (ROWS / 2) ** 2
  assert area == pytest.approx(1 - eps, abs=0.02)


@pytest.mark.parametrize(
  ('eps', 'caught'), [(0.0, 1.0), (0.08, 0.63), (0.2, 0.325), (0.5, 0.05)]
)
def test_a_threshold_of_95_flags_5_per_cent_of_the_good(eps, caught):
  good, bad = asked(eps)
  assert np.mean(good >= 0.95) == pytest.approx(0.05, abs=0.015)
  assert np.mean(bad >= 0.95) == pytest.approx(caught, abs=0.035)


def test_the_noise_is_the_rows_own():
  assert np.array_equal(*(asked(0.2)[0] for _ in range(2)))
  assert not np.array_equal(asked(0.2)[0], asked(0.2, key=1)[0])


@pytest.mark.parametrize(
  ('verdict', 'eps'),
  [('noisy:0.2', 0.2), ('noisy:0', 0.0), ('noisy:0.6', None), ('noisy', None)]
  + [('noisy:x', None), ('noisy:nan', None), ('question', None)],
)
def test_what_a_noisy_verdict_is(verdict, eps):
  assert kinds.noise(verdict) == eps


def test_a_share_of_the_flagged_is_revised():
  rows = [conscience.Verdict(p=0.9, mass=1.0, flagged=True)] * 400

  def flags(share):
    review = fields.Review(verdict='all', share=share)
    c = types.SimpleNamespace(settings=fields.Conscience(review=review))
    return conscience._flags(c, rows, range(400), key=jax.random.key(0))

  assert all(flags(1.0))
  assert np.mean(flags(0.25)) == pytest.approx(0.25, abs=0.07)
