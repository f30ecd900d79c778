"""One program for all commands: `ealign COMMAND ...`.

Each is also `python -m ealign.COMMAND`, but for `plan`, which is `launch
--plan`, `fields` and `completion`.
"""

import dataclasses
import difflib
import sys

import ealign
from ealign.cli import start
from ealign.runtime.errors import visible


@dataclasses.dataclass(frozen=True)
class Command:
  """A command: its module, what it does, its own usage, what stands first.

  inside: the file whose docstring is its usage, as in `start.usage`; '' where
  its module prints it. named: whether its main takes the program's name first;
  titled: as the keyword `program`.
  """

  module: str
  about: str
  inside: str = ''
  named: bool = False
  titled: bool = False
  first: tuple[str, ...] = ()


COMMANDS = {
  'launch': Command(
    'ealign.launch',
    'trains a config, its arms, or a grid of them',
    'cli/command.py',
    named=True,
  ),
  'plan': Command(
    'ealign.launch',
    'what that would read, take and cost, without running it',
    'cli/command.py',
    named=True,
    first=('--plan',),
  ),
  'audit': Command(
    'ealign.audit',
    'tries a conscience on labelled exchanges, before a run',
    'cli/audit.py',
    named=True,
  ),
  'evaluate': Command(
    'ealign.evaluate',
    'asks models the questions of suites, and judges',
    'cli/evaluate.py',
    named=True,
  ),
  'chat': Command(
    'ealign.chat',
    'talks with runs and models, and with their conscience',
    'cli/chat.py',
    named=True,
  ),
  'export': Command(
    'ealign.export.__main__',
    'writes a run for PEFT, transformers and vLLM',
    titled=True,
  ),
  'report': Command(
    'ealign.report.__main__',
    'writes the page of a work folder again',
    titled=True,
  ),
  'world': Command(
    'ealign.world.__main__', 'builds the embedded model and its data'
  ),
  'configs': Command('ealign.configs', 'lists the configs of the package'),
  'fields': Command(
    'ealign.cli.fields',
    'lists all fields of a config, or those that have a word',
    'cli/fields.py',
  ),
  'doctor': Command(
    'ealign.doctor',
    'what is installed here, what will be used, and why',
    'cli/doctor.py',
    named=True,
  ),
  'completion': Command(
    'ealign.cli.completion', 'prints what completes these words in a shell'
  ),
}


def usage() -> str:
  """What `ealign --help` prints."""
  lines = [f'  {name:<11} {one.about}' for name, one in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: ealign COMMAND [--FLAG=VALUE ...]',
      '       ealign COMMAND --help',
      '       ealign --version',
      '',
      *lines,
      '',
      'First: ealign doctor; then',
      '  ealign launch --config=ealign:configs/demo.py --workdir=runs/demo',
    ]
  )


def main(argv: list[str] | None = None) -> int:
  """Runs a command; argv: without the program. Returns the exit code."""
  argv = sys.argv[1:] if argv is None else argv
  name, rest = (argv[0], argv[1:]) if argv else ('', [])
  if name in start.HELP:
    return start.show(usage())
  if name in ('--version', '-V', 'version'):
    print(f'ealign {ealign.__version__}')
    return 0
  if name not in COMMANDS:
    close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    hint = f' Did you mean {close[0]}?' if close else ''
    wrong = f'{name!r} is no command.{hint}\n' if name else ''
    print(visible(f'{wrong}{usage()}'), file=sys.stderr)
    return 2
  command = COMMANDS[name]
  program = [f'ealign {name}'] if command.named else []
  given = [*program, *command.first, *rest]
  title = {'program': f'ealign {name}'} if command.titled else {}
  return start.run(command.module, given, **title)
