"""Does a change leave every result as it was? Runs two trees and compares.

  python tests/golden.py                          # HEAD against this checkout
  python tests/golden.py --parent=e9eba13 --keep=/tmp/golden
  python tests/golden.py --only=reviews,losses    # some of the cases
  python tests/golden.py --rtol=1e-6              # numbers may differ by that

Each case is a command that a user would type, run in a git worktree of the
parent and in the checkout that this file lies in; every file it leaves is
compared. --keep holds what the parent left, by commit, so that it runs once,
and what the checkout left, in here_<folder>; several may use it at a time. Exit
code 1 if a case differs. The cases are in tests/golden_cases.py, their config
file. docs/testing.md has more.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import golden_cases
import numpy as np
from golden_cases import CASES, Case

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMIT_S = 1800  # of one command
TINIEST = 1e-3  # differences of smaller numbers are relative to this
ROUNDED = {'logp': 1e-4}  # fields written with so many digits
# What is not compared, by the beginning of its name: times and how often was
# compiled; where and with what it ran; what the parent may name otherwise.
APART = ('perf/', 'seconds_compile', 'cpu_seconds_compile', 'step_time_s')
APART += ('overhead_s', 'earlier_s', 'started', 'finished', 'heartbeat')
APART += ('compiles', 'pid', 'host', 'commit', 'versions', 'hashes', 'config')

ADDED = 'STATUS.json'  # arms have one now: where the parent wrote none, skipped


# ---- Running a case ---------------------------------------------------------


class Tree(NamedTuple):
  """A checkout: its folder, its name of --stack, and the models it reads."""

  folder: pathlib.Path
  stack: str
  made: pathlib.Path

  def start(self, words, case: Case, log: pathlib.Path) -> subprocess.Popen:
    """Starts `python -m ...` there; what it prints goes to <log>.txt, .err."""
    flags = f'--xla_force_host_platform_device_count={case.devices}'
    env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    env |= {'PYTHONPATH': str(self.folder), 'GOLDEN_MADE': str(self.made)}
    env.pop('COLUMNS', None)
    if case.devices > 1:
      # Each device may wait in another all-reduce: with no more threads than
      # devices they can wait for ever, and XLA aborts (tensor=2 on 2 cores).
      env['NPROC'] = '8'
    with open(f'{log}.txt', 'a') as out, open(f'{log}.err', 'a') as err:
      command = [sys.executable, '-m', *words]
      return subprocess.Popen(
        command, cwd=self.folder, env=env, stdout=out, stderr=err
      )


def tree(folder: pathlib.Path, made: pathlib.Path) -> Tree:
  """The tree in a folder; refuses one whose package would be another's."""
  env = os.environ | {'PYTHONPATH': str(folder)}

  def ask(*words):
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE)
    return done.stdout.decode()

  found = ask('-c', 'import ealign; print(ealign.__file__)')
  if not pathlib.Path(found.strip()).is_relative_to(folder):
    raise SystemExit(f'{folder}: python there imports {found.strip()}')
  usage = ask('-m', 'ealign.launch', '--help')
  return Tree(folder, 'stack' if '--stack' in usage else 'arms', made)


def run(tree: Tree, name: str, out: pathlib.Path, stopped=None) -> None:
  """Runs a case in a tree into out/<name>; `stopped` is a folder to go on in.

  Raises:
    RuntimeError: a command failed.
  """
  case, workdir = CASES[name], out / name
  shutil.rmtree(out, ignore_errors=True)
  out.mkdir(parents=True)
  spec = case.config or f'{golden_cases.__file__}:{name}'
  words = ['ealign.launch', f'--config={spec}']
  words += [flag.format(stack=tree.stack) for flag in case.flags]
  if stopped:
    shutil.copytree(stopped / name, workdir)
  finish(tree, [*words, f'--workdir={workdir}'], case, out / 'said')
  for line in case.then:
    finish(tree, line.format(out=workdir).split(), case, out / 'said')
  if case.killed and not stopped:
    part = out / 'stopped' / name
    words.append(f'--workdir={part}')
    finish(tree, words, case, out / 'said', stop_at=part / 'checkpoints' / '4')


