"""The words of the command line that a shell can complete.

They are read off the usages and the fields, so that a new flag is one of them.
"""

import dataclasses
import importlib
import re
import typing

from ealign import configs, fields, kinds
from ealign.cli import scripts, start
from ealign.cli.commands import COMMANDS
from ealign.evals.suites import SUITES
from ealign.methods import METHODS

# What a flag names, where it is no choice: a folder, a file, a config file.
FOLDERS = ('workdir', 'run', 'model', 'to', 'out', 'questions', 'stage_1')
FILES = ('exchanges', 'gold', 'card', 'judge_prompts')
_CHOICES = {
  'retry': ('failed', 'all'),
  'stack': ('auto',),
  'print_launch': tuple(scripts.KINDS),
  'suite': tuple(SUITES),
}
_MORE = {'completion': ('bash', 'zsh', 'fish')}
_MORE |= {'evaluate': ('calibrate', 'sheet', 'labels', 'awareness')}
_MORE |= {'world': ('build', 'office', 'selves', 'data')}
_FLAG = re.compile(r'--([a-z][a-z_0-9]*)(=| [A-Z{])?')


@dataclasses.dataclass(frozen=True)
class Words:
  """What can be typed.

  flags: by command, (name, whether it takes a value). more: by command, words
  that are no flags. choices: by flag or 'config.FIELD', its values. fields: all
  of them, as in 'dpo.lam'. configured: the commands that take them. configs:
  those of the package.
  """

  flags: dict[str, tuple[tuple[str, bool], ...]]
  more: dict[str, tuple[str, ...]]
  choices: dict[str, tuple[str, ...]]
  fields: tuple[str, ...]
  configured: tuple[str, ...]
  configs: tuple[str, ...]


def read() -> Words:
  """The words of the installed version."""
  texts = {name: _usage(name) for name in COMMANDS}
  kinds = dict(fields.annotations())
  flags = {name: _flags(text) for name, text in texts.items()}
  choices = {f'config.{name}': _values(kind) for name, kind in kinds.items()}
  choices |= {'config.method': tuple(METHODS)} | _CHOICES
  choices |= _of_parsers()
  return Words(
    flags=flags,
    more=_MORE,
    choices={name: found for name, found in choices.items() if found},
    fields=tuple(kinds),
    configured=tuple(n for n, text in texts.items() if 'config.FIELD' in text),
    configs=configs.names(),
  )


def _usage(name: str) -> str:
  """What `ealign NAME --help` says of its flags."""
  command = COMMANDS[name]
  if name == 'evaluate':  # with its own commands
    own = command.inside, 'cli/calibrate.py', 'cli/sheet.py', 'cli/awareness.py'
    return ''.join(map(start.usage, own))
  if command.inside:
    return start.usage(command.inside)
  if name == 'world':
    return start.usage('world/build.py')
  module = importlib.import_module(command.module)
  return module.parser().format_help() if hasattr(module, 'parser') else ''


def _flags(text: str) -> tuple[tuple[str, bool], ...]:
  """Flags in the order of a usage, and whether they take values."""
  found = {}
  for name, value in _FLAG.findall(text):
    found[name] = found.get(name, False) or bool(value)
  found.pop('config', None)
  config = [('config', True)] if '--config=' in text else []
  return (*config, *found.items(), ('help', False))


def _values(kind) -> tuple[str, ...]:
  """The values of a field's type, where it lists them."""
  if typing.get_origin(kind) is typing.Literal:
    return tuple(map(str, typing.get_args(kind)))
  return ('True', 'False') if kinds.bare(kind) is bool else ()


def _of_parsers() -> dict[str, tuple[str, ...]]:
  from ealign.export import FORMATS, ROUNDING

  return {'format': FORMATS, 'dtype': ('auto', *ROUNDING)}
