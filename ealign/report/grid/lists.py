"""Lists of a grid: every cell, those not done, what differs, provenance."""

import itertools

from ealign.evals import counts, table
from ealign.evals.table import NOTHING, Block, Entry
from ealign.report import templates
from ealign.report.grid import origin, tables
from ealign.report.grid.compare import Comparison
from ealign.report.grid.tables import counted, marked, number, percent, words

_OPEN = ('running', 'queued', 'preempted')


def cells(compared: Comparison) -> Block:
  """Every cell by itself, its intervals clustered by prompt."""
  judge, lines = compared.judge, []
  # There is no room for more than two measures of each part.
  parts = {
    part: [m for m in judge.in_grid(part) if m is not judge.tokens][:2]
    for part in ('', *judge.claimed)
  }
  for cell in compared.grid.cells:
    line = [words(cell.label), words(cell.seed), words(cell.state)]
    for part, measures in parts.items():
      row = compared.rows[part].get(cell.folder, {})
      line += counted(compared.evidence([cell], part))[1:]
      line += [_share(row.get(measure.name)) for measure in measures]
    tokens = cell.token_accuracy and cell.token_accuracy.value
    took = cell.took if cell.done else None
    line += [percent(tokens), number(took, '{:.0f}'.format)]
    lines.append((_mark(cell) if cell.current else 'old', line))
  heads = lambda part: (*tables.SEEDS[1:], *(m.short for m in parts[part]))
  titles = [*itertools.chain(*map(heads, parts)), judge.tokens.short, 's']
  columns = table.columns(['setting', 'seed', 'state'], titles)
  note = templates.text('note_cells.txt.jinja', claimed=judge.claimed)
  return marked('Every cell', note, columns, lines)


def _mark(cell) -> str:
  return '' if cell.done else 'open' if cell.state in _OPEN else 'missing'


def _share(share: counts.Share | counts.Mean | None) -> Entry:
  if not isinstance(share, counts.Share) or not share.total:
    return table.entry(share, wide=True)
  text, interval = table.percent(share.value), table.bracket(share.clustered)
  return Entry(text, interval, f'{share.count} of {share.total}', share.value)


def not_done(compared: Comparison) -> Block | None:
  """Current cells without results, with the reason; None if all are done."""
  lines = []
  for cell in (c for c in compared.grid.cells if c.current and not c.done):
    step, steps = (cell.status.get(name) for name in ('step', 'steps'))
    at = f'{step} of {steps}' if isinstance(step, int) else NOTHING
    texts = (cell.label, cell.seed, cell.state, at, cell.error or NOTHING)
    lines.append((_mark(cell), map(words, (*texts, cell.folder))))
  titles = ('setting', 'seed', 'state', 'step', 'error', 'folder')
  return marked('Cells that are not done', '', table.columns(titles), lines)


def changes(compared: Comparison) -> Block | None:
  """Where the config of each setting differs from the baseline's."""
  base, lines = _config(compared, compared.baseline), []
  for setting in compared.settings:
    config = _config(compared, setting)
    fields = sorted(n for n in config | base if config.get(n) != base.get(n))
    for name in fields:
      values = (_shown(tree.get(name)) for tree in (config, base))
      line = map(words, (setting.label, name, *values))
      lines.append(('old' if setting.old else '', line))
  base = compared.baseline.label
  columns = table.columns(['setting', 'field', 'here', base])
  return marked(f'What differs from {base}', '', columns, lines)


def _config(compared, setting) -> dict:
  """The config of its first finished cell, less what replicates set."""
  config = next((c.run.config for c in setting.counted if c.run.config), None)
  config = config or compared.grid.config | setting.changes
  replicates = {name for c in compared.grid.cells for name in c.replicate}
  return {n: v for n, v in config.items() if n not in replicates}


def _shown(value) -> str:
  return f'{value:.6g}' if isinstance(value, float) else table.shown(value)


def facts(compared: Comparison) -> Block | None:
  """Where the cells came from; facts that must not differ stand first."""
  lines, every = [], sum(c.done and c.current for c in compared.grid.cells)
  for fact in origin.facts(compared.grid.cells):
    for value, of in fact.values:
      whose = 'all cells' if len(of) == every else f'{len(of)} cells'
      if len(of) < min(every, 4):
        whose = '; '.join(cell.name for cell in of)
      line = map(words, (fact.name, _shown(value), whose, fact.note))
      lines.append(('missing' if fact.loud else '', line))
  columns = table.columns(['what', 'value', 'of', 'note'])
  return marked('Provenance', '', columns, lines)
