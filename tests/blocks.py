"""The fenced blocks and commands of pages, and whether a command could be run.

A command is not run but read by the reader of the program that it names: with
its config, its sweep, all its flags and fields. A block that cannot be checked
so has a comment before it, `<!-- not run: why -->`.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import runpy
import shlex
import sys
from unittest import mock

from ealign.cli import (
  audit,
  awareness,
  calibrate,
  chat,
  command,
  commands,
  completion,
  evaluate,
  launch,
  sheet,
)
from ealign.export import __main__ as export
from ealign.grid import cells
from ealign.report import __main__ as report
from ealign.runtime.errors import UserError
from ealign.world import build

ROOT = pathlib.Path(__file__).parents[1]
CELL = '{code-cell}'  # run when the site is built, one after another
DRAWN = ('text', 'bibtex', '{toctree}')  # nothing to run
# What stands for a file, or a value, of the reader's own.
CONFIG = 'configs/demo.py'
_MISSING = re.compile("='(other:)?([A-Z_]+\\b|my_|mine|\\./runs/).*[Nn]o such")
_MINE = ('FILE.py', 'mine.py', 'configs/mine.py', '...', '..')
_BLOCK = re.compile(
  r'^(?:<!-- not run: (?P<why>[^>]*?) -->\n)?'
  r'```(?P<kind>[^\s`]*)\n(?P<text>.*?)^```$',
  re.DOTALL | re.MULTILINE,
)
_OPTION = re.compile(r'\[(--[^\]]*)\]')
_FOR = re.compile(r' *for (\w+) in (.*?); do ')
_GIVEN = re.compile(r'(\w+)=(.*)', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
  """kind: the word behind the fence. why: the reason not to run it, if any."""

  page: str
  line: int
  kind: str
  text: str
  why: str

  def __str__(self) -> str:
    return f'{self.page}:{self.line}'


def blocks(path: pathlib.Path) -> list[Block]:
  """The fenced blocks of a page."""
  text, name = path.read_text('utf-8'), path.relative_to(ROOT).as_posix()
  return [
    Block(
      name,
      text[: found.start('kind')].count('\n') + 1,
      found['kind'],
      found['text'],
      ' '.join((found['why'] or '').split()),
    )
    for found in _BLOCK.finditer(text)
  ]


def inline(path: pathlib.Path) -> list[tuple[int, str]]:
  """(line, text) of each piece of code inside the sentences of a page."""
  text = path.read_text('utf-8')
  blank = lambda found: '\n' * found[0].count('\n')
  text = re.sub(r'^ *```.*?^ *```$', blank, text, flags=re.S | re.M)
  return [
    (text[: found.start()].count('\n') + 1, ' '.join(found[1].split()))
    for found in re.finditer(r'(?<!`)`([^`]+)`(?!`)', text)
  ]


def simple(text: str, values: dict[str, str]) -> list[list[str]]:
  """The words of each simple command of a shell script.

  values: the variables of the shell, changed in place. What the text itself
  writes and then gives to bash is left out.
  """
  text, found = _OPTION.sub(r'\1', text.replace('\\\n', ' ')), []
  for line in text.splitlines():
    if loop := _FOR.match(line):
      values[loop[1]] = '1' if loop[2].startswith('$') else loop[2].split()[0]
      line = line[loop.end() :]
    for words in _split(line):
      while words and (given := _GIVEN.fullmatch(words[0])):
        value = ' '.join(_filled(given[2], values))
        values[given[1]], words = value, words[1:]
      filled = (_filled(word, values) for word in words)
      words = [word for words in filled for word in words]
      written = words[:1] == ['bash'] and f'> {words[1]}' in text
      if words and words != ['done'] and not written:
        found.append(words)
  return found


def _filled(word: str, values: dict[str, str]) -> list[str]:
  """A word with its variables filled in, which may be several."""
  full = re.sub(r'\$(\w+)', lambda name: values[name[1]], word)
  return shlex.split(full) if word.startswith('$') else [full]


def _split(line: str):
  """The simple commands of a line; what goes to a file is left out."""
  lexer = shlex.shlex(line, posix=True, punctuation_chars='|&;<>')
  lexer.whitespace_split, lexer.commenters = True, '#'
  words, skips = [], False
  for word in [*lexer, ';']:
    if word and set(word) <= set('|&;'):
      yield words
      words = []
    elif word in ('>', '<', '>>'):
      skips = True
    elif skips:
      skips = False
    else:
      words.append(word)


def sentence(text: str) -> list[list[str]]:
  """The commands of code in a sentence: of choices the first."""
  text = re.sub(r'\b(\w+)(\|\w+)+', r'\1', text)
  return simple(text, {})


def check(words: list[str], whole: bool = True) -> None:
  """Raises ValueError for a command that could not be run, saying why.

  whole: whether it names all that it needs, as in a block; else what is
  missing is added, as for one in a sentence.
  """
  program, rest = words[0], words[1:]
  if pathlib.Path(program).name in ('python', 'python3') and rest:
    if rest[0] == '-m':
      module, rest = rest[1], rest[2:]
      return _module(module, rest, whole)
    return _script(rest[0], rest[1:], whole)
  if program == 'ealign':
    return _ours(rest[0], rest[1:], whole)
  if program == 'make':
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    return _must(set(rest) <= set(targets), f'make has no {rest}')
  if pathlib.Path(program).name == 'pip':
    return _pip(rest)
  if program.startswith('.'):
    return _must((ROOT / program).exists(), f'{program} is no file')
  return _must(
    program in ('echo', 'export'), f'{program}: nothing here can check that'
  )


def _must(holds: bool, why: str) -> None:
  if not holds:
    raise ValueError(why)


def _pip(rest: list[str]) -> None:
  """Extras are those of setup.cfg."""
  text = (ROOT / 'setup.cfg').read_text()
  extras = re.findall(r'^(\w[\w-]*) *=', text.split('extras_require]')[1], re.M)
  asked = re.findall(r'(?:^|\.|ealign)\[([\w,-]+)\]', ' '.join(rest))
  for extra in ','.join(asked).split(','):
    _must(not extra or extra in extras, f'setup.cfg has no extra {extra!r}')


def _module(module: str, rest: list[str], whole: bool) -> None:
  if module.startswith('ealign.'):
    return _ours(module.removeprefix('ealign.'), rest, whole)
  if module == 'pytest':
    paths = [word for word in rest if word.startswith('tests')]
    missing = [path for path in paths if not (ROOT / path).exists()]
    return _must(not missing, f'no such tests: {missing}')
  return _must(module in ('venv', 'pip'), f'{module}: an unknown module')


def _script(path: str, rest: list[str], whole: bool) -> None:
  """A script of this repository, and flags that it takes."""
  _must((ROOT / path).is_file(), f'{path} is no file')
  source = (ROOT / path).read_text('utf-8')
  if 'import argparse' not in source:
    flags = [word.partition('=')[0] for word in rest if word.startswith('--')]
    unknown = [flag for flag in flags if f"'{flag}" not in source]
    return _must(not unknown, f'{path} has no {unknown}')

  folders = [str((ROOT / path).parent), *sys.path]
  with mock.patch.object(sys, 'path', folders), mock.patch.dict('os.environ'):
    _reads(
      lambda: runpy.run_path(str(ROOT / path), run_name='__main__'),
      [path, *rest],
      whole,
    )


class _Read(Exception):
  """Flags are read, and nothing more is done."""


def _reads(main, argv: list[str], whole: bool) -> None:
  """Calls a program up to where it has read its flags."""
  lacks = 'arguments are required'  # as in a sentence
  parse, said = argparse.ArgumentParser.parse_args, io.StringIO()

  def stops(parser, *args, **kwargs):
    parse(parser, *args, **kwargs)
    raise _Read

  with (
    mock.patch.object(argparse.ArgumentParser, 'parse_args', stops),
    mock.patch.object(sys, 'argv', argv),
    contextlib.redirect_stderr(said),
    contextlib.suppress(_Read),
  ):
    try:
      main()
    except SystemExit:
      _must(not whole and lacks in said.getvalue(), said.getvalue())
      return
    raise ValueError(f'{argv[0]} reads no flags')


def _ours(name: str, rest: list[str], whole: bool) -> None:
  """A command of the package: it is read, and nothing is run."""
  _must(name in commands.COMMANDS, f'{name}: no command of ealign')
  rest = [word for word in rest if not re.fullmatch(r'\.\.+|WORD', word)]
  if not rest and not whole:
    return None
  if name == 'evaluate' and rest[0] in _OF_EVALUATE:
    name, rest = rest[0], rest[1:]
  rest = [_mine(word) for word in rest]
  rest = [word for word in rest if not re.search(r'=\.\.\.?$', word)]
  if name == 'world':
    return _reads(lambda: build.main(rest), ['world', *rest], whole)
  if not whole:
    has = [word.partition('=')[0] for word in rest]
    missing = [x for x in _NEEDED.get(name, ()) if x.split('=')[0] not in has]
    rest = [*rest, *missing]
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      _READERS[name](rest)
  except (UserError, SystemExit) as error:
    found = [x for x in error.args if not _MISSING.search(str(x))]
    _must(not found, f'{name}: {found} {said.getvalue()}')
  return None


def _mine(word: str) -> str:
  """A flag, with a config of ours where it names one of the reader's."""
  flag, _, value = word.partition('=')
  return f'--config={CONFIG}' if flag == '--config' and value in _MINE else word


