"""`python -m ealign.world build`: trains the embedded organism from scratch."""

import sys

from ealign.world.build import main

if __name__ == '__main__':
  sys.exit(main())
