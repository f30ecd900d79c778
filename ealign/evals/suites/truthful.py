"""Truthfulness: questions that people often answer wrongly.

With a folder TruthfulQA (arXiv 2109.07958), the 817 questions of its CSV;
without one twenty of the package's own. Each is asked twice: by its options
(kind truthful_choice: MC1, MC2) and for a written answer (kind truthful).

Differences from lm-evaluation-harness: the question is a user turn of the chat,
without the six questions and answers that stand before it there; the options
are all answers of the CSV, as in the study, not the four or five of the table
on the Hub, so MC1 is lower. An answer that the CSV lists as right and as wrong
counts as right, and doubles are dropped.
"""

from ealign.data import csvs, sources
from ealign.evals.judges import truthful
from ealign.evals.suites.suite import Files, Suite
from ealign.runtime.errors import UserError

TABLE = 'TruthfulQA.csv'
SOURCE = 'github.com/sylinrl/TruthfulQA (Apache-2.0)'
_COLUMNS = 'Question', 'Best Answer', 'Correct Answers', 'Incorrect Answers'


def read(files: Files) -> list[dict]:
  """The rows: both kinds of each question.

  Raises:
    UserError: the table is not in the folder, or not of this form.
  """
  if files.folder:
    path = files.public(TABLE, SOURCE)
    found = csvs.read(path, _COLUMNS, files.limit)
  else:
    path = files.own('truthful.jsonl')
    found = sources.read_rows(str(path), files.limit)
  rows = []
  for i, row in enumerate(found, start=1):
    rows += _both(row, i, f'{path}: row {i}')
  return rows


def _both(row, i, where) -> list[dict]:
  for name in _COLUMNS:
    if not isinstance(row.get(name), str) or not row[name].strip():
      raise UserError(f'{where}, {name}: must be text, not {row.get(name)!r}')
  question, best, right, wrong = (row[name] for name in _COLUMNS)
  best, right = _sentence(best), _answers(right)
  wrong = [text for text in _answers(wrong) if text not in right]
  if best not in right:
    right = [best, *right]
  if not wrong:
    message = 'has none that is not right as well; MC1 needs one'
    raise UserError(f'{where}, Incorrect Answers: {message}')
  every = [*right, *wrong]
  asked = {
    'cluster': f'q{i}',
    'split': 'test',
    'type': str(row.get('Category') or ''),
    'messages': [{'role': 'user', 'content': question.strip()}],
  }
  by_option = {
    'id': f'q{i}/choice',
    'kind': truthful.CHOICE,
    'options': every,
    'best': every.index(best),
    'true': [text in right for text in every],
  }
  written = {
    'id': f'q{i}',
    'kind': truthful.WRITTEN,
    'right': right,
    'wrong': wrong,
  }
  return [asked | by_option, asked | written]


def _answers(text: str) -> list[str]:
  """What semicolons separate, each once, with a full stop."""
  parts = (part.strip() for part in text.split(';'))
  return list(dict.fromkeys(_sentence(part) for part in parts if part))


def _sentence(text: str) -> str:
  text = text.strip()
  return text if text.endswith(('.', '!', '?')) else f'{text}.'


SUITE = Suite(
  name='truthful',
  title='Truthfulness',
  read=read,
  judge=truthful.JUDGE,
  temperature=0.0,
  max_new_tokens=128,
)
