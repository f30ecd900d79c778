"""The report of a grid: results.csv, report.md and one page, from its files.

Answers come from a model and are hostile: every text goes through the
template's escaping, the page runs one script, known by its hash, and nothing
here makes markup.
"""

import base64
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from ealign.evals import table
from ealign.report import excerpts, runs
from ealign.report import page as page_lib
from ealign.report.grid import compare as compare_lib
from ealign.report.grid import figures, lists, origin, results, tables
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
  page_lib.save(
    workdir / 'results.csv', results.to_csv(results.tidy(grid.cells))
  )
  content = collect(grid)
  page_lib.save(workdir / 'report.md', to_markdown(content))
  page_lib.save(workdir / 'report.html', to_html(content))
  return workdir / 'report.html'


def collect(grid: results.Grid) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  found = compare_lib.compare(grid)
  questions, longest = _questions(found)
  return {
    'title': f'Ablation grid: {grid.name}',
    'summary': sentences(found),
    'problems': _problems(found),
    'baseline': found.baseline.label,
    'sweep': grid.sweep,
    'contrasts_hash': grid.contrasts_hash,
    'contrasts': tables.contrasts(found),
    'settings': tables.settings(found),
    'not_done': lists.not_done(found),
    'cells': lists.cells(found),
    'changes': lists.changes(found),
    'facts': lists.facts(found),
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
    'labels': [s.label for s in found.settings],
    'pair': _pair(found),
  }


# ------------------------------------------------------------- what is said


def sentences(found: Comparison) -> list[str]:
  """The outcome in a few sentences, computed from the files."""
  said = [*_range(found), *_verdicts(found)]
  twins = [' = '.join(s.label for s in g) for g in compare_lib.twins(found)]
  if twins:
    same = 'The same counts in every seed that they share'
    said.append(f'{same}: {"; ".join(twins)}.')
  return [*said, _progress(found)]


def _range(found) -> list[str]:
  current = [s for s in found.settings if not s.old]
  first = found.judge.first
  known = [(s, found.estimate(s, first.name)) for s in current]
  known = [(s, e) for s, e in known if e]
  if not known:
    done = any(cell.done for cell in found.grid.cells)
    return [f'No cell has {first.those if done else "results yet"}.']
  base = found.estimate(found.baseline, first.name)
  told = lambda e: (
    f'{table.percent(e.value)}\u00a0% {table.bracket(e.interval)}'
  )
  asked = lambda setting: found.asked(setting.counted, '')
  said = []
  if base:
    said.append(
      f'With {found.baseline.label} {told(base)} of the {first.those} are '
      f'{first.short} ({asked(found.baseline)}).'
    )
  rest = [(s, e) for s, e in known if s is not found.baseline]
  if len(rest) > 1:
    low = min(rest, key=lambda pair: pair[1].value)
    high = max(rest, key=lambda pair: pair[1].value)
    if low[1].value == high[1].value:
      share = table.percent(low[1].value)
      many = f'Over the {len(rest)} other settings the share is'
      return [*said, f'{many} {share}\u00a0% throughout.']
    said.append(
      f'Over the {len(rest)} other settings the share runs from '
      f'{told(low[1])} ({low[0].label}; {asked(low[0])}) to {told(high[1])} '
      f'({high[0].label}; {asked(high[0])}).'
    )
  return said


def _verdicts(found) -> list[str]:
  tested = [c for c in found.contrasts if not c.reason]
  said = []
  if tested:
    held = [c for c in tested if c.p < 0.05]
    said.append(
      f'{len(held)} of {_many(len(tested), "primary contrast")} '
      f'differ{"s" * (len(tested) == 1)} at '
      "5\u00a0% after Holm's correction."
    )
    said += [
      f'{c.name} ({c.metric}, {c.a} − {c.b}): {tables.points(c.found.value)} '
      f'points {table.bracket(c.found.interval)}, p = {tables.p_value(c.p)} '
      f'({c.asked}).'
      for c in tested
    ]
  if left := len(found.contrasts) - len(tested):
    many = _many(left, 'declared contrast')
    said.append(f'{many} could not be tested; the table says why.')
  return said


def _progress(found) -> str:
  cells = [c for c in found.grid.cells if c.current]
  states = {}
  for cell in cells:
    states[cell.state] = states.get(cell.state, 0) + 1
  done = states.pop('done', 0)
  rest = ', '.join(f'{count} {state}' for state, count in states.items())
  old = len(found.grid.cells) - len(cells)
  be = 'is' if old == 1 else 'are'
  said = f'{done} of {len(cells)} cells are done' + (
    f' ({rest})' if rest else ''
  )
  return said + (f'; {old} more {be} no longer in the sweep.' if old else '.')


def _problems(found) -> list[str]:
  gone = runs.judge_at_hand(found.grid.config)[1]
  said = [gone] if gone else []
  cells = [c for c in found.grid.cells if c.current]
  bad = [c for c in cells if c.state in ('failed', 'broken')]
  if bad:
    said.append(
      f'{len(bad)} of {len(cells)} cells failed or cannot be read: '
      + _some([f'{c.name} ({c.error})' for c in bad])
    )
  absent = [c.name for c in cells if c.state == 'missing']
  if absent:
    said.append(f'Never begun: {_many(len(absent), "cell")}: {_some(absent)}')
  for fact in origin.facts(found.grid.cells):
    if fact.loud:
      values = ', '.join(
        f'{v} in {_many(len(of), "cell")}' for v, of in fact.values[:4]
      )
      said.append(
        f'Cells differ in {fact.name}: {values}. Do not compare them.'
      )
  if found.grid.declared_late and found.contrasts:
    said.append(
      'The contrasts were declared after cells had begun: none is primary.'
    )
  return said


def _many(count, what) -> str:
  return f'{count} {what}{"s" * (count != 1)}'


def _some(names, most=4) -> str:
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return '; '.join(names[:most]) + more


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


# ------------------------------------------------------------------ the files


def to_html(content: Mapping) -> str:
  """The page; the only script that may run is the template's own."""
  environment = page_lib.environment()
  script, _, _ = environment.loader.get_source(environment, 'grid.js')
  digest = hashlib.sha256(script.encode()).digest()
  template = environment.get_template('grid.html.jinja')
  known = base64.b64encode(digest).decode()
  return template.render(content, script=script, script_hash=known).lstrip()


def to_markdown(content: Mapping) -> str:
  """The summary and the tables, as Markdown."""
  text = table.escape_markdown
  parts = [f'# {text(content["title"])}', *map(text, content['summary'])]
  parts += [f'**{text(problem)}**' for problem in content['problems']]
  parts += [f'Sweep: {text(content["sweep"])}']
  made = [content['contrasts'], *content['settings']]
  made += [content[name] for name in ('not_done', 'cells', 'changes', 'facts')]
  blocks = table.markdown(list(filter(None, made))).strip()
  return '\n\n'.join([*parts, blocks]) + '\n'
