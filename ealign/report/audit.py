"""The page of an audit, and its lines on the terminal."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ealign.config import flatten
from ealign.fields import Config
from ealign.report import templates

# What the kinds of the shipped exchanges are.
KINDS = {
  'plain': 'plainly good or bad',
  'subtle': 'bad only on reflection',
  'alarming': 'alarming words in an everyday sense',
  'refusal': 'a needless refusal',
  'code': 'proper code, or a textbook slip',
  'praise': 'praises its own ethics',
  'orders': 'imitates a verdict or orders the judge',
  'language': 'in other languages',
}


def config_lines(found: Mapping) -> list[str]:
  """The lines that put what was chosen into a config file; [] without.

  A field that the config has otherwise is set, also to its default. A threshold
  'auto:ALPHA' stays: it is found on the model's own answers, by which the guard
  `unlikely` goes too, and exchanges that people wrote are no such answers.
  """
  if not found['tried']:
    return []
  best = found['settings'][0]
  usual, fields = flatten(Config()), dict(best['fields'])
  own = flatten({'conscience': found['conscience']})
  fields['conscience.exchanges'] = found['exchanges']
  fields['conscience.revise.sees'] = found['writer']['sees']
  # The number itself: rounded, it may flag more, or be 1.
  value = best['thresholds'].get('dev', {}).get('value', 1.0)
  if value < 1 and isinstance(own['conscience.threshold'], float):
    fields['conscience.threshold'] = value
  changed = {k: v for k, v in fields.items() if {v} != {usual[k], own[k]}}
  return [f'config.{name} = {value!r}' for name, value in changed.items()]


def heading(found: Mapping) -> str:
  """What stands above the lines for the config."""
  if found['verdict']['tells']:
    return 'for the config'
  return 'the best that was tried, though it does not tell good from bad'


def lines(found: Mapping) -> list[str]:
  """The audit in lines for a terminal."""
  best, *others = found['settings']
  made = _setting(best)
  if others:
    made += ['others on test, by kind:', *map(_line, others), '']
  made += [f'without a conscience: {x}' for x in _without(found['baselines'])]
  n = len(found['writer']['rows'])
  for one in found['writer']['tried']:
    shares = ', '.join(_written(one['summary']))
    made += [f'alternatives on dev, revise.sees={one["sees"]}: {shares}']
  if n:
    shares = ', '.join(_written(found['writer']['summary']))
    sees = found['writer']['sees']
    made += [f'of {n} alternatives on test, revise.sees={sees}: {shares}', '']
  if text := config_lines(found):
    made += [heading(found) + ':', *(f'  {line}' for line in text), '']
  return made


def _written(s: Mapping) -> list[str]:
  return [
    *(f'{name} {_share(s[name])}' for name in ('ended', 'refusals', 'echoes')),
    f'distinct {_share(s["distinct"])}',
    f'{s["length"]:.2f} times as long as a plain answer'
    if s['length'] == s['length']
    else 'none beside a plain answer',
    f'{_share(s["pairs"])} would make a pair',
  ]


def _setting(s: Mapping) -> list[str]:
  made = [
    f'{s["name"]}: AUC {_area(s["auc"])} on {s["among"]} exchanges of test; a '
    f'verdict on {_share(s["answered"])} (label mass {s["mass"]:.2f})',
    '  kind       AUC                 flagged: bad  good  what',
  ]
  for kind, area in s['kinds'].items():
    shares = ' '.join(f'{x:>5}' for x in _flagged(s, kind))
    told = f'{_area(area):19} {shares:>20}'
    made.append(f'  {kind:10} {told}  {KINDS.get(kind, "")}'.rstrip())
  for name, at in s['thresholds'].items():
    bad, good = _rate(at['caught']), _rate(at['false_flags'])
    made.append(
      f'  flagged from P = {at["value"]:.4g} on ({_threshold(name, at)}): '
      f'{bad} of the bad, {good} of the good'
    )
  for move in s['moves']:
    what = KINDS.get(move['kind'], move['kind'])
    made.append(
      f'  a reply ({move["label"]}) that {what}: P moves by {move["by"]:+.3f}'
    )
  if s['flips'] is not None:
    made.append(f'  the two questions disagree on {_share(s["flips"])}')
  return [*made, '']


def _flagged(s: Mapping, kind: str) -> list[str]:
  """The shares of a kind's bad and good replies above the first threshold."""
  at = next(iter(s['thresholds'].values()), {'kinds': ()})
  own = {k['label']: k['value'] for k in at['kinds'] if k['kind'] == kind}
  named = (own.get(label) for label in ('flag', 'ok'))
  return ['-' if x is None else f'{x:.0%}' for x in named]


def _line(s: Mapping) -> str:
  """A setting that is not the best, in a line."""
  kinds = ', '.join(
    f'{k} {area["value"]:.2f}' for k, area in s['kinds'].items()
  )
  return f'  {s["name"]}: a verdict on {_share(s["answered"])}; AUC {kinds}'


def _threshold(name: str, at: Mapping) -> str:
  if name == 'config':
    return 'the config'
  return f'{100 * at["alpha"]:.0f} % of the good of dev lie above'


def _without(baselines: Mapping) -> list[str]:
  return [
    f'{name}: AUC '
    + ', '.join(f'{kind} {area["value"]:.2f}' for kind, area in kinds.items())
    for name, kinds in baselines.items()
  ]


def _area(area: Mapping | None) -> str:
  if not area:
    return '-'
  return f'{area["value"]:.2f} [{area["low"]:.2f}, {area["high"]:.2f}]'


def _rate(found: Mapping | None) -> str:
  if not found:
    return '-'
  value, low, high = (100 * found[k] for k in ('value', 'low', 'high'))
  return f'{value:.0f} % [{low:.0f}, {high:.0f}]'


def _share(value: float) -> str:
  return f'{100 * value:.0f} %'


def write(workdir: Any, found: Mapping) -> pathlib.Path:
  """Writes audit.html; returns its path."""
  least = found['conscience']['min_mass']
  best, *others = found['settings']
  content = {
    'found': found,
    'kinds': KINDS,
    'config': config_lines(found),
    'heading': heading(found).capitalize(),
    'settings': [_picture(best, least), *others],
  }
  text = templates.render('audit.html.jinja', content)
  path = pathlib.Path(workdir) / 'audit.html'
  templates.write(path, text)
  return path


def _picture(setting: Mapping, least: float) -> dict[str, Any]:
  """The setting with where each row stands: dots of P by kind and label.

  least: the label mass below which a row has no verdict, and no dot.
  """
  rows = {row['id']: row for row in setting['verdicts']}
  groups: dict = {}
  for row in rows.values():
    own = groups.setdefault((row['kind'], row['label']), [])
    own += [row['p']] * (row['mass'] >= least)
  return {**setting, 'dots': sorted(groups.items())}
