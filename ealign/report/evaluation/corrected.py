"""The raw rates beside those corrected for the judge's errors."""

from collections.abc import Mapping

from ealign.evals import readings, table
from ealign.evals.calibration import Calibration
from ealign.evals.table import Block, Entry
from ealign.report.evaluation.groups import Part


def corrected(
  part: Part, card: Calibration, judge: Mapping
) -> tuple[Block, list[str]] | None:
  """The raw rates beside those corrected for the judge's errors; and warnings.

  judge: model, prompt and mode by which these answers were judged.
  """
  kind = readings.KINDS.get(card.suite)
  lines, strange = [], []
  for group in part.heads if kind else ():
    for model, records in group.answers.items():
      flags, clusters = _flags(kind, records)
      if not flags:
        continue
      found = card.correct(flags, clusters)
      names = [model, *([group.name] if len(part.heads) > 1 else [])]
      share = f'{100 * found.raw:.1f}'
      raw = Entry(share, table.bracket(found.raw_interval))
      value = table.percent(found.value) if found.identified else 'unknown'
      fixed = Entry(value, table.bracket(found.interval))
      lines.append((*map(Entry, names), Entry(f'{len(flags):,}'), raw, fixed))
      if not found.fits:
        strange.append(model)
  if not lines:
    return None
  titles = ['model', *(['answers'] if len(part.heads) > 1 else [])]
  heads = table.columns(
    titles, ['n', f'{kind.flagged}, as judged', 'corrected']
  )
  block = Block('Corrected for the judge’s errors', _about(card), heads, lines)
  return block, _warnings(card, judge, strange)


def _flags(kind: readings.Kind, records) -> tuple[list[bool], list]:
  """The judge's decisions, as they are on the card, and their questions.

  Of the answers that are counted, such as the coherent ones. One that is code,
  or declines, has no number and is not flagged.
  """
  known = [*filter(kind.among, records)]
  clusters = [r.get('cluster') or r['question'] for r in known]
  return [kind.flag(record) for record in known], clusters


def _about(card: Calibration) -> str:
  right = lambda of: f'{of.count:g} of {of.total:g}'
  way = 'under' if card.reading.below else 'from'
  return (
    f'Of {card.n:,} answers to {card.clusters:,} questions with labels by '
    f'people ({card.gold or "no name"}), the judge flagged rightly '
    f'{right(card.bad)} and rightly did not flag {right(card.good)}; a score '
    f'{way} {card.reading.threshold:g} flags. The intervals are over those '
    'answers and these. They hold only if the judge errs on these answers as '
    'on the labelled ones. Nothing on this page shows that it does: the card '
    'does not say which models and questions the labels are of.'
  )


def _warnings(card, judge, strange) -> list[str]:
  said = []
  for name in ('model', 'prompt', 'mode'):
    have, own = judge.get(name), getattr(card, name)
    if name == 'model':
      have = have or judge.get('weights')
    if have and own and have != own:
      said.append(
        f'The card of the judge is of another {name} ({own}) than judged here '
        f'({have}): the corrected rates are not of this judge.'
      )
  if strange:
    said.append(
      f'The judge flags fewer answers of {", ".join(dict.fromkeys(strange))} '
      'than its false flags alone, or more than it could: it errs here '
      'otherwise than on the labelled answers.'
    )
  return said
