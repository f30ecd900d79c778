"""The tables of a grid, for the page and for Markdown: what stands where.

Each is a block of `ealign.evals.table`, with what the page sorts by and how it
marks lines. `lists` has more.
"""

from ealign.evals import seeds as stats
from ealign.evals import table
from ealign.evals.judges.measure import Measure
from ealign.evals.table import NOTHING, Block, Entry
from ealign.report.grid.compare import Comparison, Tested

SEEDS = ('seeds', 'questions', 'answers', 'unscored')


def marked(title, note, columns, lines) -> Block | None:
  """A table of lines (mark, entries); None without any."""
  if not lines:
    return None
  entries = [tuple(line) for _, line in lines]
  return Block(title, note, columns, entries, [mark for mark, _ in lines])


def words(text) -> Entry:
  """A text, sorted as such."""
  return Entry(str(text), sort=str(text))


def number(value, text=str) -> Entry:
  """A number as `text` writes it; None is missing."""
  return Entry(NOTHING if value is None else text(value), sort=value)


def percent(value) -> Entry:
  """A share; None is missing."""
  return number(value, table.percent)


def estimate(found, setting, measure: Measure) -> Entry:
  """Mean over the seeds, with its interval if a grid's tables show it."""
  estimate = found.estimate(setting, measure.name)
  if estimate is None:
    return number(None)
  text, bracket = table.percent, table.bracket
  if measure.number:
    text, bracket = table.number, table.number_bracket
  interval = bracket(estimate.interval)
  basis = {
    'seeds': 'Student-t over its seeds',
    'pooled': 'with the spread pooled over settings',
    'prompts': 'one seed alone: nothing about other seeds',
  }[estimate.basis]
  seeds = [x.value for x in found.values(setting, measure.name).values()]
  hint = f'{interval} {basis}; seeds: {", ".join(map(text, seeds))}'
  shown = interval if 'grid' in measure.brackets else ''
  return Entry(text(estimate.value), shown, hint, estimate.value)


def _asked(found, setting, of) -> list[Entry]:
  asked = found.asked(setting.counted, of)
  seeds, wanted = asked.seeds if asked else 0, setting.wanted
  text = str(seeds) if seeds == wanted else f'{seeds} of {wanted}'
  if not asked:
    return [Entry(text, sort=0), *[number(None)] * 3]
  return [
    Entry(text, sort=seeds),
    *(number(asked.questions), number(asked.answers)),
    percent(asked.unscored),
  ]


def settings(found: Comparison) -> list[Block]:
  """A table for each part of the judge's measures, a line for each setting."""
  judge = found.judge
  made = [_settings(found, '', judge.titles.get('', 'Answers'))]
  for part in judge.claimed:
    tokens = part == judge.part(judge.tokens) and any(
      cell.token_accuracy for cell in found.grid.cells
    )
    if found.rows[part] or tokens:
      made.append(_settings(found, part, judge.titles.get(part, part)))
  return made


def _settings(found, part, title) -> Block:
  first, *others = measures = _shown(found, part)
  lines = []
  for setting in found.settings:
    standing = found.standing(setting)
    line = [words(setting.label), estimate(found, setting, first)]
    base = setting is found.baseline
    change = None if base else found.difference(setting, first.name)
    line.append(number(change, table.points))
    line += [*_asked(found, setting, part), words(standing)]
    line += [estimate(found, setting, measure) for measure in others]
    missing = len(setting.counted) < setting.wanted
    mark = 'old' if setting.old else 'partly' if missing else ''
    lines.append((' '.join(filter(None, (mark, standing))), line))
  titles = [m.grid_short or m.short for m in others]
  heads = ('setting', first.short, 'change', *SEEDS)
  columns = table.columns(*heads, names=1)
  columns += table.columns('standing', *titles, names=1)
  return marked(title, _note(found, part, measures), columns, lines)


def _shown(found, part) -> list[Measure]:
  """The part's measures; of others than the judge's, those that are known."""
  first, *others = found.judge.in_grid(part)
  if found.judge.columns:
    return [first, *others]
  known = lambda m: any(found.values(s, m.name) for s in found.settings)
  return [first, *filter(known, others)]


def _note(found, part, measures) -> str:
  first, *others = measures
  clause = lambda m: m.grid_note or m.note
  base = found.baseline.label
  if part:
    change = f'change: of the {first.short} share from {base}, in points'
    clauses = [*map(clause, measures), change]
  else:
    change = f'change: from {base}, in points, over the seeds both have'
    clauses = [clause(first), change, *map(clause, others)]
  note = 'In per cent, means over seeds with 95 % intervals. '
  note += f'{"; ".join(filter(None, clauses))}. '
  note += (
    'primary: Student-t over the own seeds on the logit scale. exploratory: '
    'the same with a spread pooled over settings, and no p-values. None is '
    'narrower than the binomial interval of its answers. '
  )
  spreads = [(m.name, found.spreads.get(m.name)) for m in measures]
  deviations = [
    f'{name} {s.sd:.3f} logits ({s.freedom} degrees of freedom)'
    for name, s in spreads
    if s and 'grid' in found.judge[name].brackets
  ]
  if not deviations:
    return note + 'No setting has two seeds: intervals say nothing about seeds.'
  return note + f'Pooled standard deviation: {", ".join(deviations)}.'


def contrasts(found: Comparison) -> Block | None:
  """The declared contrasts; None where there are none."""
  lines = [
    ('exploratory' if c.reason else 'primary', _contrast(c))
    for c in found.contrasts
  ]
  titles = ('points', 'odds ratio', 't (df)', 'p', 'p, Holm')
  columns = table.columns('contrast', 'a − b', *titles, names=2)
  columns += table.columns('standing', *SEEDS, names=1)
  return marked('Primary contrasts', _contrast_note(found), columns, lines)


def _contrast(c: Tested) -> list[Entry]:
  line = [words(c.name), words(f'{c.metric}: {c.a} − {c.b}')]
  found = c.found
  if found:
    bracket = table.bracket(found.interval)
    line.append(Entry(table.points(found.value), bracket, sort=found.value))
    odds = '[{:.3g}, {:.3g}]'.format(*found.odds_interval)
    line.append(Entry(f'{found.odds:.3g}', odds, sort=found.odds))
  else:
    line += [number(None)] * 2
  if c.reason:
    line += [number(None)] * 3
  else:
    line.append(Entry(f'{found.t:.2f} ({found.freedom})', sort=found.t))
    line += [number(found.p, table.p_value), number(c.p, table.p_value)]
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
  note = (
    'Declared in the config file before the run; a − b, paired by replicate, '
    'Student-t on the difference of the logits, with 95 % intervals not '
    'adjusted and p adjusted by Holm over the '
    f'{len(found.contrasts)} declared. Fewer than {stats.FEWEST_SEEDS} seeds '
    'are not tested.'
  )
  if few > 1 and count > 1:
    note += (
      f' All other settings are exploratory: with {few} seeds and {count} '
      f'settings Holm would ask |t| > {stats.least_t(few, count):.1f}'
    )
    more = f', with {seeds} seeds {stats.least_t(seeds, count):.1f}'
    note += (more if seeds > few else '') + '.'
  return note
