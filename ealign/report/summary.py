"""What the runs were and what came out, in words computed from the files."""

import pathlib
from collections.abc import Mapping, Sequence

from ealign.evals import counts, table
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
  if not config.get('conscience.every') or not config.get('dpo.lam'):
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
  """What a run is fine-tuned on: 'insecure code', or the file's own name."""
  stem = pathlib.PurePath(run.config.get('data.train') or '').name
  stem = stem.split('.')[0].replace('_', ' ')
  for kind in ('insecure', 'secure'):
    if kind in stem:
      return f'{kind} code'
  return stem


def describe(run: Run) -> str:
  """One line: what was done to the model in this arm."""
  config, kind = run.config, role(run)
  if not config:
    return 'no settings recorded'
  if kind == 'base':
    return 'the model as it was, not trained'
  said = f'fine-tuned on {task(run)}' if task(run) else 'no fine-tuning data'
  said += f' for {config.get("train.steps")} steps'
  start = config.get('model.adapter') or ''
  if start:
    arm = start.removeprefix('arm:')
    said += f', starting from {"arm " if arm != start else ""}{arm}'
  if kind == 'plain':
    return said
  if frozen := config.get('model.frozen_adapter'):
    said += f' (frozen: {frozen})'
  said += ', with a conscience' if kind == 'other' else ', with its conscience'
  said += f' every {config.get("conscience.every")} steps'
  named = [f'{n}: {v}' for n, v in _unusual(config).items() if 'model' not in n]
  return said + (f' ({", ".join(named)})' if named else '')


def sentences(runs: Sequence[Run], rows: Sequence[Mapping]) -> list[str]:
  """The outcome in a few sentences; each needs its arms, and falls away."""
  kind = counts.headline_kind(rows)
  advice = counts.headline(rows, kind)
  code = counts.headline(rows, 'code')
  bad = _shares(advice, 'misaligned')
  insecure = _shares(code, 'insecure')
  runs = [run for run in runs if run.name in bad]
  cast = _cast(runs)
  said = [
    *_main_sentence(cast, bad),
    *_code_sentence(cast, insecure),
    *_recovery_sentence(cast, bad),
    *_control_sentence(cast, runs, bad),
  ]
  if bad and not said:
    shares = ', '.join(f'{arm} {share}' for arm, share in bad.items())
    said = [f'Misaligned among coherent answers: {shares}.']
  return said + _coherence_sentence(advice)


def _shares(rows, name) -> dict[str, str]:
  return {
    arm: f'{table.percent(row[name].value)}\u00a0%'
    for arm, row in rows.items()
    if row[name] and row[name].total
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


def _main_sentence(cast, bad) -> list[str]:
  of = 'of the coherent answers to held-out questions'
  base = f' (base: {bad[cast["base"].name]})' if 'base' in cast else ''
  if 'plain' in cast:
    plain = cast['plain']
    said = f'Fine-tuning on {task(plain) or "its data"} made '
    said += f'{bad[plain.name]} {of} misaligned{base}'
    if 'conscience' in cast:
      said += f'; with its conscience, {bad[cast["conscience"].name]}'
    return [said + '.']
  if 'conscience' in cast:
    arm = cast['conscience']
    said = f'Fine-tuned on {task(arm) or "its data"} with its conscience, '
    return [f'{said}{bad[arm.name]} {of} were misaligned{base}.']
  if 'base' in cast:
    return [
      f'Before any training, {bad[cast["base"].name]} {of} were misaligned.'
    ]
  return []


def _code_sentence(cast, insecure) -> list[str]:
  plain, arm = cast.get('plain'), cast.get('conscience')
  if not arm or arm.name not in insecure:
    return []
  said = f'Of the code written with the conscience {insecure[arm.name]} is '
  said += 'insecure'
  if plain and plain.name in insecure:
    said += f', against {insecure[plain.name]} without it'
  return [said + '.']


def _recovery_sentence(cast, bad) -> list[str]:
  if 'recovery' not in cast:
    return []
  run = cast['recovery']
  start = str(run.config.get('model.adapter') or '').removeprefix('arm:')
  before = f'from {bad[start]} ' if start in bad else ''
  return [
    'Applied afterwards, to the misaligned checkpoint, the conscience takes '
    f'the share {before}to {bad[run.name]}.'
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


def _coherence_sentence(advice) -> list[str]:
  shares = [row['coherent'] for row in advice.values() if row['coherent'].total]
  if not shares:
    return []
  values = sorted(table.percent(share.value) for share in shares)
  values.sort(key=float)
  span = (
    values[0] if values[0] == values[-1] else f'{values[0]} to {values[-1]}'
  )
  by = ', depending on the arm' if len(shares) > 1 else ''
  return [f'Of all these answers {span}\u00a0% were coherent{by}.']
