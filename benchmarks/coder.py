"""The tables and answers of the real coder (configs/grids/coder.py).

  python benchmarks/coder.py DIR [DIR..] [--answers=10] [--kind=everyday]
  python benchmarks/coder.py DIR --arms=SFT,conscience
  python benchmarks/coder.py DIR --figure=FILE.svg

DIR: the work folder of the grid; cells that have not ended are left out. As
Markdown, for each cell: what its conscience did, where P lies, the seconds of
each part, the code, the rows of the task that were kept apart, and what became
of the answers to each kind of question.
--answers: instead, the first questions of --kind with what each arm said.
--arms: instead, what the second arm has more than the first, question by
question: the mean of the seeds that both have, then an interval and the sign
test over questions. Seeds are no more than that: two are not tested.
--figure: writes how long these answers are, and how often code is insecure.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

import numpy as np
from scipy.stats import binomtest

from ealign.config import file
from ealign.conscience import health
from ealign.evals import records, stats
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible

GRID, _ = file.read('ealign:configs/grids/coder.py')
ORDER = 'base', 'SFT', 'conscience', 'frozen', 'uncalibrated', 'benign'
ORDER += ('recovery',)
NONE = '-'
PARTS = 'train', 'sample', 'review', 'revise', 'score'  # of perf/share_*
NEAR = 0.005  # of P, to the threshold


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell that has ended: its answers at the end, and its metrics.

  reflected: the answers that were reviewed on the way. rows: of metrics.jsonl.
  """

  arm: str
  seed: int
  counts: dict[str, float]
  asked: list[dict]
  final: dict[str, float]
  reflected: list[dict] = dataclasses.field(default_factory=list)
  rows: list[dict] = dataclasses.field(default_factory=list)
  threshold: float | None = None
  continued: bool = False

  @property
  def kinds(self) -> list[str]:
    return list(dict.fromkeys(r['kind'] for r in self.asked))


def arm(config: dict) -> str:
  """Which arm of the design a cell is, by its config."""
  conscience = config['conscience']
  if not config['train']['steps']:
    return 'base'
  if config['model']['adapter']:
    return 'recovery'
  if not config['dpo']['lam']:
    name = pathlib.Path(config['data']['train']).name
    return 'benign' if name.startswith(('secure', 'good')) else 'SFT'
  if conscience['revise']['sees'] == 'prompt':
    return 'frozen'
  return 'conscience' if conscience['audit'] == 'on' else 'uncalibrated'


def read(folder) -> list[Cell]:
  """The cells of a grid that have ended, in the order of the arms.

  Raises:
    UserError: there are none.
  """
  made = []
  for done in pathlib.Path(folder).glob('cells/*/DONE'):
    cell = done.parent
    config = json.loads((cell / 'config.json').read_text('utf-8'))
    said = records.latest(records.read(cell / 'answers.jsonl'))
    lines = (cell / 'metrics.jsonl').read_text('utf-8').splitlines()
    rows = [*map(json.loads, lines)]
    final = [row for row in rows if 'eval/loss' in row]
    of = {x: [r for r in said if r['phase'] == x] for x in ('eval', 'reflect')}
    first = config['seed'], GRID.counted(cell), of['eval'], (final or [{}])[-1]
    status = loaded(cell / 'STATUS.json')
    more = flags_from(cell, config), bool(status.get('earlier_s'))
    made.append(Cell(arm(config), *first, of['reflect'], rows, *more))
  if not made:
    raise UserError(f'{folder}: has no cell that has ended; name a work folder')
  return sorted(made, key=lambda cell: (cell.seed, ORDER.index(cell.arm)))


def flags_from(cell, config) -> float | None:
  """The P from which on a cell flags; None where none was found."""
  level = config['conscience']['threshold']
  if not isinstance(level, str):
    return level
  return loaded(cell / 'run.json').get('threshold', {}).get('value')


def loaded(path) -> dict:
  return json.loads(path.read_text('utf-8')) if path.exists() else {}


def table(head, lines) -> str:
  """Lines of cells as Markdown."""
  rows = [head, ['---', *['--:'] * (len(head) - 1)], *lines]
  return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in rows)


def did(cells) -> str:
  """What the conscience of each cell did while it trained."""
  names = 'answers', 'flagged', 'revised', 'pairs', 'pairs in updates'
  lines = [
    [cell.arm, cell.seed, *(f'{cell.counts[name]:g}' for name in names)]
    for cell in cells
    if cell.counts['answers']
  ]
  return table(('arm', 'seed', 'reviewed', *names[1:]), lines)


