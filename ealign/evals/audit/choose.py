"""Chooses how to put the question, on split dev, by successive halving."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import logit, ndtr

from ealign.conscience.conformal import kth, least
from ealign.conscience.framings import FORMS, FRAMINGS
from ealign.conscience.prompts import Conscience
from ealign.data.exchanges import Row, shortest
from ealign.evals.audit import measures
from ealign.evals.audit.ask import Asked, Setting, ask, setting_of

MOST = 24  # settings
# Rows of a round, and the settings that go on from it.
ROUNDS = (12, 8), (24, 4), (48, 3)
_SEES = 'chat', 'quoted'
_EXAMPLES = 2, 4
_ORDER = 'ethical', 'good', 'fair', 'reasonable'
_KINDS = 'plain', 'subtle'  # that settings are compared on


@dataclasses.dataclass(frozen=True)
class Tried:
  """A setting, on how many rows it was asked, and how well it told them.

  score: the AUC that log-odds of these means and spreads would have if they
  were normal, less noisy on few rows than the share of pairs. answered: the
  share of rows with a verdict.
  """

  setting: Setting
  rows: int
  score: float
  auc: measures.Share | None
  answered: float


def candidates(own: Setting, sees: Sequence[str] = _SEES) -> list[Setting]:
  """At most `MOST` settings, the config's own first."""
  named = [FRAMINGS[name] for name in _ORDER]
  made = [
    Setting(framing, form, seen, calibration=own.calibration)
    for framing in dict.fromkeys([own.framing, *named])
    for form, needs in FORMS.items()
    if all(getattr(framing, need) for need in needs)
    for seen in sees
  ]
  return list(dict.fromkeys([own, *made]))[:MOST]


def compared(rows: Sequence[Row]) -> list[Row]:
  """The rows of split dev that settings are compared on, domains in turn.

  Twins stay together. Where there are no plain or subtle rows, all count.
  """
  dev = [r for r in rows if r.split == 'dev']
  some = [r for r in dev if r.kind in _KINDS] or dev
  twins: dict = {}
  for row in some:
    twins.setdefault(row.twin or row.id, []).append(row)
  domains: dict = {}
  for twin in twins.values():
    domains.setdefault(twin[0].domain, []).append(twin)
  turns = max(map(len, domains.values()), default=0)
  return [
    row
    for i in range(turns)
    for own in domains.values()
    if i < len(own)
    for row in own[i]
  ]


def tried(c: Conscience, setting: Setting, rows, asked: Asked) -> Tried:
  known = asked.has_verdict(c)
  flags = np.array([row.flag for row in rows])
  found = measures.auc(asked.p, flags, [row.domain for row in rows])
  score = _normal(asked.p, flags) if known.mean() >= 0.5 else 0.0
  return Tried(setting, len(rows), score, found, float(known.mean()))


def _normal(p, flags) -> float:
  z = np.clip(logit(p), -50, 50)
  bad, good = z[flags], z[~flags]
  if not len(bad) or not len(good):
    return 0.0
  spread = np.sqrt(bad.var() + good.var()) or 1e-9
  return float(ndtr((bad.mean() - good.mean()) / spread))


def halving(
  c: Conscience,
  rows: Sequence[Row],
  say: Callable[[str], None] = lambda text: None,
) -> list[Tried]:
  """All settings that were tried, those that came farthest and best first.

  The config's own goes on to the end. Examples are tried with the two best of
  the first round, as they make every question several times as long. rows:
  those of split dev count.
  """
  own = setting_of(c)
  # A thought comes behind the chat, which nothing else may stand for then.
  left = candidates(own, _SEES[: 1 if c.settings.review.reason_tokens else 2])
  seen: dict[Setting, Tried] = {}
  dev = [r for r in rows if r.split == 'dev']
  pool = compared(dev)
  for at, (n, keep) in enumerate((*ROUNDS, (len(pool), 3))):
    some = without(pool, dev)[:n]
    say(f'{len(left)} settings on {len(some)} exchanges')
    answers = ask(c, left, some, dev)
    for setting, asked in zip(left, answers, strict=True):
      seen[setting] = tried(c, setting, some, asked)
    ranked = sorted(left, key=lambda s: -seen[s].score)
    best, left = ranked[0], ranked[:keep]
    say(f'best: {best}: AUC {seen[best].score:.2f}')
    left += [own] * (own not in left)
    if at == 0:
      left += [
        dataclasses.replace(setting, examples=count)
        for setting in ranked[:2]
        for count in _EXAMPLES
        if len(shortest(dev, count)) == count
      ]
    left = list(dict.fromkeys(left))
  return sorted(seen.values(), key=lambda t: (-t.rows, -t.score))


def without(pool, dev):
  """The rows that are no examples, nor their twins."""
  used = shortest(dev, max(_EXAMPLES))
  twins = {row.twin or row.id for row in used}
  return [row for row in pool if (row.twin or row.id) not in twins]


def threshold(good: Sequence[float], alpha: float) -> float | None:
  """From which P on a reply is flagged so that `alpha` of good ones are.

  The conformal quantile over P of rows that are ok and got a verdict, as
  'auto:ALPHA' has it over the frozen model's own answers; None where there are
  too few.
  """
  if len(good) < least(alpha):
    return None
  return float(np.nextafter(kth(good, alpha), np.inf))
