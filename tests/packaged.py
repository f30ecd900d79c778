"""Builds the wheel and uses it far from the clone: is all of it there?

  python tests/packaged.py                 # newest and lowest versions allowed
  python tests/packaged.py --only=newest
  python tests/packaged.py --keep=DIR      # environments stay in DIR

Each set of versions has a virtual environment of its own, which pip fills:
`newest` with what it finds, `lowest` with the lower bounds of setup.cfg. There
the program `ealign` lists, helps, trains the demo for a few steps, exports and
reports. Exit code 1 if something is missing, slow or fails; it says what.
"""

import argparse
import configparser
import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = 'ealign', 'configs', 'launch'  # what a wheel is made of
FILES = 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'
SKIP = shutil.ignore_patterns('__pycache__')
LIMIT_MB, IMPORT_S, HELP_S = 8, 0.3, 1.0
DEMO = '--config=ealign:configs/demo.py:runlocal'
GRID = '--config=ealign:configs/grids/organism.py:runlocal'
COMMANDS = ('launch', 'plan', 'audit', 'evaluate', 'export', 'report', 'world')
COMMANDS += ('chat', 'configs', 'fields', 'doctor', 'completion')


def bounds() -> list[str]:
  """The lower bounds of setup.cfg, as pip's constraints."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  lines = setup['options']['install_requires'].split()
  found = [re.fullmatch(r'([\w-]+)(?:\[\w+\])?>=([\w.]+)', x) for x in lines]
  for line, match in zip(lines, found, strict=True):
    assert match, f'setup.cfg: {line} has no lower bound'
  return [f'{match[1]}=={match[2]}' for match in found]


def build(folder: pathlib.Path) -> pathlib.Path:
  """The wheel of a copy of the tree, as nothing is to be left in the tree."""
  tree = folder / 'tree'
  for name in FOLDERS:
    shutil.copytree(ROOT / name, tree / name, ignore=SKIP)
  for name in FILES:
    shutil.copy(ROOT / name, tree)
  pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps']
  subprocess.run([*pip, f'--wheel-dir={folder}', tree], check=True)
  (wheel,) = folder.glob('ealign-*.whl')
  return wheel


def complete(wheel: pathlib.Path) -> list[str]:
  """What is wrong with the files of the wheel."""
  names = set(zipfile.ZipFile(wheel).namelist())
  places = (('ealign', 'ealign'), ('configs', 'ealign/shipped/configs'))
  wrong = []
  for here, there in (*places, ('launch', 'ealign/shipped/launch')):
    for file in (ROOT / here).rglob('*'):
      inside = f'{there}/{file.relative_to(ROOT / here).as_posix()}'
      if file.is_file() and '__pycache__' not in inside and inside not in names:
        wrong.append(f'{inside} is not in the wheel')
  parts = ('ealign/', 'ealign-')
  wrong += [f'{x} is in the wheel' for x in names if not x.startswith(parts)]
  size = wheel.stat().st_size / 1e6
  print(f'{wheel.name}: {size:.2f} MB, {len(names)} files', flush=True)
  if size > LIMIT_MB:
    wrong.append(f'the wheel has {size:.1f} MB, more than {LIMIT_MB}')
  return wrong


def environment(folder: pathlib.Path, wheel, constraints: list[str]):
  """The folder of programs of a new environment with the wheel in it."""
  began = time.monotonic()
  subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
  pip = [folder / 'bin/pip', 'install', '--quiet']
  pip += ['--disable-pip-version-check']
  file = folder / 'constraints.txt'
  file.write_text('\n'.join(constraints))
  subprocess.run([*pip, f'--constraint={file}', wheel], check=True)
  print(
    f'{folder.name}: installed in {time.monotonic() - began:.0f} s', flush=True
  )
  return folder / 'bin'


class Failed(Exception):
  """A command did not end as it should."""


def run(program: list, folder, needs: str = '') -> tuple[str, float]:
  """(what a command prints, its seconds of CPU), in an empty world."""
  keep = ('HOME', 'LANG', 'TMPDIR', 'SSL_CERT_FILE')
  env = {name: os.environ[name] for name in keep if name in os.environ}
  env |= {'PATH': '/usr/bin:/bin', 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '100'}
  env |= {'XDG_CACHE_HOME': str(folder / 'cache'), 'HF_HUB_OFFLINE': '1'}
  spent = lambda: resource.getrusage(resource.RUSAGE_CHILDREN)
  before = spent()
  done = subprocess.run(
    program, cwd=folder, env=env, capture_output=True, text=True, timeout=1800
  )
  after = spent()
  seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  said = done.stdout + done.stderr
  if done.returncode or needs not in said or 'Traceback' in said:
    line = ' '.join(map(str, (pathlib.Path(program[0]).name, *program[1:])))
    raise Failed(f'{line}: exit {done.returncode}\n{said[-3000:]}')
  return done.stdout, seconds


def smoke(bin_: pathlib.Path, folder: pathlib.Path) -> None:
  """Uses the program in an empty folder.

  Raises:
    Failed: a command fails, or takes too long.
  """
  ealign, python = bin_ / 'ealign', bin_ / 'python'
  for limit, program in (
    (IMPORT_S, [python, '-c', 'import ealign']),
    (HELP_S, [ealign, '--help']),
    *((HELP_S, [ealign, name, '--help']) for name in COMMANDS),
  ):
    run(program, folder)  # its bytecode is compiled
    seconds = min(run(program, folder)[1] for _ in range(2))
    if seconds > limit:
      raise Failed(f'{program[1:]}: {seconds:.2f} s of CPU, above {limit}')
  run([ealign, 'configs'], folder, 'ealign:configs/demo.py')
  run([ealign, 'doctor'], folder, 'all is well')
  script = run([ealign, 'completion', 'bash'], folder, 'complete -F')[0]
  run(['bash', '-n', '-c', script], folder)
  launch = [ealign, 'launch', '--workdir=run']
  run([*launch, DEMO, '--print_launch=slurm'], folder, 'srun')
  sweep = '--sweep=arms,few_seeds'
  run([*launch, GRID, sweep, '--print_launch=slurm'], folder, '--array')
  run([*launch, DEMO, '--only=base,conscience'], folder, 'conscience')
  run([ealign, 'report', '--workdir=run'], folder, 'report.html')
  peft = ['--run=run/conscience', '--to=peft', '--format=peft']
  run([ealign, 'export', *peft], folder, 'read back and compared')
  run([python, '-m', 'ealign.report', '--workdir=run'], folder, 'report.html')


def main(argv=None) -> int:
  """Runs all of it; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--only', choices=('newest', 'lowest'))
  parser.add_argument('--keep', help='folder for wheel and environments')
  args = parser.parse_args(argv)
  sets = {'newest': [], 'lowest': bounds()}
  with contextlib.ExitStack() as stack:
    folder = args.keep or stack.enter_context(tempfile.TemporaryDirectory())
    folder = pathlib.Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = build(folder)
    wrong = complete(wheel)
    for name in [args.only] if args.only else sets:
      work = folder / f'{name}-work'
      work.mkdir()
      began = time.monotonic()
      try:
        smoke(environment(folder / name, wheel, sets[name]), work)
      except (Failed, subprocess.SubprocessError) as error:
        wrong.append(f'{name}: {error}')
      print(f'{name}: {time.monotonic() - began:.0f} s', flush=True)
  print('\n'.join(wrong) or 'the wheel works alone')
  return int(bool(wrong))


if __name__ == '__main__':
  sys.exit(main())