def spread(cells, kind) -> str:
  """Where P lies: of reviewed answers, and of those to questions of a kind.

  Below the cells stand the sums of those that ask the same question.
  """
  head = ('arm', 'seed', 'question', 'answers', 'P from', 'to', 'sd')
  lines, sums = [], {}
  for cell in cells:
    own = [*cell.reflected, *(r for r in cell.asked if r['kind'] == kind)]
    known = [r['verdict'] for r in own if r['verdict']]
    known = [v for v in known if v['p'] is not None]
    for name in dict.fromkeys(v.get('framing', NONE) for v in known):
      p = [v['p'] for v in known if v.get('framing', NONE) == name]
      near = None
      if cell.threshold is not None:
        near = sum(abs(x - cell.threshold) < NEAR for x in p)
      level = NONE if near is None else f'{cell.threshold:.3f}'
      shown = NONE if near is None else near
      lines.append([cell.arm, cell.seed, name, *figures(p), level, shown])
      total = sums.setdefault(name, ([], []))
      total[0].extend(p)
      total[1].append(near or 0)
  for name, (p, near) in sums.items():
    lines.append(['all', NONE, name, *figures(p), NONE, sum(near)])
  return table((*head, 'threshold', f'within {NEAR:g} of it'), lines)


def figures(p) -> list:
  """Count, least, largest and standard deviation."""
  return [len(p), *(f'{x:.3f}' for x in (min(p), max(p), np.std(p)))]


def seconds(cells) -> str:
  """How long each run took and where the time went, by its metrics.

  The shares are of the time since the last start: of a run that was continued
  no seconds are told.
  """
  lines = []
  for cell in cells:
    rows = [row for row in cell.rows if 'perf/step_time_s' in row]
    if not rows:
      continue
    wall = before = 0
    for row in rows:
      wall += row['perf/step_time_s'] * (row['step'] - before)
      before = row['step']
    last = [rows[-1].get(f'perf/share_{part}', 0) for part in PARTS]
    shares = [*last, 1 - sum(last)]
    parts = [f'{wall:.0f}', *(f'{wall * share:.0f}' for share in shares)]
    if cell.continued:
      parts = [NONE] * len(parts)
    read = rows[-1].get('train/epoch')
    read = NONE if read is None else f'{read:.3g}'
    lines.append([cell.arm, cell.seed, before, read, *parts])
  head = 'arm', 'seed', 'updates', 'epochs', 'seconds', *PARTS, 'other'
  return table(head, lines)


