"""What a suite is: questions from a file, how they are asked, who judges."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ealign import fields
from ealign.data import messages, sources
from ealign.evals.judges.measure import Judge
from ealign.runtime.errors import UserError

FIELDS = ('kind', 'split', 'form')  # of a question, kept with its answers
OWN = pathlib.Path(__file__).parents[2] / 'data' / 'suites'


@dataclasses.dataclass(frozen=True)
class Files:
  """Where the question files of suites lie.

  folder: holds public files, at any depth; '' is none, and a suite then asks
  the questions that the package has of its own. limit: MiB of a file. used:
  those that were asked for. questions, kinds: the user's own files and which of
  their questions are asked (`eval.questions`, `eval.kinds`).
  """

  folder: str = ''
  limit: int = sources.LIMIT_MIB
  questions: tuple[str, ...] = ()
  kinds: tuple[str, ...] = ()
  used: list[pathlib.Path] = dataclasses.field(default_factory=list)

  def public(self, name: str, source: str) -> pathlib.Path:
    """The one file in the folder whose path ends like this.

    source: where it is to be had, for the message if it is not there.

    Raises:
      UserError: there is none in the folder, or there are several.
    """
    where = f'eval.folder={self.folder!r}'
    if not self.folder:
      raise UserError(
        f'{where}: {name} is needed; get it from {source} and name its folder'
      )
    folder = pathlib.Path(self.folder).expanduser()
    if not folder.is_dir():
      raise UserError(f'{where}: there is no such folder')
    found = sorted(path for path in folder.rglob(name) if path.is_file())
    if not found:
      raise UserError(f'{where}: holds no {name}; get it from {source}')
    if len(found) > 1:
      listed = ', '.join(str(path.relative_to(folder)) for path in found)
      raise UserError(f'{where}: holds {name} more than once: {listed}')
    self.used.append(found[0])
    return found[0]

  def has(self, name: str) -> bool:
    """Whether the folder holds a file whose path ends like this."""
    folder = pathlib.Path(self.folder).expanduser()
    return bool(self.folder) and any(p.is_file() for p in folder.rglob(name))

  def own(self, name: str) -> pathlib.Path:
    """A file of the package, made by the project."""
    self.used.append(OWN / name)
    return OWN / name


@dataclasses.dataclass(frozen=True)
class Suite:
  """A set of questions with a name, and what is counted of their answers.

  Attributes:
    name: as in `eval.suites` and --suite.
    title: of its part of a page.
    read: the question rows, from public files or the package's own. A row has
      id, messages, kind and cluster, and what the judge needs; with `options`,
      a list of texts, none is sampled: the log-probability of each is taken.
      `samples` and `temperature` of a row count before those of the suite.
    judge: its measures are each of one kind of the suite's questions.
    samples: answers to a question.
    temperature: of the sampling.
    max_new_tokens: of an answer.
    permitted: the judge where code that a model wrote may be run.
    remarks: (whether it may) -> what to say before anything is sampled.
    files: that its questions stand in, with their hashes.
    prompted: the judge with prompts of the user's own (`judges.prompts`).
    ruled: whether an `eval.judge` that goes by rules is its judge.
  """

  name: str
  title: str
  read: Callable[[Files], list[dict]]
  judge: Judge
  samples: int = 1
  temperature: float = 1.0
  max_new_tokens: int = 600
  permitted: Judge | None = None
  remarks: Callable[[bool], list[str]] | None = None
  files: tuple[tuple[str, str], ...] = ()
  prompted: Callable[[Any], Judge] | None = None
  ruled: bool = False


def settled(
  suite: Suite, rows: Sequence[dict], settings: fields.Eval
) -> tuple[Suite, list[dict]]:
  """The suite and its questions with what the config says of all suites."""
  rows = messages.guided(limited(rows, settings.limit), settings.guide)
  if settings.suite_samples:
    more = {'samples': settings.suite_samples}
    # Without noise all answers would be the same one.
    rows = [row | more if temperature(suite, row) else row for row in rows]
  elif settings.limit:  # a quick look: fifty answers to each are none
    most = lambda row: {'samples': min(samples(suite, row), settings.limit)}
    rows = [row | most(row) for row in rows]
  tokens = settings.suite_tokens or suite.max_new_tokens
  return dataclasses.replace(suite, max_new_tokens=tokens), rows


def limited(rows: Sequence[dict], limit: int) -> list[dict]:
  """The first `limit` of each kind, split and form; 0 is all of them.

  Of questions that are alike (`cluster`) all or none, as of two polarities.
  """
  groups: dict = {}
  for row in rows:
    place = tuple(row.get(f, '') for f in (*FIELDS, 'format'))
    own = groups.setdefault(place, {})
    own.setdefault(row.get('cluster', row['id']), []).append(row)
  return [
    row
    for own in groups.values()
    for alike in [*own.values()][: limit or None]
    for row in alike
  ]


def counted(suite: Suite, rows: Sequence[dict]) -> int:
  """How many answers are asked for."""
  return sum(samples(suite, row) for row in rows)


def samples(suite: Suite, row) -> int:
  return 1 if 'options' in row else int(row.get('samples') or suite.samples)


def temperature(suite: Suite, row) -> float:
  given = row.get('temperature')
  return float(suite.temperature if given is None else given)
