"""The primary contrasts of a grid, from contrasts() of its config file.

They stand there before the run: name -> (overrides of a, overrides of b), or
with a metric as third. Of a few one can say whether they differ; of all pairs
of cells one cannot.
"""

from collections.abc import Mapping
from typing import Any

from ealign import command as command_lib
from ealign import config as config_lib
from ealign.grid import compare, stats


def read(module, problems: list[str]) -> list[dict[str, Any]]:
  """The contrasts as grid.json has them; what is wrong goes to the problems."""
  function = getattr(module, 'contrasts', None)
  if function is None:
    return []
  try:
    given = dict(function())
  except Exception as error:
    said = command_lib.in_file(module.__spec__.origin, error)
    problems.append(f'contrasts: {said}')
    return []
  if len(given) > stats.MOST_CONTRASTS:
    most = f'at most {stats.MOST_CONTRASTS} can be primary'
    said = f'{len(given)} of them; {most}'
    problems.append(f'contrasts: {said}')
  found, types = [], config_lib.field_types()
  for name, sides in given.items():
    where = f'contrast {name!r}'
    if not isinstance(sides, tuple | list) or len(sides) not in (2, 3):
      said = 'must be (overrides of a, overrides of b) or with a metric'
      problems.append(f'{where}: {sides!r}: {said}')
      continue
    a, b, *metric = sides
    flat = []
    for side in (a, b):
      if not isinstance(side, Mapping):
        said = "is no dict of fields such as {'dpo.lam': 0.3}"
        problems.append(f'{where}: {side!r} {said}')
        continue
      flat.append(config_lib.flatten(side))
      for field in sorted(flat[-1].keys() - types.keys()):
        hint = config_lib.did_you_mean(field, types)
        problems.append(f'{where}: {field}: there is no such field.{hint}')
    metric = metric[0] if metric else 'misaligned'
    if metric not in compare.COUNTED:
      said = f'metric is none of {", ".join(compare.COUNTED)}'
      problems.append(f'{where}: {metric!r}: {said}')
    found.append(
      {'name': str(name)}
      | dict(zip('ab', flat, strict=False))
      | {'metric': metric}
    )
  return found
