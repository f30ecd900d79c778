"""Puts the page together: what the template is given, and the two files.

Answers come from a model and are hostile: every text goes through the
template's escaping, and nothing here makes markup.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.conscience.framings import FRAMINGS
from ealign.evals import counts, table
from ealign.evals.judges.measure import Judge
from ealign.report import (
  curves,
  excerpts,
  figures,
  summary,
  templates,
  training,
)
from ealign.report import runs as runs_lib
from ealign.report.runs import Run

TITLE = 'Fine-tuning with a conscience'
_REFLECTED = 'Flagged while training, % of sampled answers'
_SLOTS = 7  # colours beside the grey of the base


def write(workdir: Any) -> pathlib.Path:
  """Writes report.html and report.md into a work folder.

  Returns:
    The path of report.html.

  Raises:
    UserError: no run there, or a file that cannot be read.
  """
  workdir = pathlib.Path(workdir)
  content = collect(runs_lib.read(workdir))
  return templates.save(workdir, content, 'page.html.jinja')


def collect(runs: Sequence[Run]) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  answers = [record for run in runs for record in run.answers]
  accuracy = {
    run.name: counts.last_metric(run.metrics, 'eval/mean_token_accuracy')
    for run in runs
  }
  judge = _judge(runs)
  rows = [
    row for run in runs for row in counts.rows(run.answers, accuracy, run.judge)
  ]
  kind = counts.headline_kind(rows, judge)
  slots = _slots(runs)
  return {
    'title': TITLE,
    'summary': summary.sentences(runs, rows, judge),
    'arms': [
      (run.name, slots[run.name], summary.describe(run)) for run in runs
    ],
    'slots': slots,
    'method': _method(runs),
    'rows': rows,
    'blocks': [*table.blocks(rows, judge), *training.blocks(runs)],
    'forests': _forests(rows, kind, judge, slots),
    'curves': _curves(answers, kind, judge, slots),
    'questions': excerpts.questions(answers, kind, judge),
    'work': [
      (
        run.name,
        excerpts.reflected(run.answers),
        excerpts.examples(run.answers, run.judge),
      )
      for run in runs
      if any(record['phase'] == 'reflect' for record in run.answers)
    ],
    'settings': _compare({run.name: run.config for run in runs}),
    'info': _compare({run.name: run.info for run in runs}),
    'configs': [(run.name, _listing(run.config)) for run in runs if run.config],
    'problems': _problems(runs, rows, judge),
  }


def _slots(runs) -> dict[str, int]:
  """A colour and a mark for each arm; 0, the grey one, is for the base."""
  slots, used = {}, 0
  for run in runs:
    if summary.role(run) == 'base' and 0 not in slots.values():
      slots[run.name] = 0
    else:
      slots[run.name] = used % _SLOTS + 1
      used += 1
  return slots


def _method(runs) -> dict | None:
  """The settings of the first arm with a conscience, for the explanation."""
  for run in runs:
    if summary.role(run) in ('conscience', 'recovery', 'other'):
      get = run.config.get
      framing = FRAMINGS.get(get('conscience.framing'))
      return {
        'task': summary.task(run),
        'every': get('conscience.every'),
        'prompts': get('conscience.prompts'),
        'pool': 'sft' if get('pool.paths') == ['sft'] else 'pool',
        'frozen': get('conscience.review.by') != 'policy',
        'second': (get('conscience.review.by') or '').startswith('other:'),
        'threshold': get('conscience.threshold'),
        'lam': get('dpo.lam'),
        'judge': run.judge.note,
        'question': framing.question if framing else None,
        'flag': framing.flag[0] if framing else 'Unethical',
      }
  return None


def _judge(runs) -> Judge:
  """The first run's that scores answers: its measures are shown of all."""
  found = [run.judge for run in runs]
  return next((judge for judge in found if judge.score), found[0])


def _forests(rows, kind, judge, slots) -> list[tuple[str, dict]]:
  made = []
  for measure in judge.figures():
    found = counts.headline(rows, judge.part(measure) or kind)
    lines = [
      (arm, slots[arm], share)
      for arm, row in found.items()
      if (share := row.get(measure.name)) and share.total
    ]
    if lines:
      made.append((measure.title, figures.forest(lines)))
  return made


def _curves(answers, kind, judge, slots) -> list[tuple[str, dict]]:
  """Panels of shares over steps; one without two points falls away."""
  made = []
  for name, among in curves.panels(answers, kind, judge, arms=True):
    series = []
    for arm, slot in slots.items():
      own = [record for record in among if record['arm'] == arm]
      if line := curves.line(judge[curves.measured(name)], own):
        series.append((arm, slot, line))
    if any(len(line) > 1 for _, _, line in series):
      title = curves.title(judge, name, _REFLECTED)
      made.append((title, figures.curves(series)))
  return made


# -------------------------------------------------------- settings and files


def _compare(flats: Mapping[str, Mapping]) -> dict[str, Any]:
  flats = {name: flat for name, flat in flats.items() if flat}
  lines = runs_lib.differences(flats)
  differ = {name for name, _ in lines}
  first = next(iter(flats.values()), {})
  same = [(name, first[name]) for name in first if name not in differ]
  return {
    'arms': list(flats),
    'differ': [
      (name, list(map(table.shown, values))) for name, values in lines
    ],
    'same': [(name, table.shown(value)) for name, value in same],
  }


def _listing(flat: Mapping) -> str:
  return '\n'.join(
    f'{name} = {table.shown(value)}' for name, value in flat.items()
  )


def _problems(runs, rows, judge) -> list[str]:
  broken = (runs_lib.judge_at_hand(run.config)[1] for run in runs)
  problems = list(dict.fromkeys(filter(None, broken)))
  others = [r.name for r in runs if r.judge.score and r.judge != judge]
  if others:
    problems.append(
      f'{", ".join(others)}: judged by another judge than the other arms; the '
      f'tables show the measures of {judge.name!r}'
    )
  for run in runs:
    evaluated = any(record['phase'] == 'eval' for record in run.answers)
    if not evaluated:
      problems.append(f'{run.name}: no held-out answers recorded yet')
    if 'config.json' in run.missing:
      problems.append(
        f'{run.name}: no config.json, so its settings are unknown'
      )
  for row in rows:
    if row['unscored']:
      problems.append(
        f'{row["arm"]}, {row["kind"]}: {row["unscored"]} of '
        f'{row["answers"]} answers were not judged and are in no share'
      )
  return problems
