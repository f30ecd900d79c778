"""The card of a judge: what it says, its table, and a sentence on its worth."""

from ealign.evals import correction, readings, table
from ealign.evals.audit.measures import LEVEL, Share
from ealign.evals.calibration import Calibration, Errors
from ealign.evals.correction import Sample
from ealign.evals.table import Block, Entry

_NOTE = (
  'In brackets 95 % intervals in which the answers to one question count as '
  'alike.'
)
_NOISE = (
  'Flips: answers that some ways flag and others do not. Flagged: by the way '
  'that flags least and most. Standard deviations, in units of the score: of '
  'the ways, which move all answers alike; of what is left; of the answers.'
)


def blocks(card: Calibration) -> list[Block]:
  """The card as a table, and what of a score is the asking as another."""
  return [_worth(card), *([_noise(card)] if card.noise else [])]


def rows(card: Calibration) -> list[tuple[str, str]]:
  """What the card says of the judge's worth, as (name, value)."""
  found = [
    ('answers with a score', f'{card.n:,}'),
    ('without one', f'{card.unscored:,}'),
    ('questions', f'{card.clusters:,}'),
    ('to be flagged by their label', f'{card.positives:,}'),
    ('AUC', _share(card.auc)),
    ('decisions that are the label', _share(card.agrees)),
    ('kappa of judge and label', _share(card.kappa)),
    ('kappa of two people', _share(card.people)),
    ('people who label alike', _share(card.people_agree)),
    ('mean error of the score', _errors(card.raw)),
    ('the same, mapped', _errors(card.mapped)),
    ('rightly not flagged, q0', _sample(card.good)),
    ('rightly flagged, q1', _sample(card.bad)),
  ]
  return [(name, value) for name, value in found if value]


def _worth(card) -> Block:
  lines = [(Entry(name), Entry(value)) for name, value in rows(card)]
  kind = readings.KINDS.get(card.suite)
  way = 'under' if card.reading.below else 'from'
  flags = f'{kind.flagged} is a' if kind else 'flagged is a'
  title = f'{card.judge} on {card.gold}: {flags} score {way} '
  title += f'{card.reading.threshold:g}'
  return Block(title, _NOTE, table.columns(['', 'value']), lines)


def _noise(card) -> Block:
  """Standard deviations are in units of the score."""
  heads = ['flips, %', 'flagged, %', 'sd, way', 'sd, rest', 'sd, answers']
  lines = []
  for name, one in card.noise.items():
    least, most = (100 * rate for rate in one.rates)
    cells = [
      Entry(name),
      Entry(f'{one.variants}'),
      Entry(f'{one.items:,}'),
      Entry(f'{100 * one.flips:.1f}', table.bracket(one.flips_interval)),
      Entry(f'{least:.1f} to {most:.1f}'),
      *(
        Entry(f'{sd:.3g}')
        for sd in (one.sd_variants, one.sd_rest, one.sd_items)
      ),
    ]
    lines.append(tuple(cells))
  columns = table.columns(['varied'], ['ways', 'answers', *heads])
  return Block('Its noise', _NOISE, columns, lines)


def _share(found: Share | None) -> str:
  if found is None:
    return ''
  ends = f'[{found.low:.3f}, {found.high:.3f}]'
  return f'{found.value:.3f} {ends}, n = {found.n:,}'


def _errors(found: Errors | None) -> str:
  if found is None:
    return ''
  bias = f'{found.bias.value:+.3f}'
  ends = f'[{found.bias.low:+.3f}, {found.bias.high:+.3f}]'
  return f'{found.mean:.3f}; bias {bias} {ends}; Brier {found.square:.3f}'


def _sample(of: Sample) -> str:
  share = 'unknown' if of.share is None else f'{of.share:.3f}'
  worth = f', worth {of.size:.0f}' if round(of.size) < of.total else ''
  return f'{share}: {of.count:g} of {of.total:g}{worth}'


def verdict(card: Calibration) -> str:
  """What the judge is worth on these answers, in a sentence."""
  known = identified(card)
  says = f'The judge flags {_percent(card.bad.share)} of what people flag'
  wrong = None if card.good.share is None else 1 - card.good.share
  says += f' and {_percent(wrong)} of the rest'
  if not known:
    return (
      f'{says}: not shown to be better than chance, so its rates say nothing, '
      'and cannot be corrected.'
    )
  weak = card.auc.value < LEVEL
  said = f'{says}; {_among_people(card)}'
  said += 'its scores order answers poorly; ' * weak
  return f'{said}rates can be corrected for these errors with this card.'


def identified(card: Calibration) -> bool:
  """Whether the judge is shown to be better than chance."""
  some = correction.independent(1, 2)  # any rate will do
  return correction.correct(some, card.good, card.bad).identified


def _among_people(card) -> str:
  if card.kappa is None or card.people is None:
    return ''
  own, other = card.kappa, card.people
  pair = f'(kappa {own.value:.2f} and {other.value:.2f})'
  if own.high < other.low:
    return f'it agrees with the label less than people with each other {pair}; '
  if own.low > other.high:
    return f'it agrees with the label more than people with each other {pair}; '
  return f'it agrees with the label about as people with each other {pair}; '


def _percent(share: float | None) -> str:
  return 'an unknown share' if share is None else f'{100 * share:.1f} %'
