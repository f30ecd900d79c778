"""The command line: which config file, with which fields changed, and where.

ml_collections does the work; here every way in which it answers a slip with a
traceback is turned into one message.
"""

import dataclasses
import difflib
import re
import types

from absl import flags
from ml_collections import config_dict, config_flags

from ealign import config as config_lib
from ealign.config import file
from ealign.runtime import cluster as cluster_lib
from ealign.runtime import topology as topology_lib
from ealign.runtime.errors import UserError

USAGE = """\
usage: python -m ealign.launch --config=FILE.py[:ARG] --workdir=DIR
           [--config.FIELD=VALUE ...] [--only=NAME,NAME*]
           [--retry=failed|all] [--fail_fast]
           [--sweep=NAME,NAME+... [--stack=auto|N]]
           [--coordinator=HOST:PORT --processes=N --process=I]
           [--profile=FROM:TO] [--print_launch=KIND [--topology=NAME]]
           [--plan [--topology=NAME]]

  --config        a Python file with get_config(arg=None)
  --config.FIELD  changes one field, as in --config.dpo.lam=0.3
                  (ealign/fields.py lists them all)
  --workdir       folder of the run; the same command continues it
  --only          run only the arms, or cells, of these names or patterns
  --sweep         runs a grid: of the functions sweep_NAME() of the config file
                  ',' is the product and '+' the union (docs/grids.md)
  --retry         failed: cells that failed too (arms are tried again as it
                  is); all: every one anew, what they left moves to DIR/trash
  --fail_fast     ends at the first arm, or cell, that fails
  --stack         cells that may be one program: auto (default) or a number
  --coordinator   address and free port of process 0, where several processes
                  on CPUs or GPUs are one run; the I-th of N has --process=I
                  (TPU slices and Slurm need none of the three)
  --profile       writes a trace of these steps to DIR/profile, as in 20:25
  --plan          compiles without running: what it reads, takes and costs, on
                  the devices here or on those of --topology; DIR/plan.json
  --print_launch  prints a script that runs this on a cluster, and runs nothing:
                  xpk, tpu_vm, skypilot, gke or slurm (docs/scale.md)
  --topology      for both: v5e:4x4 (or v4, v5p, v6e, tpu7x); for slurm nodes x
                  GPUs, as in 2x8"""
_GIVEN = ('config', 'workdir', 'only', 'sweep', 'retry', 'stack', 'profile')
_CLUSTER = ('coordinator', 'processes', 'process')
_NAMES = (*_GIVEN, 'print_launch', 'topology', *_CLUSTER)
_SWITCHES = ('plan', 'fail_fast')
_STACK = 'auto|[1-9][0-9]{0,3}'
_FLAG = re.compile(r'--?((?:no)?config\.)?([A-Za-z][^=]*)')


@dataclasses.dataclass(frozen=True)
class Command:
  """What was asked for.

  changed: the fields set on the command line. problems: what of it cannot be
  set; `config` has all the rest, so that `validate` can add what it finds.
  flags: what makes the run, each flag one argument, to give it again elsewhere.
  profile: first step of a trace, and the step before which it ends.
  cluster: of several processes; None: one, or JAX knows (`hosts.join`).
  module: the config file, whose functions sweep_*() `sweep` names. stack: most
  cells of one program, 0 for auto.
  """

  config: config_dict.ConfigDict
  workdir: str
  only: tuple[str, ...]
  changed: tuple[str, ...]
  problems: tuple[str, ...]
  flags: tuple[str, ...] = ()
  print_launch: str = ''
  topology: str = ''
  plan: bool = False
  profile: tuple[int, int] | None = None
  cluster: cluster_lib.Cluster | None = None
  module: types.ModuleType | None = None
  sweep: str = ''
  retry: str = ''
  fail_fast: bool = False
  stack: int = 0


