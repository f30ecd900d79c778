"""`python -m ealign.world`: trains the embedded organism, writes its data."""

import sys

from ealign.cli import start


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv[1:] if argv is None else argv
  if argv and argv[0] in start.HELP:
    return start.show(start.usage('world/build.py'))
  return start.run('ealign.world.build', argv)


if __name__ == '__main__':
  sys.exit(main())
