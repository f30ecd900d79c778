"""What makes a run its own: how it reflects, what it adds up, what it logs.

`train.run` is the same loop for every method:

   policy, conscience                 replay              objective
   .---------------.      pairs    .-----------.      .----------------.
   |    reflect    |-------------->|   push,   |----->|    terms:      |
   | (requests)    |    or rows    |   draw    |      | w * mean loss  |
   '---------------'               '-----------'      '----------------'
           ^                        SFT batch ---------------^  |
           '------------------ policy <--------- update <-------'
"""

import dataclasses
from collections.abc import Callable

from ealign import align
from ealign.align import Term
from ealign.conscience import records, reflect
from ealign.conscience.prompts import Conscience
from ealign.fields import Config


def terms(config: Config) -> tuple[Term, ...]:
  """L_SFT + lambda L_DPO, in the variant that the config names."""
  return align.hybrid(config.dpo.variant)


def metrics(c: Conscience, made: list[dict]) -> dict[str, float]:
  """Those of `conscience.records` over the records of one reflection."""
  return records.metrics(made)


@dataclasses.dataclass(frozen=True)
class Method:
  """A method of training; what is not given is as in arXiv 2606.19527.

  name: its key in `ealign.methods.METHODS`, the value of the field `method`.
  reflect: fn(conscience, requests, *, key, step, rows, held, clock) -> (pairs,
    records), as `conscience.reflect.reflect`. A `data.batch.Pair` without a
    rejected answer is a row: its chosen answer is learned by the SFT term.
  terms: fn(config) -> the terms of the objective.
  metrics: fn(conscience, records) -> flat scalars to log of one reflection.
  reviews: whether its reflection asks the conscience, which is then audited.
  """

  name: str
  reflect: Callable = reflect.reflect
  terms: Callable[[Config], tuple[Term, ...]] = terms
  metrics: Callable[..., dict[str, float]] = metrics
  reviews: bool = True
