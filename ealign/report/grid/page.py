"""The page of a grid: what its template is given.

Answers come from a model and are hostile: every text goes through the
template's escaping, the page runs one script, known by its hash, and nothing
here makes markup.
"""

import collections
from typing import Any

from ealign.report import excerpts, runs, templates
from ealign.report.grid import compare, figures, lists, origin, tables
from ealign.report.grid.compare import Comparison
from ealign.report.grid.results import Grid

QUESTIONS = 12  # whose answers are on the page, one of each setting
_LETTERS = 600_000  # of all these answers together
_LONGEST = 1500  # of one


def collect(grid: Grid) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  compared = compare.compare(grid)
  blocks = {
    'contrasts': tables.contrasts(compared),
    'settings': tables.settings(compared),
    'not_done': lists.not_done(compared),
    'cells': lists.cells(compared),
    'changes': lists.changes(compared),
    'facts': lists.facts(compared),
  }
  flat = [blocks['contrasts'], *blocks['settings'], *[*blocks.values()][2:]]
  return blocks | {
    'blocks': [block for block in flat if block],
    'title': f'Ablation grid: {grid.name}',
    'summary': sentences(compared),
    'problems': _problems(compared),
    'compared': compared,
    'forests': _drawn(compared, figures.forest),
    'curves': figures.curves(compared),
    'heat_maps': _drawn(compared, figures.heat),
    **_questions(compared),
    'pair': _pair(compared),
  }


def _drawn(compared, draw) -> list[tuple[str, Any]]:
  """(title, figure) of each measure that `draw` has a figure of."""
  made = [(m.title, draw(compared, m.name)) for m in compared.judge.figures()]
  return [(title, figure) for title, figure in made if figure]


def sentences(compared: Comparison) -> list[str]:
  """The outcome in a few sentences, computed from the files."""
  first, cells = compared.judge.first.name, compared.grid.cells
  current = [s for s in compared.settings if not s.old]
  return templates.sentences(
    'grid_summary.txt.jinja',
    compared=compared,
    known=[(s, e) for s in current if (e := compared.estimate(s, first))],
    twins=compare.twins(compared),
    states=collections.Counter(c.state for c in cells if c.current),
  )


def _problems(compared) -> list[str]:
  return templates.sentences(
    'grid_problems.txt.jinja',
    grid=compared.grid,
    gone=runs.judge_at_hand(compared.grid.config)[1],
    facts=origin.facts(compared.grid.cells),
  )


# --------------------------------------------------------------- the answers


def _questions(compared: Comparison) -> dict[str, Any]:
  """Side by side: answers of each setting's first finished seed.

  longest: after how many letters the page cuts each text.
  """
  chosen = {
    place: cell
    for place, setting in enumerate(compared.settings)
    for cell in setting.counted
    if cell.run.answers  # kept of one cell alone
  }
  answers = [r | {'arm': at} for at, c in chosen.items() for r in c.run.answers]
  picked = excerpts.questions(answers, compared.kind, compared.judge, QUESTIONS)
  total = sum(len(shown) for _, _, shown in picked)
  longest = min(_LONGEST, _LETTERS // max(total, 1))
  return {'questions': picked, 'longest': longest, 'chosen': chosen}


def _pair(compared) -> tuple[int, int]:
  """Indices of the settings shown first: the baseline and the worst one."""
  measure, settings = compared.judge.first, compared.settings
  first = settings.index(compared.baseline)
  estimates = [compared.estimate(s, measure.name) for s in settings]
  known = {at: e.value for at, e in enumerate(estimates) if e and at != first}
  worst = min if measure.better == 'higher' else max
  return first, worst(known, key=known.get, default=first)
