"""The tables of a grid, for the page and for Markdown: what stands where.

Each is a `Table`: the block that `ealign.evals.table` writes down, with what
the page sorts by and how it marks lines. `ealign.grid.lists` has more.
"""

import dataclasses

from ealign.evals import seeds as stats
from ealign.evals import table
from ealign.evals.table import NOTHING, Block, Cell
from ealign.report.grid.compare import Comparison, Tested

Entry = tuple[Cell, object]  # what stands there, and what it is sorted by

SEEDS = ('seeds', 'questions', 'answers', 'unscored')
_ADVICE = ('misaligned', 'coherent', 'flagged', 'verdict_accuracy')
_CODE = ('insecure', 'token_accuracy')


@dataclasses.dataclass(frozen=True)
class Table:
  """columns: (title, is a number); rows: (class, [(Cell, sort key), ...])."""

  title: str
  note: str
  columns: tuple[tuple[str, bool], ...]
  rows: list[tuple[str, list[Entry]]]

  @property
  def block(self) -> Block:
    lines = [tuple(cell for cell, _ in line) for _, line in self.rows]
    return Block(self.title, self.note, self.columns, lines)


def words(said) -> Entry:
  """A text, sorted as such."""
  return Cell(str(said)), str(said)


def number(value, text=str) -> Entry:
  """A number as `text` writes it; None is missing."""
  return Cell(NOTHING if value is None else text(value)), value


def percent(value) -> Entry:
  """A share; None is missing."""
  return number(value, table.percent)


def _points(value) -> Entry:
  return number(value, points)


def points(value: float) -> str:
  """A difference of shares in points."""
  return f'{100 * value:+.1f}'


def numbers(titles) -> tuple[tuple[str, bool], ...]:
  """Columns of numbers."""
  return tuple((title, True) for title in titles)


def p_value(p: float) -> str:
  """A p-value with two digits."""
  return '< 0.0001' if p < 1e-4 else f'{p:.2g}'


def _estimate(found, setting, metric, *, wide=True) -> Entry:
  estimate = found.estimate(setting, metric)
  if estimate is None:
    return number(None)
  bracket = table.bracket(estimate.interval)
  said = {
    'seeds': 'Student-t over its seeds',
    'pooled': 'with the spread pooled over settings',
    'prompts': 'one seed alone: nothing about other seeds',
  }[estimate.basis]
  seeds = [share.value for share in found.values(setting, metric).values()]
  hint = f'{bracket} {said}; seeds: {", ".join(map(table.percent, seeds))}'
  text = table.percent(estimate.value)
  return Cell(text, bracket if wide else '', hint), estimate.value


def _asked(found, setting, of) -> list[Entry]:
  asked = found.asked(setting, of)
  seeds, wanted = asked.seeds if asked else 0, setting.wanted
  text = str(seeds) if seeds == wanted else f'{seeds} of {wanted}'
  if not asked:
    return [(Cell(text), 0), *[number(None)] * 3]
  return [
    (Cell(text), seeds),
    *(number(asked.questions), number(asked.answers)),
    percent(asked.unscored),
  ]


def settings(found: Comparison) -> list[Table]:
  """Alignment and capability, a line for each setting."""
  made = [_settings(found, 'advice', 'Alignment', _ADVICE)]
  if found.rows['code'] or any(c.token_accuracy for c in found.grid.cells):
    made.append(_settings(found, 'code', 'Capability', _CODE))
  return made


def _settings(found, of, title, metrics) -> Table:
  first, *others = metrics
  lines = []
  for setting in found.settings:
    standing = found.standing(setting)
    line = [words(setting.label), _estimate(found, setting, first)]
    base = setting is found.baseline
    change = None if base else found.difference(setting, first)
    line += [_points(change), *_asked(found, setting, of), words(standing)]
    line += [_estimate(found, setting, metric) for metric in others]
    if of == 'advice':
      line.append(_estimate(found, setting, 'misaligned_all', wide=False))
      line.append(_estimate(found, setting, 'misaligned_bound', wide=False))
    missing = len(setting.counted) < setting.wanted
    mark = 'old' if setting.old else 'partly' if missing else ''
    lines.append((' '.join(filter(None, (mark, standing))), line))
  names = {'verdict_accuracy': 'verdicts', 'token_accuracy': 'tokens'}
  titles = [names.get(metric, metric) for metric in others]
  titles += ['of all', 'at most'] if of == 'advice' else []
  columns = (('setting', False), *numbers((first, 'change', *SEEDS)))
  columns += (('standing', False), *numbers(titles))
  return Table(title, _note(found, of, metrics), columns, lines)


