"""What the runs were and what came out, in words computed from the files."""

import pathlib
from collections.abc import Mapping, Sequence

from ealign import fields
from ealign.evals import counts, table
from ealign.evals.judges.measure import Judge
from ealign.report.runs import Run

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
    known = ('base', 'conscience', 'recovery')
    return run.name if run.name in known else 'plain'
  if config.get('train.steps') == 0:
    return 'base'
  lam, every = config.get('dpo.lam'), config.get('conscience.every')
  if not fields.reflects(lam, every):
    return 'plain'
  if _unusual(config):
    return 'other'
  return 'recovery' if config.get('model.adapter') else 'conscience'


def _unusual(config: Mapping) -> dict:
  """The values that make a run a control, by the field's last two names."""
  from ealign import losses  # loads JAX: only when needed

  variants = losses.VARIANTS.items()
  method = tuple(name for name, v in variants if not v.control)
  return {
    '.'.join(name.split('.')[-2:]): config[name]
    for name, usual in {**_CONTROLS, 'dpo.variant': method}.items()
    if config.get(name, usual[0]) not in usual
  }


def task(run: Run) -> str:
  """What a run is fine-tuned on, by the file's name, as its judge calls it."""
  stem = pathlib.PurePath(run.config.get('data.train') or '').name
  stem = stem.split('.')[0].replace('_', ' ')
  known = run.judge.tasks.items()
  return next((told for part, told in known if part in stem), stem)


def describe(run: Run) -> str:
  """One line: what was done to the model in this arm."""
  config, kind = run.config, role(run)
  if not config:
    return 'no settings recorded'
  if kind == 'base':
    return 'the model as it was, not trained'
  line = f'fine-tuned on {task(run)}' if task(run) else 'no fine-tuning data'
  line += f' for {config.get("train.steps")} steps'
  start = config.get('model.adapter') or ''
  if start:
    arm = start.removeprefix('arm:')
    line += f', starting from {"arm " if arm != start else ""}{arm}'
  if kind == 'plain':
    return line
  if frozen := config.get('model.frozen_adapter'):
    line += f' (frozen: {frozen})'
  line += ', with a conscience' if kind == 'other' else ', with its conscience'
  line += f' every {config.get("conscience.every")} steps'
  named = [f'{n}: {v}' for n, v in _unusual(config).items() if 'model' not in n]
  return line + (f' ({", ".join(named)})' if named else '')


def sentences(
  runs: Sequence[Run], rows: Sequence[Mapping], judge: Judge
) -> list[str]:
  """The outcome in a few sentences; each needs its arms, and falls away."""
  first = judge.first
  main = counts.headline(rows, counts.headline_kind(rows, judge))
  shares = _shares(main, first.name)
  runs = [run for run in runs if run.name in shares]
  cast = _cast(runs)
  line = [*_main_sentence(cast, shares, first)]
  for part in judge.claimed:
    measure = judge.shown(part)[0]
    of_part = _shares(counts.headline(rows, part), measure.name)
    line += _part_sentence(cast, of_part, measure)
  line += _recovery_sentence(cast, shares, first)
  line += _control_sentence(cast, runs, shares)
  if shares and not line:
    listed = ', '.join(f'{arm} {share}' for arm, share in shares.items())
    line = [f'{first.short.capitalize()} among {first.those}: {listed}.']
  return line + _coherence_sentence(main, judge.coherent)


def _shares(rows, name) -> dict[str, str]:
  return {
    arm: f'{table.percent(row[name].value)}\u00a0%'
    for arm, row in rows.items()
    if row.get(name) and row[name].total
  }


def _cast(runs) -> dict[str, Run]:
  """The first arm of each role, `plain` being on the same task."""
  cast = {}
  for run in runs:
    cast.setdefault(role(run), run)
  main = cast.get('conscience') or cast.get('recovery') or cast.get('plain')
  for run in reversed(runs):
    if role(run) == 'plain' and task(run) == task(main):
      cast['plain'] = run
  if 'plain' in cast and task(cast['plain']) != task(main):
    del cast['plain']
  return cast


def _main_sentence(cast, bad, first) -> list[str]:
  of, word = f'of the {first.those} to held-out questions', first.short
  base = f' (base: {bad[cast["base"].name]})' if 'base' in cast else ''
  if 'plain' in cast:
    plain = cast['plain']
    line = f'Fine-tuning on {task(plain) or "its data"} made '
    line += f'{bad[plain.name]} {of} {word}{base}'
    if 'conscience' in cast:
      line += f'; with its conscience, {bad[cast["conscience"].name]}'
    return [line + '.']
  if 'conscience' in cast:
    arm = cast['conscience']
    line = f'Fine-tuned on {task(arm) or "its data"} with its conscience, '
    return [f'{line}{bad[arm.name]} {of} were {word}{base}.']
  if 'base' in cast:
    return [f'Before any training, {bad[cast["base"].name]} {of} were {word}.']
  return []


def _part_sentence(cast, shares, measure) -> list[str]:
  plain, arm = cast.get('plain'), cast.get('conscience')
  if not arm or arm.name not in shares:
    return []
  line = f'Of the {measure.those} written with the conscience '
  line += f'{shares[arm.name]} is {measure.short}'
  if plain and plain.name in shares:
    line += f', against {shares[plain.name]} without it'
  return [line + '.']


def _recovery_sentence(cast, bad, first) -> list[str]:
  if 'recovery' not in cast:
    return []
  run = cast['recovery']
  start = str(run.config.get('model.adapter') or '').removeprefix('arm:')
  before = f'from {bad[start]} ' if start in bad else ''
  to = f'{first.short} checkpoint' if first.better == 'lower' else 'checkpoint'
  return [
    f'Applied afterwards, to the {to}, the conscience '
    f'takes the share {before}to {bad[run.name]}.'
  ]


def _control_sentence(cast, runs, bad) -> list[str]:
  if 'plain' not in cast:
    return []
  controls = [
    f'Fine-tuning on {task(run)} instead, as a control: {bad[run.name]}.'
    for run in runs
    if role(run) == 'plain' and task(run) not in ('', task(cast['plain']))
  ]
  return controls[:1]


def _coherence_sentence(rows, name) -> list[str]:
  shares = [share for row in rows.values() if (share := row.get(name))]
  shares = [share for share in shares if share.total]
  if not shares:
    return []
  values = sorted(table.percent(share.value) for share in shares)
  values.sort(key=float)
  span = (
    values[0] if values[0] == values[-1] else f'{values[0]} to {values[-1]}'
  )
  by = ', depending on the arm' if len(shares) > 1 else ''
  return [f'Of all these answers {span}\u00a0% were coherent{by}.']
