"""Tries the conscience of a config on labelled exchanges, before a run.

usage: python -m ealign.audit --config=FILE.py[:ARG] --workdir=DIR
           [--config.FIELD=VALUE ...] [--only=NAME] [--choose] [--all]
           [--exchanges=FILE]

  --config        a Python file with get_config(arg=None), as of ealign.launch
  --config.FIELD  changes one field, as in --config.conscience.framing=fair
  --workdir       folder for audit.html and audit.json; what the model answered
                  is kept in asked.jsonl, so that the same command goes on where
                  it was stopped
  --only          the arm that is audited, where the config has arms; by default
                  what they share
  --choose        tries ways to put the question on the exchanges of split dev,
                  measures the best on those of split test, and prints the lines
                  to put into the config
  --all           with --choose: the best three and every framing in every form
                  are measured on split test, not only the best
  --exchanges     labelled exchanges of one's own: a file of rows with messages
                  and label, ok or flag (docs/conscience.md)

Exit codes: 0 the conscience tells good from bad; 1 it does not; 2 bad flags,
config or exchanges.
"""

import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.runtime import atomic, preempt
from ealign.runtime.errors import Preempted, UserError, visible
from ealign.workdir import folder as folder_lib

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
KEPT = 'asked.jsonl'
_OWN = {'choose': bool, 'all': bool, 'exchanges': str}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  tells, stopped = [], Preempted('stopped; the same command goes on')

  def note(kept: int, of: int, what: str) -> None:
    # Said by the error itself: a process that is stuck ends with no more.
    told = f'stopped; {kept:,} of {of:,} {what} of this round are kept'
    stopped.args = (f'{told}; the same command goes on',)

  code = preempt.command(lambda: tells.append(run(argv, note)), stopped)
  return code or int(not tells[0])


def run(argv: list[str], note: Callable) -> bool:
  """Audits and writes; whether the conscience can serve.

  note: as of `evals.kept.keeping`.

  Raises:
    UserError: flags, config, model or exchanges cannot be used.
  """
  config, workdir, how = read(argv)
  folder = folder_lib.of(workdir)
  with folder_lib.usable(workdir):  # told before minutes of work
    folder.local.mkdir(parents=True, exist_ok=True)
    folder.pull()  # what was answered before, from a bucket
  launch.compile_cache()
  from ealign.data import exchanges  # with the libraries that read data

  path = config.conscience.exchanges
  rows = exchanges.read(path, config.data.max_mib)
  say(f'{path}: {len(rows)} labelled exchanges')
  try:
    found = audited(config, rows, folder.local / KEPT, note, **how)
  finally:  # what was answered is kept, whatever ends it
    folder.push()
  from ealign.report import audit as report

  text = json.dumps(_finite(found), indent=1, ensure_ascii=False)
  with folder_lib.usable(workdir):
    path = folder.local / 'audit.json'
    atomic.write(path, text.encode('utf-8', 'replace'))
    page = report.write(folder.local, found)
    folder.push()
  print(visible('\n' + '\n'.join(report.lines(found))))
  print(f'\n{folder.shared / page.name}')
  print(found['verdict']['text'])
  return found['verdict']['tells']


def read(argv: list[str]):
  """(frozen config, workdir, arguments of `audited`) of the command line."""
  command = command_lib.parse(argv, usage=USAGE, own=_OWN)
  problems = [*command.problems, *command_lib.foreign(command, 'only')]
  chooses, every = (command.own.get(name, False) for name in ('choose', 'all'))
  if every and not chooses:
    problems.append('--all: goes with --choose; add it')
  config = _one(command, problems)
  if 'exchanges' in command.own:
    config.conscience.exchanges = command.own['exchanges']
  if not config.conscience.exchanges:
    problems.append('conscience.exchanges is empty; name a file (--exchanges)')
  problems += config_lib.validate(config)
  if problems:
    raise UserError(*dict.fromkeys(problems))
  how = {'chooses': chooses, 'every': every}
  return config_lib.freeze(config), command.workdir, how


def _one(command: command_lib.Command, problems):
  """The config of one arm, or what the arms share."""
  config = command.config.copy_and_resolve_references()
  arms = config_lib.arms(config) if config.get('arms') else {}
  with config.unlocked():
    config.arms = {}
  if len(command.only) > 1:
    problems.append(f'--only={",".join(command.only)}: one arm at a time')
  for name in command.only:
    if name in arms:
      config = arms[name]
    else:
      hint = config_lib.did_you_mean(name, arms)
      known = ', '.join(arms) or 'none'
      problems.append(f'--only={name}: no such arm (arms: {known}).{hint}')
  if config.model.get('adapter', '').startswith('arm:'):
    config.model.adapter = ''  # it is the trainee's, and not made yet
  return config


def audited(config, rows, kept: pathlib.Path, note: Callable, **how) -> dict:
  """The audit of a config's conscience, with what it was made of.

  kept: the file that label probabilities are kept in. note: as of
  `evals.kept.keeping`. how: of `run.audit`.
  """
  import jax

  from ealign.alone import ALONE
  from ealign.assembly import parts
  from ealign.evals import kept as kept_lib
  from ealign.evals.audit import run as auditing

  begun = time.monotonic()
  backend = kept_lib.keeping(ALONE, kept, say, note=note)
  c = parts.with_start(config, parts.conscience_of(config, backend))
  say(f'{config.model.path}: loaded in {time.monotonic() - begun:.0f} s')
  key = jax.random.key(config.seed)
  found = auditing.audit(c, rows, key=key, say=say, **how)
  return {
    'model': config.model.path,
    'reviewer': config.conscience.review.by,
    'exchanges': config.conscience.exchanges,
    'conscience': dataclasses.asdict(config.conscience),
    'seconds': round(time.monotonic() - begun),
    **found,
  }


def _finite(found):
  """The same as JSON has it: nan, a mean over nothing, becomes null."""
  if isinstance(found, Mapping):
    return {name: _finite(value) for name, value in found.items()}
  if isinstance(found, list | tuple):
    return [_finite(value) for value in found]
  if isinstance(found, str | bool | int | None):
    return found
  number = float(found)
  return number if math.isfinite(number) else None


def say(text: str) -> None:
  print(visible(text), flush=True)
