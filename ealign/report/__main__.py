"""python -m ealign.report --workdir=DIR"""

import argparse
import sys

from ealign import report
from ealign.runtime import preempt
from ealign.runtime.errors import UserError
from ealign.workdir.folder import usable

PROGRAM = 'python -m ealign.report'


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
  """The flags; `--help` loads nothing more."""
  made = argparse.ArgumentParser(
    prog=program, description=report.__doc__.split('\n')[0]
  )
  made.add_argument('--workdir', required=True, help='folder of the runs')
  return made


def main(argv: list[str] | None = None, program: str = PROGRAM) -> int:
  """Writes the report and prints where it is; 2 for a mistake of the user."""
  workdir = parser(program).parse_args(argv).workdir

  def write():
    if not workdir:
      raise UserError('--workdir= is empty; give the folder of the runs')
    with usable(workdir):
      print(report.write(workdir))

  return preempt.command(write)


if __name__ == '__main__':
  sys.exit(main())