def _note(found, of, metrics) -> str:
  said = 'In per cent, means over seeds with 95 % intervals. '
  if of == 'advice':
    said += (
      'misaligned: a bad action, of coherent answers; change: from '
      f'{found.baseline.label}, in points, over the seeds both have; flagged, '
      'verdicts: flagged, and rightly flagged or not, of answers with a '
      'verdict; of all: misaligned of all answers; at most: if every '
      'incoherent answer were misaligned. '
    )
  else:
    said += (
      'insecure: of the code; tokens: of held-out insecure code predicted; '
      f'change: of the insecure share from {found.baseline.label}, in points. '
    )
  said += (
    'primary: Student-t over the own seeds on the logit scale. exploratory: '
    'the same with a spread pooled over settings, and no p-values. None is '
    'narrower than the binomial interval of its answers. '
  )
  spreads = [(name, found.spreads[name]) for name in metrics]
  told = [
    f'{name} {s.sd:.3f} logits ({s.freedom} degrees of freedom)'
    for name, s in spreads
    if s
  ]
  if not told:
    return said + 'No setting has two seeds: intervals say nothing about seeds.'
  return said + f'Pooled standard deviation: {", ".join(told)}.'


def contrasts(found: Comparison) -> Table | None:
  """The declared contrasts; None where there are none."""
  if not found.contrasts:
    return None
  lines = [
    ('exploratory' if c.reason else 'primary', _contrast(c))
    for c in found.contrasts
  ]
  titles = ('points', 'odds ratio', 't (df)', 'p', 'p, Holm')
  columns = (('contrast', False), ('a − b', False), *numbers(titles))
  columns += (('standing', False), *numbers(SEEDS))
  return Table('Primary contrasts', _contrast_note(found), columns, lines)


def _contrast(c: Tested) -> list[Entry]:
  line = [words(c.name), words(f'{c.metric}: {c.a} − {c.b}')]
  found = c.found
  if found:
    bracket = table.bracket(found.interval)
    line.append((Cell(points(found.value), bracket), found.value))
    odds = '[{:.3g}, {:.3g}]'.format(*found.odds_interval)
    line.append((Cell(f'{found.odds:.3g}', odds), found.odds))
  else:
    line += [number(None)] * 2
  if c.reason:
    line += [number(None)] * 3
  else:
    line.append((Cell(f'{found.t:.2f} ({found.freedom})'), found.t))
    line += [number(found.p, p_value), number(c.p, p_value)]
  line.append(words(f'exploratory: {c.reason}' if c.reason else 'primary'))
  asked = c.asked
  if asked is None:
    return [*line, number(0), *[number(None)] * 3]
  line += [number(x) for x in (asked.seeds, asked.questions, asked.answers)]
  return [*line, percent(asked.unscored)]


def _contrast_note(found) -> str:
  seeds = max((s.wanted for s in found.settings if not s.old), default=0)
  few = min((s.wanted for s in found.settings if not s.old), default=0)
  count = sum(not s.old for s in found.settings)
  said = (
    'Declared in the config file before the run; a − b, paired by replicate, '
    'Student-t on the difference of the logits, with 95 % intervals not '
    'adjusted and p adjusted by Holm over the '
    f'{len(found.contrasts)} declared. Fewer than {stats.FEWEST_SEEDS} seeds '
    'are not tested.'
  )
  if few > 1 and count > 1:
    said += (
      f' All other settings are exploratory: with {few} seeds and {count} '
      f'settings Holm would ask |t| > {stats.asked(few, count):.1f}'
    )
    more = f', with {seeds} seeds {stats.asked(seeds, count):.1f}'
    said += (more if seeds > few else '') + '.'
  return said
