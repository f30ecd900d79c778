"""python -m ealign.launch --config=FILE.py --workdir=DIR: see `ealign.cli`."""

import sys

from ealign.cli.launch import main

if __name__ == '__main__':
  sys.exit(main())