def parse(argv: list[str]) -> Command:
  """Reads the command line (argv[0] is the program) and the config file.

  Raises:
    UserError: --config or --workdir is missing, or the config file broken.
    SystemExit: --help was asked for.
  """
  if {'--help', '-h', '-help'} & set(argv):
    print(USAGE)
    raise SystemExit(0)
  known, times, rest = _flags(argv)
  module, config = file.read(known['config'])
  changed, problems = _change(config, rest)
  given = [f'--{name}={known[name]}' for name in _GIVEN if known[name]]
  given += ['--fail_fast'] * known['fail_fast']
  for name in _NAMES:
    if times[name] and not known[name].strip(', '):
      problems.append(f'--{name}= is empty; give it a value, or leave it out')
    if times[name] > 1:
      problems.append(f'--{name}: is given {times[name]} times')
  problems += _conflicts(known)
  stack = known['stack'] if re.fullmatch(_STACK, known['stack']) else ''
  same = ('workdir', 'print_launch', 'plan', 'sweep', 'retry', 'fail_fast')
  values = {name: known[name] for name in same} | {
    'topology': known['topology'].lower(),
    'profile': _steps(known['profile'], problems),
    'cluster': _cluster(known, problems),
    'stack': int(stack) if stack.isdecimal() else 0,
  }
  return Command(
    config=config,
    module=module,
    only=tuple(pattern for pattern in known['only'].split(',') if pattern),
    changed=tuple(changed),
    flags=(*given, *_joined(rest)[1:]),
    problems=tuple(problems),
    **values,
  )


def _flags(argv: list[str]):
  """The flags that are no fields, how often each is given, and the rest."""
  known = flags.FlagValues()
  known.set_gnu_getopt(True)
  for name in _NAMES:
    flags.DEFINE_string(name, '', '', flag_values=known)
  for name in _SWITCHES:
    flags.DEFINE_boolean(name, False, '', flag_values=known)
  try:
    rest = known(argv, known_only=True)
  except flags.Error as error:
    raise UserError(f'{error}\n{USAGE}') from None
  for name in ('config', 'workdir'):
    if not known[name].value:
      raise UserError(f'--{name} is missing\n{USAGE}')
  values = {name: known[name].value for name in known}
  return values, {name: known[name].present for name in known}, rest


def _cluster(known, problems) -> cluster_lib.Cluster | None:
  """Which process of how many this is; of a plan, what its slice is."""
  try:
    if known['plan'] and known['topology']:
      topology_lib.parse(known['topology'].lower())
    elif not (known['plan'] or known['print_launch']):
      return cluster_lib.find(*(known[name] for name in _CLUSTER))
  except UserError as error:
    problems.append(str(error))
  return None


def _conflicts(known) -> list[str]:
  """Which flags have a wrong value, or do not go together."""
  plan, script, retry = known['plan'], known['print_launch'], known['retry']
  sweep, stack, trace = known['sweep'], known['stack'], known['profile']
  hosts = ', '.join(f'--{name}' for name in _CLUSTER if known[name])
  hint = config_lib.did_you_mean(retry, ('failed', 'all'))
  alone = f'{hosts}: not together with'
  rules = {
    '--topology: goes with --plan or --print_launch': (
      known['topology'] and not (plan or script)
    ),
    '--print_launch: not together with --plan': plan and script,
    '--retry=all: with --print_launch it would begin anew at each restart, and '
    'for each worker; leave it out': script and retry == 'all',
    '--profile: not together with --plan: it runs no step to trace; leave it '
    'out': plan and trace,
    f'{alone} --plan: it is one process; leave it out': hosts and plan,
    f'{alone} --print_launch: the machines of a cluster know who they are; '
    'leave it out': hosts and script and not plan,
    '--stack: goes with --sweep': stack and not sweep,
    '--profile: of a single run; leave out --sweep': sweep and trace,
    f'--retry={retry}: must be failed or all.{hint}': (
      retry not in ('', 'failed', 'all')
    ),
    f'--stack={stack}: must be auto or a number, at least 1': (
      stack and not re.fullmatch(_STACK, stack)
    ),
  }
  return [message for message, wrong in rules.items() if wrong]


def _steps(text: str, problems) -> tuple[int, int] | None:
  """The steps of --profile; what is wrong with them goes to the problems."""
  if not text:
    return None
  match = re.fullmatch(r'(\d{1,9}):(\d{1,9})', text, re.ASCII)
  first, end = map(int, match.groups()) if match else (0, 0)
  if first >= end:
    message = 'must be FROM:TO with FROM below TO'
    problems.append(f'--profile={text}: {message}, such as 20:25')
    return None
  return first, end


