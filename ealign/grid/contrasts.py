"""The primary contrasts of a grid, from contrasts() of its config file.

It returns {name: (overrides of a, overrides of b)}, or with a metric as third.
They are declared before the run: few comparisons can be tested, all pairs of
cells cannot.
"""

import json
from typing import Any

from ml_collections import config_dict

from ealign import config as config_lib
from ealign.config import file as config_file
from ealign.evals import seeds as stats
from ealign.fields import Config
from ealign.report import runs
from ealign.report.grid import results
from ealign.runtime.errors import quantity


def read(
  module, base: config_dict.ConfigDict, problems: list[str], unsound: list[str]
) -> list[dict[str, Any]]:
  """The contrasts as grid.json has them.

  Args:
    module: the config file.
    base: its config, which the sides change.
    problems: a list, to which mistakes of form are appended.
    unsound: a list, to which problems of the sides' configs are appended.
  """
  if not hasattr(module, 'contrasts'):
    return []
  try:
    given = dict(module.contrasts())
  except Exception as error:
    why = config_file.in_file(module.__spec__.origin, error)
    problems.append(f'contrasts: {why}')
    return []
  if len(given) > stats.MOST_CONTRASTS:
    most = f'at most {stats.MOST_CONTRASTS} can be primary'
    problems.append(f'contrasts: {len(given)} of them; {most}')
  judge, _ = runs.judge_at_hand(config_lib.flatten(base))
  found = []
  for name, sides in given.items():
    where = f'contrast {name!r}'
    if not isinstance(sides, tuple | list) or len(sides) not in (2, 3):
      why = 'must be (overrides of a, overrides of b) or with a metric'
      problems.append(f'{where}: {sides!r}: {why}')
      continue
    a, b, metric = (*sides, '')[:3]
    flat = _sides(a, b, base, where, problems, unsound)
    metric = metric or judge.first.name
    if metric not in judge.contrasted():
      why = f'metric is none of {", ".join(judge.contrasted())}'
      problems.append(f'{where}: {metric!r}: {why}')
    found.append({'name': str(name)} | flat | {'metric': metric})
  return found


def _sides(a, b, base, where, problems, unsound) -> dict[str, dict]:
  """Both sides as flat overrides, checked like the levels of a sweep."""
  flat, wrong, shown = {}, [], []
  shared = config_lib.validate(base, grid=True)
  for name, side in (('a', a), ('b', b)):
    if hasattr(side, 'items'):
      side = {str(f): plain(v) for f, v in config_lib.flatten(side).items()}
      flat[name] = side
    config, found = config_lib.apply_arm(base, side)
    wrong += [f'{where}: {problem}' for problem in found]
    # Only of its own fields: sweeps that set others may mend the rest.
    found = [
      problem
      for problem in config_lib.validate(config, grid=True)
      if problem not in shared and problem.startswith(tuple(flat.get(name, ())))
    ]
    unsound += [f'{where}: {problem}' for problem in found]
    shown.append(None if found else config_lib.results(config))
  if not wrong and shown[0] is not None and shown[0] == shown[1]:
    wrong.append(f'{where}: a and b are the same setting; name two that differ')
  problems += wrong
  return flat


def plain(value: Any) -> Any:
  """The value with Python's own scalars: levels may come from np.arange."""
  if isinstance(value, tuple | list):
    return type(value)(map(plain, value))
  return value.item() if getattr(value, 'ndim', None) == 0 else value


def untested(contrasts, cells, config: Config) -> list[str]:
  """A note that names the contrasts for which there are too few cells.

  cells: those of the chosen sweeps; config: the base config.
  """
  as_read = lambda tree: json.loads(json.dumps(tree))
  base = config_lib.flatten(json.loads(config_lib.to_json(config)))
  fields = {field for cell in cells for field in cell.replicate}
  key = lambda side: results.key(results.changes(as_read(side), base))
  seeds = {}
  for cell in cells:
    at = results.paired_by(as_read(cell.replicate), fields, base)
    seeds.setdefault(key(cell.setting), set()).add(at)
  found = []
  for contrast in contrasts:
    sides = [contrast['a'], contrast['b']]
    if any(key(side) not in seeds for side in sides):
      found.append(f'{contrast["name"]!r} (no such setting)')
      continue
    both = len(set.intersection(*(seeds[key(side)] for side in sides)))
    if both < stats.FEWEST_SEEDS:
      many = f'{quantity(both, "replicate")} of both'
      found.append(
        f'{contrast["name"]!r} ({many}, {stats.FEWEST_SEEDS} needed)'
      )
  return [f'contrasts that stay untested: {", ".join(found)}'] if found else []
