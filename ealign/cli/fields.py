"""All config fields: default, what each may be, what it means.

usage: ealign fields [WORD]

Prints a page, in Markdown; with a WORD the fields whose name or meaning has it.
"""

import sys

from ealign.cli import start
from ealign.runtime import preempt
from ealign.runtime.errors import visible


def main(argv: list[str] | None = None) -> int:
  """Prints the fields; returns the exit code, 2 if none has the word."""
  argv = sys.argv[1:] if argv is None else argv
  if start.HELP & set(argv):
    return start.show(start.usage('cli/fields.py'), 'ealign fields')
  if len(argv) > 1:
    print(start.usage('cli/fields.py'), file=sys.stderr)
    return 2
  page = start.load('ealign.config.page')
  word = argv[0].lower() if argv else ''
  found = [
    str(field)
    for field in page.rows()
    if word in f'{field.name} {field.meaning}'.lower()
  ]
  if not found:
    print(f'no field has {visible(word)!r}; ealign fields', file=sys.stderr)
    return 2
  text = '\n'.join(found) if word else page.page().rstrip('\n')
  return preempt.command(lambda: print(text))


if __name__ == '__main__':
  sys.exit(main())
