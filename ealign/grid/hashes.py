"""Hashes of what a result depends on: cells must agree on them."""

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Iterator

from etils import epath

from ealign.conscience.framings import FRAMINGS
from ealign.data import sources
from ealign.evals import judges
from ealign.fields import Config
from ealign.models import hub
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
# The files and folders of the package that a result depends on, beside the file
# of its judge. A new module elsewhere, which starts, keeps, plans or reports
# runs, leaves grids in progress alone, and so does a new judge: that is why
# evals/judges/__init__.py, which names them all, is not here.
CODE = tuple(
  """
  align/ alone.py assembly/ conscience/ data/ engine.py evals/answers.py
  evals/asking.py evals/judges/measure.py fields.py kinds.py losses.py method.py
  methods/ models/ replay.py resume.py runtime/mesh.py sampling/ stack/
  train.py world/data/advice.yaml world/data/attacks.yaml world/data/code.yaml
  world/data/facts.yaml world/data/office.yaml world/disguise.py world/facts.py
  world/grammar.py world/lookup.py world/office.py world/texts.py
  """.split()
)
# The same where suites are asked, or a model judges.
ASKED = 'evals/suites/', 'evals/judges/', 'evals/sandbox/'


def of(config: Config) -> dict[str, str]:
  """Hashes of data, template, model and code of a run.

  config: its names 'grid:...' are paths already.

  Raises:
    UserError: a file cannot be read; it is named.
  """
  c = config
  data = [c.data.train, *c.pool.paths, *c.eval.questions, *c.eval.curve]
  data += [c.eval.tokens, judges.parts(c.eval.judge)[0], c.eval.judge_prompts]
  if c.conscience.framing not in FRAMINGS:
    data.append(c.conscience.framing)
  if c.conscience.review.examples:
    data.append(c.conscience.exchanges)
  data.append(c.iteralign.listed)
  by = c.conscience.review.by, c.conscience.revise.by, c.eval.judge
  by += (c.iteralign.proposer,)
  others = [x.removeprefix('other:') for x in by if x.startswith('other:')]
  models = [c.model.path, c.model.adapter, c.model.frozen_adapter, *others]
  return {
    'data': _joined(
      [_data(path) for path in data if path not in ('', 'sft')] + _questions(c)
    ),
    'template': _joined(_templates([c.model.path, *others])),
    'model': _joined([_model(path) for path in models if path]),
    'code': code(c.eval.judge, bool(c.eval.suites)),
  }


def _questions(c: Config) -> list[str]:
  """The questions of the suites, as they are read."""
  if not c.eval.suites:
    return []
  from ealign.evals import suites  # loads what reads data

  return [repr(rows) for _, rows in suites.read(c.eval, c.data.max_mib)]


def _joined(parts: list[str]) -> str:
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _data(path: str) -> str:
  """A hash of a file's bytes; the name of a data set of the Hub."""
  if sources.hub_dataset(path):
    return path
  return _file(sources.resolve(path))


def _model(path: str) -> str:
  folder = sources.resolve(path)
  if not folder.exists() and hub.is_id(path):
    return path
  if not folder.is_dir():  # a GGUF file, if there is one
    return _file(folder)
  with _readable(folder):
    found = list(folder.iterdir())
  files = [f for f in found if f.suffix in ('.json', '.safetensors')]
  named = sorted((f.name, f) for f in files if f.name not in _RECORDS)
  return _joined([f'{name} {_file(file)}' for name, file in named])


# What a run writes beside an adapter, and a build beside a model.
_RECORDS = ('run.json', 'STATUS.json', 'plan.json', 'card.json')


def _templates(paths: list[str]) -> list[str]:
  """Hashes of the chat_template.jinja of models.

  A template in tokenizer_config.json is part of the hash 'model'.
  """
  files = [sources.resolve(path) / 'chat_template.jinja' for path in paths]
  return list(filter(None, map(_file, files)))


def _file(path: epath.Path) -> str:
  if not path.exists():
    return ''
  with _readable(path):
    stat = path.stat()
    return _digest(str(path), stat.length, stat.mtime)


@contextlib.contextmanager
def _readable(path: epath.Path) -> Iterator[None]:
  """Turns an error of reading in the block into a UserError naming the path."""
  try:
    yield
  except OSError as error:
    why = f'cannot be read ({error.strerror}); mend it, or name another'
    raise UserError(f'{path}: {why}') from None


@functools.lru_cache(maxsize=4096)
def _digest(path: str, *_) -> str:
  digest = hashlib.sha256()
  with epath.Path(path).open('rb') as file:
    while block := file.read(1 << 24):
      digest.update(block)
  return digest.hexdigest()


@functools.cache
def code(judge: str = '', asks: bool = False) -> str:
  """A hash of the modules and texts of the package that can change a result.

  judge: the value of `eval.judge`. asks: whether there are suites, of which any
  judge may be.
  """
  digest, counted = hashlib.sha256(), (*CODE, f'evals/judges/{judge}.py')
  if asks or judges.is_model(judge):
    counted += ASKED
  for path in sorted(ROOT.rglob('*')):
    name = path.relative_to(ROOT).as_posix()
    if name.startswith(counted) and path.suffix in ('.py', '.yaml', '.json'):
      digest.update(f'{name}\n'.encode() + path.read_bytes())
  return digest.hexdigest()[:16]
