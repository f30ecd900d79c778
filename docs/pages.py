"""The pages of the site that are made from the code: commands and modules.

`docs/conf.py` calls `write` before the site is built.
"""

import ast
import contextlib
import importlib.util
import io
import pathlib
import pkgutil
import re
from collections.abc import Iterator

import ealign
from ealign.cli import commands

API = """# The API

Every public name of every module, from its docstring. A program calls
`ealign.train.run`, `ealign.engine.Engine` and `ealign.methods.METHODS`; the
rest is there to be read and changed.

```{toctree}
:maxdepth: 1
:glob:
api/*
```
"""
_SECTIONS = ('Args:', 'Returns:', 'Raises:', 'Yields:', 'Attributes:')


def write(folder) -> None:
  """Writes reference/cli.md and reference/api/*.md under a folder, anew."""
  folder = pathlib.Path(folder) / 'reference'
  (folder / 'api').mkdir(parents=True, exist_ok=True)
  _put(folder / 'cli.md', cli())
  for package, own in packages().items():
    _put(folder / 'api' / f'{package}.md', api(package, own))
  _put(folder / 'api.md', API)


def _put(path, text: str) -> None:
  """Only what has changed is written, so that only that is built."""
  if not path.exists() or path.read_text('utf-8') != text:
    path.write_text(text, 'utf-8')


def cli() -> str:
  """What --help of each command prints."""
  parts = ['# Command lines\n']
  parts.append(
    '`ealign NAME` and `python -m ealign.NAME` are the same. What each prints '
    'with `--help`:\n'
  )
  for name, command in commands.COMMANDS.items():
    parts.append(f'## ealign {name}\n\n{command.about.capitalize()}.\n')
    if command.first:
      flags = f'`{" ".join(command.first)}`'
      parts.append(f'It is [launch](#ealign-launch) with {flags}.\n')
    else:
      parts.append(f'```text\n{usage(name)}\n```\n')
  return '\n'.join(parts)


def usage(name: str) -> str:
  """What a command prints with --help."""
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
    commands.main([name, '--help'])
  return printed.getvalue().strip()


def modules() -> list[str]:
  """Every module of the package but those that start a program."""
  found = pkgutil.walk_packages(ealign.__path__, 'ealign.')
  names = ('ealign', *(module.name for module in found))
  return sorted(
    x
    for x in names
    if '__main__' not in x and not x.startswith('ealign.shipped')
  )


def packages() -> dict[str, list[str]]:
  """The modules by the page that they stand on."""
  names, found = modules(), {}
  for name in names:
    package = '.'.join(name.split('.')[:2])
    is_package = any(other.startswith(f'{package}.') for other in names)
    found.setdefault(package if is_package else 'ealign', []).append(name)
  return found


def api(package: str, names: list[str]) -> str:
  """One page of modules."""
  parts = [f'# {package}\n']
  for name in names:
    parts.append(f'## {name}\n')
    lines = f'.. automodule:: {name}\n   :members:\n   :undoc-members:\n'
    parts.append(f'```{{eval-rst}}\n{lines}```\n')
  return '\n'.join(parts)


def plain_api(package: str, names: list[str]) -> str:
  """The same page as text: what is defined, and docstrings as they are."""
  parts = [f'# {package}\n']
  for name in names:
    found = importlib.util.find_spec(name)
    tree = ast.parse(pathlib.Path(found.origin).read_text('utf-8'))
    parts += [f'## {name}\n', *_said(tree), *_defined(tree, '###')]
  return '\n'.join(parts)


def _defined(tree, mark: str, of: str = '') -> Iterator[str]:
  """The public functions and classes of a module or class, below a mark."""
  for node in tree.body:
    if getattr(node, 'name', '_').startswith('_'):
      continue
    name = f'{of}{node.name}'
    if isinstance(node, ast.ClassDef):
      yield f'{mark} class {name}\n'
      yield from _said(node)
      fields = [x for x in node.body if isinstance(x, ast.AnnAssign)]
      if lines := [ast.unparse(x) for x in fields]:
        yield '\n'.join(['```python', *lines, '```\n'])
      yield from _defined(node, f'{mark}#', f'{name}.')
    elif isinstance(node, ast.FunctionDef):
      returns = f' -> {ast.unparse(node.returns)}' if node.returns else ''
      yield f'{mark} {name}({ast.unparse(node.args)}){returns}\n'
      yield from _said(node)


def _said(node) -> list[str]:
  text = ast.get_docstring(node)
  return [f'{text}\n'] if text else []


def twins(source, out, titles: dict[str, str]) -> None:
  """A Markdown twin of each page beside it, and llms.txt, which lists them.

  source, out: folders of the pages and of the site. titles: by a page's name.
  """
  source, out = pathlib.Path(source), pathlib.Path(out)
  lines = ['# ealign', '', f'> {ealign.__doc__.splitlines()[0]}', '']
  own = packages()
  for name, title in sorted(titles.items()):
    package = name.removeprefix('reference/api/')
    if package in own and package != name:
      text = plain_api(package, own[package])
    else:
      text = (source / f'{name}.md').read_text('utf-8')
    (out / f'{name}.md').write_text(text, 'utf-8')
    lines.append(f'- [{title}]({name}.md): {first_sentence(text)}')
  (out / 'llms.txt').write_text('\n'.join([*lines, '']), 'utf-8')


def first_sentence(text: str) -> str:
  """That of a page, on one line, without links and marks; '' if it has none."""
  text = re.sub(r'^---\n.*?^---$|^ *```.*?^ *```$', '', text, flags=re.S | re.M)
  parts = [part.strip() for part in re.split(r'\n\s*\n', text)]
  said = [part for part in parts if part and part[0] not in '#<|-:']
  line = ' '.join(said[0].split()) if said else ''
  line = re.sub(r'\[([^\]]*)\]\([^)]*\)|[*`]', r'\1', line)
  return re.split(r'(?<=[.:?])\s+(?=[A-Z(])', line)[0]


def literal(lines: list[str]) -> list[str]:
  """A docstring in which drawings and lists by indentation stay as they are.

  lines: of a docstring in Google's style, its sections as they are.
  """
  return [*_literal([*lines, ''])]


def _literal(lines) -> Iterator[str]:
  inside = block = False
  last = ''
  for line in lines:
    indented = line.startswith('  ')
    if line and not indented:
      if block and last:
        yield ''
      inside, block = line.strip() in _SECTIONS, False
    if indented and not inside and not block:
      yield from ('', '::', '')
      block = True
    yield '  ' * bool(block and line) + (line if block else _escaped(line))
    last = line


def _escaped(line: str) -> str:
  """Stars, bars and ends in _ as they are, but for *words* and `code`."""
  parts = line.split('`')
  special = r'((?<!\w)\*\w[\w -]*\*(?!\w))|[*|]|_\b'
  kept = lambda found: found[0] if found[1] else f'\\{found[0]}'
  parts[::2] = [re.sub(special, kept, part) for part in parts[::2]]
  return '`'.join(parts)
