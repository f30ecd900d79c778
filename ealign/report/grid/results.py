"""Reads what the cells of a grid left behind, from its files alone.

A cell counts once its STATUS.json says done. One that is missing, failed or
cannot be read is kept with the reason, and never ends the report.
"""

import csv
import dataclasses
import io
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.config import flatten
from ealign.evals import counts
from ealign.evals import seeds as stats
from ealign.evals.stats import wilson
from ealign.report import curves, excerpts, runs
from ealign.runtime.errors import UserError
from ealign.workdir import lease, status


@dataclasses.dataclass(frozen=True)
class Result:
  """A cell: one setting at one replicate, with what it has left so far.

  state: of STATUS.json; or 'missing' (never begun), 'broken' (unreadable).
  setting: overrides, without those that repeat the base config's value.
  at: what its replicate is, for pairs (`paired_by`).
  rows: those of `counts.rows`, with the folder as arm. token_accuracy: of the
  run's last held-out tokens. curves: name -> [(step, share)]. idle: `Run.idle`.
  took: seconds.
  run: of a done cell, with the final answers of each setting's first one alone.
  """

  folder: str
  id: str
  label: str
  seed: str
  setting: dict[str, Any]
  replicate: dict[str, Any]
  current: bool
  at: str = ''
  state: str = 'missing'
  error: str = ''
  status: dict = dataclasses.field(default_factory=dict)
  rows: list[dict] = dataclasses.field(default_factory=list)
  token_accuracy: counts.Share | None = None
  curves: dict[str, list] = dataclasses.field(default_factory=dict)
  idle: str = ''
  took: float | None = None
  run: runs.Run | None = None

  @property
  def done(self) -> bool:
    return self.state == 'done'

  @property
  def name(self) -> str:
    return ', '.join(filter(None, (self.label, self.seed)))


@dataclasses.dataclass(frozen=True)
class Grid:
  """grid.json and its cells, in its order."""

  name: str
  config: dict[str, Any]  # of the base, flat
  sweep: str
  axes: dict[str, list[str]]
  contrasts: list[dict]
  contrasts_hash: str
  declared_late: bool
  cells: list[Result]


# What grid.json must hold, and what it may leave out.
_GRID = {'config': dict, 'sweep': str, 'axes': dict, 'contrasts': list}
_GRID |= {'contrasts_hash': str, 'cells': list}
_OPTIONAL = {n: kind() for n, kind in _GRID.items() if n != 'cells'}
_CONTRAST = {'name': str, 'a': dict, 'b': dict}
_CELL = {'folder': str, 'id': str, 'label': str, 'seed': str}
_CELL |= {'setting': dict, 'replicate': dict}


def read(workdir: Any) -> Grid:
  """The grid of a work folder.

  Raises:
    UserError: grid.json is broken.
  """
  path = pathlib.Path(workdir).resolve() / 'grid.json'
  tree = runs.json_object(path)
  found = _checked(path, _OPTIONAL | tree, _GRID)
  contrasts = found['contrasts']
  if len(contrasts) > stats.MOST_CONTRASTS:
    message = f'{len(contrasts)}; at most {stats.MOST_CONTRASTS} can be primary'
    raise UserError(f'{path}: contrasts: {message}')
  for number, contrast in enumerate(contrasts):
    _checked(path, contrast, _CONTRAST, f'contrasts[{number}].')
  if not found['cells']:
    message = 'cells: is empty; delete it and start the grid again'
    raise UserError(f'{path}: {message}')
  found['config'] = flatten(found['config'])
  found['cells'] = _cells(path, found['cells'], found['config'])
  late = bool(tree.get('declared_late'))
  return Grid(name=path.parent.name, declared_late=late, **found)


def _checked(path, tree, kinds, where='') -> dict[str, Any]:
  """The fields that a JSON object must have, each of its kind."""
  found = {}
  for name, kind in kinds.items():
    found[name] = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(found[name], kind):
      shown = repr(found[name])[:60]
      message = f'{where}{name}: must be a {kind.__name__}, not {shown}'
      raise UserError(
        f'{path}: {message}; restore or delete it, and start the grid again'
      )
  return found


def _cells(path, entries, config) -> list[Result]:
  """The cells with all that their folders hold."""
  listed = [_listed(path, *numbered) for numbered in enumerate(entries)]
  fields = {field for entry in listed for field in entry['replicate']}
  cells, seen = [], set()
  for entry in listed:
    found = _left(path.parent / entry['folder'], entry['folder'])
    error = ' '.join(found.get('error', '').split())[:500]
    found['error'] = error.replace(f'{path.parent}/', '')  # names no machine
    setting = changes(entry['setting'], config)
    if found.get('run') and key(setting) in seen:
      found['run'] = dataclasses.replace(found['run'], answers=[])
    elif found.get('run'):
      seen.add(key(setting))
    at = paired_by(entry['replicate'], fields, config)
    cells.append(Result(**entry | found | {'setting': setting, 'at': at}))
  return cells


def _listed(path, number, entry) -> dict[str, Any]:
  where = f'cells[{number}].'
  found = _checked(path, entry, _CELL, where)
  folder = found['folder']
  if pathlib.PurePath(folder).is_absolute() or '..' in folder.split('/'):
    raise UserError(f'{path}: {where}folder: {folder!r} is outside the grid')
  return found | {'current': entry.get('current', True) is True}


