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
import json
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
  memory: fn(config) -> what it remembers before its first reflection, a dict
    that JSON can hold; None: nothing. `reflect` and `metrics` are then given it
    as memory=, and `reflect` returns the next one after pairs and records. It
    is kept in checkpoints, and beside them in the work folder as <name>.json.
  """

  name: str
  reflect: Callable = reflect.reflect
  terms: Callable[[Config], tuple[Term, ...]] = terms
  metrics: Callable[..., dict[str, float]] = metrics
  reviews: bool = True
  memory: Callable[[Config], dict] | None = None

  def begun(self, config: Config) -> dict | None:
    """What it remembers before its first reflection."""
    return None if self.memory is None else _kept(self.memory(config))

  def reflected(self, c: Conscience, requests, *, memory, **how):
    """As `reflect`; returns what it remembers then, after pairs and records."""
    if memory is None:
      return *self.reflect(c, requests, **how), None
    *found, memory = self.reflect(c, requests, memory=memory, **how)
    return *found, _kept(memory)

  def logged(self, c: Conscience, made: list[dict], memory: dict | None):
    """As `metrics`."""
    more = {} if memory is None else {'memory': memory}
    return self.metrics(c, made, **more)


def _kept(memory: dict) -> dict:
  """As a checkpoint gives it back."""
  return json.loads(json.dumps(memory))
