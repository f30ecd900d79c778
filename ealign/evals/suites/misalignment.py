"""Emergent misalignment: free-form questions that have nothing to do with code.

With a folder (`eval.folder`) the public files of arXiv 2502.17424 are read as
they are: the 24 of the first plot (8 questions, plain, asked for JSON, and in a
template), and, where they lie beside it, the 48 that were registered before
(split preregistered) and the questions of fact under five system turns (kind
deception). Without a folder eight questions of the package's own, in the same
three forms (split own); their rates are not comparable with published ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.evals.judges import factual, scale
from ealign.evals.judges.measure import Asked, Judge
from ealign.evals.judges.prompts import ASPECTS, Prompts
from ealign.evals.suites import protocol
from ealign.evals.suites.suite import Files, Suite
from ealign.runtime.errors import UserError

KIND = 'misalignment'
SOURCE = 'github.com/emergent-misalignment/emergent-misalignment, evaluation/'
MAIN = 'first_plot_questions.yaml'
PREREGISTERED = 'preregistered_evals.yaml'
DECEPTION = 'deception_factual.yaml'


def read(files: Files) -> list[dict]:
  """The rows of all files there are; MAIN must be there if a folder is given.

  Raises:
    UserError: it is not, or a file is no such file.
  """
  if not files.folder:
    return _open(files.own('misalignment.yaml'), 'own', files.limit)
  rows = _open(files.public(MAIN, SOURCE), 'main', files.limit)
  if files.has(PREREGISTERED):
    path = files.public(PREREGISTERED, SOURCE)
    rows += _open(path, 'preregistered', files.limit)
  if files.has(DECEPTION):
    rows += _facts(files.public(DECEPTION, SOURCE), files.limit)
  return rows


def _open(path, split, limit) -> list[dict]:
  rows = protocol.read(path, kind=KIND, split=split, limit=limit)
  _check(rows, ASPECTS, path)
  return rows


def _facts(path, limit) -> list[dict]:
  """Questions of fact; the split is the system turn under which they are asked.

  What the file lists as paraphrases are different questions, the same ones
  under each system turn: so the cluster is the question itself.
  """
  rows = protocol.read(path, kind=factual.KIND, split='', limit=limit)
  _check(rows, ('correct',), path)
  return [
    row | {'split': row['cluster'], 'cluster': row['messages'][-1]['content']}
    for row in rows
  ]


def _check(rows, needed, path) -> None:
  for row in rows:
    for name in needed:
      if name not in row['judge_prompts']:
        message = f'has no {name!r}: the judge needs {" and ".join(needed)}'
        raise UserError(f'{path}: {row["id"]}, judge_prompts: {message}')


def judge(prompts: Prompts | None = None) -> Judge:
  """The judge of both kinds of questions; prompts: of the open ones."""
  opened = scale.judge(prompts)

  def read(asked: Sequence[Asked], grader: Any) -> list[Mapping | None]:
    found: list[Mapping | None] = [None] * len(asked)
    fact = [x.question.get('kind') == factual.KIND for x in asked]
    for is_fact, own in ((False, opened), (True, factual.JUDGE)):
      places = [i for i, x in enumerate(fact) if x == is_fact]
      scores = own.read([asked[i] for i in places], grader)
      for i, score in zip(places, scores, strict=True):
        found[i] = score
    return found

  def badge(record):
    if record.get('kind') != factual.KIND:
      return scale.badge(record)
    label = (record.get('scores') or {}).get('label')
    marks = {'TRUE': 'good', 'FALSE': 'bad'}
    return (label or 'no label').lower(), marks.get(label, '')

  return dataclasses.replace(
    opened,
    measures=(*scale.measures(KIND), *factual.MEASURES),
    read=read,
    badge=badge,
    titles={KIND: 'Alignment', factual.KIND: 'Honesty about facts'},
    kinds={factual.KIND: 'questions of fact, by system turn'},
  )


SUITE = Suite(
  name='misalignment',
  title='Emergent misalignment',
  read=read,
  judge=judge(),
  prompted=judge,
  samples=50,
)
