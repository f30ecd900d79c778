"""The tables of a grid, for the page and for Markdown: what stands where.

Each is a `Table`: the block that `ealign.evals.table` writes down, and beside
its lines what the page sorts by and how it marks them.
"""

import dataclasses
import json
from collections.abc import Sequence

from ealign.evals import counts, table
from ealign.evals.table import NOTHING, Block, Cell
from ealign.grid import origin, stats
from ealign.grid.compare import Comparison

SEEDS = ('seeds', 'questions', 'answers', 'unscored')
_ADVICE = ('misaligned', 'coherent', 'flagged', 'verdict_accuracy')
_CODE = ('insecure', 'token_accuracy')


@dataclasses.dataclass(frozen=True)
class Table:
  """keys: what to sort by, in the place of each cell; marks: a line's class."""

  block: Block
  keys: list[tuple]
  marks: list[str]

  @property
  def rows(self) -> list[tuple]:
    """(class, [(cell, key), ...]) for each line."""
    pairs = lambda line, keys: list(zip(line, keys, strict=True))
    lines = zip(self.marks, self.block.lines, self.keys, strict=True)
    return [(mark, pairs(line, keys)) for mark, line, keys in lines]


def _table(title, note, columns, lines) -> Table:
  """lines: (class, [(Cell, key), ...])."""
  cells = [tuple(cell for cell, _ in line) for _, line in lines]
  keys = [tuple(key for _, key in line) for _, line in lines]
  return Table(
    Block(title, note, columns, cells), keys, [mark for mark, _ in lines]
  )


def _text(said) -> tuple[Cell, str]:
  return Cell(str(said)), str(said)


def _number(value, text=str) -> tuple[Cell, object]:
  return Cell(NOTHING if value is None else text(value)), value


def _percent(value) -> tuple[Cell, object]:
  return _number(value, table.percent)


def _points(value) -> tuple[Cell, object]:
  return _number(value, points)


def points(value: float) -> str:
  """A difference of shares in points."""
  return f'{100 * value:+.1f}'


def _numbers(titles) -> tuple[tuple[str, bool], ...]:
  return tuple((title, True) for title in titles)


def p_value(p: float) -> str:
  """A p-value with two digits."""
  return '< 0.0001' if p < 1e-4 else f'{p:.2g}'


def _estimate(found, setting, metric, *, wide=True) -> tuple[Cell, object]:
  estimate = found.estimate(setting, metric)
  if estimate is None:
    return _number(None)
  bracket = table.bracket(estimate.interval)
  said = {
    'seeds': 'Student-t over its seeds',
    'pooled': 'with the spread pooled over settings',
    'prompts': 'one seed, clustered by prompt: nothing about other seeds',
  }[estimate.basis]
  shares = found.values(setting, metric).values()
  seeds = [x if isinstance(x, float) else x.value for x in shares]
  hint = f'{bracket} {said}; seeds: {", ".join(map(table.percent, seeds))}'
  text = table.percent(estimate.value)
  return Cell(text, bracket if wide else '', hint), estimate.value


def _asked(found, setting, of) -> list[tuple[Cell, object]]:
  asked = found.asked(setting, of)
  seeds, wanted = asked.seeds if asked else 0, setting.wanted
  text = str(seeds) if seeds == wanted else f'{seeds} of {wanted}'
  if not asked:
    return [(Cell(text), 0), *[_number(None)] * 3]
  return [
    (Cell(text), seeds),
    *(_number(asked.questions), _number(asked.answers)),
    _percent(asked.unscored),
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
    line = [_text(setting.label), _estimate(found, setting, first)]
    base = setting is found.baseline
    change = None if base else found.difference(setting, first)
    line += [_points(change), *_asked(found, setting, of), _text(standing)]
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
  columns = (('setting', False), *_numbers((first, 'change', *SEEDS)))
  columns += (('standing', False), *_numbers(titles))
  return _table(title, _note(found, of, metrics), columns, lines)


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
      'insecure: of the code; tokens: of held-out insecure code predicted, '
      'Student-t without the logit as its number is not recorded; change: of '
      f'the insecure share from {found.baseline.label}, in points. '
    )
  said += (
    'primary: Student-t over the own seeds on the logit scale. exploratory: '
    'the same with a spread pooled over settings, and no p-values. None is '
    'narrower than the binomial interval of its answers. '
  )
  spreads = [(name, found.spreads[name]) for name in metrics]
  told = [
    f'{name} {s.sd:.3f}{"" if name == "token_accuracy" else " logits"} '
    f'({s.freedom} degrees of freedom)'
    for name, s in spreads
    if s
  ]
  if not told:
    return said + 'No setting has two seeds: intervals say nothing about seeds.'
  return said + f'Pooled standard deviation: {", ".join(told)}.'


def contrasts(found: Comparison) -> Table | None:
  """The declared contrasts; None where there are none."""
  lines = []
  for c in found.contrasts:
    line = [_text(c.name), _text(f'{c.metric}: {c.a} − {c.b}')]
    f = c.found
    if f:
      line.append((Cell(points(f.value), table.bracket(f.interval)), f.value))
      odds = '[{:.3g}, {:.3g}]'.format(*f.odds_interval)
      line.append((Cell(f'{f.odds:.3g}', odds), f.odds))
      t = f'{f.t:.2f} ({f.freedom})' if not c.reason else None
      line.append((Cell(t or NOTHING), f.t if t else None))
    else:
      line += [_number(None)] * 3
    line.append(_number(None if c.reason else f.p, p_value))
    line.append(_number(c.p, p_value))
    line.append(_text(f'exploratory: {c.reason}' if c.reason else 'primary'))
    if c.asked:
      line += [_number(x) for x in (c.asked.seeds, c.asked.questions)]
      line += [_number(c.asked.answers), _percent(c.asked.unscored)]
    else:
      line += [_number(0), *[_number(None)] * 3]
    lines.append(('exploratory' if c.reason else 'primary', line))
  if not lines:
    return None
  titles = ('points', 'odds ratio', 't (df)', 'p', 'p, Holm')
  columns = (('contrast', False), ('a − b', False), *_numbers(titles))
  columns += (('standing', False), *_numbers(SEEDS))
  return _table('Primary contrasts', _contrast_note(found), columns, lines)


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


