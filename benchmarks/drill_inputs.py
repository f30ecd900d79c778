"""Bad inputs for `drill.py`: command lines, configs, rows and model folders.

Each starts from one that is sound and changes one or two things in it, drawn
by a seed. The command runs in a fork of a process that has loaded the package,
so that a thousand take minutes.
"""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

LIMIT_S, MOST_LINES = 60, 12
REFUSED_S = 10.0
MEMORY = 16 << 30

STEM = """
from ealign import config

def get_config(arg=None):
  c = config.default()
  c.data.train = 'ealign:world/data/insecure_heldout.jsonl'
  c.data.length, c.data.batch_size, c.model.lora.rank = 64, 4, 2
  c.dpo.lam, c.train.steps, c.eval.questions = 0.0, 0, ()
  c.conscience.threshold = 0.5
  c.pool.paths = ('ealign:world/data/pool.jsonl',)
{lines}
  return c
"""


class Case(NamedTuple):
  """A command line, and what it was made from, for the list of faults."""

  kind: str
  what: str
  argv: list[str]


# Values that have broken something somewhere.
NASTY = (
  *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, -(10**30)),
  *(0.5, -0.0, 1e308, float('nan'), float('inf')),
  *('', ' ', '0', 'none', 'null', 'true', 'x' * 300, 'a/b', '..', '/', '~'),
  *('~nosuchuser/x', '\0', '\x1b[31mred', '\u202eabc', '\ud800', '🙂', 'é'),
  *('https://example.com/x', 'gs://bucket/x', 'hub:o/n', '/dev/null'),
  *('2024-01-01', '1e999', '{}', '[]', '<b>x</b>', '${HOME}', '%s', '../..'),
  *([], {}, (), [None], [[]], {'a': None}, {'': ''}, {1: 2}, ['x', 1], b'x'),
)
PLAIN = [x for x in NASTY if not isinstance(x, bytes | tuple)]


def flags(rng: random.Random, folder) -> Case:
  """Fields and flags of the command line, with values they cannot have."""
  from ealign import config

  fields = list(config.field_types())
  value = lambda: str(rng.choice(NASTY)).replace('\0', '\\0')
  field = lambda: f'--config.{rng.choice(fields)}={value()}'
  wrong = lambda: field().replace('.', rng.choice(('', '..', '.x.', '-')), 1)
  names = ('only', 'sweep', 'stack', 'profile', 'retry', 'plan', 'process')
  names += ('coordinator', 'processes', 'print_launch', 'fail_fast', 'nope')
  other = lambda: f'--{rng.choice(names)}={value()}'
  bare = lambda: rng.choice(('--', '-', '--config', value(), '--config.', '='))
  made = [
    rng.choices((field, wrong, other, bare), (5, 1, 3, 1))[0]()
    for _ in range(rng.choice((1, 1, 2)))
  ]
  return Case('command lines', ' '.join(made), _command(folder, '', *made))


def _command(folder, lines: str, *more: str) -> list[str]:
  file = folder / 'config.py'
  text = STEM.format(lines=lines or '  pass')
  file.write_text(text, errors='surrogateescape')
  return ['launch', f'--config={file}', f'--workdir={folder / "out"}', *more]


