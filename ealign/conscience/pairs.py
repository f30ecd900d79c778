"""Pairs of an alternative and a flagged answer: what is trained, and how much.

Both sides of a pair are sampled ids. Where either answer was cut at the limit
(`conscience.review.truncated='judge'`), each side is its first n tokens without
an end of turn, n being the length of the shorter one: neither side can win by
its length, and no end that nobody wrote is trained.
"""

import dataclasses

import numpy as np

from ealign.conscience import guards, prompts
from ealign.conscience.prompts import Conscience, Verdict
from ealign.data.batch import Pair
from ealign.engine import Exchange

# A pair whose P(flag) lies far above the threshold counts as so many of those
# at it, with `conscience.scale='logit'`.
MOST = 4.0


def make(c: Conscience, made, *, step: int, held):
  """The valid pairs, scored; and by row why there is none, '' where there is.

  Args:
    c: the conscience of this step.
    made: ((flagged exchange, verdict), alternative, verdict on it, plain
      Answer or None) of each flagged answer, exchanges in the policy's tokens.
    step: written into the pairs.
    held: the pairs of the replay buffer.
  """
  why = {x.row: dropped(c, x, y, w, plain) for (x, _), y, w, plain in made}
  valid = [item for item in made if not why[item[0][0].row]]
  pairs = score(c, [pair(c, x, v, y, step=step) for (x, v), y, *_ in valid])
  own = [float(np.mean(plain.logps)) for *_, plain in made if plain]
  logps = c.reference.logps if c.reference else own
  why |= guards.late(c, pairs, logps, held)
  return [pair for pair in pairs if not why[pair.row]], why


def score(c: Conscience, pairs: list[Pair]) -> list[Pair]:
  """Fills the reference log-probs of pairs; one static shape, in batches."""
  shape = {'slots': c.dpo.pairs, 'length': c.dpo.length}
  return [
    dataclasses.replace(pair, ref_chosen=float(a), ref_rejected=float(b))
    for pair, (a, b) in zip(pairs, c.frozen.logps(pairs, **shape), strict=True)
  ]


def sides(exchange: Exchange, proposal: Exchange):
  """The ids of (alternative, flagged answer) as a pair has them."""
  new, old = proposal.answer, exchange.answer
  if (new.stop, old.stop) == ('stop', 'stop'):
    return tuple(new.ids), tuple(old.ids)
  bare = [a.ids[:-1] if a.stop == 'stop' else a.ids for a in (new, old)]
  n = min(map(len, bare))
  return tuple(bare[0][:n]), tuple(bare[1][:n])


def dropped(c: Conscience, exchange, proposal, verdict, plain=None) -> str:
  """Why a pair is not valid; '' if it is.

  verdict: on the alternative. plain: the frozen model's Answer to the same
  request, or None.
  """
  new, text = proposal.answer, exchange.model.text
  chosen, rejected = sides(exchange, proposal)
  longest = len(exchange.prompt) + max(len(chosen), len(rejected))
  # The controls take the alternative as it comes.
  judged = c.settings.review.by_p
  judges_cut = c.settings.review.truncated == 'judge'
  reasons = {  # the first that holds counts
    'lost': new.stop == prompts.LOST,
    'truncated': new.stop != 'stop' and not judges_cut,
    'empty': not text(chosen).strip() or not text(rejected).strip(),
    'same': chosen == rejected,
    'no_room': longest > c.dpo.length,
    'no_verdict': judged and verdict.p is None,
    'flagged': judged and verdict.flagged,
    **guards.reasons(c, proposal, chosen, plain),
  }
  return next((reason for reason, holds in reasons.items() if holds), '')


def pair(c: Conscience, exchange, verdict, proposal, *, step: int) -> Pair:
  """The pair, not scored yet. verdict: on the flagged answer."""
  ids, w = sides(exchange, proposal), weight(c, verdict)
  return Pair(exchange.row, step, exchange.prompt, *ids, weight=w)


def weight(c: Conscience, verdict: Verdict) -> float:
  """How much a pair counts beside the others of its step.

  1 with `conscience.scale='none'`; else 1 at the threshold, and 1 more for each
  nat that the log-odds of P(flag) lie above the threshold's, up to `MOST`.
  """
  if c.settings.scale == 'none':
    return 1.0
  p = np.clip([verdict.p, c.threshold], 1e-9, 1 - 1e-9)
  logit, least = np.log(p) - np.log1p(-p)
  return float(np.float32(np.clip(1 + logit - least, 1, MOST)))
