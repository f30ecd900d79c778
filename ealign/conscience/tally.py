"""What a conscience did with answers: counted once, and in words.

Terminal, metrics.jsonl, the table and the page are all made from these counts
of the records of reflections (`evals.records`), so that they agree.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ealign import fields, kinds
from ealign.runtime.errors import quantity

CAUSES = ('cut', 'mass', 'lost')  # why an answer has no verdict
_SETTINGS = ('sample.max_new_tokens', 'conscience.min_mass')
_SETTINGS += ('conscience.threshold', 'conscience.review.verdict', 'data.train')
_SETTINGS += ('method',)
_AUDIT = 'see `python -m ealign.audit --config=... --choose`'
_MENDS = {  # by cause
  'cut': "raise sample.max_new_tokens, or conscience.review.truncated='judge'",
  'mass': f'the model does not answer the question; {_AUDIT}',
  'lost': 'the second model cannot hold the text; another conscience.review.by',
}
_UNREVISED = {  # by method
  'conscience': 'none of the flagged was to be revised: read answers.jsonl',
  'iteralign': 'no principle has helped on its gate yet, and without one '
  'nothing is written anew: read iteralign.json',
  'mistake_analysis': 'no reply was flagged that was led to be bad: another '
  'mistakes.hint, or conscience.threshold',
}
_EXPECTED = 5  # flagged answers, from which on a share of them says something


def has_verdict(record: Mapping) -> bool:
  """Whether the conscience reviewed the answer and came to a verdict."""
  verdict = record.get('verdict') or {}
  return None not in (verdict.get('p'), verdict.get('flagged'))


def flagged(record: Mapping) -> bool:
  """Whether the verdict flags the answer, whoever chose what was revised."""
  return has_verdict(record) and bool(record['verdict']['flagged'])


def kept(record: Mapping) -> bool:
  """Whether the conscience's alternative became the chosen answer of a pair."""
  return bool((record.get('alternative') or {}).get('kept'))


def asked(record: Mapping) -> bool:
  """Whether the question about an answer was put: then it has a label mass."""
  verdict = record.get('verdict') or {}
  ended = record.get('stop') != 'length'
  return bool(verdict) and verdict.get('asked', ended)


def unjudged(record: Mapping) -> str:
  """Why a reviewed answer has no verdict, one of `CAUSES`; '' if it has one."""
  if has_verdict(record):
    return ''
  if asked(record):
    return 'mass'
  return 'cut' if record.get('stop') == 'length' else 'lost'


@dataclasses.dataclass(frozen=True)
class Counts:
  """What a conscience did with answers.

  unjudged: how many have no verdict, by cause. dropped: alternatives without a
  pair, by reason. mass: sum of the label masses that were too low. highest: the
  highest P(flag) among verdicts.
  """

  answers: int = 0
  judged: int = 0
  flagged: int = 0
  revised: int = 0
  pairs: int = 0
  unjudged: Counter = dataclasses.field(default_factory=Counter)
  dropped: Counter = dataclasses.field(default_factory=Counter)
  mass: float = 0.0
  highest: float = 0.0

  def __add__(self, other: 'Counts') -> 'Counts':
    names = [field.name for field in dataclasses.fields(self)]
    total = {name: getattr(self, name) + getattr(other, name) for name in names}
    return Counts(**total | {'highest': max(self.highest, other.highest)})


def count(records: Iterable[Mapping]) -> Counts:
  """Counts the records of reflections; those without a review are left out."""
  seen = [record for record in records if record.get('verdict')]
  judged = [*filter(has_verdict, seen)]
  low = [r['verdict'].get('mass') for r in seen if unjudged(r) == 'mass']
  made = [r['alternative'] for r in seen if r.get('alternative')]
  return Counts(
    answers=len(seen),
    judged=len(judged),
    flagged=sum(map(flagged, seen)),
    revised=len(made),
    pairs=sum(map(kept, seen)),
    unjudged=Counter(filter(None, map(unjudged, seen))),
    dropped=Counter(
      str(x.get('dropped') or 'unknown') for x in made if not x.get('kept')
    ),
    mass=sum(filter(_known, low)),
    highest=max(filter(_known, (r['verdict']['p'] for r in judged)), default=0),
  )


def _known(value) -> bool:
  return isinstance(value, int | float)


