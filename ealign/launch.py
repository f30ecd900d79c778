"""python -m ealign.launch --config=FILE.py --workdir=DIR: see `ealign.cli`."""

import signal
import sys


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  from ealign.cli import launch

  return launch.main(argv)


if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # importing has no traceback
  from ealign.cli import launch

  signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.exit(launch.main())
