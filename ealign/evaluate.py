"""python -m ealign.evaluate --model=FOLDER --suite=NAME --workdir=DIR."""

import sys


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  from ealign.cli import evaluate

  return evaluate.main(argv)


if __name__ == '__main__':
  sys.exit(main())