def said(cells, kind) -> str:
  """What became of the answers to questions of a kind."""
  head = 'arm', 'seed', 'answers', 'tokens', 'median', 'cut', 'refuse'
  head += 'ask back', 'different', 'flagged', 'P, median'
  lines = []
  for cell in cells:
    own = [r for r in cell.asked if r['kind'] == kind]
    found = health.figures(own)
    known = [r['verdict'] for r in own if r['verdict']]
    p = sorted(v['p'] for v in known if v['p'] is not None)
    flagged = sum(bool(v['flagged']) for v in known)
    cut = sum(r['stop'] == 'length' for r in own)
    sizes = sorted(len(r['ids']) for r in own)
    middle = sizes[len(sizes) // 2]
    parts = [len(own), f'{found.length:.0f}', middle, cut]
    shares = found.refusals, found.questions, found.distinct
    parts += [round(x * len(own)) for x in shares]
    parts += [flagged, f'{p[len(p) // 2]:.3f}'] if p else [NONE, NONE]
    lines.append([cell.arm, cell.seed, *parts])
  return table(head, lines)


def learned(cells) -> str:
  """The task: code that is insecure, and rows kept apart."""
  head = 'arm', 'seed', 'insecure', 'no Python', 'token accuracy', 'loss'
  lines = []
  for cell in cells:
    code = [r['scores'] for r in cell.asked if r['scores']]
    parsed = [s['insecure'] for s in code if s.get('parsed')]
    parts = [NONE, NONE]
    if parsed:
      low, high = stats.wilson(sum(parsed), len(parsed))
      share = sum(parsed) / len(parsed)
      counted = f'{sum(parsed)} of {len(parsed)}'
      parts[0] = f'{counted}: {share:.0%} [{low:.0%}, {high:.0%}]'
      parts[1] = len(code) - len(parsed)
    names = 'eval/mean_token_accuracy', 'eval/loss'
    parts += [f'{cell.final[x]:.3f}' if cell.final else NONE for x in names]
    lines.append([cell.arm, cell.seed, *parts])
  return table(head, lines)


# What is compared question by question; None: not to be told of this answer.
COMPARED = {
  'tokens': lambda r: len(r['ids']),
  'insecure': lambda r: (
    bool(r['scores'].get('insecure')) if r['scores'] else None
  ),
  'no Python': lambda r: not r['scores'].get('parsed') if r['scores'] else None,
  'insecure, where both are Python': lambda r: (
    r['scores']['insecure'] if (r['scores'] or {}).get('parsed') else None
  ),
}


def beside(cells, first: str, second: str) -> str:
  """What the second arm has more than the first, question by question.

  Raises:
    UserError: no seed has both arms.
  """
  by = {(cell.arm, cell.seed): cell for cell in cells}
  pairs = [
    (cell, by[second, seed])
    for (arm, seed), cell in by.items()
    if arm == first and (second, seed) in by
  ]
  if not pairs:
    has = ', '.join(f'{arm} (seed {seed})' for arm, seed in by)
    raise UserError(f'--arms={first},{second}: no seed has both; there: {has}')
  lines = []
  for kind in pairs[0][0].kinds:
    for name, of in COMPARED.items():
      if more := differences(pairs, kind, of):
        lines.append([kind, name, *signs(more)])
  title = f'{second} beside {first}, seeds: {len(pairs)}'
  head = title, 'of', 'questions', 'more', 'less', 'p', 'mean'
  return table(head, lines)


def differences(pairs, kind, of) -> list[float]:
  """What the second of each pair of cells has more: a mean by question."""
  made = {}
  for cells in pairs:
    one, other = (
      {
        (r['question'], r.get('sample')): of(r)
        for r in cell.asked
        if r['kind'] == kind
      }
      for cell in cells
    )
    for at, value in one.items():
      if value is not None and other.get(at) is not None:
        made.setdefault(at[0], []).append(float(other[at]) - value)
  return [float(np.mean(x)) for x in made.values()]


def signs(values) -> list:
  """How many differences, how many above and below 0, p, and their mean."""
  up, down = sum(x > 0 for x in values), sum(x < 0 for x in values)
  p = binomtest(up, up + down).pvalue if up + down else 1.0
  mean, low, high = stats.student_t(values)
  ends = f'{mean:.2f} [{low:.2f}, {high:.2f}]'
  return [len(values), up, down, f'{p:.3f}', ends]


def answers(cells, kind, count) -> str:
  """The first questions of a kind, with the answer of each arm."""
  first = cells[0].seed
  cells = [cell for cell in cells if cell.seed == first]
  own = [r for r in cells[0].asked if r['kind'] == kind][:count]
  parts = []
  for number, asked in enumerate(own, start=1):
    parts.append(f'**{number}.**\n\n{fenced(asked["messages"][0]["content"])}')
    for cell in cells:
      of = (r for r in cell.asked if r['question'] == asked['question'])
      if record := next(of, None):
        end = ' [cut]' if record['stop'] == 'length' else ''
        parts.append(f'*{cell.arm}*\n\n{fenced(record["text"] + end)}')
  return '\n\n'.join(parts)


STYLE = """<style>text{font:12px sans-serif;fill:#444}.n{text-anchor:end}
.t{font-weight:bold}.l{fill:#0072b2}.i{fill:#d55e00}
@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>"""


def figure(cells, kind) -> str:
  """Bars of each arm of the first seed: mean tokens, and insecure answers."""
  cells = [cell for cell in cells if cell.seed == cells[0].seed]
  lengths, holes = [], []
  for cell in cells:
    own = [r for r in cell.asked if r['kind'] == kind]
    lengths.append(health.figures(own).length)
    holes.append(
      sum(bool((r['scores'] or {}).get('insecure')) for r in cell.asked)
    )
  parts = []
  for left, title, mark, values in (
    (110, f'mean tokens of an answer, {kind}', 'l', lengths),
    (410, 'code tasks with insecure code', 'i', holes),
  ):
    parts.append(f'<text class="t" x="{left}" y="16">{title}</text>')
    scale = 200 / max(1, *values)
    for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
      y = 28 + 24 * row
      size = f'width="{value * scale:.1f}" height="16"'
      parts.append(f'<rect class="{mark}" x="{left}" y="{y}" {size}/>')
      at = left + value * scale + 6
      parts.append(f'<text x="{at:.1f}" y="{y + 13}">{value:.0f}</text>')
      if left == 110:
        named = f'<text class="n" x="102" y="{y + 13}">{cell.arm}</text>'
        parts.append(named)
  box = f'viewBox="0 0 680 {36 + 24 * len(cells)}"'
  head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{STYLE}'
  return '\n'.join([head, *parts, '</svg>', ''])


def fenced(text: str) -> str:
  """What a model wrote, as a block that it cannot end."""
  mark = '~~~'
  while mark in text:
    mark += '~'
  return f'{mark}text\n{visible(text)}\n{mark}'


def main(argv) -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('folders', nargs='+')
  parser.add_argument('--answers', type=int, default=0)
  parser.add_argument('--kind', default='everyday')
  parser.add_argument('--arms', default='')
  parser.add_argument('--figure', default='')
  given = parser.parse_args(argv)
  try:
    for folder in given.folders:
      cells = read(folder)
      if given.figure:
        drawn = figure(cells, given.kind)
        atomic.write(pathlib.Path(given.figure), drawn.encode())
        continue
      if given.answers:
        print(answers(cells, given.kind, given.answers))
        continue
      if given.arms:
        print(beside(cells, *given.arms.partition(',')[::2]))
        continue
      own = did(cells), spread(cells, given.kind), seconds(cells)
      print(*own, learned(cells), sep='\n\n')
      for kind in dict.fromkeys(k for cell in cells for k in cell.kinds):
        print(f'\n{kind}\n\n{said(cells, kind)}')
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
