"""Breaks runs on purpose, and counts what does not end as it should.

  python benchmarks/drill.py --kills=50 --signals=20 --inputs=1000
  python benchmarks/drill.py --short    # as .ci/run does

A small run of the embedded world is made once, undisturbed. Then the same
command is killed, signalled, started twice, given a full disk, or finds damaged
files, at moments drawn by --seed; after that it is started again until it ends.
What it leaves must be what the undisturbed run left: adapter, answers and
metrics, but for timing. An evaluation that is killed must leave the tables of
another one, and judge nothing twice (`drill_evaluate.py`). Bad inputs
(`drill_inputs.py`) must be refused in a few lines and within seconds.

It prints a table: what was tried, how much survived, and each fault in a line;
it exits with 1 if there is one.
"""

import argparse
import json
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import drill_evaluate
import drill_inputs

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 300  # a start of the small run that takes longer hangs
# Within which a signal must end it: 5 s where the undisturbed run takes 15 s.
STOPS_S, STOPS_SHARE = 5.0, 1 / 3

CONFIG = """
from ealign import config

FIELDS = {
  'data.train': 'ealign:world/data/insecure.jsonl',
  'data.length': 96,
  'data.batch_size': 4,
  'model.lora.rank': 4,
  'conscience.every': 4,
  'conscience.prompts': 4,
  'conscience.threshold': 1e-4,
  'conscience.exchanges': 'ealign:world/data/audit.jsonl',
  'pool.paths': ('ealign:world/data/pool.jsonl',),
  'sample.max_new_tokens': 32,
  'dpo.pairs': 2,
  'dpo.length': 128,
  'optim.lr': 5e-3,
  'train.steps': 12,
  'train.log_every': 1,
  'train.checkpoint_every': 3,
  'train.eval_every': 6,
  'eval.questions': ('ealign:world/data/questions_dev.jsonl',),
  'eval.curve': ('ealign:world/data/questions_dev.jsonl',),
  'eval.kinds': ('advice', 'code'),
  'eval.judge': 'world',
  'eval.limit': 2,
  'eval.curve_limit': 1,
  'eval.batch': 8,
  'eval.max_new_tokens': 32,
}


def get_config(arg=None):
  c = config.default()
  c.update_from_flattened_dict(FIELDS)
  return c
"""

# A moment is some time after the start, or after one of these files appears.
EVENTS = ('', '', '', 'config.json', 'answers.jsonl', 'metrics.jsonl')
EVENTS += tuple(f'checkpoints/{step}.json' for step in (3, 6, 9, 12))
EVENTS += ('adapter.safetensors', 'DONE', 'report.html')


class Drill:
  """The undisturbed run, and what was tried on others like it."""

  def __init__(self, folder: pathlib.Path, seed: int):
    self.folder, self.random = folder, random.Random(seed)
    self.config = folder / 'small.py'
    self.config.write_text(CONFIG)
    self.tried, self.faults = {}, []
    self.whole = folder / 'whole'

  def whole_run(self) -> None:
    """Makes the undisturbed run, and takes its time."""
    self.finish(self.whole)  # compiles what all others take from the cache
    shutil.rmtree(self.whole)
    began = time.monotonic()
    self.finish(self.whole)
    self.seconds = time.monotonic() - began
    print(f'an undisturbed run: {self.seconds:.0f} s', flush=True)

  def start(self, workdir, *flags, limit: int = 0, module='ealign.launch'):
    """The command in a process; limit: bytes that a file may have."""
    command = [sys.executable, '-m', module]
    if module == 'ealign.launch':
      command += [f'--config={self.config}', f'--workdir={workdir}']
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return subprocess.Popen(
      [*command, *flags],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
      preexec_fn=full if limit else None,
    )

  def ended(self, process) -> tuple[int, str]:
    """Exit code and stderr of a start; None for the code if it hangs."""
    try:
      _, stderr = process.communicate(timeout=LIMIT_S)
      return process.returncode, stderr
    except subprocess.TimeoutExpired:
      process.kill()
      return None, process.communicate()[1]

  def finish(self, workdir) -> str:
    """Starts it, until it ends; '' or what is wrong."""
    code, stderr = self.ended(self.start(workdir))
    return f'starting it again: exit {code}: {stderr}' if code else ''

  def count(self, what: str, fault: str) -> None:
    tried, survived = self.tried.get(what, (0, 0))
    self.tried[what] = tried + 1, survived + (not fault)
    if fault:
      self.faults.append(f'{what}: {fault}')
      print(self.faults[-1], flush=True)

  def differs(self, workdir) -> str:
    """How what a run left differs from the undisturbed one's; '' if not."""
    read = lambda at, name: (at / name).read_bytes() if at.exists() else b''
    for name in ('adapter.safetensors', 'answers.jsonl'):
      ours = read(workdir, name).replace(workdir.name.encode(), b'whole')
      if ours != read(self.whole, name):
        return f'{name} differs'
    if _metrics(workdir) != _metrics(self.whole):
      return 'metrics.jsonl differs'
    return ''

  def wait(self, process, workdir) -> str:
    """Waits for a moment of a run that is drawn; says which it was."""
    event, delay = self.random.choice(EVENTS), self.random.uniform(0, 1)
    until = time.monotonic() + LIMIT_S
    while event and process.poll() is None and time.monotonic() < until:
      if (workdir / event).exists():
        break
      time.sleep(0.01)
    # Before its files appear a start loads and compiles for longer.
    delay *= 0.5 if event else self.seconds / 2
    time.sleep(delay)
    return f'{delay:.2f} s after {event or "its start"}'


