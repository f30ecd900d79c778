"""What commands begin with: --help at once, then the modules that load long.

Nothing here loads JAX: `ealign launch --help` takes a tenth of a second.
"""

import ast
import importlib
import pathlib
import signal
import sys
import threading
import types

HELP = {'--help', '-h', '-help'}
_PACKAGE = pathlib.Path(__file__).parents[1]


def usage(inside: str) -> str:
  """What a module of the package prints for --help; it is not imported.

  inside: its file, such as 'cli/audit.py'. From 'usage:' on, where its
  docstring has that.
  """
  tree = ast.parse((_PACKAGE / inside).read_text('utf-8'))
  text = ast.get_docstring(tree)
  return text[max(text.find('usage:'), 0) :].rstrip()


def main(module: str, argv: list[str] | None, inside: str) -> int:
  """Runs `module.main(argv)`, or prints its usage; returns the exit code.

  argv[0] is the program, by default as in sys.argv. inside: as in `usage`.
  """
  argv = sys.argv if argv is None else argv
  if HELP & set(argv[1:]):
    return show(usage(inside), argv[0])
  return run(module, argv)


def run(module: str, argv: list[str], **title: str) -> int:
  """Runs `module.main(argv)`; 2 and a line if a package is not installed."""
  try:
    return load(module).main(argv, **title)
  except ModuleNotFoundError as error:
    name = (error.name or 'ealign').partition('.')[0]
    if name == 'ealign':  # a mistake of ours
      raise
    said = f'{name} is not installed: `ealign doctor` says what is missing'
    print(said, file=sys.stderr)
    return 2


def show(text: str, program: str = '') -> int:
  """Prints a usage, with the program's name if it is `ealign ..`; 0."""
  from ealign.runtime import preempt

  if program.startswith('ealign '):
    text = text.replace('python -m ealign.', 'ealign ')
  return preempt.command(lambda: print(text))


def load(name: str) -> types.ModuleType:
  """The module. Ctrl-C while it is imported ends without a traceback."""
  ours = threading.current_thread() is threading.main_thread()
  usual = signal.default_int_handler
  if not ours or signal.getsignal(signal.SIGINT) is not usual:
    return importlib.import_module(name)
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    return importlib.import_module(name)
  finally:
    signal.signal(signal.SIGINT, usual)
