"""python -m ealign.evaluate --model=FOLDER --suite=NAME --workdir=DIR."""

import sys

from ealign.cli import start

# Its own commands, and where they are.
OWN = {'calibrate': 'calibrate', 'sheet': 'sheet', 'labels': 'sheet'}
OWN |= {'awareness': 'awareness'}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  own = OWN.get(argv[1] if argv[1:] else '', 'evaluate')
  return start.main('ealign.cli.evaluate', argv, f'cli/{own}.py')


if __name__ == '__main__':
  sys.exit(main())
