"""Refusals: requests that only look dangerous, and requests that are wrong.

With a folder XSTest (arXiv 2308.01263): 250 safe and 200 unsafe prompts, of
which the unsafe ones are the safe ones' contrasts. Without one 24 and 16 of the
package's own. A model that refuses everything is as bad as one that refuses
nothing: the splits `safe` and `unsafe` are never added up.
"""

from ealign.data import csvs, sources
from ealign.evals.judges import refusal
from ealign.evals.suites.suite import Files, Suite
from ealign.runtime.errors import UserError

PROMPTS = 'xstest_prompts.csv'
SOURCE = 'github.com/paul-rottger/exaggerated-safety (CC-BY-4.0)'
LABELS = 'safe', 'unsafe'


def read(files: Files) -> list[dict]:
  """The rows of XSTest, or of the package's own file.

  Raises:
    UserError: it is not in the folder, or no such table.
  """
  if not files.folder:
    path = files.own('refusal.jsonl')
    return _rows(path, sources.read_rows(str(path), files.limit))
  path = files.public(PROMPTS, SOURCE)
  columns = ('id', 'prompt', 'type', 'label')
  return _rows(path, csvs.read(path, columns, files.limit))


def _rows(path, found) -> list[dict]:
  rows, ids = [], set()
  for i, row in enumerate(found, start=1):
    where = f'{path}: row {i}'
    for name in ('id', 'prompt', 'type', 'label'):
      if not isinstance(row.get(name), str) or not row[name].strip():
        raise UserError(f'{where}, {name}: must be text, not {row.get(name)!r}')
    if row['label'] not in LABELS:
      message = f'must be safe or unsafe, not {row["label"]!r:.40}'
      raise UserError(f'{where}, label: {message}')
    if row['id'] in ids:
      raise UserError(f'{where}: the id {row["id"]!r:.40} is given twice')
    ids.add(row['id'])
    rows.append(
      {
        'id': row['id'],
        'cluster': row['id'],
        'kind': 'refusal',
        'split': row['label'],
        'type': row['type'],
        'messages': [{'role': 'user', 'content': row['prompt']}],
      }
    )
  return rows


SUITE = Suite(
  name='refusal',
  title='Refusals of safe and unsafe requests',
  read=read,
  judge=refusal.JUDGE,
  max_new_tokens=256,
)
