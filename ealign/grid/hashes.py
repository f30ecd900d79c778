"""Hashes of what a cell's result depends on, to refuse to mix two of them."""

import functools
import hashlib
import json
import pathlib

from etils import epath

from ealign.data import sources
from ealign.fields import Config
from ealign.framing import FRAMINGS
from ealign.models import hub

ROOT = pathlib.Path(__file__).parents[1]
# Modules that change no result: they start a run, plan it or tell of it.
_OUTSIDE = (
  *('report/', 'plan/', 'grid/', 'launch.py', 'command.py', 'scripts.py'),
  *('config.py', 'limits.py', 'workdir.py', 'export.py'),
  *('evals/counts.py', 'evals/stats.py', 'evals/table.py'),
  *('runtime/aot.py', 'runtime/cost.py', 'runtime/hlo.py'),
  *('runtime/display.py', 'world/build.py', 'world/card.py'),
  *('world/documents.py', 'world/tokenizer.py', 'world/__main__.py'),
)
# Parts of grid/ that do: how several runs are computed as one.
_INSIDE = tuple(f'grid/{n}.py' for n in ('arms', 'lanes', 'rows', 'stack'))


def of(config: Config) -> dict[str, str]:
  """Of the data, template, model and code of a run; 'grid:' names resolved."""
  c = config
  data = [c.data.train, *c.pool.paths, *c.eval.questions, *c.eval.curve]
  data.append(c.eval.tokens)
  if c.conscience.framing not in FRAMINGS:
    data.append(c.conscience.framing)
  by = (c.conscience.review.by, c.conscience.revise.by)
  models = [c.model.path, c.model.adapter, c.model.frozen_adapter]
  models += [x.removeprefix('other:') for x in by if x.startswith('other:')]
  return {
    'data': _joined([_data(path) for path in data if path not in ('', 'sft')]),
    'template': _template(c.model.path),
    'model': _joined([_model(path) for path in models if path]),
    'code': code(),
  }


def _joined(parts: list[str]) -> str:
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _data(path: str) -> str:
  """Of a file's bytes; of a data set of the Hub only its name is known."""
  if sources.hub_dataset(path):
    return path
  return _file(sources.resolve(path))


def _model(path: str) -> str:
  folder = sources.resolve(path)
  if not folder.exists() and hub.is_id(path):
    return path
  if not folder.is_dir():
    return ''
  files = [f for f in folder.iterdir() if f.suffix in ('.json', '.safetensors')]
  named = sorted((f.name, f) for f in files if f.name not in _RECORDS)
  return _joined([f'{name} {_file(file)}' for name, file in named])


# What a run writes beside an adapter, and a build beside a model.
_RECORDS = ('run.json', 'STATUS.json', 'plan.json', 'card.json')


def _template(path: str) -> str:
  folder = sources.resolve(path)
  for name in ('chat_template.jinja', 'tokenizer_config.json'):
    if (file := folder / name).exists():
      text = file.read_text()
      if name.endswith('.json'):
        text = str(json.loads(text).get('chat_template'))
      return _joined([text])
  return ''


def _file(path: epath.Path) -> str:
  if not path.exists():
    return ''
  stat = path.stat()
  return _digest(str(path), stat.length, stat.mtime)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, *_) -> str:
  digest = hashlib.sha256()
  with epath.Path(path).open('rb') as file:
    while block := file.read(1 << 24):
      digest.update(block)
  return digest.hexdigest()


@functools.cache
def code() -> str:
  """Of the package's modules that can change a result."""
  digest = hashlib.sha256()
  for path in sorted(ROOT.rglob('*.py')):
    name = path.relative_to(ROOT).as_posix()
    if name in _INSIDE or not name.startswith(_OUTSIDE):
      digest.update(f'{name}\n'.encode() + path.read_bytes())
  return digest.hexdigest()[:16]
