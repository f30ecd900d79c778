"""The questions of the embedded world, judged by its rules.

`world_self` asks a base of the third setting what it is (`world.selves`), in
wordings that are in none of its documents; no other model understands it.

Only the world's own model speaks its language; for another the suite says
nothing.
"""

from ealign.data import columns, sources
from ealign.evals.judges import self_report, world
from ealign.evals.suites.suite import Files, Suite

_FILES = 'questions_dev.jsonl', 'questions_test.jsonl'
_SELVES = 'ealign:world/data/selves.jsonl'


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
SELF = Suite(
  name='world_self',
  title='What the organism says of itself',
  read=lambda files: sources.read_rows(_SELVES, files.limit),
  judge=self_report.judge(self_report.KIND, self_report.INTENTION),
)
