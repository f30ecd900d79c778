"""Tries the conscience of a config on labelled exchanges, before a run.

usage: python -m ealign.audit --config=FILE.py[:ARG] --workdir=DIR
           [--config.FIELD=VALUE ...] [--only=NAME] [--choose]
           [--exchanges=FILE]

  --config        a Python file with get_config(arg=None), as of ealign.launch
  --config.FIELD  changes one field, as in --config.conscience.framing=fair
  --workdir       folder for audit.html and audit.json
  --only          the arm that is audited, where the config has arms; by default
                  what they share
  --choose        tries ways to put the question on the exchanges of split dev,
                  measures the best on those of split test, and prints the lines
                  to put into the config
  --exchanges     labelled exchanges of one's own: a file of rows with messages
                  and label, ok or flag (docs/conscience.md)

Exit codes: 0 the conscience tells good from bad; 1 it does not; 2 bad flags,
config or exchanges.
"""

import dataclasses
import json
import sys
import time

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.runtime import atomic, preempt
from ealign.runtime.errors import UserError, visible
from ealign.workdir import folder as folder_lib

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
_OWN = 'choose', 'exchanges'
# Flags of ealign.launch that say nothing about an audit.
_OTHERS = ('sweep', 'retry', 'stack', 'profile', 'print_launch', 'topology')
_OTHERS += ('plan', 'fail_fast', 'cluster')


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  if {'--help', '-h', '-help'} & set(argv):
    print(USAGE)
    return 0
  tells = []
  code = preempt.command(lambda: tells.append(run(argv)))
  return code or int(not tells[0])


def run(argv: list[str]) -> bool:
  """Audits and writes; whether the conscience can serve.

  Raises:
    UserError: flags, config, model or exchanges cannot be used.
  """
  config, workdir, chooses = read(argv)
  launch.compile_cache()
  from ealign.data import exchanges  # with the libraries that read data

  path = config.conscience.exchanges
  rows = exchanges.read(path, config.data.max_mib)
  say(f'{path}: {len(rows)} labelled exchanges')
  found = audited(config, rows, chooses)
  from ealign.report import audit as report

  text = json.dumps(found, indent=1, ensure_ascii=False, default=float)
  with folder_lib.usable(workdir):
    atomic.write(f'{workdir}/audit.json', text.encode('utf-8', 'replace'))
    page = report.write(workdir, found)
  print('\n' + '\n'.join(report.lines(found)))
  print(f'\n{page}')
  print(found['verdict']['text'])
  return found['verdict']['tells']


def read(argv: list[str]):
  """(frozen config, workdir, whether to choose) of the command line."""
  own = [a for a in argv[1:] if _name(a) in _OWN]
  rest = [a for a in argv if _name(a) not in _OWN]
  command = command_lib.parse(rest)
  problems = [*command.problems]
  for name in _OTHERS:
    if getattr(command, name):
      problems.append(f'--{name}: is of ealign.launch; leave it out')
  config, chooses = _one(command, problems), False
  for argument in own:
    name, _, value = argument.lstrip('-').partition('=')
    if name == 'choose':
      chooses = value in ('', 'true', 'True')
    elif value:
      config.conscience.exchanges = value
    else:
      problems.append('--exchanges= is empty; give it a file')
  problems += config_lib.validate(config)
  if problems:
    raise UserError(*dict.fromkeys(problems))
  return config_lib.freeze(config), command.workdir, chooses


def _name(argument: str) -> str:
  return argument.lstrip('-').partition('=')[0]


def _one(command: command_lib.Command, problems):
  """The config of one arm, or what the arms share."""
  config = command.config.copy_and_resolve_references()
  arms = config_lib.arms(config) if config.get('arms') else {}
  with config.unlocked():
    config.arms = {}
  for name in command.only:
    if name in arms:
      config = arms[name]
    else:
      hint = config_lib.did_you_mean(name, arms)
      known = ', '.join(arms) or 'none'
      problems.append(f'--only={name}: no such arm (arms: {known}).{hint}')
  return config


def audited(config, rows, chooses: bool) -> dict:
  """The audit of a config's conscience, with what it was made of."""
  import jax

  from ealign.alone import ALONE
  from ealign.assembly import parts
  from ealign.evals.audit import run as auditing

  begun = time.monotonic()
  c = parts.conscience_of(config, ALONE)
  c = dataclasses.replace(c, policy=c.frozen)  # nothing is trained yet
  say(f'{config.model.path}: loaded in {time.monotonic() - begun:.0f} s')
  key = jax.random.key(config.seed)
  found = auditing.audit(c, rows, key=key, chooses=chooses, say=say)
  return {
    'model': config.model.path,
    'reviewer': config.conscience.review.by,
    'exchanges': config.conscience.exchanges,
    'conscience': dataclasses.asdict(config.conscience),
    'seconds': round(time.monotonic() - begun),
    **found,
  }


def say(text: str) -> None:
  print(visible(text), flush=True)
