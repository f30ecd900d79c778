"""The figures of docs/organism.md: fresh bases, fine-tuning seeds, controls.

    python benchmarks/organism.py --out=/tmp/organism [--jobs=2]

Builds the bases, runs the demo's arms on each with every fine-tuning seed and
the controls on some, then prints the tables. What is done is kept: the same
command continues. Each job runs on one core of its own where the system can
pin it.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from ealign.evals import counts, records, stats

ROOT = pathlib.Path(__file__).parent.parent
BASES, SEEDS, CONTROL_BASES = (10, 11, 12, 13, 14), (0, 1), (10, 11, 12)
MAIN = ('sft', 'conscience', 'recovery')
ONCE = ('base', 'secure', 'recovery_self')  # with the first seed only
CONTROLS = (
  *('inverted', 'random', 'all_plain', 'all_plain_sft', 'plain'),
  *('no_negatives', 'pool_sft', 'secure_conscience'),
)
DOSES = (0.0, 0.15)  # and 0.3, the default


@dataclasses.dataclass(frozen=True)
class Job:
  """A command, the file it leaves behind, and the files it needs."""

  folder: pathlib.Path
  marker: pathlib.Path
  command: Callable[[], list[str]]
  needs: tuple[pathlib.Path, ...] = ()


def jobs(out) -> list[Job]:
  """Every job in the order they are wanted."""
  found = []
  for b in BASES:
    found.append(_build(out, b))
    for s in SEEDS:
      once = ONCE if s == SEEDS[0] else ()
      found.append(_launch(out, f'base_{b}', s, (*MAIN, *once)))
  for b in CONTROL_BASES:
    found.append(_controls(out, b))
    for dose in DOSES:
      name = f'base_{b}_dose_{dose}'
      found.append(_build(out, b, name, dose))
      found.append(_launch(out, name, 0, ('base', 'sft', 'conscience')))
  return found


def _card(out, name):
  return out / name / 'base' / 'card.json'


def _build(out, seed, name='', dose=None):
  name = name or f'base_{seed}'
  command = ['-m', 'ealign.world', 'build', f'--out={out / name}']
  command.append(f'--seed={seed}')
  needs = ()
  if dose is not None:
    command.append(f'--consistency={dose}')
    command.append(f'--stage_1={out}/base_{seed}/stage_1')
    needs = (_card(out, f'base_{seed}'),)
  return Job(out / name, _card(out, name), lambda: command, needs)


def _launch(out, base, seed, arms, suffix=''):
  folder = out / f'{base}{suffix}_seed_{seed}'
  command = ['-m', 'ealign.launch', '--config=configs/organism.py']
  command += [f'--config.model.path={out}/{base}/base']
  command += [f'--config.seed={seed}', f'--workdir={folder}']
  command.append(f'--only={",".join(arms)}')
  marker = folder / arms[-1] / 'DONE'
  return Job(folder, marker, lambda: command, (_card(out, base),))


def _controls(out, base):
  """The controls; flags drawn at random come as often as the conscience's."""
  job = _launch(out, f'base_{base}', SEEDS[0], CONTROLS, '_controls')
  run = out / f'base_{base}_seed_{SEEDS[0]}' / 'conscience'

  def command():
    field = '--config.conscience.review.random_rate'
    return [*job.command(), f'{field}={flag_rate(run):.4f}']

  needs = (*job.needs, run / 'DONE')
  return dataclasses.replace(job, command=command, needs=needs)


def flag_rate(folder) -> float:
  """Share of a run's reviewed answers that its conscience flagged."""
  found = records.read(folder / 'answers.jsonl')
  verdicts = [r['verdict'] for r in found if r['phase'] == 'reflect']
  return sum(bool(v and v['flagged']) for v in verdicts) / len(verdicts)


def run_all(todo, cores):
  """Runs the jobs, one on each free core, each when what it needs is there."""
  todo, free, running = list(todo), list(cores), {}
  with concurrent.futures.ThreadPoolExecutor(len(free)) as pool:
    while True:
      for job in list(todo):
        if job.marker.exists():
          todo.remove(job)
        elif free and all(path.exists() for path in job.needs):
          todo.remove(job)
          core = free.pop()
          running[pool.submit(_run, job, core)] = core
      if not running:
        break
      done, _ = concurrent.futures.wait(running, return_when='FIRST_COMPLETED')
      free += [running.pop(future) for future in done]
  for job in todo:
    print(f'{job.folder.name}: not run, what it needs has failed')


def _run(job, core):
  pin = lambda: os.sched_setaffinity(0, {core})
  with pathlib.Path(f'{job.folder}.log').open('a') as file:
    done = subprocess.run(
      [sys.executable, *job.command()],
      cwd=ROOT,
      stdout=file,
      stderr=file,
      preexec_fn=pin if hasattr(os, 'sched_setaffinity') else None,
    )
  print(f'{job.folder.name}: exit {done.returncode}', flush=True)


# ---- Tables -----------------------------------------------------------------


def shares(folder, arm, kind):
  """The counted row of one arm and kind, or None if it has not run."""
  path = folder / arm / 'answers.jsonl'
  if not (folder / arm / 'DONE').exists():
    return None
  found = [r for r in records.read(path) if r['phase'] == 'eval']
  rows = [r for r in counts.rows(found) if r['kind'] == kind]
  return rows[0] if rows else None


