"""python -m ealign.export --run=DIR --to=FOLDER --format=peft"""

import argparse
import sys

from ealign.export.write import FORMATS, ROUNDING, export
from ealign.runtime import preempt


def main(argv: list[str] | None = None) -> int:
  """Exports and says how the export compares; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m ealign.export')
  parser.add_argument('--run', required=True, help='folder of a finished run')
  parser.add_argument('--to', required=True, help='folder to write')
  parser.add_argument('--format', required=True, choices=FORMATS)
  parser.add_argument(
    '--dtype', default='auto', choices=('auto', *ROUNDING), help='of weights'
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace an earlier export'
  )
  args = parser.parse_args(argv)
  return preempt.command(lambda: print(export(**vars(args))))


if __name__ == '__main__':
  sys.exit(main())
