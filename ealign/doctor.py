"""python -m ealign.doctor: what is here, what will be used, and why."""

import sys

from ealign.cli import start


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  return start.main('ealign.cli.doctor', argv, 'cli/doctor.py')


if __name__ == '__main__':
  sys.exit(main())