def _change(config: config_dict.ConfigDict, rest: list[str]):
  """Applies '--config.field=value' arguments, all that can be.

  Returns:
    The names of the changed fields, and the problems of the others.
  """
  problems, given = _check_names(_joined(rest))
  while True:
    own = flags.FlagValues()
    own.set_gnu_getopt(True)
    try:
      config_flags.DEFINE_config_dict(
        'config', config, flag_values=own, sys_argv=given, lock_config=False
      )
      surplus = own(given)[1:]
      break
    except flags.IllegalFlagValueError as error:
      # It names the first one only: the others are read without it.
      name, message = _wrong_value(str(error))
      problems.append(message)
      given = [x for x in given if not re.match(f'--?config.{name}(=|$)', x)]
    except (flags.Error, ValueError, TypeError, KeyError) as error:
      return [], [*problems, ' '.join(str(error).split())]
  if surplus:
    hint = ''
    if surplus[0].partition(':')[0].endswith('.py'):
      hint = f'; write --config={surplus[0]}'
    problems.append(f'{surplus[0]!r} is no flag{hint}\n{USAGE}')
  changed = dict(own['config'].override_values)
  types = config_lib.field_types()
  for name, value in changed.items():
    if types[name] == tuple[str, ...]:
      _split_commas(config, name, value)
    elif value == 'None' and types[name] == str | None:
      _set(config, name, None)
    elif value == 'None':  # to ml_collections it would be the text 'None'
      problems.append(f"--config.{name}=None: must be text; use '' for none")
  return list(changed), problems


def _joined(rest: list[str]) -> list[str]:
  """'--name value' as '--name=value', so that each flag is one argument."""
  types, joined, waits = config_lib.field_types(), rest[:1], False
  for argument in rest[1:]:
    match = _FLAG.match(argument)
    if waits and not match:
      joined[-1] += f'={argument}'
    else:
      joined.append(argument)
    waits = match and '=' not in argument and types.get(match[2]) is not bool
  return joined


def _check_names(given: list[str]) -> tuple[list[str], list[str]]:
  """Flags that are unknown or set no single field; and the other arguments."""
  types = config_lib.field_types()
  groups = {name.rpartition('.')[0] for name in types} | {'arms'}
  problems, kept = [], given[:1]
  for argument in given[1:]:
    match = _FLAG.match(argument)
    prefix, name = match.groups() if match else ('', '')
    if not match or (prefix and name in types):
      kept.append(argument)
    elif not prefix and name == 'arms':
      problems.append('--arms: is called --stack now; write that')
    elif not prefix:
      close = difflib.get_close_matches(name, _NAMES, 1, 0.5)
      hint = f'; did you mean --{close[0]}?' if close else ''
      problems.append(f'--{name}: there is no such flag{hint}')
    elif name in groups or name.startswith('arms.'):
      message = 'set its fields one by one'
      message = 'arms are set in the config file' if 'arms' in name else message
      problems.append(f'--config.{name}: {message}')
    else:
      hint = config_lib.did_you_mean(name, types)
      problems.append(f'--config.{name}: there is no such field.{hint}')
  return problems, kept


def _wrong_value(message: str) -> tuple[str, str]:
  """The field, and '--config.field=value: its type', of a flag's message."""
  match = re.match(r'flag (--config\.([^=]+)=.*?): ', message, re.DOTALL)
  kind = config_lib.field_types()[match[2]]
  return match[2], f'{match[1]}: must be {config_lib.type_name(kind)}'


def _split_commas(config, name: str, value: tuple[str, ...]) -> None:
  # 'q,v' would be one text to ml_collections, and '' a tuple of one ''.
  parts = tuple(part for item in value for part in str(item).split(','))
  _set(config, name, tuple(part for part in parts if part))


def _set(config, name: str, value) -> None:
  *path, last = name.split('.')
  holder = config
  for part in path:
    holder = holder[part]
  holder[last] = value
