"""Chooses how to put the question, on split dev, by successive halving."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.special import logit, ndtr

from ealign.conscience.conformal import kth, least
from ealign.conscience.framings import FORMS, FRAMINGS
from ealign.conscience.prompts import Conscience
from ealign.data.exchanges import Row, in_turn, shortest
from ealign.evals.audit import measures
from ealign.evals.audit.ask import Asked, Setting, ask, setting_of, tokens

FIRST = 32  # rows that all settings are asked about: whole batches
LAST = 3  # settings that are asked about all of split dev
EXAMPLES = 2, 4
_ORDER = 'ethical', 'good', 'fair', 'reasonable'
_KINDS = 'plain', 'subtle'  # that settings are compared on


@dataclasses.dataclass(frozen=True)
class Tried:
  """A setting, on how many rows it was asked, and how well it told them.

  score: the AUC that log-odds of these means and spreads would have if they
  were normal, less noisy on few rows than the share of pairs. answered: the
  share of rows with a verdict. asked: the answers about the rows, in order.
  """

  setting: Setting
  rows: int
  score: float
  auc: measures.Share | None
  answered: float
  asked: Asked

  def __str__(self):
    area = f', AUC {self.auc.value:.2f}' if self.auc else ''
    return f'{self.setting}: a verdict on {self.answered:.0%}{area}'


def candidates(own: Setting, names: Iterable[str] = _ORDER) -> list[Setting]:
  """The config's own setting, and all forms of its framing and of these.

  All of them see what the config's own sees.
  """
  named = [FRAMINGS[name] for name in names]
  made = [
    Setting(framing, form, own.sees, calibration=own.calibration)
    for framing in dict.fromkeys([own.framing, *named])
    for form, needs in FORMS.items()
    if all(getattr(framing, need) for need in needs)
  ]
  return list(dict.fromkeys([own, *made]))


def longest(own: Setting) -> list[Setting]:
  """Settings that are at least as long as any that is tried."""
  more = {'sees': 'quoted', 'examples': max(EXAMPLES)}
  return [dataclasses.replace(s, **more) for s in candidates(own, FRAMINGS)]


def compared(rows: Sequence[Row]) -> list[Row]:
  """The rows of split dev that settings are compared on, domains in turn.

  Twins stay together. Where there are no plain or subtle rows, all count.
  """
  dev = [r for r in rows if r.split == 'dev']
  some = [r for r in dev if r.kind in _KINDS] or dev
  return in_turn(some)


def tried(c: Conscience, setting: Setting, rows, asked: Asked) -> Tried:
  known = asked.has_verdict(c)
  flags = np.array([row.flag for row in rows])
  found = measures.auc(asked.p, flags, [row.domain for row in rows])
  score = _normal(asked.p, flags) if known.mean() >= 0.5 else 0.0
  answered = float(known.mean())
  return Tried(setting, len(rows), score, found, answered, asked)


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

  All are asked about the first rows; the best is then tried in variants
  (`_variants`), which make every question longer; and the best of all go on to
  all rows. rows: those of split dev count.
  """
  dev = [r for r in rows if r.split == 'dev']
  pool, asked = but_examples(compared(dev), dev), {}
  seen: dict[Setting, Tried] = {}

  def best(settings, some) -> list[Setting]:
    """Those that were asked about these rows, best first."""
    say(f'{len(settings)} settings on {len(some)} exchanges')
    ask_more(c, settings, some, dev, asked)
    new = {s: tried(c, s, some, asked[s]) for s in settings}
    seen.update(new)
    ranked = [s for s in seen if seen[s].rows == len(some)]
    ranked.sort(key=lambda s: -seen[s].score)
    say(f'best: {seen[ranked[0]]}')
    return ranked

  first, *_ = best(candidates(setting_of(c)), pool[:FIRST])
  left = best(_variants(c, first, dev), pool[:FIRST])
  if len(pool) > FIRST:
    best(left[:LAST], pool)
  return sorted(seen.values(), key=lambda t: (-t.rows, -t.score))


def cost(c: Conscience, rows: Sequence[Row]) -> int:
  """About how many tokens `halving` reads, the variants being the own's."""
  dev = [r for r in rows if r.split == 'dev']
  pool, own = but_examples(compared(dev), dev), setting_of(c)
  first = candidates(own)
  asked = (first, _variants(c, own, dev)), pool[:FIRST], pool[FIRST:]
  begun = sum(tokens(c, some, asked[1], dev) for some in asked[0])
  return begun + tokens(c, first[:LAST], asked[2], dev)


def ask_more(c, settings, rows, dev, asked: dict[Setting, Asked]) -> None:
  """Asks each setting about those of the rows that it was not asked about."""
  done = {s: len(asked[s].p) if s in asked else 0 for s in settings}
  for start in sorted(set(done.values())):
    some = [s for s in settings if done[s] == start]
    if start < len(rows) or not start:
      for s, new in zip(some, ask(c, some, rows[start:], dev), strict=True):
        asked[s] = asked[s].joined(new) if start else new


def _variants(c: Conscience, setting: Setting, dev) -> list[Setting]:
  """The setting quoted, with examples, and beside what needs no reply."""
  own = functools.partial(dataclasses.replace, setting)
  counts = [n for n in EXAMPLES if len(shortest(dev, n)) == n]
  made = [own(examples=n) for n in counts if not setting.examples]
  # A thought comes behind the chat, which nothing else may stand for then.
  chat = bool(c.settings.review.reason_tokens)
  other = {'chat': 'quoted', 'quoted': 'chat'}.get(setting.sees)
  made += [own(sees=other)] * bool(other and not chat)
  return [*made, own(calibration='request')]


def but_examples(pool, dev):
  """The rows that are no examples, nor their twins."""
  used = shortest(dev, max(EXAMPLES))
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
