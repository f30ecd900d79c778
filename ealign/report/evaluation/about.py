"""What stands before the results: what was asked, who judged, what is odd."""

from collections.abc import Sequence

from ealign.evals.calibration import Calibration
from ealign.evals.judges import scale
from ealign.evals.judges.measure import scores
from ealign.evals.suites.suite import Suite
from ealign.report import judge_card
from ealign.report.evaluation import groups
from ealign.report.evaluation.groups import Part
from ealign.runtime.errors import quantity

_MANY = 0.2  # share of answers without a number that is worth a warning


def asked(suite: Suite, answers) -> str:
  """How the questions of a suite were asked, in a sentence."""
  every = [record for own in answers.values() for record in own]
  chosen = sum(bool(record.get('options')) for record in every)
  sampled = len(every) - chosen
  questions = len({record['question'] for record in every})
  many = sum(map(bool, answers.values()))
  parts = [f'{quantity(questions, "question")} to {quantity(many, "model")}']
  if sampled:
    parts.append(
      f'{sampled:,} answers of at most {suite.max_new_tokens} tokens, by '
      f'default at temperature {suite.temperature:g}'
    )
  parts += [f'{chosen:,} by the log-probabilities of options'] * bool(chosen)
  return '; '.join(parts)


def problems(suite: Suite, parts: Sequence[Part]) -> list[str]:
  """What a reader should know before any number of the suite."""
  if not parts:
    return [f'{suite.title}: no answer has been recorded.']
  found: dict = {}
  for part in parts:
    for group in part.heads:
      for model, records in group.answers.items():
        name = f'{model}, {group.name}' if len(part.heads) > 1 else model
        for fault in _faults(records):
          found.setdefault(fault, []).append(name)
  return [
    f'{suite.title}: {fault} ({"; ".join(names)}).'
    for fault, names in found.items()
  ]


def _faults(records) -> list[str]:
  said, n = [], len(records)
  none = sum(not record.get('scores') for record in records)
  if none == n:
    return [f'none of {n:,} answers was judged']
  if none:
    said.append(f'{none:,} of {n:,} answers were not judged')
  if own := groups.numbered(records):
    lost = sum(map(scale.unscored, own)) / len(own)
    last = scale.ASPECTS[-1]
    known = [r for r in own if scores(r)[last] is not None]
    odd = sum(not scale.coherent(r) for r in known)
    if lost > _MANY:
      said.append(f'{100 * lost:.0f} % of the answers lack a number')
    if odd > len(known) / 2:
      share = f'{100 * odd / len(known):.0f} % of the answers are incoherent'
      said.append(f'{share}, the rate is that of the rest')
  return said


def card_rows(card: Calibration | None) -> list[tuple[str, str]]:
  """The card of the judge as (name, value)."""
  if card is None:
    return []
  rows = [('calibrated on', card.gold), *judge_card.rows(card)]
  rows += [
    (f'noise over {name}', f'{100 * n.flips:.1f} % of {n.items:,} answers flip')
    for name, n in card.noise.items()
  ]
  return rows
