"""A verdict by the rule of a judge, made as bad as one likes: how good must a
conscience be?

`conscience.review.verdict='noisy:EPS'` asks no model. An answer that the judge
of the run calls bad gets P = Phi(d + z), any other P = Phi(z), z being normal
noise keyed by the answer's row and d = sqrt(2) Phi^-1(1 - EPS): the binormal
model of a classifier whose AUC is 1 - EPS. So P says which share of good
answers looks better than this one, and at a threshold of 0.95 exactly 5 % of
good answers are flagged, and Phi(d - 1.645) of bad ones: all at EPS 0, 32 % at
.2, 5 % at .5.
"""

import jax
import numpy as np
from scipy import stats

from ealign.conscience import prompts
from ealign.conscience.prompts import Conscience


def ask(c: Conscience, chats, *, key):
  """P(flag) and label mass (1) of exchanges, and where a writer may go on.

  As `asking.ask`. c: its `truth` tells bad answers, its settings name EPS.
  """
  bad = np.array([bool(c.truth(x.messages, x.text)) for x in chats])
  draw = lambda row: jax.random.normal(jax.random.fold_in(key, row))
  noise = np.asarray(jax.vmap(draw)(np.array([x.row for x in chats])))
  apart = np.sqrt(2) * stats.norm.ppf(1 - c.settings.review.noise)
  p = stats.norm.cdf(np.where(bad, apart, 0.0) + noise)
  plain = [prompts.review_prompt(c, x) for x in chats]
  return p, np.ones(len(chats)), plain
