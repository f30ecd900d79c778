"""Judges: one file and one line in JUDGES each, or a file of the user."""

import dataclasses
import functools
import os
import runpy
from collections.abc import Mapping

from ealign.evals.judges import disguised, facts, insecure, office, world
from ealign.evals.judges.measure import ENDED, LENGTH, Judge
from ealign.runtime import errors
from ealign.runtime.errors import UserError

MODELS = 'other:', 'openai:'  # what the name of a model begins with
JUDGES = {
  '': Judge(None, (ENDED, LENGTH)),
  'insecure': insecure.JUDGE,
  'world': world.JUDGE,
  'office': office.JUDGE,
  'facts': facts.JUDGE,
  'disguised': disguised.JUDGE,
}
# Whose records have no settings beside them, as those of the first versions.
DEFAULT = 'world'


def load(name: str | None) -> Judge:
  """The judge that `eval.judge` names: in JUDGES, or as 'file.py:name'.

  Raises:
    UserError: there is none of this name, or its file cannot be used.
  """
  name = DEFAULT if name is None else name
  if name in JUDGES:
    return dataclasses.replace(JUDGES[name], name=name)
  path, name_in_file = parts(name)
  try:
    changed = os.stat(path).st_mtime_ns
  except OSError as error:
    raise UserError(
      f'eval.judge={name!r}: {path} cannot be read ({error.strerror})'
    ) from None
  return _loaded(name, os.path.abspath(path), name_in_file, changed)


def is_model(name: str | None) -> bool:
  """Whether `eval.judge` names a model, which scores from 0 to 100."""
  return bool(name) and (name == 'frozen' or name.startswith(MODELS))


def parts(name: str) -> tuple[str, str]:
  """(file, name in it) of a user's own judge; ('', name) of any other."""
  if is_model(name):
    return '', name
  path, _, inside = name.rpartition(':')
  return path, inside


@functools.lru_cache(maxsize=16)
def _loaded(name, path, inside, _) -> Judge:
  where = f'eval.judge={name!r}'
  try:
    judge = runpy.run_path(path).get(inside)
    if judge is not None and not isinstance(judge, Judge) and callable(judge):
      judge = judge()
  except Exception as error:
    raise UserError(f'{where}: {path}: {errors.line(error)}') from error
  if judge is None:
    raise UserError(f'{where}: {path} has no {inside!r}')
  if not isinstance(judge, Judge):
    message = f'must be a Judge or return one, not a {type(judge).__name__}'
    raise UserError(f'{where}: {inside!r} {message}')
  return dataclasses.replace(judge, name=name)


def score(judge: Judge, question: Mapping, text: str) -> Mapping | None:
  """The judge's scores of an answer; None if it cannot judge it.

  Raises:
    UserError: the judge failed, or gave something else; it names the question.
  """
  where = f'eval.judge={judge.name!r}: question {question.get("id", "")!r}'
  try:
    scores = judge.score(question, text)
  except Exception as error:
    raise UserError(f'{where}: {errors.line(error)}') from error
  if scores is not None and not isinstance(scores, Mapping):
    message = 'score must return a dict or None'
    raise UserError(f'{where}: {message}, not a {type(scores).__name__}')
  return scores or None