def finish(tree: Tree, words, case: Case, log, stop_at=None) -> None:
  """Runs a command to its end, or to a signal once `stop_at` is there.

  Raises:
    RuntimeError: it failed, or had ended before.
  """
  process, end = tree.start(words, case, log), time.monotonic() + LIMIT_S
  try:
    while stop_at and process.poll() is None and time.monotonic() < end:
      if stop_at.exists():
        process.send_signal(signal.SIGTERM)
        break
      time.sleep(0.01)
    code = process.wait(max(0, end - time.monotonic()))
  finally:
    process.kill()
  if code != (143 if stop_at else 0):
    lines = pathlib.Path(f'{log}.err').read_text().splitlines()
    said = ' | '.join(lines[-3:])
    raise RuntimeError(f'exit code {code} of {" ".join(words)}: {said}')


# ---- What it left -----------------------------------------------------------


def contents(name: str, out: pathlib.Path, folder: pathlib.Path) -> dict:
  """What a case left, by file: tensors, objects, or lines of text.

  folder: of the tree; it, the work folder and hashes of cells are replaced.
  """
  case, workdir = CASES[name], out / name
  cells = [path.name.rpartition('-') for path in workdir.glob('cells/*')]
  ids = {cell: f'<{label}>' for label, _, cell in cells}
  names = {str(workdir): '<out>', str(folder): '<tree>'} | ids

  def plain(text: str) -> str:
    for old, new in names.items():
      text = text.replace(old, new)
    return text

  paths = [path for path in workdir.rglob('*') if path.is_file()]
  found = {}
  for path in sorted(paths):
    at = plain(str(path.relative_to(workdir)))
    if 'checkpoints' in path.parts:
      continue
    if path.suffix == '.safetensors':
      found[at] = list(golden_cases.tensors(path))
    elif path.name in READERS:
      found[at] = READERS[path.name](plain(path.read_text()))
  if case.said:
    found['printed'] = printed(plain((out / 'said.txt').read_text()))
  return found


def printed(text: str) -> list[str]:
  """Lines without progress, seconds and rounding; blanks count as one."""
  text = re.sub(r'\b\d+ s\b', '<s>', text)
  text = re.sub(r'differ by at most \S+', 'differ', text)
  lines = [' '.join(line.split()) for line in text.splitlines()]
  return [line for line in lines if not re.search(r'step \d+/\d+', line)]


def report(text: str) -> list[str]:
  """Lines without where and when it ran."""
  text = re.sub(r'(\| done \|.*\|) \d+ \|', r'\1', text)
  apart = r'(- |\| )(commit|host|hashes\.code|versions\.\w+)\b'
  return [line for line in text.splitlines() if not re.match(apart, line)]


def renamed(text: str) -> dict:
  """plan.json, whether it says arms or stack."""
  text = re.sub(r'"arm": (\d)', r'"stack": \1', text)
  return json.loads(text.replace('"arms', '"stack'))


READERS = {
  'answers.jsonl': lambda text: [json.loads(x) for x in text.split('\n') if x],
  'metrics.jsonl': lambda text: list(map(json.loads, text.splitlines())),
  'run.json': json.loads,
  'plan.json': renamed,
  'STATUS.json': json.loads,
  'adapter_config.json': json.loads,
  'results.csv': str.splitlines,
  'report.md': report,
}


