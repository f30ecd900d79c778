"""python -m ealign.audit --config=FILE.py --workdir=DIR: see `ealign.cli`."""

import sys


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  from ealign.cli import audit

  return audit.main(argv)


if __name__ == '__main__':
  sys.exit(main())