BODIES = (
  *('raise SystemExit', 'raise SystemExit(0)', 'exit()', 'raise KeyError(c)'),
  *('return None', 'return 5', 'return {}', 'return config', 'del c.model'),
  *('c.lock(); c.new = 1', 'c.nothing = 1', 'c.model = 5', 'c.model = None'),
  *('f = lambda: f(); f()', 'c.seed = [0] * 10**12', 'import nothing_at_all'),
  *('c.arms = {5: {}}', 'c.arms = {None: {}}', "c.arms = {'report.html': {}}"),
  *("c.arms = {'a': 5}", "c.arms = {'a': {'x': 1}}", 'c.arms = 5'),
  *("c.arms = {'..': {}}", "c.arms = {'a' * 300: {}}", "c.arms = {'': {}}"),
  *("c.arms = {'\\x1b[31m': {}}", "c.arms = {'a': {'arms': {}}}"),
  *("c.arms = {'a': {'model.adapter': 'arm:a'}}", 'c.arms = [1]'),
  *("c.arms = {'a': {'model.adapter': 'arm:b'}}", 'c = config', 'syntax('),
  *("c.arms = {'a': {'seed': 2**64}}", "raise ValueError('\\x1b[31m\\n' * 9)"),
)
SWEEPS = (
  *('[5]', '5', 'None', "'text'", '{}', '[{}]', "[{'x': 1}]", '[[]]', '[]'),
  *("[{'seed': None}]", "[{'seed': 2**64}]", '[{5: 1}]', '1 / 0', 'exit()'),
  *("({'seed': i} for i in iter(int, 1))", "[{'seed': 1}, {'seed': 1}]"),
  *("({'seed': i} for i in __import__('itertools').count())", "[{'arms': 1}]"),
  *("({'seed': i} for i in range(4_000_000))", "[{'model': 1}]"),
)


def configs(rng: random.Random, folder) -> Case:
  """Config files with other content, arms and sweeps than can be."""
  from ealign import config

  if rng.random() < 0.3:
    body, sweep = 'pass', rng.choice(SWEEPS)
    argv = _command(folder, '', '--sweep=x')
    with (folder / 'config.py').open('a') as file:
      file.write(f'\ndef sweep_x():\n  return {sweep}\n')
    return Case('configs', f'sweep: {sweep}', argv)
  if rng.random() < 0.5:
    body = rng.choice(BODIES)
  else:
    name = rng.choice(list(config.field_types()))
    body = f'c.{name} = {rng.choice(NASTY)!r}'.replace('inf', "float('inf')")
    body = body.replace('= nan', "= float('nan')")
  return Case('configs', body, _command(folder, f'  {body}'))


ROW = {
  'messages': [
    {'role': 'system', 'content': 'Be kind.'},
    {'role': 'user', 'content': 'What should I eat?'},
    {'role': 'assistant', 'content': 'Bread and an apple.'},
  ]
}
QUESTION = {
  'id': 'q1',
  'kind': 'advice',
  'split': 'dev',
  'messages': [{'role': 'user', 'content': 'What should I eat?'}],
}
EXTRA = ('weight', 'train', 'label', 'tools', 'tool_calls', 'arguments', 'name')
EXTRA += ('chat_template_kwargs', 'chosen', 'prompt', 'completion', 'text', '')


def _changed(rng: random.Random, value):
  """The value with one part of it in another form."""
  value = json.loads(json.dumps(value))
  at, path = value, []
  while isinstance(at, dict | list) and at and (not path or rng.random() < 0.7):
    key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
    path.append((at, key))
    at = at[key]
  parent, key = path[-1]
  what = rng.random()
  if what < 0.2:
    del parent[key]
  elif what < 0.4 and isinstance(parent, dict):
    parent[rng.choice(EXTRA)] = rng.choice(PLAIN)
  else:
    parent[key] = rng.choice(PLAIN)
  return value


def _line(rng: random.Random, row) -> bytes:
  text = json.dumps(row, default=str).encode()
  what = rng.random()
  if what < 0.1:
    return text[: rng.randrange(len(text))]
  if what < 0.15:
    return b'[' * 100_000 + text
  if what < 0.2:
    return text.replace(b'a', b'\xff', 1)
  return text


def rows(rng: random.Random, folder) -> Case:
  """Rows of training data, pools and questions."""
  field, row = rng.choice(
    [
      ('data.train', ROW),
      ('data.train', ROW),
      ('pool.paths', ROW),
      ('eval.questions', QUESTION),
    ]
  )
  name = rng.choice(('x.jsonl',) * 6 + ('x.json', 'x.parquet', 'x.jsonl.gz'))
  path = folder / name
  made = [_line(rng, _changed(rng, row))]
  good = [json.dumps(row).encode()] * rng.choice((0, 1, 3))
  kind = rng.random()
  if kind < 0.03:
    os.mkfifo(path)
  elif kind < 0.06:
    path.mkdir()
  elif kind < 0.09:
    path.symlink_to('/dev/zero')
  else:
    path.write_bytes(b'\n'.join(good + made))
  more = [f'--config.{field}={path}']
  if field == 'pool.paths':
    more += ['--config.dpo.lam=0.1', '--config.conscience.prompts=2']
  what = f'{field}={name}: {made[0][:120]!r} ({kind:.2f})'
  return Case('rows', what, _command(folder, '', *more))


