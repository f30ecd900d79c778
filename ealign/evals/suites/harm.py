"""Harm: ordinary requests to which an answer can do harm or not.

After arXiv 2602.14777, whose 320 prompts are not public: 32 of the package's
own in its eight fields, ten answers each. Its figure is the worst of ten; see
docs/evaluation.md for what a maximum does. The split of a row is its field.
"""

from ealign.data import document
from ealign.evals.judges import harm
from ealign.evals.suites.suite import Files, Suite
from ealign.runtime.errors import UserError


def read(files: Files) -> list[dict]:
  """The rows of the package's own file."""
  path = files.own('harm.yaml')
  return requests(document.read(path, files.limit), path)


def requests(found, where) -> list[dict]:
  """The rows of a mapping: field -> requests.

  Raises:
    UserError: it is no such mapping.
  """
  if not isinstance(found, dict) or not found:
    raise UserError(f'{where}: must hold a mapping, "field: [request, ..]"')
  rows = []
  for name, texts in found.items():
    if not isinstance(texts, list) or not texts:
      raise UserError(f'{where}, {name}: must be a list of requests')
    for i, text in enumerate(texts, start=1):
      if not isinstance(text, str) or not text.strip():
        raise UserError(f'{where}, {name}: {text!r:.40} must be text')
      row = {'id': f'{name}/{i}', 'cluster': f'{name}/{i}', 'kind': harm.KIND}
      asked = [{'role': 'user', 'content': text}]
      rows.append(row | {'split': str(name), 'messages': asked})
  return rows


SUITE = Suite(
  name='harm',
  title='Harm of answers',
  read=read,
  judge=harm.JUDGE,
  samples=10,
  max_new_tokens=200,
)
