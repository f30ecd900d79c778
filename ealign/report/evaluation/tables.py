"""The tables of an evaluation's page, as blocks that a terminal shows too."""

import dataclasses
from collections.abc import Mapping, Sequence

from ealign.evals import counts, differences, table
from ealign.evals.counts import Mean, Share
from ealign.evals.differences import Answer, Difference
from ealign.evals.judges.measure import ENDED, Measure
from ealign.evals.table import NOTHING, Block, Entry
from ealign.report.evaluation.groups import Group, Part

_NOTE = (
  'In per cent of the answers, means as they are; in brackets 95 % intervals '
  'in which the answers to one question count as alike. At 0 and 100 % a '
  'question counts as one answer, and the bound is exact.'
)
_CUT = dataclasses.replace(
  ENDED,
  name='cut',
  of=lambda record: record.get('stop') == 'length',
  short='cut off',
  note='cut off: longer than an answer may be',
  brackets='',
)
_UNJUDGED = Measure(
  'unjudged',
  lambda record: not record.get('scores'),
  needs='',
  short='not judged',
  note='not judged: without any score, and in no other column',
  brackets='',
)


def amount(value: float) -> str:
  """A mean as tables show it."""
  return f'{value:.1f}' if abs(value) >= 10 else f'{value:.2f}'


def figure(measure: Measure, value: float) -> str:
  """A share in per cent, or a mean."""
  return amount(value) if measure.number else f'{100 * value:.1f}'


def limits(found: Share | Mean) -> tuple[float, float] | None:
  """The interval in which answers to one question count as alike."""
  return found.clustered if isinstance(found, Share) else found.interval


def bracket(measure: Measure, interval) -> str:
  ends = [figure(measure, end) for end in interval or ()]
  return f'[{", ".join(ends)}]' if ends else ''


def cell(measure: Measure, found: Share | Mean | None) -> Entry:
  """What was counted, with its interval and the counts behind it."""
  if found is None or not found.total:
    return Entry(NOTHING)
  if isinstance(found, Share):
    hint = f'{found.count:,} of {found.total:,} {measure.those}; as if all '
    hint += f'were independent {table.bracket(found.interval)}'
  else:
    hint = f'mean of {found.total:,} answers'
  interval = bracket(measure, limits(found))
  return Entry(figure(measure, found.value), interval, hint, found.value)


def counted(
  part: Part,
  groups: Sequence[Group],
  title: str,
  by: str = '',
  plain: Group | None = None,
) -> Block:
  """A line for each group and model.

  by: the title of the column of groups; '' leaves it out. plain: the group from
  which the others' differences are shown, paired by question.
  """
  every = [r for g in groups for own in g.answers.values() for r in own]
  more = [m for m in (_CUT, _UNJUDGED) if any(map(m.of, every))]
  measures = [*part.measures, *more]
  lines = []
  for group in groups:
    for model, records in group.answers.items():
      names = [model, *([group.name] if by else []), f'{len(records):,}']
      found = (counts.count(m, records) for m in measures)
      cells = (cell(m, x) for m, x in zip(measures, found, strict=True))
      cells = [*cells, *_above(part, group, plain, model)]
      lines.append((*map(Entry, names), *cells))
  titles = ['model', *([by] if by else [])]
  above = [f'above {plain.name}'] if plain else []
  heads = table.columns(titles, ['n', *(m.short for m in measures), *above])
  note = table.note(measures, f'{_NOTE} n: answers;')
  if plain:
    note = f'above {plain.name}: points of {part.first.short}, by question.'
  return table.without_empty(Block(title, note, heads, lines))


def _above(part, group, plain, model) -> list[Entry]:
  """The difference from the plain group, of the measure that comes first."""
  if plain is None:
    return []
  base, own = plain.answers.get(model), group.answers[model]
  if group.name == plain.name or not base:
    return [Entry(NOTHING)]
  return [_difference(compare(part.first, own, base))]


def plainer(block: Block, part: Part) -> Block:
  """The block without the intervals that are for a page alone."""
  kept = {m.short for m in part.measures if 'run' in m.brackets}
  bare = lambda title, x: (
    x if title in kept else dataclasses.replace(x, interval='')
  )
  titles = [title for title, _ in block.columns]
  lines = [
    tuple(bare(*pair) for pair in zip(titles, line, strict=True))
    for line in block.lines
  ]
  return dataclasses.replace(block, lines=lines)


def values(measure: Measure, records) -> list[Answer] | None:
  """The answers for a paired comparison; None if they are no shares.

  A number of 0 to 100 becomes one of 0 to 1.
  """
  known = measure.known(records)
  found = [measure.value(record) for record in known]
  top = 100.0 if measure.number else 1.0
  if any(not 0 <= x <= top for x in found):
    return None
  pairs = zip(known, found, strict=True)
  return [
    Answer(x / top, r['question'], r.get('seed', 0), r.get('cluster'))
    for r, x in pairs
  ]


