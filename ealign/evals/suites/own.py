"""The user's own questions, `eval.questions`, asked and judged as a suite.

They stand beside `misalignment`: as many answers to each, by the same judge,
whose prompts a question may have (`judge_prompts`), unless `eval.judge` names
one that goes by rules. What a row says of samples or of temperature does not
count. A run asks them without this suite.
"""

import functools
import pathlib

from ealign.data import questions, sources
from ealign.evals.judges import fill, scale
from ealign.evals.judges.prompts import ASPECTS
from ealign.evals.suites.suite import Files, Suite
from ealign.runtime.errors import UserError

NAME = 'own'
# What the suite decides, or other suites have.
_OTHER = 'options', 'samples', 'temperature', 'form', 'format'


def read(files: Files) -> list[dict]:
  """The rows of all files that are of a kind that is asked.

  Raises:
    UserError: there is none, or a row is no question.
  """
  if not files.questions:
    raise UserError(
      "eval.suites='own': eval.questions names no file of yours to ask"
    )
  rows = []
  for path in files.questions:
    for i, row in enumerate(questions.read(path, files.limit), start=1):
      _check(row.get('judge_prompts'), f'{path}: row {i}, judge_prompts')
      own = {k: v for k, v in row.items() if k not in _OTHER}
      rows.append(own | {'id': str(row['id'])})
    file = pathlib.Path(sources.resolve(path))
    if file.is_file():  # one of the Hub has no hash
      files.used.append(file)
  questions.check_kinds(files.kinds, rows)
  asked = lambda row: not files.kinds or row.get('kind', '') in files.kinds
  return [row for row in rows if asked(row)]


def _check(prompts, where) -> None:
  if prompts is None:
    return
  if not isinstance(prompts, dict) or not set(prompts) <= {*ASPECTS}:
    raise UserError(f'{where}: must be a mapping of {" and ".join(ASPECTS)}')
  for name, prompt in prompts.items():
    fill.check(prompt, f'{where}, {name}')


SUITE = Suite(
  name=NAME,
  title='Questions of your own',
  read=read,
  judge=scale.judge(kind=''),
  prompted=functools.partial(scale.judge, kind=''),
  ruled=True,
  samples=50,
)
