"""What the runs were and what came out, in words computed from the files."""

import pathlib
from collections.abc import Mapping, Sequence

from ealign import fields
from ealign.evals import counts, table
from ealign.evals.judges.measure import Judge, Measure
from ealign.report import templates
from ealign.report.evaluation import tables
from ealign.report.runs import Run

_ROLES = ('base', 'plain', 'conscience', 'recovery', 'other')
_CONTROLS = {  # an arm with another value is a control, not the method
  'conscience.review.verdict': ('question',),
  'conscience.revise.sees': ('review', 'fresh'),
  'model.frozen_adapter': ('', None),
}


def role(run: Run) -> str:
  """'base', 'plain' (SFT alone), 'conscience', 'recovery' or 'other'.

  From the config; without one, from the name.
  """
  config = run.config
  if not config:
    return run.name if run.name in _ROLES[:-1] else 'plain'
  if config.get('train.steps') == 0:
    return 'base'
  lam, every = config.get('dpo.lam'), config.get('conscience.every')
  if not fields.reflects(lam, every):
    return 'plain'
  if _unusual(config):
    return 'other'
  return 'recovery' if config.get('model.adapter') else 'conscience'


def _taught(run: Run) -> str:
  """The role by what a run learned: without a pair its conscience taught it."""
  return 'plain' if run.idle else role(run)


def _unusual(config: Mapping) -> dict:
  """The settings that make a run a control, named by their last two parts."""
  from ealign import losses  # loads JAX: only when needed

  variants = losses.VARIANTS.items()
  method = tuple(name for name, v in variants if not v.control)
  return {
    '.'.join(name.split('.')[-2:]): config[name]
    for name, usual in {**_CONTROLS, 'dpo.variant': method}.items()
    if config.get(name, usual[0]) not in usual
  }


def task(run: Run) -> str:
  """The judge's words for the fine-tuning data, or the file's name, quoted."""
  name = pathlib.PurePath(run.config.get('data.train') or '').name
  stem, known = name.split('.')[0].replace('_', ' '), run.judge.tasks
  quoted = f'\u201c{name}\u201d' if name else ''
  return next((known[part] for part in known if part in stem), quoted)


def describe(run: Run) -> str:
  """One line: what was done to the model in this arm."""
  return templates.text(
    'arm.txt.jinja',
    config=run.config,
    role=role(run),
    task=task(run),
    idle=run.idle,
    unusual=_unusual(run.config),
  )


def sentences(
  runs: Sequence[Run], rows: Sequence[Mapping], judge: Judge
) -> list[str]:
  """The outcome in a few sentences; one whose arms are missing is left out."""
  main = counts.headline(rows, counts.headline_kind(rows, judge))
  shares = _shares(main, judge.first)
  runs = [run for run in runs if run.name in shares]
  cast = _cast(runs)
  firsts = (judge.shown(part)[0] for part in judge.claimed)
  apart = [(m, _shares(counts.headline(rows, m.kind), m)) for m in firsts]
  known = {task(cast['plain']), ''} if cast['plain'] else {}
  found = sorted(x.value for x in counts.shares(main, judge.coherent).values())
  return templates.sentences(
    'summary.txt.jinja',
    first=judge.first,
    cast=cast,
    tasks={name: task(run) for name, run in cast.items() if run},
    shares=shares,
    unseen=_unseen(cast, main, judge.first),
    parts=apart,
    controls=[
      (run, task(run))
      for run in runs
      if known and _taught(run) == 'plain' and task(run) not in known
    ],
    coherent=[table.percent(x) for x in (*found[:1], *found[-1:])],
  )


def controls(runs: Sequence[Run]) -> list[str]:
  """What a reader must know of arms whose verdict was not the question's.

  One sentence for each `conscience.review.verdict`, with the arms that had it.
  """
  arms = {}
  for run in runs:
    verdict = str(run.config.get('conscience.review.verdict') or 'question')
    if role(run) == 'other' and verdict != 'question':
      arms.setdefault(verdict, []).append(run.name)
  return templates.sentences('controls.txt.jinja', controls=arms)


def _shares(rows, measure) -> dict[str, str]:
  found = counts.shares(rows, measure.name).items()
  return {arm: f'{table.percent(x.value)}\u00a0%' for arm, x in found}


def _unseen(cast, main: Mapping[str, Mapping], measure: Measure) -> str:
  """On how many answers no difference of `plain` from `base` is seen, or ''.

  That of 95 %, paired by question; where they share none, of both shares.
  """
  if not cast['plain'] or not cast['base']:
    return ''
  two = [(run, main[run.name]) for run in (cast['plain'], cast['base'])]
  shares = [row[measure.name] for _, row in two]
  found = tables.compare(measure, *(_counted(*one) for one in two))
  (low, high), other = [share.clustered for share in shares]
  if found:
    (low, high), other = found.interval, (0.0, 0.0)
  if low > other[1] or high < other[0]:
    return ''
  return ' and '.join(dict.fromkeys(str(share.total) for share in shares))


def _counted(run: Run, row: Mapping) -> list[Mapping]:
  """The answers that a row of the table counts."""
  mine = lambda r: (r['kind'], r.get('split')) == (row['kind'], row['split'])
  return [record for record in counts.final(run.answers) if mine(record)]


def _cast(runs) -> dict[str, Run | None]:
  """The first arm of each role; `plain` is one on the same task."""
  cast = dict.fromkeys(_ROLES) | {_taught(run): run for run in runs[::-1]}
  main = cast['conscience'] or cast['recovery'] or cast['plain']
  same = (r for r in runs if _taught(r) == 'plain' and task(r) == task(main))
  return cast | {'plain': next(same, None)}