def compare(measure: Measure, a, b) -> Difference | None:
  """The difference of two models' records, paired by question and seed.

  Runs with seeds of their own have none in common: by question alone, then.
  """
  sides = values(measure, a), values(measure, b)
  if not sides[0] or not sides[1]:
    return None
  seeds = [{x.seed for x in side} for side in sides]
  if seeds[0] != seeds[1]:
    sides = [[dataclasses.replace(x, seed=0) for x in s] for s in sides]
  return differences.paired(*sides)


def _over_seeds(group: Group, reference: str, cells) -> list[tuple]:
  """Arms of several seeds and that of the reference: (name, records, records).

  Of the seeds that both have, where these are two or more.
  """
  arms: dict[str, dict[str, list]] = {}
  for model, records in group.answers.items():
    if model in cells:
      arm, seed = cells[model]
      own = [dict(record) | {'seed': seed} for record in records]
      arms.setdefault(arm, {})[seed] = own
  home = cells.get(reference, ('', ''))[0]
  made, base = [], arms.pop(home, {})
  for arm, own in arms.items():
    both = [seed for seed in own if seed in base]
    if len(both) > 1:
      sides = ([r for seed in both for r in side[seed]] for side in (own, base))
      made.append((f'{arm} above {home}, {len(both)} seeds', *sides))
  return made


def differing(
  part: Part,
  reference: str,
  against: str,
  cells: Mapping[str, tuple[str, str]],
) -> Block | None:
  """The differences between each model and the one of reference.

  cells: model -> (arm, seed); arms of several seeds have a line of their own.
  """
  lines, seeds = [], False
  several = len(part.heads) > 1
  for group in part.heads:
    base = group.answers.get(reference)
    others = {m: own for m, own in group.answers.items() if m != reference}
    rows = [(m, own, base) for m, own in others.items() if base]
    over = _over_seeds(group, reference, cells)
    seeds |= bool(over)
    for model, records, base in rows + over:
      found = [compare(m, records, base) for m in part.measures]
      if not any(found):
        continue
      most = max((d.questions for d in found if d), default=0)
      names = [model, *([group.name] if several else []), str(most)]
      pairs = zip(part.measures, found, strict=True)
      cells = [_difference(x, bare=m.number) for m, x in pairs]
      lines.append((*map(Entry, names), *cells))
  if not lines:
    return None
  titles = ['model', *(['answers'] if several else [])]
  heads = table.columns(
    titles, ['questions', *(m.short for m in part.measures)]
  )
  note = (
    f'Points above {against}, the mean over the questions that both were asked '
    'and of which both have something to count, each counting alike, so that '
    'it may differ from the difference of two rates above. In brackets 95 % '
    'intervals over questions (Student’s t), for one comparison: of many, one '
    'in twenty misses by chance.'
  )
  if seeds:
    note += (
      ' A line of several seeds is paired by question and by seed, and its '
      'interval is over both: what other seeds would do as well.'
    )
  block = Block(f'Differences from {against}', note, heads, lines)
  return table.without_empty(block)


def _difference(found: Difference | None, *, bare: bool = False) -> Entry:
  """bare: a mean, of which Newcombe's interval of two rates says nothing."""
  if found is None:
    return Entry(NOTHING)
  if bare and found.basis == 'counts':
    hint = f'{found.questions} questions, all with the same difference'
    return Entry(table.points(found.value), '', hint, found.value)
  ends = ', '.join(table.points(end) for end in found.interval)
  p = '' if found.p is None else f'; p = {table.p_value(found.p)}'
  lost = f'; {found.unpaired:,} answers left out' if found.unpaired else ''
  hint = f'{found.questions} questions, by {found.basis}{p}{lost}'
  return Entry(table.points(found.value), f'[{ends}]', hint, found.value)


def power(part: Part, group: Group, reference: str) -> str:
  """What a comparison of this size can show, in a sentence; '' if unknown."""
  measure = part.first_of(group)
  if measure is None or measure.number:
    return ''
  base = group.answers.get(reference)
  others = [own for name, own in group.answers.items() if name != reference]
  sides = [*others[:1], *([base] if base else [])]
  found = [values(measure, own) for own in sides]
  if not all(found):
    return ''
  spread = differences.spread(*found[:2])
  return differences.power_line(spread) if spread else ''


def rates(measure: Measure, group: Group) -> dict[str, Share | Mean]:
  """Model -> what was counted of a measure, where there is something."""
  found = {m: counts.count(measure, rs) for m, rs in group.answers.items()}
  return {model: share for model, share in found.items() if share.total}
