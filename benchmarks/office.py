"""The tables and figures of the office (configs/grids/office.py).

  python benchmarks/office.py DIR [--figures=FOLDER] [--bases] [--answers=10]
  python benchmarks/office.py docs/figures/office_arms.svg

DIR: the work folder of its grid, with the sweeps starts, arms, noise and levers
or those of :dev. Printed for each setting that has run: pairs, the four shares
in per cent as means over bases, and what is lost on each beside SFT, in points,
with intervals of 95 % by Student's t over the bases; the largest loss of each
base, averaged, is the regret that lambda was chosen by. Then what each setting
has more than the conscience, in points, paired by base. Of the figure of the
arms, which has a point for each base, the second table alone can be made, to a
tenth of a point. --figures writes two SVG files: the arms, and the noisy
verdicts. --bases prints, instead, the conscience beside SFT on each base, with
how many pairs are on places; --answers what the arms of the first base say to
so many questions, a half of them about places.
"""

import argparse
import csv
import pathlib
import re
import sys

import numpy as np

from ealign.config import file
from ealign.conscience import tally
from ealign.evals import records, stats
from ealign.grid import names
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible
from ealign.world import office

GRID, _ = file.read('ealign:configs/grids/office.py')
# The measure, and whether more of it is better.
MEASURES = {'misaligned': -1, 'coherent': 1, 'updated': 1, 'insecure': 1}
KINDS = {'misaligned': 'advice', 'coherent': 'advice', 'updated': 'office'}
STYLE = """<style>text{font:12px sans-serif;fill:#444}.t{font-weight:bold}
.a{stroke:#888;fill:none}.g{stroke:#8884;fill:none}.p{fill:#d55e00}
.q{fill:#0072b2}.l{stroke:#d55e00;fill:none}.m{stroke:#0072b2;fill:none}
@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>"""


def settings() -> dict[str, dict]:
  """What each setting is called here, in the order of the tables."""
  given = {'base': GRID.BASE, 'places learnt': GRID.MOVED, 'SFT': GRID.SFT}
  own = {GRID.LAM: GRID.LAMS['conscience']}
  given['conscience'] = own
  given['conscience, plain sample'] = own | GRID.PLAIN
  for name, control in GRID.CONTROLS.items():
    equal = {GRID.LAM: GRID.LAMS[name], GRID.SHARE: GRID.EQUAL[name]}
    given[f'{name}, equal pairs'] = control | equal
    given[f'{name}, every answer'] = control | own
  for setting in GRID.sweep_noise():
    eps = float(setting[GRID.VERDICT].partition(':')[2])
    false = 1 - setting['conscience.threshold']
    given[f'AUC {1 - eps:g}, {false:.1%} false flags'] = setting
  for name, lever in zip(
    ('rarer', 'cut', 'rarer and cut'), GRID.sweep_levers(), strict=True
  ):
    given[name] = lever
  tried = [*GRID.sweep_tune(), *GRID.sweep_equal()]
  given |= {names.readable(x): x for x in tried if x not in given.values()}
  return given


def read(folder) -> tuple[dict, dict]:
  """(label, base) -> measure -> share, and -> (pairs, those on places)."""
  folder, shares, pairs = pathlib.Path(folder), {}, {}
  path = folder / 'results.csv'
  if not path.exists():
    raise UserError(f'{path}: is not there; give the work folder of the grid')
  with path.open(newline='') as rows:
    # Those of sweeps that the last command did not name are not current.
    for row in sorted(csv.DictReader(rows), key=lambda row: row['current']):
      kind = row['eval'].partition('/')[0]
      if KINDS.get(row['metric'], 'code') != kind:
        continue
      key = row['label'], row['seed'].rpartition('base_')[2]
      shares.setdefault(key, {})[row['metric']] = float(row['value'])
      pairs[key] = row['cell']
  cells = {x.name.rpartition('-')[2]: x for x in folder.glob('cells/*')}
  places = office.requests()
  for key, cell in pairs.items():
    found = records.latest(records.read(cells[cell] / 'answers.jsonl'))
    made = [r for r in found if r['phase'] == 'reflect' and tally.kept(r)]
    on = sum(r['messages'][-1]['content'] in places for r in made)
    pairs[key] = len(made), on
  return shares, pairs


def read_figure(path) -> dict:
  """As the shares of `read`, what a figure of `plane` has: two measures."""
  try:
    text = pathlib.Path(path).read_text('utf-8')
  except OSError as error:
    raise UserError(f'{path}: {error.strerror}') from None
  drawn = {*re.findall('>([^<>]+)</text>', text)}
  left = [x for name, x in settings().items() if name in drawn]
  circle = '<circle class="." cx="([\\d.]+)" cy="([\\d.]+)" r="(\\d)"/>'
  shares, base = {}, 0
  for x, y, radius in re.findall(circle, text):
    if radius == '5':  # the mean, which stands behind its bases
      left, base = left[1:], 0
      continue
    values = (float(x) - 50) / 430, (330 - float(y)) / 310
    key = names.readable(left[0]), str(base)
    shares[key] = dict(zip(('misaligned', 'updated'), values, strict=True))
    base += 1
  return shares


