"""The command line: which config file, with which fields changed, and where.

Every slip in it is one message, and all of them are told at once. The rest of
this text is what --help prints.

usage: python -m ealign.launch --config=FILE.py[:ARG] --workdir=DIR
           [--config.FIELD=VALUE ...] [--only=NAME,NAME*]
           [--retry=failed|all] [--fail_fast]
           [--sweep=NAME,NAME+... [--stack=auto|N]]
           [--coordinator=HOST:PORT --processes=N --process=I]
           [--profile=FROM:TO] [--print_launch=KIND [--topology=NAME]]
           [--plan [--topology=NAME] [--chip_price=DOLLARS]]

  --config        a Python file with get_config(arg=None), or one that comes
                  with the package: ealign:configs/demo.py (ealign configs)
  --config.FIELD  changes one field, as in --config.dpo.lam=0.3
                  (docs/fields.md and `ealign fields` list them all)
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
  --chip_price    with --plan: dollars for a chip and hour, as in 1.2; says what
                  the run costs
"""

import collections
import dataclasses
import difflib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags
from ml_collections import config_dict
from ml_collections.config_flags import tuple_parser

from ealign import config as config_lib
from ealign.config import file, synonyms
from ealign.runtime import cluster as cluster_lib
from ealign.runtime import topology as topology_lib
from ealign.runtime.errors import UserError

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
# Those that take a value; a script that starts the run elsewhere repeats the
# first seven.
_REPEATED = ('config', 'workdir', 'only', 'sweep', 'retry', 'stack', 'profile')
_CLUSTER = ('coordinator', 'processes', 'process')
_NAMES = (*_REPEATED, 'print_launch', 'topology', 'chip_price', *_CLUSTER)
_SWITCHES = ('plan', 'fail_fast')
_FOREIGN = ('sweep', 'retry', 'stack', 'profile', 'print_launch', 'topology')
_FOREIGN += ('only', 'chip_price', *_SWITCHES)
# What a value must match, and how a message says it.
_FORMS = {
  'retry': ('failed|all', 'failed or all'),
  'stack': ('auto|[1-9][0-9]{0,3}', 'auto or a number, at least 1'),
  'chip_price': (
    r'[0-9]{1,6}(\.[0-9]{1,6})?|\.[0-9]{1,6}',
    'dollars for a chip and hour, such as 1.2',
  ),
  'profile': (
    '[0-9]{1,9}:[0-9]{1,9}',
    'FROM:TO with FROM below TO, such as 20:25',
  ),
}
_NEEDS = {'topology': ('plan', 'print_launch'), 'stack': ('sweep',)}
_NEEDS |= {'chip_price': ('plan',)}
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
_FLAG = re.compile(r'--?([A-Za-z][^=]*)(?:=(.*))?', re.DOTALL)
_PARSERS = {
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
  bool: flags.BooleanParser(),
}


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
  auto. own: what was given of a command's own flags.
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
  chip_price: float | None = None
  profile: tuple[int, int] | None = None
  cluster: cluster_lib.Cluster | None = None
  module: types.ModuleType | None = None
  sweep: str = ''
  retry: str = ''
  fail_fast: bool = False
  stack: int = 0
  own: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def parse(
  argv: list[str],
  *,
  usage: str = USAGE,
  own: Mapping[str, type] | None = None,
  start: Callable | None = None,
  folder: bool = True,
) -> Command:
  """Reads the command line (argv[0] is the program) and the config file.

  usage, own: what a command other than `launch` is, and flags of its own.
  start: what it begins with where --config is not given: (own flags that were
  given) -> a ConfigDict, or None where --config is needed.

  Raises:
    UserError: --config or --workdir is missing, or the config file broken.
    SystemExit: --help was asked for.
  """
  if {'--help', '-h', '-help'} & set(argv):
    print(usage, flush=True)
    raise SystemExit(0)
  fields = {f'config.{x}': kind for x, kind in config_lib.field_types().items()}
  kinds = fields | dict.fromkeys(_NAMES, str) | dict.fromkeys(_SWITCHES, bool)
  kinds |= own or {}
  problems = []
  written = _read(argv[1:], kinds, problems)
  values = _values(written, kinds, problems)
  usual = dict.fromkeys(_NAMES, '') | dict.fromkeys(_SWITCHES, False)
  given = usual | {name: values.pop(name) for name in usual if name in values}
  found = {name: values.pop(name) for name in own or {} if name in values}
  changed = {name.removeprefix('config.'): x for name, x in values.items()}
  config = start(found) if start and not given['config'] else None
  for name in ('config', 'workdir'):
    needed = folder if name == 'workdir' else config is None
    if needed and not given[name]:
      raise UserError(f'--{name} is missing\n{usage}')
  module = None
  if config is None:
    module, config = file.read(given['config'])
  try:
    config.update_from_flattened_dict(changed)
  except (ValueError, TypeError, KeyError) as error:  # it lacks the field
    problems.append(' '.join(str(error).split()))
  times, text = collections.Counter(name for name, _ in written), given | found
  for name in (*_NAMES, *found):
    if kinds[name] is str and times[name] and not text[name].strip(', '):
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
    flags=(*repeated, *(f'--{n}={x}' for n, x in written if n in fields)),
    topology=given['topology'].lower(),
    profile=_steps(given['profile']),
    chip_price=_price(given['chip_price']),
    cluster=_cluster(given, problems),
    stack=int(given['stack']) if given['stack'].isdecimal() else 0,
    problems=tuple(problems),
    own=found,
    **{name: given[name] for name in same},
  )


