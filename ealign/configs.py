"""The configs that come with the package: --config=ealign:configs/demo.py.

usage: ealign configs

Lists them with the first line of what each says of itself.
"""

import ast
import sys

from ealign.runtime import preempt, shipped


def names() -> tuple[str, ...]:
  """Their names, such as 'ealign:configs/demo.py', in order."""
  root = shipped.path('configs')
  files = (file.relative_to(root).as_posix() for file in root.rglob('*.py'))
  return tuple(f'{shipped.PREFIX}configs/{file}' for file in sorted(files))


def about(name: str) -> str:
  """What the config says of itself: its docstring; the file is not run.

  Raises:
    OSError: there is no such file.
  """
  file = shipped.path(name.removeprefix(shipped.PREFIX))
  return ast.get_docstring(ast.parse(file.read_text('utf-8'))) or ''


def main(argv: list[str] | None = None) -> int:
  """Prints the list; returns the exit code."""
  argv = sys.argv[1:] if argv is None else argv
  if argv:
    asked = {'-h', '--help'} & set(argv)
    text = __doc__[__doc__.index('usage:') :].rstrip()
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
  width = max(map(len, names()), default=0)
  first = {name: about(name).partition('\n')[0] for name in names()}
  lines = [f'{name:{width}}  {text}' for name, text in first.items()]
  return preempt.command(lambda: print('\n'.join(lines)))


if __name__ == '__main__':
  sys.exit(main())