def settings(config: fields.Config) -> dict[str, Any]:
  """The fields that the lines name, by their dotted names."""
  value = lambda name: functools.reduce(getattr, name.split('.'), config)
  return {name: value(name) for name in _SETTINGS}


def line(counts: Counts, given: Mapping) -> str:
  """How many answers were judged, why others were not, and what came of it.

  given: `settings`, or a flat config.
  """
  others = without(counts, given)
  dropped = ', '.join(f'{n:,} {x}' for x, n in counts.dropped.most_common())
  return (
    f'{quantity(counts.answers, "answer")}, {counts.judged:,} judged'
    f'{f" ({others})" * bool(others)}; {counts.flagged:,} flagged, '
    f'{counts.revised:,} revised, {quantity(counts.pairs, "pair")}'
    f'{f" (dropped: {dropped})" * bool(dropped)}'
  )


def without(counts: Counts, given: Mapping) -> str:
  """Why answers have no verdict, and how many; '' if all have one."""
  shown = lambda name: f'{name}={given[name]}' if name in given else name
  n = counts.unjudged
  mass = f'{counts.mass / max(n["mass"], 1):.2g}'
  why = {
    'cut': f'cut at {shown("sample.max_new_tokens")}',
    'mass': f'with label mass {mass} below {shown("conscience.min_mass")}',
    'lost': 'lost in another vocabulary',
  }
  return ', '.join(f'{n[x]:,} {why[x]}' for x in CAUSES if n[x])


def mend(counts: Counts) -> str:
  """The next step against what cost the most verdicts."""
  return _MENDS[max(CAUSES, key=lambda cause: counts.unjudged[cause])]


def picture(counts: Counts) -> str:
  """The kind of run it is: 'well', or the first thing that is amiss.

  'cut', 'mass' or 'lost': why most answers have no verdict. 'unflagged': none
  was flagged; 'unrevised': some were, and the method or a control had none of
  them revised; 'unpaired': no alternative made a pair.
  """
  if 2 * counts.judged < counts.answers:
    return max(CAUSES, key=lambda cause: counts.unjudged[cause])
  if not counts.revised:
    return 'unrevised' if counts.flagged else 'unflagged'
  return 'well' if counts.pairs else 'unpaired'


def remedy(counts: Counts, given: Mapping) -> str:
  """The next step where something is amiss; '' where it is well."""
  threshold = given.get('conscience.threshold')
  lower = "lower it, or set it from the model itself ('auto:0.05'); "
  if isinstance(threshold, str):
    lower = ''
  unflagged = (
    f'none flagged: the highest P is {counts.highest:.4g}, '
    f'conscience.threshold={threshold}; {lower}{_AUDIT}'
  )
  unrevised = _UNREVISED.get(given.get('method'), _UNREVISED['conscience'])
  control = given.get('conscience.review.verdict', 'question')
  if control != 'question':
    unflagged = unrevised = (
      f'conscience.review.verdict={control}, a control, chose no answer to be '
      'revised'
    )
  return {
    **_MENDS,
    'unflagged': unflagged,
    'unrevised': unrevised,
    'unpaired': 'no alternative could be used: read them in answers.jsonl; '
    f'{_AUDIT}',
    'well': '',
  }[picture(counts)]


def drift(counts: Counts, given: Mapping) -> str:
  """What to think of a run of whose answers more than 2 ALPHA are flagged.

  '' for a threshold that is a number, under a control, and for fewer than
  5 / ALPHA reviewed answers.
  """
  alpha = kinds.auto_alpha(given.get('conscience.threshold', 0)) or 0
  asks = given.get('conscience.review.verdict') == 'question'
  share = counts.flagged / max(counts.judged, 1)
  known = asks and alpha and counts.judged * alpha >= _EXPECTED
  if not known or share <= 2 * alpha:
    return ''
  return (
    f'{share:.1%} of {counts.judged:,} reviewed answers were flagged, where '
    f"auto:{alpha} bounds the frozen model's at {alpha:.1%}. If the data are "
    'benign this is drift, not badness: the style of the answers has left what '
    'the threshold was found on'
  )


def idle(counts: Counts, given: Mapping) -> str:
  """What a run without a pair was, with the next step; '' for any other."""
  if not counts.answers or counts.pairs:
    return ''
  known = {None: '', '': 'nothing was learned: '}  # without data
  was = known.get(given.get('data.train'), 'this was plain SFT: ')
  return f'{was}no pair was ever made; {remedy(counts, given)}'
