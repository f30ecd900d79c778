"""python -m ealign.evaluate --model=FOLDER --suite=NAME --workdir=DIR."""

import sys

from ealign.cli import start


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  own = 'calibrate' if argv[1:2] == ['calibrate'] else 'evaluate'
  return start.main('ealign.cli.evaluate', argv, f'cli/{own}.py')


if __name__ == '__main__':
  sys.exit(main())
