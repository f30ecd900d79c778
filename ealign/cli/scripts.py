"""The scripts of launch/, with the values of one command in them.

Each is a file that also runs as it is. Values are filled into lines of four
forms: `JOB="${JOB:-value}"` and `: "${1:?...}"` in a shell script (the latter
checks that there are flags; it becomes `set -- FLAGS`), `#SBATCH --name=value`,
and `key: value  # JOB` in YAML.
"""

import math
import os
import pathlib
import re
import shlex

import yaml

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.config import file
from ealign.runtime import shipped
from ealign.runtime import topology as topology_lib
from ealign.runtime.errors import UserError

KINDS = {
  'xpk': 'xpk.sh',
  'tpu_vm': 'tpu_vm.sh',
  'skypilot': 'skypilot.yaml',
  'gke': 'gke_jobset.yaml',
  'slurm': 'slurm.sh',
}
_FORMS = (
  re.compile(r'(?P<head>(?P<name>[A-Z_]+)="\$\{[A-Z_]+:-)[^}]*(?P<tail>\}".*)'),
  re.compile(r'(?P<head>#SBATCH --(?P<name>[a-z-]+)=).*(?P<tail>)'),
  re.compile(r'(?P<head>.*: )[^}]*(?P<tail>\}*)  # (?P<name>[A-Z_]+)'),
)


def folder() -> pathlib.Path:
  """The folder launch/ of a clone, or where a wheel has it."""
  return shipped.path('launch')


# How to start n copies of a script on one grid: each takes cells by lease.
_WORKERS = {
  'xpk': 'for i in $(seq {n}); do JOB={job}-$i bash THIS; done',
  'tpu_vm': 'for i in $(seq {n}); do JOB={job}-$i bash THIS & done; wait',
  'skypilot': 'for i in $(seq {n}); do sky jobs launch -yd -n {job}-$i THIS; '
  'done',
  'gke': 'for i in $(seq {n}); do sed "s/name: {job}$/&-$i/" THIS |'
  " IMAGE=.. envsubst '$IMAGE' | kubectl apply -f -; done",
  'slurm': 'sbatch --array=1-{n} THIS',
}


def fill(command: command_lib.Command, *, workers: int = 0) -> str:
  """The script of `command.print_launch` that runs the command.

  workers: how many copies of the script can share a grid, 0 without a grid.

  Raises:
    UserError: a flag is wrong, there is no such kind or topology, or machines
      of that kind could not reach the config file or the work folder.
  """
  kind = command.print_launch
  if kind not in KINDS:
    hint = config_lib.did_you_mean(kind, KINDS)
    message = f'must be one of {", ".join(KINDS)}.{hint}'
    raise UserError(*command.problems, f'--print_launch={kind}: {message}')
  problems = list(command.problems)
  try:
    values = _slurm(command) if kind == 'slurm' else _tpu(command)
  except UserError as error:
    problems += error.args
  if kind != 'slurm':
    problems += _unreachable(command)
  if problems:
    raise UserError(*problems)
  flags = list(command.flags)
  # The machines have a copy of this folder, which may lie elsewhere there.
  flags[0] = flags[0].replace(f'--config={os.getcwd()}/', '--config=')
  values |= {
    'ARGS': [flag.replace('$', '$$') for flag in flags],  # $( is Kubernetes'
    'RUN': shlex.join(['.venv/bin/python', '-m', 'ealign.launch', *flags]),
  }
  text = (folder() / KINDS[kind]).read_text()
  lines = [_filled(line, values, flags) for line in text.splitlines()]
  if workers:
    at = int(lines[0].startswith('#!'))
    start = _WORKERS[kind].format(n=workers, job=_job(command))
    array = [f'#SBATCH --array=1-{workers}'] * (kind == 'slurm')
    lines[at:at] = [
      f'# A grid: up to {workers} of THIS file at once share its cells by '
      'lease,',
      '# and what one leaves another continues; one alone would run them all:',
      *(f'#   {start}', *array),
    ]
  return '\n'.join(lines) + '\n'


def _filled(line: str, values: dict, flags: list[str]) -> str:
  if line.startswith(': "${1:?'):
    return f'set -- {shlex.join(flags)}'
  for form in _FORMS:
    match = form.fullmatch(line)
    if match and match['name'] in values:
      return match['head'] + _text(values[match['name']]) + match['tail']
  return line


def _text(value: int | str | list[str]) -> str:
  """The value as YAML on one line, unquoted where YAML and a shell allow it."""
  if isinstance(value, int):
    return str(value)
  if isinstance(value, list):
    return f'[{", ".join(_quoted(item) for item in value)}]'
  plain = re.fullmatch(r'[a-z][\w.-]*|\d+(x\d+)+', value, re.ASCII)
  return value if plain else _quoted(value)


def _quoted(text: str) -> str:
  style = dict(default_style='"', width=math.inf, allow_unicode=True)
  return yaml.safe_dump(text, **style).strip()


def _tpu(command: command_lib.Command) -> dict[str, int | str]:
  topology = topology_lib.parse(command.topology or 'v5e:4x4')
  chip = topology.chip
  if not chip.runtime and command.print_launch in ('tpu_vm', 'skypilot'):
    message = f'{topology.kind} is not rented as a TPU VM; use xpk or gke'
    raise UserError(f'--print_launch={command.print_launch}: {message}')
  return {
    'JOB': _job(command),
    'TPU_TYPE': topology.accelerator_type,
    'TPU_RUNTIME': chip.runtime,
    'ACCELERATOR': f'tpu-{topology.accelerator_type}',
    'LABEL': chip.label,
    'TOPOLOGY': topology.grid,
    'HOSTS': topology.hosts,
    'CHIPS': topology.chips_per_host,
  }


def _slurm(command: command_lib.Command) -> dict[str, int | str]:
  grid = command.topology or '2x8'
  match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', grid, re.ASCII)
  if not match:
    message = 'slurm wants nodes x GPUs of a node, such as 2x8'
    raise UserError(f'--topology={grid}: {message}')
  nodes, gpus = map(int, match.groups())
  return {'job-name': _job(command), 'nodes': nodes, 'gpus-per-node': gpus}


def _config(command: command_lib.Command) -> str:
  """The value of --config, which is the first of the flags."""
  return command.flags[0].removeprefix('--config=')


def _job(command: command_lib.Command) -> str:
  """A job name that all clusters accept: [a-z0-9-], at most 40 characters."""
  path, argument = file.split(_config(command))
  words = f'ealign-{pathlib.Path(path).stem}-{argument or ""}'.lower()
  return re.sub(r'[^a-z0-9]+', '-', words)[:40].strip('-')


def _unreachable(command: command_lib.Command) -> list[str]:
  """Which paths machines that are new for each run could not reach."""
  config, problems = _config(command), []
  path = file.split(config)[0]
  ours = path.startswith(shipped.PREFIX)  # each machine has the package
  if not ours and os.path.relpath(path).startswith('..'):
    why = 'is outside this folder, which is what the machines get a copy of'
    problems.append(f'--config={config}: {why}; move it below')
  if not re.match(r'gs://[^/]', command.workdir):
    why = 'all hosts share it and it outlives them: use gs://BUCKET/DIR'
    problems.append(f'--workdir={command.workdir}: {why}')
  return problems
