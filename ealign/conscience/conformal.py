"""The order statistic of split conformal prediction, exactly."""

import fractions
import math
from collections.abc import Sequence

from ealign.runtime.errors import UserError


def rank(n: int, alpha: float) -> int:
  """k = ceil((n + 1)(1 - alpha)) of the decimal that alpha is written as.

  In floats the product may land above the whole number that it is.
  """
  return math.ceil((n + 1) * (1 - fractions.Fraction(str(alpha))))


def least(alpha: float) -> int:
  """The smallest n whose k-th smallest is one of the n."""
  return math.ceil(1 / fractions.Fraction(str(alpha))) - 1


def kth(p: Sequence[float], alpha: float) -> float:
  """The k-th smallest of P(flag): an answer above it is flagged.

  Raises:
    UserError: there are too few for this alpha (k > n).
  """
  n, k = len(p), rank(len(p), alpha)
  if k > n:
    raise UserError(
      f"conscience.threshold='auto:{alpha}': {n} verdicts are too few, at "
      f'least {least(alpha)} are needed; raise conscience.held_out, or alpha'
    )
  return float(sorted(p)[k - 1])