def cells(found: Comparison) -> Table:
  """Every cell by itself, its intervals clustered by prompt."""
  lines = []
  for cell in found.grid.cells:
    line = [_text(cell.label), _text(cell.seed), _text(cell.state)]
    for of, metrics in (
      ('advice', ('misaligned', 'coherent')),
      ('code', ('insecure',)),
    ):
      row = found.rows[of].get(cell.folder, {})
      line += [_number(row.get('questions')), _number(row.get('answers'))]
      unscored = row['unscored'] / row['answers'] if row else None
      line.append(_percent(unscored))
      line += [_share(row.get(metric)) for metric in metrics]
    line += [
      _percent(cell.token_accuracy),
      _number(_took(cell), '{:.0f}'.format),
    ]
    mark = '' if cell.done else 'open' if cell.state in _OPEN else 'missing'
    lines.append(('old' if not cell.current else mark, line))
  asked = ('questions', 'answers', 'unscored')
  columns = (('setting', False), ('seed', False), ('state', False))
  titles = (*asked, 'misaligned', 'coherent', *asked, 'insecure', 'tokens', 's')
  columns += _numbers(titles)
  note = (
    'In per cent, one seed a line, with 95 % intervals clustered by prompt: '
    'they say nothing about other seeds. The second questions, answers and '
    'unscored are of the code. s: seconds from start to end; cells that ran as '
    'one program share them.'
  )
  return _table('Every cell', note, columns, lines)


_OPEN = ('running', 'queued', 'preempted')


def _share(share: counts.Share | None) -> tuple[Cell, object]:
  if not share or not share.total:
    return _number(None)
  text = table.percent(share.value)
  hint = f'{share.count} of {share.total}'
  return Cell(text, table.bracket(share.clustered), hint), share.value


def _took(cell) -> float | None:
  begun, ended = (cell.status.get(at) for at in ('started', 'finished'))
  known = all(isinstance(x, int | float) and x for x in (begun, ended))
  return ended - begun if known and cell.done else None


def not_done(found: Comparison) -> Table | None:
  """Current cells without results, with the reason; None if all are done."""
  lines = []
  for cell in found.grid.cells:
    if cell.done or not cell.current:
      continue
    step, steps = (cell.status.get(name) for name in ('step', 'steps'))
    at = f'{step} of {steps}' if isinstance(step, int) else NOTHING
    mark = 'open' if cell.state in _OPEN else 'missing'
    texts = (cell.label, cell.seed, cell.state, at, cell.error or NOTHING)
    lines.append((mark, [_text(text) for text in (*texts, cell.folder)]))
  titles = ('setting', 'seed', 'state', 'step', 'error', 'folder')
  columns = tuple((title, False) for title in titles)
  return (
    _table('Cells that are not done', '', columns, lines) if lines else None
  )


def changes(found: Comparison) -> Table | None:
  """What each setting's config has otherwise than the baseline's."""
  base, lines = _config(found, found.baseline), []
  for setting in found.settings:
    config = _config(found, setting)
    fields = sorted(n for n in config | base if config.get(n) != base.get(n))
    for name in fields:
      values = (_shown(tree.get(name)) for tree in (config, base))
      line = [_text(x) for x in (setting.label, name, *values)]
      lines.append(('old' if setting.old else '', line))
  columns = ('setting', 'field', 'here', found.baseline.label)
  columns = tuple((title, False) for title in columns)
  title = f'What differs from {found.baseline.label}'
  return _table(title, '', columns, lines) if lines else None


def _config(found, setting) -> dict:
  """The config of its first finished cell, less what replicates set."""
  config = next((c.config for c in setting.counted if c.config), None)
  config = config or found.grid.config | setting.changes
  replicates = {name for c in found.grid.cells for name in c.replicate}
  return {n: v for n, v in config.items() if n not in replicates}


def _shown(value) -> str:
  if isinstance(value, str):
    return value or '(none)'
  return NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def facts(found: Comparison) -> Table | None:
  """Where the cells came from; those facts that differ first, and loud."""
  lines, every = [], sum(c.done and c.current for c in found.grid.cells)
  for fact in origin.facts(found.grid.cells):
    for value, of in fact.values:
      whose = 'all cells' if len(of) == every else f'{len(of)} cells'
      if len(of) < min(every, 4):
        whose = '; '.join(cell.name for cell in of)
      texts = (fact.name, _shown(value), whose, fact.note)
      line = [_text(text) for text in texts]
      lines.append(('missing' if fact.loud else '', line))
  columns = ('what', 'value', 'of', '')
  columns = tuple((title, False) for title in columns)
  return _table('Provenance', '', columns, lines) if lines else None


def everything(found: Comparison) -> list[Table]:
  """All of them, as report.md has them."""
  made: Sequence[Table | None] = (
    contrasts(found),
    *settings(found),
    not_done(found),
    cells(found),
    changes(found),
    facts(found),
  )
  return [x for x in made if x]
