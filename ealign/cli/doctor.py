"""What is installed here, what will be used, and why.

usage: python -m ealign.doctor

Shows versions, devices and their memory, this machine's memory and disk, the
cache of compiled programs, and which tokens there are (never what they are).
Nothing is downloaded, and what it looks at may be missing. The devices are
asked by another process, for at most two minutes: a TPU that a notebook holds,
or a slice whose other hosts are silent, is told of and does not stop it.

Exit codes: 0 all is well; 1 something has to be mended first; it says what.
"""

import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import ealign
from ealign.cli import requirements
from ealign.runtime import peaks, preempt, shipped
from ealign.runtime.errors import visible

PROBE_S = 120.0
GIB = 2**30
# What uses a token, and in which variables it may stand.
TOKENS = {
  'Hugging Face': ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'),
  'openai: judges': ('OPENAI_API_KEY',),
  'gs:// folders': ('GOOGLE_APPLICATION_CREDENTIALS',),
}
# What decides which devices JAX takes; none of them is a secret.
SETTINGS = ('JAX_PLATFORMS', 'CUDA_VISIBLE_DEVICES', 'TPU_VISIBLE_CHIPS')
SETTINGS += ('XLA_PYTHON_CLIENT_MEM_FRACTION', 'HF_HUB_OFFLINE')
PROBE = """
import json, jax
limit = lambda d: (d.memory_stats() or {}).get('bytes_limit')
found = [(d.platform, d.device_kind, limit(d)) for d in jax.local_devices()]
print('\\n' + json.dumps({'devices': found, 'hosts': jax.process_count()}))
"""


@dataclasses.dataclass(frozen=True)
class Line:
  """One finding. wrong: whether it has to be mended before anything runs."""

  what: str
  text: str
  wrong: bool = False

  def __str__(self) -> str:
    return visible(f'{"!" if self.wrong else " "} {self.what:<17} {self.text}')


def main(argv: list[str] | None = None) -> int:
  """Prints what was found; returns the exit code. argv[0] is the program."""
  argv = sys.argv if argv is None else argv
  if argv[1:]:
    given = visible(' '.join(argv[1:]))
    print(f'{given}: doctor takes no arguments', file=sys.stderr)
    return 2
  wrong = []

  def show():
    for line in lines():
      print(line, flush=True)
      wrong.extend([line.what] * line.wrong)
    said = ', '.join(dict.fromkeys(wrong))
    print(f'\nto be mended: {said}' if wrong else '\nall is well')

  return preempt.command(show) or int(bool(wrong))


def lines(env: Mapping[str, str] = os.environ) -> Iterator[Line]:
  """The findings. What one of them trips over is a finding itself."""
  parts: tuple[Callable, ...] = (versions, devices, machine, cache, tokens)
  for part in parts:
    try:
      yield from part(env)
    except Exception as error:  # a doctor must not fall ill
      text = ' '.join(f'{type(error).__name__}: {error}'.split())
      yield Line(part.__name__, f'cannot be told: {text}', wrong=True)


def versions(env: Mapping[str, str]) -> Iterator[Line]:
  """Of Python, of the package and of what it needs."""
  del env
  python = platform.python_version()
  old = sys.version_info < (3, 11)
  yield Line('python', python + ' (3.11 or later is needed)' * old, wrong=old)
  kind = 'a clone' if not (shipped.PACKAGE / 'shipped').is_dir() else 'a wheel'
  yield Line('ealign', f'{ealign.__version__}, {kind}: {shipped.PACKAGE}')
  found = requirements.needed()
  if not found:
    text = 'not installed by pip: what it needs cannot be checked'
    yield Line('requirements', text)
  for one in found:
    if one.wrong:
      have = one.version or 'not installed'
      remedy = f'it needs {one.text}: pip install {one.text!r}'
      yield Line(one.name, f'{have}; {remedy}', wrong=True)
    elif one.name in requirements.SHOWN:
      yield Line(one.name, one.version)
  for extra, missing in requirements.extras().items():
    text = f'without {", ".join(missing)}' if missing else 'is there'
    yield Line(f'extra {extra}', text)


def devices(env: Mapping[str, str]) -> Iterator[Line]:
  """Which devices JAX takes, their memory, and why these."""
  for name in SETTINGS:
    if name in env:
      yield Line('set', f'{name}={env[name]}')
  found, problem = probe(env)
  if problem:
    yield Line('devices', f'JAX finds none: {problem}', wrong=True)
    return
  kinds = {}
  for platform_, kind, limit in found['devices']:
    kinds.setdefault((platform_, kind, limit), []).append(kind)
  for (platform_, kind, limit), same in kinds.items():
    memory = f', {limit / GIB:.1f} GiB each' if limit else ''
    yield Line('devices', f'{len(same)} x {kind} ({platform_}){memory}')
  yield used(found['devices'][0][0], env)
  yield cluster(env)