def key(overrides: Mapping) -> str:
  """A text that is equal for equal overrides; 1 equals 1.0."""
  plain = json.loads(json.dumps(overrides), parse_int=float)
  return json.dumps(plain, sort_keys=True)


def paired_by(replicate: Mapping, fields, config: Mapping) -> str:
  """A replicate as a text; fields it does not set have the base's values.

  So a cell without a replicate is the one of the base config's own seed.

  Args:
    replicate: what it sets.
    fields: those that any replicate of the grid sets.
    config: of the base, flat.
  """
  return key({name: config.get(name) for name in fields} | dict(replicate))


def changes(overrides: Mapping, config: Mapping) -> dict[str, Any]:
  """The overrides that differ from the base config."""
  same = lambda name, value: name in config and config[name] == value
  return {n: value for n, value in overrides.items() if not same(n, value)}


def _left(folder: pathlib.Path, arm: str) -> dict[str, Any]:
  """The fields of a cell read from its folder; with results if it is done."""
  try:
    known = status.read(folder)
  except UserError as error:
    return {'state': 'broken', 'error': str(error)}
  if known is None:
    return {}
  found = dataclasses.asdict(known)
  found = {'state': known.state, 'error': known.error, 'status': found}
  silent = time.time() - known.heartbeat > lease.STALE_S
  if known.state in ('running', 'queued') and silent:
    error = f'{known.host} fell silent; the same command continues it'
    return found | {'state': 'preempted', 'error': error}
  if known.started and known.finished:
    found['took'] = known.seconds
  try:
    return found | (_digested(folder, arm) if known.state == 'done' else {})
  except UserError as error:
    message = str(error)
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
    message = f'{folder}: holds a record that cannot be counted'
  message += '; --retry=all --only=NAME runs the cell anew'
  return found | {'state': 'broken', 'error': message}


def _digested(folder: pathlib.Path, arm: str) -> dict[str, Any]:
  run = runs.read_run(folder)
  if 'answers.jsonl' in run.missing:
    raise UserError(f'{folder / "answers.jsonl"}: cannot be read')
  answers = [record | {'arm': arm, 'seed': None} for record in run.answers]
  final, judge = counts.final(answers), run.judge
  if not final:
    raise UserError(f'{folder}: done, but without any final answer')
  for record in final:
    excerpts.shown(record, judge)  # finds what the page would stumble over
    if not all(isinstance(m, Mapping) for m in record['messages']):
      raise ValueError('messages')
  return {
    'rows': counts.rows(final, judge=judge),
    'token_accuracy': _tokens(run.metrics),
    'curves': _curves(answers, run.metrics, judge),
    'idle': run.idle,
    'run': dataclasses.replace(run, answers=final, metrics=[]),
  }


def _tokens(metrics) -> counts.Share | None:
  """The share of held-out tokens predicted, counted as independent."""
  value = counts.last_metric(metrics, 'eval/mean_token_accuracy')
  total = round(counts.last_metric(metrics, 'eval/num_tokens') or 0)
  if value is None or not total:
    return None
  count = round(value * total)
  interval = wilson(count, total)
  return counts.Share(count, total, interval, interval)


def _curves(answers, metrics, judge) -> dict[str, list[tuple]]:
  """Panel -> [(step, share)], binned by `report.curves` if they are many."""
  asked = (r for r in answers if r['phase'] == 'curve')
  kinds = {r['kind'] for r in asked if not judge.scores or r.get('scores')}
  kinds -= {*judge.claimed}
  kind = judge.first_kind
  kind = kind if kind in kinds else min(kinds, default='')
  shares = {
    name: [(step, s.value) for step, s in curves.line(measure, among)]
    for name, (measure, among) in curves.panels(answers, kind, judge).items()
  }
  name = 'train/mean_token_accuracy'
  rows = [row for row in metrics if isinstance(row.get(name), float)]
  mean = lambda rows: sum(row[name] for row in rows) / len(rows)
  bins = curves.by_step(curves.binned(rows))
  return shares | {judge.tokens.name: [(step, mean(x)) for step, x in bins]}


# ------------------------------------------------------------------ the rows

COLUMNS = (
  *('cell', 'label', 'seed', 'eval', 'metric', 'value', 'n', 'count'),
  'current',
)
_TOKENS = {'kind': 'tokens', 'split': ''}


def to_csv(cells: Sequence[Result]) -> str:
  """One row per cell, eval (kind/split) and metric, as CSV.

  count is of n; a mean has none.
  """
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(COLUMNS)
  for cell in cells:
    for row in (*cell.rows, _TOKENS | {'token_accuracy': cell.token_accuracy}):
      asked = '/'.join(filter(None, (row['kind'], row['split'])))
      for name, share in row.items():
        if isinstance(share, counts.Share | counts.Mean) and share.total:
          found = f'{share.value:.6f}', share.total, getattr(share, 'count', '')
          whose = cell.id, cell.label, cell.seed, asked, name
          writer.writerow((*whose, *found, int(cell.current)))
  return text.getvalue()
