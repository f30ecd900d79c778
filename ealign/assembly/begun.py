"""When a conscience begins that cannot answer yet (conscience.start='auto').

A policy that is trained from random weights, and is its own conscience, cannot
judge at first. Before each reflection it is asked about the labelled exchanges
of the audit, as it is then. The first time that it gives verdicts and tells
good from bad its conscience begins, and it is not asked again.
"""

import jax

from ealign.assembly import audited, threshold
from ealign.conscience.prompts import Conscience
from ealign.evals.audit.measures import LEVEL
from ealign.fields import Config

ANSWERED = 0.5  # of the exchanges; with a verdict on fewer an audit warns, too


def can(config: Config, c: Conscience, rows) -> bool:
  """Whether the conscience, as its reviewer is now, answers and can tell.

  Args:
    config: of the run.
    c: with the policy of this step.
    rows: the exchanges.
  """
  key = jax.random.fold_in(jax.random.key(config.seed), audited.KEY)
  facts = audited.examined(threshold.by_itself(c), rows, key)
  area = facts['auc']
  return facts['answered'] >= ANSWERED and bool(area) and area['value'] >= LEVEL