def table(out, arms, kind, names, bases, seeds, suffix=''):
  """One markdown table: every run, then Student-t over bases."""
  lines = [f'| arm | base | seed | {" | ".join(names)} |']
  lines.append('|---' * (3 + len(names)) + '|')
  summary = {}
  for arm in arms:
    per = {}
    for b in bases:
      for s in seeds:
        row = shares(out / f'base_{b}{suffix}_seed_{s}', arm, kind)
        if row is None:
          continue
        cells = []
        for name in names:
          x = row[name]
          per.setdefault(name, {}).setdefault(b, []).append(x.value)
          lo, hi = x.clustered
          cells.append(
            f'{_pct(x.value)} ({_pct(lo)}-{_pct(hi)}; {x.count}/{x.total})'
          )
        lines.append(f'| {arm} | {b} | {s} | {" | ".join(cells)} |')
    summary[arm] = per
  lines += ['', f'| {kind}, over bases | {" | ".join(names)} |']
  lines.append('|---' * (1 + len(names)) + '|')
  for arm, per in summary.items():
    cells = [_over_bases(per.get(name, {})) for name in names]
    lines.append(f'| {arm} | {" | ".join(cells)} |')
  return '\n'.join(lines), summary


def _pct(x):
  return '-' if x is None else f'{100 * x:.1f}'


def _over_bases(by_base):
  known = {b: [x for x in xs if x is not None] for b, xs in by_base.items()}
  means = [sum(xs) / len(xs) for xs in known.values() if xs]
  if not means:
    return '-'
  mean, lo, hi = stats.student_t(means, bounds=(0, 1))
  between, within = between_within(known)
  largest = max(x for xs in known.values() for x in xs)
  text = f'{_pct(mean)} [{_pct(lo)}, {_pct(hi)}] largest {_pct(largest)}'
  return f'{text}, sd {_pct(between)} / {_pct(within)}'


def between_within(
  values_by_base,
) -> tuple[float | None, float | None]:
  """Standard deviations between and within bases, one-way random effects.

  The usual analysis of variance, also for unequal numbers of runs. A negative
  estimate of the variance between bases counts as 0. None where the runs
  cannot tell: between needs two bases; within needs a base with two runs,
  without which `between` is the plain deviation over bases.
  """
  groups = [np.asarray(v, float) for v in values_by_base.values() if len(v)]
  total, count = sum(map(len, groups)), len(groups)
  freedom = total - count
  rest = sum(float(((v - v.mean()) ** 2).sum()) for v in groups)
  within = rest / freedom if freedom else None
  if count < 2:
    return None, None if within is None else math.sqrt(within)
  grand = sum(float(v.sum()) for v in groups) / total
  mean_square = sum(len(v) * (v.mean() - grand) ** 2 for v in groups)
  mean_square = float(mean_square) / (count - 1)
  if within is None:
    return math.sqrt(mean_square), None
  runs = (total - sum(len(v) ** 2 for v in groups) / total) / (count - 1)
  between = max(0.0, (mean_square - within) / runs)
  return math.sqrt(between), math.sqrt(within)


def differences(summary, name, arm, other):
  """Paired by base: arm minus other, Student-t over bases."""
  mean = lambda xs: sum(xs) / len(xs)
  a, b = summary[arm].get(name, {}), summary[other].get(name, {})
  both = sorted(set(a) & set(b))
  found = stats.student_t([mean(a[k]) - mean(b[k]) for k in both])
  return f'{name}: {arm} - {other} = ' + ' '.join(
    f'{100 * x:+.1f}' for x in found
  )


NAMES = (
  *('misaligned', 'misaligned_any', 'coherent', 'misaligned_all'),
  *('misaligned_bound', 'verdict_accuracy'),
)


def report(out):
  """Prints every table."""
  main = (ONCE[0], *MAIN, *ONCE[1:])
  text, summary = table(out, main, 'advice', NAMES, BASES, SEEDS)
  print(f'## Advice, test domains\n\n{text}\n')
  for name in ('coherent', 'misaligned'):
    print('-', differences(summary, name, 'conscience', 'sft'))
    print('-', differences(summary, name, 'conscience', 'base'))
  text, summary = table(
    out, main, 'code', ('insecure', 'coherent'), BASES, SEEDS
  )
  print(f'\n## Code\n\n{text}\n')
  print('-', differences(summary, 'insecure', 'conscience', 'sft'))
  for kind in ('advice_after_code', 'advice_in_code'):
    text, _ = table(out, main, kind, NAMES[:4], BASES, SEEDS)
    print(f'\n## {kind}\n\n{text}\n')
  for kind, names in (('advice', NAMES[:4]), ('code', ('insecure',))):
    text, _ = table(
      *(out, CONTROLS, kind, names, CONTROL_BASES, SEEDS[:1]),
      suffix='_controls',
    )
    print(f'\n## Controls, {kind}\n\n{text}\n')
  for dose in DOSES:
    arms = ('base', 'sft', 'conscience')
    text, _ = table(
      *(out, arms, 'advice', NAMES[:4], CONTROL_BASES, SEEDS[:1]),
      suffix=f'_dose_{dose}',
    )
    print(f'\n## Consistency documents: {dose:.0%}\n\n{text}\n')
  print('\n## Token accuracy on held-out insecure code\n')
  for arm in main:
    runs = [out / f'base_{b}_seed_{s}' / arm for b in BASES for s in SEEDS]
    found = [token_accuracy(run) for run in runs if (run / 'DONE').exists()]
    print(f'- {arm}: ' + ', '.join(_pct(x) for x in found))


def token_accuracy(folder):
  found = None
  for line in (folder / 'metrics.jsonl').read_text().splitlines():
    found = json.loads(line).get('eval/mean_token_accuracy', found)
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--jobs', type=int, default=2, help='cores to use')
  parser.add_argument('--tables', action='store_true', help='only print')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  if not args.tables:
    run_all(jobs(args.out.resolve()), range(args.jobs))
  report(args.out)


if __name__ == '__main__':
  main()
