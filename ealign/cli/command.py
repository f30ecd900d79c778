"""The command line: which config file, with which fields changed, and where.

ml_collections does the work; here every way in which it answers a slip with a
traceback is turned into one message. The rest of this text is what --help
prints.

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
                  GPUs, as in 2x8
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

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
# Those that take a value; a script that starts the run elsewhere repeats the
# first seven.
_REPEATED = ('config', 'workdir', 'only', 'sweep', 'retry', 'stack', 'profile')
_CLUSTER = ('coordinator', 'processes', 'process')
_NAMES = (*_REPEATED, 'print_launch', 'topology', *_CLUSTER)
_SWITCHES = ('plan', 'fail_fast')
# What a value must match, and how a message says it.
_FORMS = {
  'retry': ('failed|all', 'failed or all'),
  'stack': ('auto|[1-9][0-9]{0,3}', 'auto or a number, at least 1'),
  'profile': (
    '[0-9]{1,9}:[0-9]{1,9}',
    'FROM:TO with FROM below TO, such as 20:25',
  ),
}
_NEEDS = {'topology': ('plan', 'print_launch'), 'stack': ('sweep',)}
# Flags, another one that they cannot stand beside, and why.
_APART = (
  (('print_launch',), 'plan', ''),
  (('profile',), 'plan', ': it runs no step to trace; leave it out'),
  (('profile',), 'sweep', ': it is of a single run; leave it out'),
  (_CLUSTER, 'plan', ': it is one process; leave it out'),
  (
    *(_CLUSTER, 'print_launch'),
    ': the machines of a cluster know who they are; leave it out',
  ),
)
_FLAG = re.compile(r'--?((?:no)?config\.)?([A-Za-z][^=]*)')


@dataclasses.dataclass(frozen=True)
class Command:
  """A command line, read.

  changed: the fields set on the command line. problems: why some could not be
  set; `config` has all the others, so that `validate` can add what it finds.
  flags: what starts the same run elsewhere, --config first, an argument each.
  profile: the first step of a trace, and the step before which it ends.
  cluster: which of several processes this is; None for a single one, or where
  JAX finds out by itself (`hosts.join`). module: the config file, whose
  functions sweep_*() `sweep` names. stack: the most cells in one program, 0 for
  auto.
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
  given, times, rest = _flags(argv)
  module, config = file.read(given['config'])
  changed, problems = _change(config, rest)
  for name in _NAMES:
    if times[name] and not given[name].strip(', '):
      problems.append(f'--{name}= is empty; give it a value, or leave it out')
    if times[name] > 1:
      problems.append(f'--{name}: is given {times[name]} times')
  problems += _conflicts(given)
  repeated = [f'--{name}={given[name]}' for name in _REPEATED if given[name]]
  repeated += ['--fail_fast'] * given['fail_fast']
  same = ('workdir', 'print_launch', 'plan', 'sweep', 'retry', 'fail_fast')
  return Command(
    config=config,
    module=module,
    only=tuple(filter(None, given['only'].split(','))),
    changed=tuple(changed),
    flags=(*repeated, *_joined(rest)[1:]),
    topology=given['topology'].lower(),
    profile=_steps(given['profile']),
    cluster=_cluster(given, problems),
    stack=int(given['stack']) if given['stack'].isdecimal() else 0,
    problems=tuple(problems),
    **{name: given[name] for name in same},
  )


def _flags(argv: list[str]):
  """Flags that set no field: their values, their number; and the rest."""
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


def _cluster(given, problems) -> cluster_lib.Cluster | None:
  """Which of how many processes this is; checks the slice of a plan."""
  try:
    if given['plan'] and given['topology']:
      topology_lib.parse(given['topology'].lower())
    elif not (given['plan'] or given['print_launch']):
      return cluster_lib.find(*(given[name] for name in _CLUSTER))
  except UserError as error:
    problems.append(str(error))
  return None


def _conflicts(given) -> list[str]:
  """Which flags have a wrong value, or do not go together."""
  problems = []
  for name, others in _NEEDS.items():
    if given[name] and not any(given[other] for other in others):
      listed = ' or '.join(f'--{other}' for other in others)
      problems.append(f'--{name}: goes with {listed}')
  for names, other, why in _APART:
    both = ', '.join(f'--{x}' for x in names if given[x] and given[other])
    if both:
      problems.append(f'{both}: not together with --{other}{why}')
  if given['print_launch'] and given['retry'] == 'all':
    problems.append(
      '--retry=all: with --print_launch it would begin anew at each restart, '
      'and for each worker; leave it out'
    )
  for name, (form, words) in _FORMS.items():
    value = given[name]
    sound = not value or re.fullmatch(form, value)
    if not sound or (value and name == 'profile' and not _steps(value)):
      hint = config_lib.did_you_mean(value, form.split('|'))
      problems.append(f'--{name}={value}: must be {words}.{hint}'.rstrip('.'))
  return problems


def _steps(text: str) -> tuple[int, int] | None:
  """The steps of --profile; None where the text names none."""
  if not re.fullmatch(_FORMS['profile'][0], text):
    return None
  first, end = map(int, text.split(':'))
  return (first, end) if first < end else None


def _change(config: config_dict.ConfigDict, rest: list[str]):
  """Applies the arguments '--config.field=value', as many as are sound.

  Returns:
    The names of the changed fields, and the problems of the others.
  """
  problems, given = _check_names(_joined(rest))
  types = config_lib.field_types()
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
      # It names the first wrong value only: the others are read without it.
      match = re.match(r'flag (--config\.([^=]+)=.*?): ', str(error), re.DOTALL)
      flag, name = match.groups()
      problems.append(f'{flag}: must be {config_lib.type_name(types[name])}')
      given = [x for x in given if not re.match(f'--?config.{name}(=|$)', x)]
    except (flags.Error, ValueError, TypeError, KeyError) as error:
      return [], [*problems, ' '.join(str(error).split())]
  if surplus:
    hint = ''
    if surplus[0].partition(':')[0].endswith('.py'):
      hint = f'; write --config={surplus[0]}'
    problems.append(f'{surplus[0]!r} is no flag{hint}\n{USAGE}')
  changed, mended = dict(own['config'].override_values), {}
  for name, value in changed.items():
    if types[name] == tuple[str, ...]:
      # 'q,v' would be one text to ml_collections, and '' a tuple of one ''.
      parts = ','.join(map(str, value)).split(',')
      mended[name] = tuple(filter(None, parts))
    elif value == 'None' and types[name] == str | None:
      mended[name] = None
    elif value == 'None':  # to ml_collections it would be the text 'None'
      problems.append(f"--config.{name}=None: must be text; use '' for none")
  config.update_from_flattened_dict(mended)
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