def probe(env: Mapping[str, str], program: str = PROBE) -> tuple[dict, str]:
  """(devices, '') as another process sees them, or ({}, what went wrong)."""
  argv = [sys.executable, '-c', program]
  how = dict(env=dict(env), capture_output=True, text=True, timeout=PROBE_S)
  try:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, **how)
  except subprocess.TimeoutExpired:
    text = f'no answer in {PROBE_S:.0f} s; are all hosts of the slice started?'
    return {}, text
  except OSError as error:
    return {}, str(error)
  last = (done.stdout.strip().splitlines() or [''])[-1]
  try:
    found = json.loads(last)
    if done.returncode == 0 and found['devices']:
      return found, ''
  except (ValueError, TypeError, KeyError):
    pass
  said = (done.stderr.strip().splitlines() or [f'exit {done.returncode}'])[-1]
  busy = 'already in use' in done.stderr or 'in use by process' in done.stderr
  return {}, said + '; another process holds them: end it' * busy


def used(platform_: str, env: Mapping[str, str], root: str = '/') -> Line:
  """What runs there, why, and whether better devices are left aside."""
  asked = (
    f'JAX_PLATFORMS={env["JAX_PLATFORMS"]}' if 'JAX_PLATFORMS' in env else ''
  )
  how = {
    'tpu': 'bfloat16, attention by the splash kernel',
    'gpu': 'bfloat16, attention by cuDNN',
  }.get(platform_, 'float32, attention by XLA')
  here = pathlib.Path(root, 'dev')
  tpu = [*here.glob('accel[0-9]*'), *here.glob('vfio/[0-9]*')]
  aside = ''
  if platform_ == 'cpu':
    why = asked or 'no other device was found'
    if _multiplies_bfloat16(root) is False:
      how += '; bfloat16 would be slower, these cores do not multiply it'
    if here.joinpath('nvidia0').exists():
      aside = 'an NVIDIA GPU', 'cuda'
    elif tpu:
      aside = 'a TPU', 'tpu'
  else:
    why = asked or 'the fastest that JAX found'
  text = f'{platform_}, as {why}: {how}'
  if not aside:
    return Line('will be used', text)
  remedy = f"pip install 'ealign[{aside[1]}]'"
  remedy = f'unset {asked}' if asked else remedy
  text = f'{text}; but there is {aside[0]}: {remedy}'
  return Line('will be used', text, wrong=not asked)


def _multiplies_bfloat16(root: str) -> bool | None:
  """Whether the cores have instructions for it; None where nobody tells."""
  try:
    text = pathlib.Path(root, 'proc/cpuinfo').read_text()
  except OSError:
    return None
  lines = [x for x in text.splitlines() if x.startswith(('flags', 'Features'))]
  if not lines:
    return None
  return bool({'avx512_bf16', 'amx_bf16', 'bf16'} & set(lines[0].split()))


def cluster(env: Mapping[str, str]) -> Line:
  """Whether this is one of several processes, and who says so."""
  from ealign.runtime import cluster as lib

  found = lib.find(env=env)
  if found is None:
    text = 'one: no scheduler names others (a TPU VM is asked by a run)'
    return Line('hosts', text)
  text = f'{found.index} of {found.count}, host 0 at {found.address}'
  return Line('hosts', text)


def machine(env: Mapping[str, str]) -> Iterator[Line]:
  """Memory and disk."""
  del env
  text = f'{os.cpu_count()} cores'
  if known := peaks.host_memory():
    free, total = (x / GIB for x in known)
    text += f', {free:.1f} of {total:.1f} GiB of memory free'
  else:
    text += ', memory not known'
  yield Line('machine', text)
  disk = shutil.disk_usage('.')
  yield Line('disk here', f'{disk.free / GIB:.0f} GiB free')


def cache(env: Mapping[str, str]) -> Iterator[Line]:
  """Where compiled programs are kept, and whether they can be."""
  from ealign.runtime import cache as lib

  folder, why = lib.folder(env)
  if '://' in folder:
    yield Line('compile cache', f'{folder} ({why})')
    return
  path = pathlib.Path(folder)
  files = [file for file in path.glob('*') if file.is_file()]
  size = sum(file.stat().st_size for file in files)
  text = f'{folder} ({why}): {len(files)} files, {size / 2**20:.0f} MiB'
  above = next(x for x in (path, *path.parents) if x.exists())
  wrong = not (above.is_dir() and os.access(above, os.W_OK | os.X_OK))
  text += f'; {above} cannot be written: set {lib.VARIABLE}' * wrong
  yield Line('compile cache', text, wrong=wrong)


def tokens(env: Mapping[str, str]) -> Iterator[Line]:
  """Which tokens there are. What they are is not read."""
  home = env.get('HF_HOME') or '~/.cache/huggingface'
  file = pathlib.Path(os.path.expanduser(home), 'token')
  for what, names in TOKENS.items():
    given = [name for name in names if env.get(name, '').strip()]
    text = f'{given[0]} is set' if given else f'{names[0]} is not set'
    if what == 'Hugging Face' and not given and file.is_file():
      text = f'{file} is there'
    yield Line('token', f'{what}: {text}')
