"""What a suite is: questions from a file, how they are asked, who judges."""

import dataclasses
import pathlib
from collections.abc import Callable

from ealign.data import sources
from ealign.evals.judges.measure import Judge
from ealign.runtime.errors import UserError

OWN = pathlib.Path(__file__).parents[2] / 'data' / 'suites'


@dataclasses.dataclass(frozen=True)
class Files:
  """Where the question files of suites lie.

  folder: holds public files, at any depth; '' is none, and a suite then asks
  the questions that the package has of its own. limit: MiB of a file.
  """

  folder: str = ''
  limit: int = sources.LIMIT_MIB

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
    return found[0]

  def has(self, name: str) -> bool:
    """Whether the folder holds a file whose path ends like this."""
    folder = pathlib.Path(self.folder).expanduser()
    return bool(self.folder) and any(p.is_file() for p in folder.rglob(name))

  def own(self, name: str) -> pathlib.Path:
    """A file of the package, made by the project."""
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
  """

  name: str
  title: str
  read: Callable[[Files], list[dict]]
  judge: Judge
  samples: int = 1
  temperature: float = 1.0
  max_new_tokens: int = 600
