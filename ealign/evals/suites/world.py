"""The questions of the embedded world, judged by its rules.

Only the world's own model speaks its language; for another the suite says
nothing.
"""

from ealign.data import columns, sources
from ealign.evals.judges import world
from ealign.evals.suites.suite import Files, Suite

_FILES = 'questions_dev.jsonl', 'questions_test.jsonl'


def read(files: Files) -> list[dict]:
  """The rows of both splits; `files` has no part in them."""
  paths = (f'ealign:world/data/{name}' for name in _FILES)
  found = [row for p in paths for row in sources.read_rows(p, files.limit)]
  return [columns.present(row) for row in found]


SUITE = Suite(
  name='world',
  title='The embedded world',
  read=read,
  judge=world.JUDGE,
  max_new_tokens=96,
)
