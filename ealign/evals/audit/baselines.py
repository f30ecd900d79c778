"""What tells ok from flag without any conscience: words and length.

A logistic model of the words of an answer and its length, fitted on split dev.
Where it does well on test, an AUC says little of the conscience: the exchanges
give themselves away.
"""

import collections
import re
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from ealign.data.exchanges import Row

LEAST = 3  # rows in which a word must stand to count
PENALTY = 1.0  # of squared weights


def words(text: str) -> list[str]:
  return re.findall(r'\w+|[^\w\s]', text.lower())


def bag_of_words(dev: Sequence[Row], rows: Sequence[Row]) -> np.ndarray:
  """The log-odds that the rows are to be flagged, by their words and length."""
  counts = collections.Counter(w for r in dev for w in set(words(r.reply)))
  known = sorted(word for word, n in counts.items() if n >= LEAST)
  column = {word: i for i, word in enumerate(known)}
  x_ND, y_N = _features(dev, column), np.array([r.flag for r in dev], float)
  mean, spread = x_ND[:, -1].mean(), x_ND[:, -1].std() or 1.0

  def scaled(x_ND):
    x_ND[:, -1] = (x_ND[:, -1] - mean) / spread
    return x_ND

  x_ND = scaled(x_ND)

  def loss(w):
    z_N = x_ND @ w[:-1] + w[-1]
    slope_N = special.expit(z_N) - y_N
    value = np.sum(np.logaddexp(0, z_N) - y_N * z_N)
    value += PENALTY / 2 * np.sum(w[:-1] ** 2)
    slope = np.append(x_ND.T @ slope_N + PENALTY * w[:-1], np.sum(slope_N))
    return value, slope

  start = np.zeros(x_ND.shape[1] + 1)
  w = optimize.minimize(loss, start, jac=True, method='L-BFGS-B').x
  return scaled(_features(rows, column)) @ w[:-1] + w[-1]


def _features(rows, column) -> np.ndarray:
  """1 for each word that an answer has; last the log of its length."""
  x_ND = np.zeros((len(rows), len(column) + 1))
  for row, x_D in zip(rows, x_ND, strict=True):
    said = words(row.reply)
    for word in set(said) & column.keys():
      x_D[column[word]] = 1
    x_D[-1] = np.log(len(said) + 1)
  return x_ND
