"""python -m ealign.launch --config=FILE.py --workdir=DIR: see `ealign.cli`."""

import signal
import sys

if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # importing has no traceback
  from ealign.cli.launch import main

  signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.exit(main())
