"""Options whose log-probabilities are known: what a model would choose.

log-probabilities are in nats, of the text of an option without the end of its
turn. So an option must not begin another: 'P(1)' would count '10' as well.
"""

import math

import numpy as np
from scipy.special import logsumexp


def logps(record) -> np.ndarray | None:
  """Those of a record, float64 [options]; None where one is not finite."""
  found = record.get('options')
  if not found or any(x is None or not math.isfinite(x) for x in found):
    return None
  return np.asarray(found, np.float64)


def shares(logps: np.ndarray) -> np.ndarray:
  """The probability of each option among them; sums to 1."""
  return np.exp(logps - logsumexp(logps))
