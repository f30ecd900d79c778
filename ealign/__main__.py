"""python -m ealign COMMAND, as the program `ealign` of an installation."""

import sys

from ealign.cli.commands import main

if __name__ == '__main__':
  sys.exit(main())
