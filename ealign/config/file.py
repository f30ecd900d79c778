"""A config file: a Python file with get_config(arg=None), read and run.

`ealign:configs/demo.py` is one that comes with the package.
"""

import importlib.util
import inspect
import os
import re
import traceback
import types

from ml_collections import config_dict

from ealign.runtime import shipped
from ealign.runtime.errors import UserError


def split(spec: str) -> tuple[str, str | None]:
  """The file of 'FILE.py:ARG' as it is written, and ARG; None without one."""
  prefix = shipped.PREFIX if spec.startswith(shipped.PREFIX) else ''
  path, colon, argument = spec.removeprefix(prefix).partition(':')
  return prefix + path, argument if colon else None


def located(path: str) -> str:
  """Where a file lies; `ealign:...` are those of the package."""
  if not path.startswith(shipped.PREFIX):
    return path
  return str(shipped.path(path.removeprefix(shipped.PREFIX)))


def read(spec: str) -> tuple[types.ModuleType, config_dict.ConfigDict]:
  """The config file of 'file.py' or 'file.py:arg', and its config.

  Raises:
    UserError: no such file, an error in it (its line is named), or what it
      returns is no ConfigDict.
  """
  path, argument = split(spec)
  path = located(path)
  module_spec = importlib.util.spec_from_file_location(
    'config_file', os.path.abspath(path)
  )
  if module_spec is None:
    raise UserError(f'--config={spec}: must be a Python file (.py)')
  if os.path.exists(path) and not os.path.isfile(path):
    raise UserError(f'--config={spec}: {path} is not a regular file')
  module = importlib.util.module_from_spec(module_spec)
  try:
    module_spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
      raise UserError(f'{path}: has no function get_config(arg=None)')
    arguments = [] if argument is None else [argument]
    _check_call(module.get_config, arguments, spec)
    config = module.get_config(*arguments)
  except (UserError, KeyboardInterrupt):
    raise
  except FileNotFoundError as error:
    if error.filename == os.path.abspath(path):
      hint = _known(spec)
      raise UserError(f'--config={spec}: there is no such file{hint}') from None
    raise in_file(path, error) from error
  except BaseException as error:
    raise in_file(path, error) from error
  if not isinstance(config, config_dict.ConfigDict):
    message = 'must return a ConfigDict; start from ealign.config.default()'
    raise UserError(
      f'{path}: get_config {message}, got {type(config).__name__}'
    )
  return module, config


def _known(spec: str) -> str:
  """Which file of the package may have been meant; '' of any other."""
  from ealign import configs

  name = os.path.basename(split(spec)[0])
  same = [x for x in configs.names() if x.rpartition('/')[2] == name]
  if same:
    return f'; did you mean {same[0]}?'
  listed = '; `ealign configs` lists those of the package'
  return listed if spec.startswith(shipped.PREFIX) else ''


def _check_call(get_config, arguments, spec) -> None:
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError:
    takes = 'takes no argument' if arguments else 'needs an argument'
    message = f'get_config {takes}; write get_config(arg=None)'
    raise UserError(f'--config={spec}: {message}') from None


def _absent(error: BaseException) -> str:
  """What a section may be called that a config file reads and is not there."""
  missing = re.fullmatch(r"""["']*(\w+)["']*""", str(error))
  if not missing or not isinstance(error, AttributeError):
    return ''  # other errors say more than a name
  from ealign.config import convert, synonyms

  types = convert.field_types()
  sections = dict.fromkeys(name.rpartition('.')[0] for name in types)
  known = [*types, *filter(None, sections)]
  return f': there is no such field.{synonyms.hint(missing[1], known)}'


def in_file(path: str, error: BaseException) -> UserError:
  """The error with the last line of the config file that led to it."""
  full = os.path.abspath(path)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == full]
  if isinstance(error, SyntaxError) and error.filename == full:
    lines, message = [error.lineno], error.msg
  else:
    message = ' '.join(str(error).split()) + _absent(error)
  where = f'{path}, line {lines[-1]}' if lines else path
  return UserError(f'{where}: {type(error).__name__}: {message}')
