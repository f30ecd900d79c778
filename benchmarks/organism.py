"""The figures of docs/organism.md: fresh bases, fine-tuning seeds, controls.

    python benchmarks/organism.py --out=/tmp/organism [--jobs=2]

Builds the bases, runs the demo's arms on each with every fine-tuning seed and
the controls on some, then prints the tables. What is done is kept: the same
command continues. Each job runs on one core of its own where the system can
pin it.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys

from ealign.evals import counts, records, stats

ROOT = pathlib.Path(__file__).parent.parent
BASES, SEEDS, CONTROL_BASES = (0, 1, 2, 3, 4), (0, 1), (0, 1, 2)
MAIN = ('sft', 'conscience', 'recovery')
ONCE = ('base', 'secure', 'recovery_self')  # with the first seed only
CONTROLS = (
  *('inverted', 'random', 'all_plain', 'all_plain_sft', 'plain'),
  *('no_negatives', 'pool_sft', 'secure_conscience'),
)
DOSES = (0.0, 0.15)  # and 0.3, the default


def jobs(out) -> list[list]:
  """Stages of (name, marker file, command); a stage needs the one before."""
  builds = [_build(out, b) for b in BASES]
  runs, controls, doses, dosed = [], [], [], []
  for b in BASES:
    for s in SEEDS:
      once = ONCE if s == SEEDS[0] else ()
      runs.append(_launch(out, f'base_{b}', s, (*MAIN, *once)))
  for b in CONTROL_BASES:
    controls.append(_launch(out, f'base_{b}', SEEDS[0], CONTROLS))
    for dose in DOSES:
      name = f'base_{b}_dose_{dose}'
      doses.append(_build(out, b, name, dose))
      dosed.append(_launch(out, name, 0, ('base', 'sft', 'conscience')))
  return [builds, runs, controls, doses, dosed]


def _build(out, seed, name='', dose=None):
  folder = out / (name or f'base_{seed}')
  command = ['-m', 'ealign.world', 'build', f'--out={folder}']
  command.append(f'--seed={seed}')
  if dose is not None:
    command.append(f'--consistency={dose}')
    command.append(f'--stage_1={out}/base_{seed}/stage_1')
  return folder.name, folder / 'base' / 'card.json', command


def _launch(out, base, seed, arms):
  folder = out / f'{base}_seed_{seed}'
  command = ['-m', 'ealign.launch', '--config=configs/organism.py']
  command += [f'--config.model.path={out}/{base}/base']
  command += [f'--config.seed={seed}', f'--workdir={folder}']
  command.append(f'--only={",".join(arms)}')
  return folder.name, folder / arms[-1] / 'DONE', command


def run_all(stage, cores):
  """Runs the jobs of a stage, one on each free core."""
  free = queue.SimpleQueue()
  for core in cores:
    free.put(core)

  def run(job):
    name, marker, command = job
    if marker.exists():
      return
    core = free.get()
    pin = lambda: os.sched_setaffinity(0, {core})
    folder = marker.parents[1]
    log = folder.parent / f'{folder.name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
      done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=file,
        stderr=file,
        preexec_fn=pin if hasattr(os, 'sched_setaffinity') else None,
      )
    free.put(core)
    print(f'{name}: exit {done.returncode}', flush=True)

  with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
    list(pool.map(run, stage))


# ---- Tables -----------------------------------------------------------------


def shares(folder, arm, kind):
  """The counted row of one arm and kind, or None if it has not run."""
  path = folder / arm / 'answers.jsonl'
  if not (folder / arm / 'DONE').exists():
    return None
  found = [r for r in records.read(path) if r['phase'] == 'eval']
  rows = [r for r in counts.rows(found) if r['kind'] == kind]
  return rows[0] if rows else None


def value(row, name):
  share = row[name] if row else None
  return None if share is None else share.value


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
  between, within = stats.between_within(known)
  largest = max(x for xs in known.values() for x in xs)
  text = f'{_pct(mean)} [{_pct(lo)}, {_pct(hi)}] largest {_pct(largest)}'
  return f'{text}, sd {_pct(between)} / {_pct(within)}'


def differences(summary, name, arm, other):
  """Paired by base: arm minus other, Student-t over bases."""
  mean = lambda xs: sum(xs) / len(xs)
  a, b = summary[arm].get(name, {}), summary[other].get(name, {})
  both = sorted(set(a) & set(b))
  found = stats.paired([mean(a[k]) for k in both], [mean(b[k]) for k in both])
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
    text, _ = table(out, CONTROLS, kind, names, CONTROL_BASES, SEEDS[:1])
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
    found = [
      token_accuracy(p.parent)
      for p in sorted(out.glob(f'base_?_seed_?/{arm}/DONE'))
    ]
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
    for stage in jobs(args.out.resolve()):
      run_all(stage, range(args.jobs))
  report(args.out)


if __name__ == '__main__':
  main()
