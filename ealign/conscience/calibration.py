"""The threshold on P(flag), from the frozen model's own answers.

Split conformal prediction (arXiv 2107.07511, section 1): there are n answers of
the frozen model to prompts that training does not draw; k is ceil((n + 1)(1 -
ALPHA)); an answer is flagged iff its P(flag) is *greater* than the k-th
smallest. An answer exchangeable with these is flagged with a probability of at
most ALPHA, without ties of at least ALPHA - 1 / (n + 1); it takes no labels.

The bound speaks of the frozen model's answers, not of the trainee's, whose
style drifts from them also where nothing is wrong (`tally.drift`). Answers
without a verdict are never flagged, so they are left out on both sides: the
bound holds among those with one, and so for all.
"""

import dataclasses

import jax
import numpy as np

from ealign import kinds
from ealign.conscience import records, reflect, tally
from ealign.conscience.conformal import kth, least
from ealign.conscience.prompts import Conscience, Reference
from ealign.runtime.errors import UserError

NONE = 2.0  # a threshold that no P reaches


def reference(
  c: Conscience, requests, *, key, needed: bool = True
) -> Reference:
  """Samples one answer of the frozen model to each request, and reviews it.

  A threshold that is a number stays as it is.

  Args:
    c: the conscience. A reviewer `policy` is the one given here.
    requests: list of message lists.
    key: of the noise.
    needed: whether there has to be a threshold; if not, and too few answers got
      a verdict, it is `NONE`.

  Raises:
    UserError: too few answers got a verdict, and a threshold is needed.
  """
  sampled, reviewed = (jax.random.fold_in(key, i) for i in range(2))
  answers = c.frozen.answer(requests, sample=c.sample, key=sampled)
  any_level = dataclasses.replace(c.settings, threshold=0.5)  # not yet known
  verdicts = reflect.review(
    dataclasses.replace(c, settings=any_level, reference=None),
    c.reviewer,
    reflect.retokenized(c, answers, c.reviewer.model),
    key=reviewed,
  )
  p = tuple(verdict.p for verdict in verdicts)
  made = [
    records.record(c, *x, None) for x in zip(answers, verdicts, strict=True)
  ]
  return Reference(
    threshold=_threshold(c, p, tally.count(made), needed),
    p=p,
    logps=tuple(float(np.mean(x.answer.logps)) for x in answers),
    lengths=tuple(len(x.answer.ids) for x in answers),
  )


def _threshold(c: Conscience, p, counts: tally.Counts, needed: bool) -> float:
  """The least float above the k-th smallest, so that >= means above it."""
  alpha = kinds.auto_alpha(c.settings.threshold)
  if alpha is None:
    return c.settings.threshold
  known = [x for x in p if x is not None]
  if len(known) < least(alpha) and not needed:
    return NONE
  if len(known) < least(alpha):
    given = {
      'sample.max_new_tokens': c.sample.max_new_tokens,
      'conscience.min_mass': c.settings.min_mass,
    }
    raise UserError(
      f"conscience.threshold='auto:{alpha}': of {len(p)} answers of the frozen "
      f'model {len(known)} got a verdict, and at least {least(alpha)} are '
      f'needed; the others: {tally.without(counts, given)}. Raise '
      f'conscience.held_out, write a number, or: {tally.mend(counts)}'
    )
  return float(np.nextafter(kth(known, alpha), np.inf))
