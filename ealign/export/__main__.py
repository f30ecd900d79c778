"""python -m ealign.export --run=DIR --to=FOLDER --format=peft"""

import argparse
import sys

from ealign.export import FORMATS, ROUNDING
from ealign.runtime import preempt

PROGRAM = 'python -m ealign.export'


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
  """The flags; `--help` loads nothing more."""
  made = argparse.ArgumentParser(prog=program)
  made.add_argument('--run', required=True, help='folder of a finished run')
  made.add_argument('--to', required=True, help='folder to write')
  made.add_argument('--format', required=True, choices=FORMATS)
  made.add_argument(
    '--dtype', default='auto', choices=('auto', *ROUNDING), help='of weights'
  )
  made.add_argument(
    '--overwrite', action='store_true', help='replace an earlier export'
  )
  return made


def main(argv: list[str] | None = None, program: str = PROGRAM) -> int:
  """Exports and says how the export compares; returns the exit code."""
  args = parser(program).parse_args(argv)

  def write():
    from ealign.export.write import export

    print(export(**vars(args)))

  return preempt.command(write)


if __name__ == '__main__':
  sys.exit(main())
