"""All config fields: default, what each may be, what it means.

usage: ealign fields [WORD]

Prints a page, in Markdown; with a WORD the fields whose name or meaning has it,
or what a WORD of TRL, transformers or PEFT, as learning_rate, is called here.
"""

import sys

from ealign.cli import start
from ealign.runtime import preempt
from ealign.runtime.errors import visible


def main(argv: list[str] | None = None) -> int:
  """Prints the fields; returns the exit code, 2 if nothing knows the word."""
  argv = sys.argv[1:] if argv is None else argv
  if start.HELP & set(argv):
    return start.show(start.usage('cli/fields.py'), 'ealign fields')
  if len(argv) > 1:
    print(start.usage('cli/fields.py'), file=sys.stderr)
    return 2
  page = start.load('ealign.config.page')
  word = argv[0].lower() if argv else ''
  if not word:
    text = page.page().rstrip('\n')
    return preempt.command(lambda: print(text))
  synonyms = start.load('ealign.config.synonyms')
  near, found = _looked_up(word, page.rows(), synonyms)
  if not found:
    said = f'No field has {visible(word)!r}{f".{near}" if near else ";"}'
    print(f'{said} `ealign fields` lists all.', file=sys.stderr)
    return 2
  return preempt.command(lambda: print('\n'.join(found)))


def _looked_up(word: str, rows, synonyms) -> tuple[str, list[str]]:
  """(what may have been meant, the lines to print: none, nothing is known)."""
  names = [field.name for field in rows]
  found = [x for x in rows if word in f'{x.name} {x.meaning}'.lower()]
  ours = any(f'.{name}'.endswith(f'.{word}') for name in names)
  said = '' if ours else synonyms.hint(word, names)
  meant, remark = synonyms.meant(word)
  meant = synonyms.RENAMED.get(word, meant)
  if ours or not (meant or remark):
    return said, [str(field) for field in found]
  head = f'No field is called {visible(word)!r}.{said}'
  first = [field for field in rows if field.name == meant]
  rest = [field for field in found if field.name != meant]
  return said, [head, *(str(field) for field in first + rest)]


if __name__ == '__main__':
  sys.exit(main())
