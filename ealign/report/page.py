"""The page of runs: what its template is given.

Answers come from a model and are hostile: every text goes through the
template's escaping, and nothing here makes markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ealign.conscience.framings import FORMS, FRAMINGS
from ealign.evals import counts, table
from ealign.report import excerpts, figures, summary, templates, training
from ealign.report.runs import Run, judge_at_hand


def collect(runs: Sequence[Run]) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  answers = [record for run in runs for record in run.answers]
  name = 'eval/mean_token_accuracy'
  accuracy = {r.name: counts.last_metric(r.metrics, name) for r in runs}
  # Whose measures are shown of all: the first one's that scores answers.
  judges = [run.judge for run in runs]
  judge = next((judge for judge in judges if judge.scores), judges[0])
  rows = [x for r in runs for x in counts.rows(r.answers, accuracy, r.judge)]
  kind = counts.headline_kind(rows, judge)
  slots = _slots(runs)
  return {
    'title': 'Fine-tuning with a conscience',
    'summary': summary.sentences(runs, rows, judge),
    'controls': summary.controls(runs),
    'arms': [(r.name, slots[r.name], summary.describe(r)) for r in runs],
    'slots': slots,
    'audits': [(run.name, run.audit) for run in runs if run.audit],
    'method': _method(runs),
    'blocks': [*table.blocks(rows, judge), *training.blocks(runs)],
    'forests': figures.forests(rows, kind, judge, slots),
    'curves': figures.panels(answers, kind, judge, slots),
    'on_the_way': any(r['phase'] == 'curve' for r in answers),
    'judge': judge,
    'questions': excerpts.questions(answers, kind, judge),
    'work': [work for run in runs if (work := excerpts.work(run))],
    'settings': _compare({run.name: run.config for run in runs}),
    'info': _compare({run.name: _origin(run) for run in runs}),
    'configs': [(run.name, run.config) for run in runs if run.config],
    'problems': _problems(runs, rows, judge),
  }


def _slots(runs) -> dict[str, int]:
  """The slot of each arm, a colour and a mark; 0, grey, is for the base."""
  base = [run.name for run in runs if summary.role(run) == 'base'][:1]
  others = [run.name for run in runs if run.name not in base]
  slots = {name: at % figures.SLOTS + 1 for at, name in enumerate(others)}
  return {run.name: slots.get(run.name, 0) for run in runs}


def _method(runs) -> dict[str, Any] | None:
  """What the page explains the method with: an arm with pairs, if any."""
  roles = ('conscience', 'recovery', 'other')
  mine = [run for run in runs if summary.role(run) in roles]
  run = next((run for run in mine if run.health.counts.pairs), (*mine, None)[0])
  if run is None:
    return None
  framing = FRAMINGS.get(run.config.get('conscience.framing'))
  form = run.config.get('conscience.review.form', 'words')
  asks = framing and form in [*FORMS]  # a damaged folder may say anything
  return {
    'idle': run.idle,
    'task': summary.task(run),
    'config': run.config,
    'questions': framing.questions(form) if asks else (),
    'judge': run.judge.note,
  }


def _compare(flats: Mapping[str, Mapping]) -> dict[str, Any]:
  """Splits settings or facts into those that differ between arms and others."""
  flats = {name: flat for name, flat in flats.items() if flat}
  first, *others = [*flats.values()] or [{}]
  names = set(first).union(*others)
  differ = [n for n in names if any(x.get(n) != first.get(n) for x in others)]
  same = [name for name in first if name not in differ]
  shown = lambda name: [table.shown(flat.get(name)) for flat in flats.values()]
  return {
    'arms': [*flats],
    'differ': [(name, shown(name)) for name in sorted(differ)],
    'same': [(name, table.shown(first[name])) for name in same],
  }


def _origin(run: Run) -> dict:
  """What it was made with; the audit's figures are told in words."""
  info = run.info.items()
  return {k: v for k, v in info if not k.startswith('audit.')}


def _problems(runs, rows, judge) -> list[str]:
  gone = (judge_at_hand(run.config)[1] for run in runs)
  others = [r.name for r in runs if r.judge.scores and r.judge != judge]
  return templates.sentences(
    'page_problems.txt.jinja',
    gone=dict.fromkeys(gone),
    others=others,
    judge=judge,
    runs=runs,
    rows=rows,
  )
