"""The report of a grid: results.csv, report.md and one page, from its files.

Answers come from a model and are hostile: every text goes through the
template's escaping, the page runs one script, known by its hash, and nothing
here makes markup.
"""

import collections
import pathlib
from typing import Any

from ealign.report import excerpts, runs, templates
from ealign.report.grid import (
  compare,
  figures,
  lists,
  origin,
  results,
  tables,
)
from ealign.report.grid.compare import Comparison

QUESTIONS = 12  # whose answers are on the page, one of each setting
_LETTERS = 600_000  # of all these answers together
_LONGEST = 1500  # of one


def write(workdir: Any) -> pathlib.Path:
  """Writes results.csv, report.md and report.html into a grid's folder.

  Returns:
    The path of report.html.

  Raises:
    UserError: grid.json cannot be read.
  """
  workdir = pathlib.Path(workdir)
  grid = results.read(workdir)
  rows = results.to_csv(results.tidy(grid.cells))
  templates.write(workdir / 'results.csv', rows)
  return templates.save(workdir, collect(grid), 'grid.html.jinja')


def collect(grid: results.Grid) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  found = compare.compare(grid)
  blocks = {
    'contrasts': tables.contrasts(found),
    'settings': tables.settings(found),
    'not_done': lists.not_done(found),
    'cells': lists.cells(found),
    'changes': lists.changes(found),
    'facts': lists.facts(found),
  }
  flat = [blocks['contrasts'], *blocks['settings'], *[*blocks.values()][2:]]
  return blocks | {
    'blocks': [block for block in flat if block],
    'title': f'Ablation grid: {grid.name}',
    'summary': sentences(found),
    'problems': _problems(found),
    'found': found,
    'forests': [
      (measure.title, drawn)
      for measure in found.judge.figures()
      if (drawn := figures.forest(found, measure.name))
    ],
    'curves': figures.curves(found),
    'heat_maps': [
      (measure.title, maps)
      for measure in found.judge.figures()
      if (maps := figures.heat(found, measure.name))
    ],
    **_questions(found),
    'pair': _pair(found),
  }


def sentences(found: Comparison) -> list[str]:
  """The outcome in a few sentences, computed from the files."""
  first, cells = found.judge.first.name, found.grid.cells
  current = [s for s in found.settings if not s.old]
  known = [(s, found.estimate(s, first)) for s in current]
  return templates.sentences(
    'grid_summary.txt.jinja',
    found=found,
    known=[(setting, estimate) for setting, estimate in known if estimate],
    twins=compare.twins(found),
    states=collections.Counter(c.state for c in cells if c.current),
  )


def _problems(found) -> list[str]:
  grid = found.grid
  return templates.sentences(
    'grid_problems.txt.jinja',
    grid=grid,
    gone=runs.judge_at_hand(grid.config)[1],
    cells=[cell for cell in grid.cells if cell.current],
    facts=origin.facts(grid.cells),
  )


# --------------------------------------------------------------- the answers


def _questions(found: Comparison) -> dict[str, Any]:
  """Side by side: one answer of each setting, of its first finished seed.

  longest: after how many letters the page cuts each text.
  """
  chosen = {
    place: next((c for c in setting.counted if c.answers), None)
    for place, setting in enumerate(found.settings)
  }
  answers = [
    record | {'arm': place}
    for place, cell in chosen.items()
    for record in (cell.answers if cell else ())
  ]
  picked = excerpts.questions(answers, found.kind, found.judge, QUESTIONS)
  total = sum(len(shown) for _, _, shown in picked)
  longest = min(_LONGEST, _LETTERS // max(total, 1))
  return {'questions': picked, 'longest': longest, 'chosen': chosen}


def _pair(found) -> tuple[int, int]:
  """Places of the two settings shown at first: baseline, and the worst."""
  measure, first = found.judge.first, found.settings.index(found.baseline)
  estimates = [found.estimate(s, measure.name) for s in found.settings]
  known = {at: e.value for at, e in enumerate(estimates) if e and at != first}
  worst = min if measure.better == 'higher' else max
  return first, worst(known, key=known.get, default=first)
