"""Kills a small evaluation at moments that are drawn: see `drill.py`.

One folder is begun, killed (SIGKILL) and begun again; where it ends before it
is killed, the next moments are of another folder. What an evaluation leaves at
last must be what an undisturbed one left, and in kept.jsonl no result may stand
twice: nothing that was kept was sampled or judged again.
"""

import json
import pathlib
import shutil
import subprocess
import time

FLAGS = ('--model=ealign:world/base', '--suite=refusal,misalignment,world')
FLAGS += ('--limit=1', '--samples=2')
FLAGS += ('--config.eval.suite_tokens=8', '--config.eval.batch=4')
FILES = 'results.csv', 'base/answers.jsonl'


def run(drill, count: int) -> None:
  """Kills evaluations until there were so many kills; counts the folders."""
  whole = drill.folder / 'evaluated'
  for _ in range(2):  # the first one compiles
    shutil.rmtree(whole, ignore_errors=True)
    began = time.monotonic()
    code, stderr = _ended(_start(drill, whole))
    seconds = time.monotonic() - began
    if code:
      return drill.count('evaluation', f'undisturbed: exit {code}: {stderr}')
  print(f'an undisturbed evaluation: {seconds:.0f} s', flush=True)
  killed = folders = 0
  while killed < count:
    folders += 1
    workdir, moments = drill.folder / f'evaluate{folders}', []
    while killed < count:
      process = _start(drill, workdir)
      moments.append(drill.random.uniform(0, seconds))
      if _over(process, moments[-1]):
        break
      process.kill()
      process.communicate()
      killed += 1
      print(f'evaluation: killed {killed} of {count}', flush=True)
    code, stderr = _ended(_start(drill, workdir))
    fault = f'exit {code}: {stderr}' if code else _differs(workdir, whole)
    at = ', '.join(f'{moment:.1f}' for moment in moments)
    drill.count('evaluation', fault and f'{fault} (killed after {at} s)')
    shutil.rmtree(workdir, ignore_errors=True)
  drill.tried['  of it kills'] = killed, killed


def _start(drill, workdir: pathlib.Path) -> subprocess.Popen:
  flags = [*FLAGS, f'--workdir={workdir}']
  return drill.start(None, *flags, module='ealign.evaluate')


def _over(process, seconds: float) -> bool:
  """Whether it ends within so many seconds."""
  try:
    process.communicate(timeout=seconds)
    return True
  except subprocess.TimeoutExpired:
    return False


def _ended(process) -> tuple[int, str]:
  _, stderr = process.communicate()
  return process.returncode, stderr


def _differs(workdir: pathlib.Path, whole: pathlib.Path) -> str:
  """How what it left differs from the undisturbed one's; '' if not."""
  for name in FILES:
    own = f'"run": "{workdir.name}"', f'"run": "{whole.name}"'
    if (workdir / name).read_text().replace(*own) != (whole / name).read_text():
      return f'{name} differs'
  names = []
  for line in (
    (workdir / 'kept.jsonl').read_text('utf-8', 'replace').split('\n')
  ):
    try:
      names.append(json.loads(line)[0])
    except (ValueError, IndexError):
      continue  # blank, or cut off by a kill
  twice = len(names) - len(set(names))
  return f'{twice} results were computed twice' if twice else ''
