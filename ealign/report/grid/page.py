"""The report of a grid: results.csv, report.md and one page, from its files.

Answers come from a model and are hostile: every text goes through the
template's escaping, the page runs one script, known by its hash, and nothing
here makes markup.
"""

import collections
import pathlib
from collections.abc import Mapping
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
  questions, longest = _questions(found)
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
    'questions': questions,
    'longest': longest,
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


def _questions(found: Comparison) -> tuple[list, int]:
  """(kind, prompt, {place of the setting: its answer}), and the longest text.

  One answer of each setting, of its first finished seed; long ones are cut.
  """
  chosen = {}
  for place, setting in enumerate(found.settings):
    cell = next((c for c in setting.counted if c.answers), None)
    if cell:
      chosen[place] = cell
  answers = [
    record | {'arm': place}
    for place, cell in chosen.items()
    for record in cell.answers
  ]
  picked = excerpts.questions(answers, found.kind, found.judge, QUESTIONS)
  total = sum(len(shown) for _, _, shown in picked)
  longest = min(_LONGEST, _LETTERS // max(total, 1))
  made = []
  for kind, messages, shown in picked:
    messages = [_cut_message(m, longest) for m in messages]
    made.append(
      (
        kind,
        messages,
        {
          place: answer
          | {
            'text': str(answer['text'])[:longest],
            'shortened': len(str(answer['text'])) > longest,
            'seed': chosen[place].seed,
          }
          for place, answer in shown.items()
        },
      )
    )
  return made, longest


def _cut_message(message: Mapping, longest: int) -> dict:
  content = str(message.get('content'))[:longest]
  return {'role': str(message.get('role')), 'content': content}


def _pair(found) -> tuple[int, int]:
  """Places of the two settings shown at first: baseline, and the worst."""
  first = found.settings.index(found.baseline)
  measure = found.judge.first
  sign = -1 if measure.better == 'higher' else 1
  known = [(found.estimate(s, measure.name), s) for s in found.settings]
  known = [
    (sign * e.value, s) for e, s in known if e and s is not found.baseline
  ]
  if not known:
    return first, first
  worst = max(known, key=lambda pair: pair[0])[1]
  return first, found.settings.index(worst)