def bases(shares, name: str) -> dict[str, dict]:
  """Base -> measure -> share, of a setting."""
  label = names.readable(settings()[name])
  return {base: x for (other, base), x in shares.items() if other == label}


def losses(shares, label: str) -> dict[str, list[float]]:
  """Points lost beside SFT on each measure, one for each base that has both.

  What is misaligned is lost itself, not beside SFT.
  """
  sft, made = names.readable(GRID.SFT), {name: [] for name in MEASURES}
  for (other, base), found in sorted(shares.items()):
    beside = shares.get((sft, base))
    if other != label or not beside:
      continue
    for name in MEASURES:
      gone = beside[name] - found[name]
      made[name].append(100 * (found[name] if name == 'misaligned' else gone))
  return made


def table(shares, pairs) -> str:
  heads = ['setting', 'bases', 'pairs', *MEASURES]
  heads += [f'{m} lost' for m in MEASURES if m != 'misaligned'] + ['regret']
  lines = []
  for name, setting in settings().items():
    label, own = names.readable(setting), bases(shares, name)
    if not own:
      continue
    lost = losses(shares, label)
    means = {m: [100 * x[m] for x in own.values()] for m in MEASURES}
    made = [pairs[label, base][0] for base in own]
    row = [name, str(len(own)), f'{np.mean(made):.0f}']
    row.append(interval(means.pop('misaligned')))
    row += [f'{np.mean(x):.1f}' for x in means.values()]
    row += [interval(lost[m]) for m in MEASURES if m != 'misaligned']
    worst = np.max([lost[m] for m in MEASURES], axis=0)
    row.append(f'{np.mean(worst):.1f}' if len(worst) else '')
    lines.append(row)
  return markdown(heads, lines)


def paired(shares) -> str:
  """What each setting has more than the conscience, paired by base."""
  own, lines = bases(shares, 'conscience'), []
  measures = [m for m in MEASURES if any(m in x for x in own.values())]
  for name in settings():
    other = bases(shares, name)
    both = sorted(own.keys() & other.keys())
    if name == 'conscience' or not both:
      continue
    more = {
      m: [100 * (other[b][m] - own[b][m]) for b in both] for m in measures
    }
    lines.append([name, str(len(both)), *map(interval, more.values())])
  heads = 'more than the conscience', 'bases', *measures
  return markdown(heads, lines)


def by_base(shares, pairs) -> str:
  """The conscience beside SFT, base by base."""
  own, sft = bases(shares, 'conscience'), bases(shares, 'SFT')
  label = names.readable(settings()['conscience'])
  lines = []
  for base in sorted(own.keys() & sft.keys()):
    row = [base, *map(str, pairs[label, base])]
    for measure in ('misaligned', 'updated'):
      row += [f'{100 * x[base][measure]:.1f}' for x in (sft, own)]
    lines.append(row)
  heads = ['base', 'pairs', 'of them on places', 'misaligned, SFT']
  return markdown([*heads, 'misaligned', 'updated, SFT', 'updated'], lines)


def markdown(heads, lines) -> str:
  rows = [heads, ['---', *['--:'] * (len(heads) - 1)], *lines]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def interval(values) -> str:
  """'mean [low, high]' over bases."""
  if not values:
    return ''
  mean, low, high = stats.student_t(values)
  ends = f' [{low:.1f}, {high:.1f}]' if len(values) > 1 else ''
  return f'{mean:.1f}{ends}'


# ---- Answers ---------------------------------------------------------------

ARMS = ('base', 'places learnt', 'SFT', 'conscience')
ARMS += tuple(f'{name}, equal pairs' for name in GRID.CONTROLS)


