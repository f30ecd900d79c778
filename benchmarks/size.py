"""How large the package is: the figures of docs/design.md.

    python benchmarks/size.py [FOLDER] [--functions]

Lines of code are those that hold a token other than a comment or a docstring.
Statements are the `ast.stmt` nodes, docstrings left out. A function is as long
as its lines from `def` to its end, docstring and comments included.
"""

import argparse
import ast
import io
import pathlib
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
_NO_CODE = {
  *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
  *(tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER),
}
_WITH_BODY = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(tree) -> list[ast.Expr]:
  """The statements that are docstrings."""
  found = [
    n.body[0] for n in ast.walk(tree) if isinstance(n, _WITH_BODY) and n.body
  ]
  return [
    n
    for n in found
    if isinstance(n, ast.Expr)
    and isinstance(n.value, ast.Constant)
    and isinstance(n.value.value, str)
  ]


def code_lines(text: str, tree) -> int:
  """Lines with code on them."""
  lines = set()
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type not in _NO_CODE:
      lines |= set(range(token.start[0], token.end[0] + 1))
  for node in docstrings(tree):
    lines -= set(range(node.lineno, node.end_lineno + 1))
  return len(lines)


def comments(text: str) -> int:
  """Comments, each line of one for itself."""
  tokens = tokenize.generate_tokens(io.StringIO(text).readline)
  return sum(token.type == tokenize.COMMENT for token in tokens)


def functions(path: pathlib.Path, tree) -> list[tuple[int, str]]:
  """(lines, where) of every function, also of those within functions."""
  kinds = ast.FunctionDef | ast.AsyncFunctionDef
  return [
    (n.end_lineno - n.lineno + 1, f'{path}:{n.lineno} {n.name}')
    for n in ast.walk(tree)
    if isinstance(n, kinds)
  ]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', nargs='?', default=ROOT / 'ealign')
  parser.add_argument('--functions', action='store_true', help='list long ones')
  args = parser.parse_args()
  total = statements = said = 0
  found, folders = [], {}
  root = pathlib.Path(args.folder)
  for path in sorted(root.rglob('*.py')):
    text = path.read_text()
    tree = ast.parse(text)
    lines = code_lines(text, tree)
    total, said = total + lines, said + comments(text)
    statements += sum(isinstance(n, ast.stmt) for n in ast.walk(tree))
    statements -= len(docstrings(tree))
    found += functions(path.relative_to(root), tree)
    part = path.relative_to(root).parts[0]
    folders[part] = folders.get(part, 0) + lines
  long = sorted(item for item in found if item[0] > 40)
  print(f'lines of code      {total:,}')
  print(f'statements         {statements:,}')
  print(f'comments           {100 * said / total:.1f} a hundred lines of code')
  print(f'functions over 40  {len(long)}, the longest {max(found)[0]}')
  if args.functions:
    for lines, where in reversed(long):
      print(f'  {lines:4d}  {where}')
    for part, lines in sorted(folders.items(), key=lambda item: -item[1]):
      print(f'  {lines:5d}  {part}')


if __name__ == '__main__':
  main()
