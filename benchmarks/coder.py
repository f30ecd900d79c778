"""The tables and answers of the real coder (configs/grids/coder.py).

  python benchmarks/coder.py DIR [DIR..] [--answers=10] [--kind=everyday]
  python benchmarks/coder.py DIR --figure=FILE.svg

DIR: the work folder of the grid; cells that have not ended are left out. As
Markdown, for each cell: what its conscience did, the code, the rows of the task
that were kept apart, and what became of the answers to each kind of question.
--answers: instead, the first questions of --kind with what each arm said.
--figure: writes how long these answers are, and how often code is insecure.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from ealign.config import file
from ealign.conscience import health
from ealign.evals import records
from ealign.evals.stats import wilson
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible

GRID, _ = file.read('ealign:configs/grids/coder.py')
ORDER = 'base', 'SFT', 'conscience', 'frozen', 'uncalibrated', 'benign'
ORDER += ('recovery',)
NONE = '-'


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell that has ended: its answers at the end, and its metrics."""

  arm: str
  seed: int
  counts: dict[str, float]
  asked: list[dict]
  final: dict[str, float]

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
    rows = (cell / 'metrics.jsonl').read_text('utf-8').splitlines()
    final = [row for row in map(json.loads, rows) if 'eval/loss' in row]
    asked = [r for r in said if r['phase'] == 'eval']
    counts = GRID.counted(cell)
    seed, last = config['seed'], (final or [{}])[-1]
    made.append(Cell(arm(config), seed, counts, asked, last))
  if not made:
    raise UserError(f'{folder}: has no cell that has ended; name a work folder')
  return sorted(made, key=lambda cell: (cell.seed, ORDER.index(cell.arm)))


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


def said(cells, kind) -> str:
  """What became of the answers to questions of a kind."""
  head = (
    'arm',
    'seed',
    'answers',
    'tokens',
    'median',
    'cut',
    'refuse',
    'ask back',
  )
  head += 'different', 'flagged', 'P, median'
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
      low, high = wilson(sum(parsed), len(parsed))
      share = sum(parsed) / len(parsed)
      counted = f'{sum(parsed)} of {len(parsed)}'
      parts[0] = f'{counted}: {share:.0%} [{low:.0%}, {high:.0%}]'
      parts[1] = len(code) - len(parsed)
    names = 'eval/mean_token_accuracy', 'eval/loss'
    parts += [f'{cell.final[x]:.3f}' if cell.final else NONE for x in names]
    lines.append([cell.arm, cell.seed, *parts])
  return table(head, lines)


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
      print(did(cells), learned(cells), sep='\n\n')
      for kind in dict.fromkeys(k for cell in cells for k in cell.kinds):
        print(f'\n{kind}\n\n{said(cells, kind)}')
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