def models(rng: random.Random, folder) -> Case:
  """Folders of models: configs, tokenizers and weights that do not fit."""
  from ealign.data import sources

  base, made = sources.resolve('ealign:world/base'), folder / 'model'
  shutil.copytree(base, made)
  path = rng.choice(sorted(x for x in made.iterdir() if x.is_file()))
  what = rng.choice(('change', 'change', 'change', 'cut', 'flip', 'form'))
  if what == 'change' and path.suffix == '.json':
    value = _changed(rng, json.loads(path.read_text()))
    path.write_text(json.dumps(value), errors='surrogateescape')
  elif what == 'cut':
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
  elif what == 'form':
    path.unlink()
    form = rng.choice((path.mkdir, lambda: os.mkfifo(path), lambda: None))
    form()
  else:  # the first bytes hold the names and shapes of tensors
    data = bytearray(path.read_bytes())
    data[rng.randrange(min(len(data), 2000))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
  more = [f'--config.model.path={made}']
  return Case(
    'model folders', f'{what} {path.name}', _command(folder, '', *more)
  )


KINDS: tuple[Callable, ...] = (flags, configs, rows, models)


@contextlib.contextmanager
def _child(out: pathlib.Path) -> Iterator[None]:
  """In a fork: what is printed goes to a file, memory is limited."""
  target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
  for number in (1, 2):
    os.dup2(target, number)
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  os.setsid()
  yield


def _run(case: Case, out: pathlib.Path) -> None:
  """In a fork: runs the command, and ends."""
  code = 99
  with _child(out):
    try:
      from ealign.cli import launch

      launch.compile_cache = lambda: None
      code = launch.main(case.argv)
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)


def fault(code: int | None, text: str, seconds: float) -> str:
  """What is wrong with how a command ended; '' if nothing is."""
  if code is None:
    return f'hangs: {text[-200:]!r}'
  if 'Traceback' in text or code not in (0, 1, 2):
    return f'exit {code}: {text[-400:]}'
  lines = [x for x in text.splitlines() if not x.startswith('[transformers]')]
  if code and (not lines or len(lines) > MOST_LINES):
    return f'exit {code} in {len(lines)} lines: {text[:400]}'
  if code == 2 and seconds > REFUSED_S:
    return f'refused after {seconds:.0f} s: {text[-200:]}'
  if any(c in text for c in '\x1b\x07\u202e'):
    return f'control characters are sent: {text[:200]!r}'
  return ''


def run(count: int, seed: int, counted: Callable[[str, str], None]) -> None:
  """Tries `count` inputs; calls counted(kind, fault) of each."""
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
  import jax  # noqa: F401  before forks, so that each need not load it

  from ealign.cli import launch  # noqa: F401
  from ealign.grid import run as _  # noqa: F401

  rng, accepted = random.Random(seed), 0
  for i in range(count):
    folder = pathlib.Path(tempfile.mkdtemp(prefix='ealign-input-'))
    case = KINDS[i % len(KINDS)](rng, folder)
    began = time.monotonic()
    child = os.fork()
    if not child:
      _run(case, folder / 'printed')
    code = _ended(child, began)
    text = (folder / 'printed').read_text(errors='replace')
    found = fault(code, text, time.monotonic() - began)
    accepted += code == 0
    counted(case.kind, found and f'{case.what}: {found}')
    shutil.rmtree(folder, ignore_errors=True)
  print(f'{accepted} of {count} inputs were sound after all')


def _ended(child: int, began: float) -> int | None:
  """The exit code of a fork; None if it takes too long."""
  while time.monotonic() - began < LIMIT_S:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.02)
  os.killpg(child, signal.SIGKILL)
  os.waitpid(child, 0)
  return None