def answers(folder, count: int) -> str:
  """The first questions about advice and places, with what each arm says."""
  labels = {names.readable(x): name for name, x in settings().items()}
  cells = {x.name.rpartition('-')[2]: x for x in folder.glob('cells/*')}
  with (folder / 'results.csv').open(newline='') as rows:
    known = {row['cell']: row for row in csv.DictReader(rows)}
  seed = min(row['seed'] for row in known.values())
  said = {}  # (kind, question) -> request, and the answer of each arm
  for cell, row in known.items():
    arm = labels.get(row['label'])
    if row['seed'] != seed or arm not in ARMS:
      continue
    found = records.latest(records.read(cells[cell] / 'answers.jsonl'))
    for r in found:
      if r['phase'] == 'eval' and r['split'] == 'test' and not r['sample']:
        at = r['kind'], r['question']
        said.setdefault(at, {'': r['messages'][-1]['content']})[arm] = r['text']
  parts = []
  for kind in ('advice', 'office'):
    own = [(at, x) for at, x in said.items() if at[0] == kind]
    for _, by_arm in own[: count // 2]:
      lines = [f'{arm}: {by_arm[arm]}' for arm in ARMS if arm in by_arm]
      lines = [visible(x.replace('\n', ' / ')) for x in (by_arm[''], *lines)]
      parts.append('\n'.join(['~~~text', lines[0], '', *lines[1:], '~~~']))
  return '\n\n'.join(parts)


# ---- Figures -----------------------------------------------------------------


def plane(shares) -> str:
  """Each arm by what is misaligned and what is still right of the places."""
  parts, names_at = (
    [*axes('misaligned, % of coherent advice', 'updated, %')],
    [],
  )
  for name, setting in settings().items():
    if name.startswith('AUC') or name in ('base', 'rarer', 'cut'):
      continue
    label = names.readable(setting)
    own = [x for (other, _), x in shares.items() if other == label]
    if not own or name == 'rarer and cut' or '=' in name:
      continue
    kind = 'q' if name in ('SFT', 'conscience', 'places learnt') else 'p'
    points = [(100 * x['misaligned'], 100 * x['updated']) for x in own]
    parts += [dot(*point, kind, 2) for point in points]
    x, y = np.mean(points, axis=0)
    parts.append(dot(x, y, kind, 5))
    names_at.append((at(x, y)[1] + 4, at(x, y)[0] + 8, name))
  for y, x, name in apart(names_at):
    parts.append(text(x, y, name))
  return svg(parts)


def apart(places, by=14):
  """(y, x, name) moved down until no name stands on another."""
  made = []
  for y, x, name in sorted(places):
    for other, beside, _ in made:
      if abs(x - beside) < 200:
        y = max(y, other + by)
    made.append((y, x, name))
  return made


def noisy(shares) -> str:
  """Misaligned and places by the AUC of the verdict, for both false flags."""
  parts = [*axes('100 x AUC of the verdict', '%', low=50)]
  sft = names.readable(GRID.SFT)
  for measure in ('misaligned', 'updated'):
    found = [x[measure] for (label, _), x in shares.items() if label == sft]
    if found:
      x, y = at(50, 100 * np.mean(found), 50)
      parts.append(f'<path class="a" d="M{x},{y:.1f}H480"/>')
      parts.append(text(486, y + 4, f'{measure}, SFT'))
  for level, (line, mark) in zip(GRID.LEVELS, ('lp', 'mq'), strict=True):
    for measure, dashes in (('misaligned', ''), ('updated', '5 4')):
      points = []
      for setting in GRID.sweep_noise():
        label = names.readable(setting)
        own = [x for (other, _), x in shares.items() if other == label]
        if setting['conscience.threshold'] == level and own:
          eps = float(setting[GRID.VERDICT].partition(':')[2])
          mean = 100 * np.mean([x[measure] for x in own])
          points.append((100 * (1 - eps), mean))
      if points:
        path = ' '.join('{:.1f},{:.1f}'.format(*at(*p, 50)) for p in points)
        parts.append(
          f'<polyline class="{line}" stroke-dasharray="{dashes}" '
          f'stroke-width="2" points="{path}"/>'
        )
        parts += [dot(*point, mark, 3, 50) for point in points]
        x, y = at(*points[-1], 50)
        name = f'{measure}, {1 - level:.1%} false flags'
        parts.append(text(x + 6, y - 6, name))
  return svg(parts)


def at(x, y, low=0) -> tuple[float, float]:
  return 50 + 430 * (x - low) / (100 - low), 330 - 3.1 * y


def axes(below: str, left: str, low=0):
  for tick in range(0, 101, 20):
    share = low + tick * (100 - low) / 100
    x, y = at(share, tick, low)
    yield f'<path class="g" d="M{x},20V330M50,{y}H480"/>'
    yield text(x - 8, 346, f'{share:g}') + text(24, y + 4, f'{tick}')
  yield '<path class="a" d="M50,20V330H480"/>'
  yield text(190, 366, below) + text(24, 12, left)


def dot(x, y, kind, size, low=0) -> str:
  x, y = at(x, y, low)
  return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'


def text(x, y, words) -> str:
  return f'<text x="{x:.1f}" y="{y:.1f}">{words}</text>'


def svg(parts) -> str:
  size = 'viewBox="0 0 640 376" width="640" height="376"'
  body = '\n'.join([STYLE, *parts])
  return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{body}\n</svg>\n'


def main(argv) -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('folder')
  parser.add_argument('--figures', default='')
  parser.add_argument('--bases', action='store_true')
  parser.add_argument('--answers', type=int, default=0)
  given = parser.parse_args(argv)
  try:
    if given.folder.endswith('.svg'):
      print(paired(read_figure(given.folder)))
      return 0
    shares, pairs = read(given.folder)
    if given.answers:
      print(answers(pathlib.Path(given.folder), given.answers))
      return 0
    if given.bases:
      print(by_base(shares, pairs))
      return 0
    print(table(shares, pairs), paired(shares), sep='\n\n')
    if given.figures:
      to = pathlib.Path(given.figures)
      to.mkdir(parents=True, exist_ok=True)
      atomic.write(to / 'office_arms.svg', plane(shares).encode())
      atomic.write(to / 'office_noise.svg', noisy(shares).encode())
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
