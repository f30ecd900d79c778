"""The tables of a grid, for the page and for Markdown: what stands where.

Each is a block of `ealign.evals.table`, with what the page sorts by and how it
marks lines. `lists` has more.
"""

from ealign.evals import seeds as stats
from ealign.evals import table
from ealign.evals.judges.measure import Measure
from ealign.evals.table import NOTHING, Block, Entry
from ealign.report import templates
from ealign.report.grid.compare import Comparison, Evidence, Tested

SEEDS = ('seeds', 'questions', 'answers', 'unscored')


def marked(title, note, columns, lines) -> Block | None:
  """A table from lines of (mark, entries); None if there are no lines."""
  if not lines:
    return None
  entries = [tuple(line) for _, line in lines]
  return Block(title, note, columns, entries, [mark for mark, _ in lines])


def words(text) -> Entry:
  """A text, which is also its sort key."""
  return Entry(str(text), sort=str(text))


def number(value, text=str) -> Entry:
  """A number written by `text`; None is shown as missing."""
  return Entry(NOTHING if value is None else text(value), sort=value)


def percent(value) -> Entry:
  """A share in per cent; None is shown as missing."""
  return number(value, table.percent)


def estimate(compared, setting, measure: Measure) -> Entry:
  """Mean over the seeds, with its interval if a grid's tables show it."""
  estimate = compared.estimate(setting, measure.name)
  if estimate is None:
    return number(None)
  scale = 1 if measure.number else 100
  interval = table.bracket(estimate.interval, scale)
  basis = {
    'seeds': 'Student-t over its seeds',
    'pooled': 'with the spread pooled over settings',
    'prompts': 'one seed alone: nothing about other seeds',
  }[estimate.basis]
  seeds = compared.values(setting, measure.name).values()
  seeds = ', '.join(table.percent(x.value, scale) for x in seeds)
  hint = f'{interval} {basis}; seeds: {seeds}'
  shown = interval if 'grid' in measure.brackets else ''
  text = table.percent(estimate.value, scale)
  return Entry(text, shown, hint, estimate.value)


def counted(evidence: Evidence | None) -> list[Entry]:
  """The entries of the columns SEEDS."""
  if evidence is None:
    return [*map(number, (0, None, None, None))]
  found = evidence.seeds, evidence.questions, evidence.answers
  return [*map(number, found), percent(evidence.unscored)]


def settings(compared: Comparison) -> list[Block]:
  """A table for each part of the judge's measures, a line for each setting."""
  judge = compared.judge
  tokens = any(cell.token_accuracy for cell in compared.grid.cells)
  shown = judge.part(judge.tokens) if tokens else ''
  parts = (p for p in judge.claimed if compared.rows[p] or p == shown)
  return [_settings(compared, part) for part in ('', *parts)]


def _settings(compared, part) -> Block:
  first, *others = measures = _shown(compared, part)
  lines = []
  for setting in compared.settings:
    standing = compared.standing(setting)
    line = [words(setting.label), estimate(compared, setting, first)]
    base = setting is compared.baseline
    change = None if base else compared.difference(setting, first.name)
    line.append(number(change, table.points))
    evidence = compared.evidence(setting.counted, part)
    seeds, wanted = evidence.seeds if evidence else 0, setting.wanted
    text = str(seeds) if seeds == wanted else f'{seeds} of {wanted}'
    line += [Entry(text, sort=seeds), *counted(evidence)[1:], words(standing)]
    line += [estimate(compared, setting, measure) for measure in others]
    missing = len(setting.counted) < wanted
    mark = 'old' if setting.old else 'partly' if missing else ''
    lines.append((' '.join(filter(None, (mark, standing))), line))
  titles = [m.grid_short or m.short for m in others]
  columns = table.columns(['setting'], [first.short, 'change', *SEEDS])
  columns += table.columns(['standing'], titles)
  title = compared.judge.titles.get(part, part or 'Answers')
  return marked(title, _note(compared, part, measures), columns, lines)


def _shown(compared, part) -> list[Measure]:
  """The part's measures; if the judge lists no columns, those with values."""
  first, *others = compared.judge.in_grid(part)
  if compared.judge.columns:
    return [first, *others]
  known = lambda m: any(compared.values(s, m.name) for s in compared.settings)
  return [first, *filter(known, others)]


def _note(compared, part, measures) -> str:
  bracketed = (m.name for m in measures if 'grid' in m.brackets)
  spreads = ((name, compared.spreads.get(name)) for name in bracketed)
  return templates.text(
    'note_settings.txt.jinja',
    part=part,
    first=measures[0].short,
    base=compared.baseline.label,
    clauses=[measure.grid_note or measure.note for measure in measures],
    spreads=[(name, spread) for name, spread in spreads if spread],
  )


def contrasts(compared: Comparison) -> Block | None:
  """The table of the declared contrasts; None if none is declared."""
  standing = lambda c: 'exploratory' if c.reason else 'primary'
  lines = [(standing(c), _contrast(c)) for c in compared.contrasts]
  titles = ('points', 'odds ratio', 't (df)', 'p', 'p, Holm')
  columns = table.columns(['contrast', 'a − b'], titles)
  columns += table.columns(['standing'], SEEDS)
  wanted = [s.wanted for s in compared.settings if not s.old]
  note = templates.text(
    'note_contrasts.txt.jinja',
    declared=len(compared.contrasts),
    fewest=stats.FEWEST_SEEDS,
    settings=len(wanted),
    few=min(wanted, default=0),
    seeds=max(wanted, default=0),
    least_t=stats.least_t,
  )
  return marked('Primary contrasts', note, columns, lines)


def _contrast(c: Tested) -> list[Entry]:
  effect = c.effect
  line = [words(c.name), words(f'{c.metric}: {c.a} − {c.b}')]
  line += [number(None)] * 5
  if effect:
    bracket = table.bracket(effect.interval)
    line[2] = Entry(table.points(effect.value), bracket, sort=effect.value)
    odds = '[{:.3g}, {:.3g}]'.format(*effect.odds_interval)
    line[3] = Entry(f'{effect.odds:.3g}', odds, sort=effect.odds)
  if not c.reason:
    line[4] = Entry(f'{effect.t:.2f} ({effect.freedom})', sort=effect.t)
    line[5:] = number(effect.p, table.p_value), number(c.p, table.p_value)
  line.append(words(f'exploratory: {c.reason}' if c.reason else 'primary'))
  return line + counted(c.evidence)