def foreign(command: Command, *taken: str) -> list[str]:
  """What is wrong with flags that are of `launch` alone.

  taken: those that another command has as well.
  """
  flags = {name: name for name in _FOREIGN if name not in taken}
  return [
    f'--{name}: is of ealign.launch; leave it out'
    for field, name in (flags | {'cluster': _CLUSTER[0]}).items()
    if getattr(command, field)
  ]


def _read(arguments: list[str], kinds, problems) -> list[tuple[str, str]]:
  """(name, value) of each flag, with '=' or without it before the value.

  kinds: the type of each flag. problems: a list, to which arguments that are
  no flags are appended.
  """
  found = []
  for argument in arguments:
    match = _FLAG.fullmatch(argument)
    name, value = match.groups() if match else ('', argument)
    if match and value is None and kinds.get(name) is bool:
      value = 'true'
    elif match and name not in kinds and kinds.get(name[2:]) is bool:
      name, value = name[2:], 'false'  # --noNAME
    if match:
      found.append((name, value))
    elif found and found[-1][1] is None:
      found[-1] = found[-1][0], value
    else:
      config = file.split(argument)[0].endswith('.py')
      remedy = f'write --config={argument}' if config else '--help lists them'
      problems.append(f'{argument!r} is no flag; {remedy}')
  return found


def _values(given, kinds, problems: list[str]) -> dict:
  """The values of flags by name; problems are those of the others."""
  values = {}
  for name, value in given:
    if name not in kinds:
      problems.append(_unknown(name, kinds))
    elif value is None:
      problems.append(f'Missing value for flag --{name}')
    else:
      try:
        values[name] = _parsed(value, kinds[name])
      except ValueError:
        words = config_lib.type_name(kinds[name])
        if value == 'None':  # else it would be the text 'None'
          words = "text; use '' for none"
        problems.append(f'--{name}={value}: must be {words}')
  return values


def _parsed(text: str, kind):
  """The value of a flag of this type; ValueError if it is none."""
  if kind == str | None and text == 'None':
    return None
  if kind in (str, float | str) and text == 'None':
    raise ValueError(text)
  if kind == float | str:
    try:
      return float(text)
    except ValueError:
      return text
  if kind in (str, str | None):
    return text
  found = _PARSERS.get(kind, tuple_parser.TupleParser()).parse(text)
  if kind == tuple[str, ...]:
    # 'q,v' would be one text to the parser, and '' a tuple of one ''.
    return tuple(filter(None, ','.join(map(str, found)).split(',')))
  return found


def _unknown(name: str, kinds) -> str:
  """What is wrong with a flag that sets no single field.

  kinds: the type of each flag.
  """
  types, field = config_lib.field_types(), name.removeprefix('config.')
  if name == 'arms':
    return '--arms was renamed; use --stack'
  if field == name:
    return f'--{name}: there is no such flag{_meant(name, kinds)}'
  if field.partition('.')[0] == 'arms':
    return f'--{name}: arms are set in the config file'
  if any(known.startswith(f'{field}.') for known in types):
    return f'--{name}: set its fields one by one'
  hint = synonyms.hint(field, types)
  return f'--{name}: there is no such field.{hint}'


def _meant(name: str, kinds) -> str:
  """Which flag may have been meant: a field, by its name here or elsewhere."""
  types = config_lib.field_types()
  field, remark = synonyms.meant(name)
  same = [known for known in types if known == name]
  same += [known for known in types if known.rpartition('.')[2] == name]
  if same and not field:
    return f'; fields are set as --config.{same[0]}=...'
  if field:
    flag = field if field.startswith('--') else f'--config.{field}'
    return f'; here it is {flag}{f", {remark}" if remark else ""}'
  if remark:
    return f'; here {remark}'
  known = [flag for flag in kinds if not flag.startswith('config.')]
  close = difflib.get_close_matches(name, known, 1, 0.5)
  return f'; did you mean --{close[0]}?' if close else ''


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


def _price(text: str) -> float | None:
  """The number of --chip_price; None where it is none."""
  form = _FORMS['chip_price'][0]
  return float(text) if text and re.fullmatch(form, text) else None


def _steps(text: str) -> tuple[int, int] | None:
  """The steps of --profile; None where the text names none."""
  if not re.fullmatch(_FORMS['profile'][0], text):
    return None
  first, end = map(int, text.split(':'))
  return (first, end) if first < end else None