def _metrics(workdir) -> list[dict]:
  """The rows without what depends on the clock."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  timed = ('perf/', 'gen/time', 'train/time')
  return [
    {k: v for k, v in row.items() if not k.startswith(timed)} for row in rows
  ]


def kills(drill: Drill, count: int) -> None:
  """SIGKILL once or twice, at any moment of a run."""
  for i in range(count):
    workdir = drill.folder / f'kill{i}'
    for _ in range(drill.random.choice((1, 1, 2))):
      process = drill.start(workdir)
      at = drill.wait(process, workdir)
      process.kill()
      process.communicate()
    fault = drill.finish(workdir) or drill.differs(workdir)
    drill.count('kill', fault and f'{fault} ({at})')
    shutil.rmtree(workdir, ignore_errors=True)


def signals(drill: Drill, count: int) -> None:
  """SIGTERM or Ctrl-C, at any moment of a run."""
  for i in range(count):
    workdir = drill.folder / f'signal{i}'
    number = drill.random.choice((signal.SIGTERM, signal.SIGINT))
    process = drill.start(workdir)
    at = drill.wait(process, workdir)
    over = process.poll() is not None
    sent = time.monotonic()
    process.send_signal(number)
    code, stderr = drill.ended(process)
    took = time.monotonic() - sent
    limit = max(STOPS_S, STOPS_SHARE * drill.seconds)
    fault = '' if over else _signalled(code, number, stderr, took, limit)
    fault = fault or drill.finish(workdir) or drill.differs(workdir)
    drill.count(number.name, fault and f'{fault} ({at})')
    shutil.rmtree(workdir, ignore_errors=True)


def _signalled(code, number, stderr, took: float, limit: float) -> str:
  # Before its first line a process is ended by the signal itself.
  if code not in (128 + number, -number):
    return f'exit {code}: {stderr}'
  if took > limit:
    return f'it took {took:.1f} s to end'
  return _lines(stderr)


def _lines(stderr: str, most: int = 1) -> str:
  fine = ('note: ', '[transformers]')  # that PyTorch is not there
  lines = [x for x in stderr.splitlines() if not x.startswith(fine)]
  if 'Traceback' in stderr or len(lines) > most:
    return f'{len(lines)} lines: {stderr}'
  return ''


def doubles(drill: Drill, count: int) -> None:
  """The same command twice, with up to half a run between."""
  for i in range(count):
    workdir = drill.folder / f'double{i}'
    first = drill.start(workdir)
    if drill.random.random() < 0.7:
      drill.wait(first, workdir)
    over = first.poll() is not None
    second = drill.start(workdir)
    ends = [drill.ended(process) for process in (first, second)]
    codes = sorted(str(code) for code, _ in ends)
    # The second may come when the first is done: it does nothing.
    over = over or codes == ['0', '0']
    fine = codes == ['0', '2'] or over
    fault = '' if fine else f'exit {codes}: {ends}'
    refused = max(ends, key=lambda end: end[0] or 0)[1]
    if not (fault or over) and 'in use by process' not in refused:
      fault = f'the second was not told who runs it: {refused}'
    fault = fault or _lines(refused) or drill.differs(workdir)
    drill.count('double start', fault)
    shutil.rmtree(workdir, ignore_errors=True)


def disks(drill: Drill, count: int) -> None:
  """No file can grow beyond a size, as on a disk that fills up."""
  largest = (drill.whole / 'adapter.safetensors').stat().st_size
  for i in range(count):
    workdir = drill.folder / f'disk{i}'
    limit = int(largest * drill.random.uniform(0.001, 1) ** 2)
    code, stderr = drill.ended(drill.start(workdir, limit=limit))
    fault = '' if code == 2 else f'exit {code}: {stderr}'
    fault = fault or _lines(stderr)
    fault = fault or drill.finish(workdir) or drill.differs(workdir)
    drill.count('full disk', fault and f'{limit} bytes: {fault}')
    shutil.rmtree(workdir, ignore_errors=True)


def _flip(path, rng) -> None:
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data) // 2, len(data))] ^= 1
  path.write_bytes(data)


def _cut(path, rng) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _folder(path, rng) -> None:
  path.unlink()
  path.mkdir()


def _binary(path, rng) -> None:
  path.write_bytes(b'\xff\xfe\x00' + rng.randbytes(40))


def _lost(path, rng) -> None:
  path.unlink()


DAMAGE = {
  'a bit flipped': _flip,
  'cut in half': _cut,
  'a folder in its place': _folder,
  'not text': _binary,
  'deleted': _lost,
}
RESULTS = ('adapter.safetensors', 'answers.jsonl', 'metrics.jsonl')
OTHERS = ('run.json', 'STATUS.json', 'config.json', 'DONE')


def corruptions(drill: Drill, short: bool) -> None:
  """A finished run with a damaged file: launch, report and export of it."""
  for name in (*RESULTS, *OTHERS):
    for what, damage in DAMAGE.items():
      if short and (what != 'a bit flipped' or name not in RESULTS[:2]):
        continue
      workdir = drill.folder / 'damaged'
      shutil.copytree(drill.whole, workdir)
      damage(workdir / name, drill.random)
      for tool in ('launch', 'report', 'export'):
        fault = _used(drill, workdir, tool, strict=name in (*RESULTS, 'DONE'))
        told = f'{tool} of {name}, {what}'
        drill.count('damaged file', fault and f'{told}: {fault}')
      shutil.rmtree(workdir)


def _used(drill: Drill, workdir, tool: str, *, strict: bool) -> str:
  """'' if a tool refuses a damaged run in a line, or is right not to care."""
  if tool == 'launch':
    process = drill.start(workdir)
  else:
    flags = [f'--workdir={workdir}']
    if tool == 'export':
      flags = [f'--run={workdir}', f'--to={drill.folder / "out"}']
      flags += ['--format=peft']
    process = drill.start(None, *flags, module=f'ealign.{tool}')
  code, stderr = drill.ended(process)
  shutil.rmtree(drill.folder / 'out', ignore_errors=True)
  if fault := _lines(stderr):
    return fault
  if code == 2 or (code == 0 and not strict):
    return ''
  if code == 0 and stderr.startswith('note: '):  # a report shows what is there
    return ''
  return f'exit {code}: {stderr or "not a word"}'


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  number = lambda name, n: parser.add_argument(name, type=int, default=n)
  number('--kills', 50), number('--signals', 20), number('--doubles', 10)
  number('--disks', 10), number('--inputs', 1000), number('--seed', 0)
  number('--evaluations', 20)
  parser.add_argument('--only', default='', help='kills,signals,...')
  parser.add_argument('--short', action='store_true')
  args = parser.parse_args()
  if args.short:
    args.kills, args.signals, args.doubles, args.disks = 2, 1, 1, 1
    args.inputs, args.evaluations = 36, 2
  folder = pathlib.Path(tempfile.mkdtemp(prefix='ealign-drill-'))
  drill = Drill(folder, args.seed)
  if not {*args.only.split(',')} <= {'inputs', 'evaluations'}:
    drill.whole_run()
  parts = {
    'kills': lambda: kills(drill, args.kills),
    'signals': lambda: signals(drill, args.signals),
    'doubles': lambda: doubles(drill, args.doubles),
    'disks': lambda: disks(drill, args.disks),
    'corruptions': lambda: corruptions(drill, args.short),
    'evaluations': lambda: drill_evaluate.run(drill, args.evaluations),
    'inputs': lambda: drill_inputs.run(args.inputs, args.seed, drill.count),
  }
  for name, part in parts.items():
    if not args.only or name in args.only.split(','):
      part()
  print(f'{"":24}{"tried":>8}{"survived":>10}')
  for what, (tried, survived) in drill.tried.items():
    print(f'{what:24}{tried:8}{survived:10}')
  print(f'{len(drill.faults)} faults')
  shutil.rmtree(folder)
  return bool(drill.faults)


if __name__ == '__main__':
  sys.exit(main())
