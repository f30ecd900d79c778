"""The prompts by which a model judges open answers, and files of them.

A file, YAML or JSON, has both prompts, and how the judge replies; without
prompts those of the questions are used, with another `mode`:

  aligned: ... {question} ... {answer} ...
  coherent: ... {question} ... {answer} ...
  mode: exact                    # default; or prefix, top20
  labels: {A: 0, B: 50, C: 100}  # words and their worth, in place of numbers
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

from ealign.data import document, sources
from ealign.evals.judges import fill
from ealign.runtime.errors import UserError

ASPECTS = 'aligned', 'coherent'
MODES = 'exact', 'prefix', 'top20'
WORDS = 'CODE', 'REFUSAL'  # that a judge may say in place of a number
_OWN = pathlib.Path(__file__).parents[2] / 'data/suites/misalignment.yaml'
_FIELDS = (*ASPECTS, 'mode', 'labels')


@dataclasses.dataclass(frozen=True)
class Prompts:
  """How a judge is asked.

  aligned, coherent: prompts with {question} and {answer}, and {mark} where they
    fence the answer by a word that it cannot know (`judges.fill`); '' is that
    of the question's own row.
  mode: of `Engine.scale`: exact, prefix or top20.
  labels: instead of numbers, words with what each is worth, such as
    (('A', 0.), ('B', 50.), ('C', 100.)): the score is the mean of the worths.
  """

  aligned: str = ''
  coherent: str = ''
  mode: str = 'exact'
  labels: tuple[tuple[str, float], ...] = ()

  def of(self, question: Mapping) -> tuple[str, str]:
    """The prompts for a question: the file's, its own, or the package's."""
    own = question.get('judge_prompts') or {}
    found = (getattr(self, name) or own.get(name) for name in ASPECTS)
    return tuple(x or y for x, y in zip(found, default(), strict=True))


@functools.cache
def default() -> tuple[str, str]:
  """The package's own prompts; they differ only after the answer."""
  prompts = document.read(_OWN)[0]['judge_prompts']
  return tuple(prompts[name] for name in ASPECTS)


def read(path: str, limit: int = sources.LIMIT_MIB) -> Prompts:
  """The prompts in a file.

  Raises:
    UserError: it cannot be read, or something in it is not of the form above.
  """
  found = document.read(path, limit)
  if not isinstance(found, dict):
    raise UserError(f'{path}: must hold a mapping, "aligned: ...", "coherent:"')
  for name in found:
    if name not in _FIELDS:
      message = (
        f'has {str(name)[:40]!r}, but only {", ".join(_FIELDS)} are read'
      )
      raise UserError(f'{path} {message}; drop it')
  own = [name for name in ASPECTS if name in found]
  if not own and 'mode' not in found:  # labels need prompts that name them
    raise UserError(f'{path} has no {ASPECTS[0]!r} and no mode: name either')
  for name in ASPECTS if own else ():
    if name not in found:
      raise UserError(f'{path} has no {name!r}: a judge asks for both')
    fill.check(found[name], f'{path}, {name}')
  mode = found.get('mode', MODES[0])
  if mode not in MODES:
    message = (
      f'must be {", ".join(MODES[:-1])} or {MODES[-1]}, not {mode!r:.40}'
    )
    raise UserError(f'{path}, mode: {message}')
  labels = _labels(found.get('labels'), f'{path}, labels')
  if labels and 'mode' in found:
    raise UserError(f'{path}, mode: is of numbers; with labels leave it out')
  texts = {name: found[name] for name in own}
  return Prompts(**texts, mode=mode, labels=labels)


def _labels(value, where) -> tuple[tuple[str, float], ...]:
  if value is None:
    return ()
  if not isinstance(value, dict) or len(value) < 2:
    raise UserError(f'{where}: must be a mapping such as {{A: 0, B: 100}}')
  for name, worth in value.items():
    if not isinstance(name, str) or not name.strip():
      message = f'{name!r:.40} must be text; put it in quotes'
      raise UserError(f'{where}: {message}')
    number = isinstance(worth, int | float) and not isinstance(worth, bool)
    if not number or not 0 <= worth <= 100:
      message = f'{name!r:.40} must be worth 0 to 100, not {worth!r:.40}'
      raise UserError(f'{where}: {message}')
    if name in WORDS:
      raise UserError(f'{where}: {name!r} has a meaning of its own; rename it')
  return tuple((name, float(worth)) for name, worth in value.items())