def _launch(rest: list[str]) -> None:
  found = command.parse(['launch', *rest])
  same = '--config', '--sweep', '--workdir'
  own = [word for word in rest if word.startswith(same)]
  cells.choose(_grid(*own), found.only)


@functools.cache
def _grid(*flags: str) -> cells.Grid:
  """The cells of a command, with one replicate: each cell is validated."""
  found = command.parse(['launch', *flags])
  for name, function in vars(found.module).items():
    kind, _, sweep = name.partition('_')
    if kind == 'sweep' and cells.is_replicate(sweep):
      setattr(found.module, name, functools.partial(_one, function))
  return launch._cells(found)


def _one(function):
  return [*function()][:1]


def _shell(rest: list[str]) -> None:
  _must(set(rest) <= set(completion.SHELLS), f'no such shell: {rest}')


_WORKDIR, _CONFIG = '--workdir=DIR', f'--config={CONFIG}'
_NEEDED = {
  'launch': (_CONFIG, _WORKDIR),
  'audit': (_CONFIG, _WORKDIR),
  'evaluate': ('--suite=misalignment', _WORKDIR),
}
_OF_EVALUATE = ('calibrate', 'sheet', 'labels', 'awareness')
_READERS = {
  'launch': _launch,
  'plan': lambda rest: _launch(['--plan', *rest]),
  'audit': lambda rest: audit.read(['audit', *rest]),
  'evaluate': lambda rest: evaluate.read(['evaluate', *rest]),
  'calibrate': lambda rest: calibrate.read(['evaluate', *rest]),
  'sheet': lambda rest: sheet.read('sheet', ['evaluate', *rest]),
  'labels': lambda rest: sheet.read('labels', ['evaluate', *rest]),
  'awareness': lambda rest: awareness.read(['evaluate', *rest]),
  'chat': lambda rest: chat.read(['chat', *rest]),
  'export': lambda rest: export.parser().parse_args(rest),
  'report': lambda rest: report.parser().parse_args(rest),
  'configs': lambda rest: _must(not rest, f'configs takes nothing: {rest}'),
  'doctor': lambda rest: _must(not rest, f'doctor takes nothing: {rest}'),
  'fields': lambda rest: _must(len(rest) < 2, f'fields takes a word: {rest}'),
  'completion': _shell,
}
