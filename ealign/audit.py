"""python -m ealign.audit --config=FILE.py --workdir=DIR: see `ealign.cli`."""

import sys

from ealign.cli import start


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  return start.main('ealign.cli.audit', argv, 'cli/audit.py')


if __name__ == '__main__':
  sys.exit(main())