def differences(old, new, at: str = ''):
  """Yields (where, old, new, relative difference): inf if no real number."""
  both = lambda *kinds: isinstance(old, kinds) and isinstance(new, kinds)
  if both(dict):
    for key in dict.fromkeys([*old, *new]):
      if not key.startswith(APART):
        pair = (x.get(key, '(absent)') for x in (old, new))
        yield from differences(*pair, f'{at} {key}')
  elif both(list):
    if len(old) != len(new):
      yield f'{at} length', len(old), len(new), np.inf
    for i, pair in enumerate(zip(old, new, strict=False)):
      yield from differences(*pair, f'{at}[{i}]')
  elif both(np.ndarray) and (old.shape, old.dtype) == (new.shape, new.dtype):
    if old.tobytes() != new.tobytes():
      a, b = (np.asarray(x, np.float64) for x in (old, new))
      i = np.unravel_index(np.argmax(np.abs(a - b)), a.shape)
      where = f'{at}{list(map(int, i))}'
      yield where, a[i], b[i], abs(a - b)[i] / (np.max(np.abs(a)) or 1)
  elif both(np.ndarray):
    yield at, (old.shape, old.dtype), (new.shape, new.dtype), np.inf
  elif old != new and both(int, float) and not both(int):
    gap = abs(old - new) / max(abs(old), abs(new), TINIEST)
    yield at, old, new, gap
  elif old != new:
    yield at, old, new, np.inf


def small(at: str, old, new, gap: float, rtol: float) -> bool:
  """Whether a difference is within rtol, or in the last digit written."""
  digits = [d for name, d in ROUNDED.items() if at.endswith(f' {name}')]
  return gap <= rtol or bool(
    rtol and digits and abs(old - new) <= 1.001 * digits[0]
  )


def compare(old: dict, new: dict, rtol: float) -> tuple[list[str], str]:
  """A line for each file that differs by more than rtol, and what there is."""
  lines, within = [] if new else ['it left nothing'], 0.0
  names = [name for name in new if name in old or not name.endswith(ADDED)]
  for name in dict.fromkeys([*old, *names]):
    found = differences(*(x.get(name, '(absent)') for x in (old, new)))
    large = []
    for place in found:
      if small(*place, rtol):
        within = max(within, place[3])
      else:
        large.append(place)
    if large:
      at, a, b, _ = large[0]
      gaps = [gap for *_, gap in large if gap != np.inf]
      said = f'{name}: {len(large)} differ; first{at}: {cut(a)} -> {cut(b)}'
      lines.append(said + (f'; at most {max(gaps):.1e}' if gaps else ''))
  records = [r for n, x in new.items() if 'answers.jsonl' in n for r in x]
  kept = sum((r['alternative'] or {}).get('kept', False) for r in records)
  arrays = [x for n, x in new.items() if n.endswith('.safetensors')]
  said = f'{len(new)} files, {len(records)} answers, {kept} pairs, '
  said += f'{sum(len(x[0]) for x in arrays)} tensors'
  return lines, said + (f', numbers within {within:.1e}' if within else '')


def cut(value) -> str:
  text = repr(value) if isinstance(value, str) else str(value)
  return text if len(text) <= 70 else text[:70] + ' ...'


# ---- The command ------------------------------------------------------------

g = golden_cases
MODELS = (g.make_models, g.copied, g.random, g.SIZES, g.MOE, g.GEMMA, g.END)
CODE = (g.get_config, g.made, g.sweep_lam, g.sweep_seeds, run, finish)
CODE += (Tree.start,)


def digest(*about) -> str:
  """Of values, and of the source of functions."""
  told = [inspect.getsource(x) if callable(x) else repr(x) for x in about]
  return hashlib.sha256('\n'.join(told).encode()).hexdigest()[:12]


def recipe(name: str) -> str:
  """Changes with all that decides what a commit leaves of a case."""
  versions = importlib.metadata.version('jaxlib'), os.cpu_count()
  return digest(*MODELS, *CODE, g.SMALL, tuple(CASES[name]), versions)


@contextlib.contextmanager
def worktree(commit: str):
  """A checkout of a commit in a temporary folder."""
  git = ('git', '-C', str(ROOT), 'worktree')
  with tempfile.TemporaryDirectory(prefix='golden_tree_') as folder:
    path = pathlib.Path(folder).resolve() / 'tree'
    words = ('add', '--quiet', '--detach', str(path), commit)
    subprocess.run((*git, *words), check=True)
    try:
      yield path
    finally:
      subprocess.run((*git, 'remove', '--force', str(path)), check=True)


