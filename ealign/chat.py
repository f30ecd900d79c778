"""python -m ealign.chat --run=DIR | --model=FOLDER: talks with models."""

import signal
import sys

from ealign.cli import start


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  return start.main('ealign.cli.chat', argv, 'cli/chat.py')


if __name__ == '__main__':
  # A shell starts what stands before & with SIGINT ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.exit(main())
