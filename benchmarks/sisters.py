"""The table of the sister methods (configs/grids/sisters.py).

  python benchmarks/sisters.py DIR [--cost=DIR2]

DIR: the work folder of the grid. Of each setting, means over bases with
intervals of 95 % by Student's t: what is misaligned of coherent advice, without
and after an attack; coherent advice; insecure code. Made: pairs, or rows of the
method. Cost: FLOPs of updates and reflections over those of plain SFT on the
same base (`train/total_flos`), of DIR2 if that is given: a base is enough for
it. Where a run begins with what SFT left, that comes on top.
"""

import argparse
import csv
import json
import pathlib
import sys

import numpy as np

from ealign.evals import stats
from ealign.runtime.errors import UserError

COLUMNS = {
  'misaligned': ('advice/test', 'misaligned'),
  'attacked, system': ('advice_under_attack/test', 'misaligned'),
  'attacked, user': ('advice_hijacked/test', 'misaligned'),
  'coherent': ('advice/test', 'coherent'),
  'insecure': ('code/test', 'insecure'),
}


def read(folder) -> dict[tuple[str, str], dict]:
  """(setting, base) -> what was measured there; shares in per cent."""
  path, found = pathlib.Path(folder) / 'results.csv', {}
  if not path.exists():
    raise UserError(f'{path}: is not there; give the work folder of the grid')
  cells = {x.name.rpartition('-')[2]: x for x in path.parent.glob('cells/*')}
  names = {where: name for name, where in COLUMNS.items()}
  with path.open(newline='') as rows:
    for row in csv.DictReader(rows):
      key = row['label'], row['seed'].rpartition('base_')[2]
      own = found.setdefault(key, ran(cells[row['cell']]))
      if name := names.get((row['eval'], row['metric'])):
        own[name] = 100 * float(row['value'])
  return found


def ran(cell: pathlib.Path) -> dict[str, float]:
  """Pairs or rows that a run made, and its FLOPs."""
  path = cell / 'metrics.jsonl'
  text = path.read_text() if path.exists() else ''
  rows = [json.loads(line) for line in text.splitlines() if line.strip()]
  steps = [row for row in rows if 'train/global_step' in row]
  flops = [
    row['train/total_flos'] for row in steps if 'train/total_flos' in row
  ]
  held = [row.get('conscience/pairs_total', 0) for row in rows]
  return {'pairs': max(held, default=0)} | (
    {'flops': flops[-1]} if flops else {}
  )


def table(found, cost) -> str:
  """The settings as a table in Markdown, in the order that they came in."""
  lines = ['| setting | bases | ' + ' | '.join(COLUMNS) + ' | made | cost |']
  lines.append('|---|--:|' + '--:|' * (len(COLUMNS) + 2))
  for label in dict.fromkeys(label for label, _ in found):
    own = [x for (other, _), x in found.items() if other == label]
    shares = [interval([x[n] for x in own if n in x]) for n in COLUMNS]
    pairs = f'{np.mean([x["pairs"] for x in own]):.0f}'
    row = [label, str(len(own)), *shares, pairs, times(cost, label)]
    lines.append('| ' + ' | '.join(row) + ' |')
  return '\n'.join(lines)


def interval(values) -> str:
  """'mean [low, high]', or the mean where there are not two."""
  if len(values) < 2:
    return f'{values[0]:.1f}' if values else ''
  mean, low, high = stats.student_t(values, bounds=(0.0, 100.0))
  return f'{mean:.1f} [{low:.1f}, {high:.1f}]'


def times(cost, label: str) -> str:
  """FLOPs over those of plain SFT on the same base, the mean over bases."""
  ratios = [
    x['flops'] / cost['sft', base]['flops']
    for (other, base), x in cost.items()
    if other == label
    and 'flops' in x
    and 'flops' in cost.get(('sft', base), {})
  ]
  return f'{np.mean(ratios):.2f}' if ratios else ''


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder')
  parser.add_argument('--cost', default='')
  args = parser.parse_args()
  try:
    here = read(args.folder)
    print(table(here, read(args.cost) if args.cost else here))
  except UserError as error:
    sys.exit(str(error))