@contextlib.contextmanager
def locked(folder: pathlib.Path):
  """One process at a time: others wait for what it makes in a folder."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with open(f'{folder}.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def check(name: str, parent, here: Tree, home, rtol: float) -> bool:
  """Runs a case where it must, and prints how the two compare.

  parent: a function that returns the parent's tree, where it must run.
  """
  old, took = home / f'{name}_{recipe(name)}', []
  new = home.parent / f'here_{here.folder.name}_{digest(here.folder)}' / name
  ran = old / 'RAN'  # says where the tree lay

  def timed(tree, out, stopped=None):
    began = time.monotonic()
    run(tree, name, out, stopped)
    took.append(f'{time.monotonic() - began:.0f} s')

  try:
    with locked(old):
      if not ran.exists():
        timed(parent(), old)
        ran.write_text(str(parent().folder))
    with locked(new):
      timed(here, new, old / 'stopped' if CASES[name].killed else None)
      found = contents(name, new, here.folder)
    before = contents(name, old, pathlib.Path(ran.read_text()))
    lines, said = compare(before, found, rtol)
  except (RuntimeError, subprocess.TimeoutExpired) as error:
    lines, said = [str(error)], 'not compared'
  head = f'{name} differs in {len(lines)} files' if lines else f'{name} equal'
  more = [f'... and {len(lines) - 12} more'] if len(lines) > 12 else []
  shown = [f'  {line}' for line in (*lines[:12], *more)]
  print('\n'.join([f'{head} ({said}; {" + ".join(took)})', *shown]), flush=True)
  return not lines


def arguments() -> argparse.Namespace:
  """The command line, with the parent as a commit and names as a list."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--parent', default='HEAD', help='a git revision')
  parser.add_argument('--only', default=','.join(CASES), help='NAME,NAME')
  parser.add_argument('--keep', default='', help='folder of what they leave')
  parser.add_argument('--rtol', type=float, default=0.0, help='of numbers')
  parser.add_argument('--jobs', type=int, default=2, help='cases at a time')
  args = parser.parse_args()
  args.only = args.only.split(',')
  if unknown := sorted(set(args.only) - CASES.keys()):
    parser.error(f'no such case: {", ".join(unknown)} ({", ".join(CASES)})')
  words = ('git', '-C', str(ROOT), 'rev-parse', '--verify', '--short=12')
  words += (f'{args.parent}^{{commit}}',)
  found = subprocess.run(words, stdout=subprocess.PIPE)
  if found.returncode:
    parser.error(f'--parent={args.parent}: no such commit')
  args.parent = found.stdout.decode().strip()
  return args


def main() -> int:
  args = arguments()
  with contextlib.ExitStack() as stack:
    temporary = tempfile.TemporaryDirectory(prefix='golden_')
    keep = pathlib.Path(args.keep or stack.enter_context(temporary)).resolve()
    home = keep / args.parent
    made, making = home / f'models_{digest(*MODELS)}', threading.Lock()

    @functools.cache
    def checkout() -> Tree:
      return tree(stack.enter_context(worktree(args.parent)), made)

    def parent() -> Tree:
      with making:  # threads would each make one
        return checkout()

    with locked(made):
      if not made.exists():
        part = made.with_suffix('.partial')
        shutil.rmtree(part, ignore_errors=True)
        base = next(parent().folder.rglob('base/tokenizer.json')).parent
        g.make_models(part, base)
        part.rename(made)
    here = tree(ROOT, made)
    one = lambda name: check(name, parent, here, home, args.rtol)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
      equal = list(pool.map(one, args.only))
  print(f'{sum(equal)} of {len(equal)} cases equal')
  return 0 if all(equal) else 1


if __name__ == '__main__':
  sys.exit(main())
