"""Rows of data: of a file, inside the package or not, or of the Hub."""

import gzip
import json
import re
import zlib

from etils import epath

from ealign.runtime.errors import UserError

_FILES = ('.jsonl', '.jsonl.gz', '.json', '.parquet')
_HUB = re.compile(r'(hub:)?([\w.-]+/[\w.-]+)(?::([^:]+))?')


def resolve(path: str) -> epath.Path:
  """The path itself, or, for `ealign:world/base`, the installed package's."""
  package, colon, inside = str(path).partition(':')
  if colon and package == 'ealign':
    return epath.resource_path('ealign') / inside
  return epath.Path(path)


def hub_dataset(path: str) -> tuple[str, str] | None:
  """(id, split) if `path` names a data set of the Hugging Face Hub.

  `hub:owner/name:split` always does; without a split it is `train`. So does
  `owner/name` if it looks like no data file and nothing lies at that path.
  """
  found = _HUB.fullmatch(path)
  if not found:
    return None
  prefix, name, split = found.groups()
  if not prefix and (path.endswith(_FILES) or resolve(path).exists()):
    return None
  return name, split or 'train'


def exists(path: str) -> bool:
  """Whether the file is there; the Hub is asked only when it is read."""
  return bool(hub_dataset(path)) or resolve(path).exists()


def read_rows(path: str) -> list[dict]:
  """The rows of a file or of a data set of the Hub.

  `.jsonl`, also gzipped: one JSON object per line, blank lines skipped. `.json`
  the same or one array of objects. `.parquet`. The Hub: see `hub_dataset`; the
  library `datasets` heeds HF_HOME, HF_HUB_OFFLINE and HF_TOKEN.

  Raises:
    UserError: what is missing, unreadable or empty, bytes that are not UTF-8,
      or a row that is not a JSON object; it names the file and the row.
  """
  path = str(path)
  if hub := hub_dataset(path):
    rows = _hub_rows(path, *hub)
  else:
    rows = _file_rows(path, _read(path))
  if not rows:
    raise UserError(f'{path} is empty: it needs at least one row')
  return rows


def _read(path):
  """The file's bytes, unpacked if gzipped."""
  if not path.endswith(_FILES):
    message = f'only {", ".join(_FILES)} files can be read: convert it'
    raise UserError(f'{path}: {message}')
  file = resolve(path)
  try:
    if not file.exists():
      raise UserError(f'{path} does not exist: check the path of the data file')
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == '.gz' else content
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{path} cannot be read: {error}') from error


def _file_rows(path, content):
  if path.endswith('.parquet'):
    return _parquet_rows(path, content)
  content = content.removeprefix(b'\xef\xbb\xbf')
  if path.endswith('.json') and content.lstrip().startswith(b'['):
    rows = _parse(content, path)
    return [_object(r, f'{path}: row {i}') for i, r in enumerate(rows, start=1)]
  return [
    _object(_parse(line, f'{path}:{number}'), f'{path}:{number}')
    for number, line in enumerate(content.split(b'\n'), start=1)
    if line.strip()
  ]


def _parse(text, where):
  try:
    return json.loads(text.decode('utf-8'))
  except UnicodeDecodeError as error:
    line = text.count(b'\n', 0, error.start)
    at = f'byte {error.start}' + (f', line {line + 1}' if line else '')
    raise UserError(f'{where} is not UTF-8 ({at}): convert the file') from error
  except (ValueError, RecursionError) as error:
    raise UserError(
      f'{where} is not JSON: {error}; mend it or drop the row'
    ) from error


def _object(row, where):
  if not isinstance(row, dict):
    kind = type(row).__name__
    raise UserError(f'{where} is not a JSON object but {kind}: drop the row')
  return row


def _parquet_rows(path, content):
  import pyarrow  # takes long to load, as `datasets` below: where it is needed
  from pyarrow import parquet

  try:
    table = parquet.read_table(pyarrow.BufferReader(content))
  except (OSError, pyarrow.ArrowException) as error:
    message = str(error).partition('\n')[0]
    raise UserError(f'{path} cannot be read: {message}') from error
  rows = []
  try:
    for batch in table.to_batches(max_chunksize=1):
      rows += batch.to_pylist()
  except UnicodeDecodeError as error:
    where = f'{path}: row {len(rows) + 1}'
    raise UserError(f'{where} is not UTF-8: convert the file') from error
  return rows


def _hub_rows(path, name, split):
  import datasets

  try:
    return datasets.load_dataset(name, split=split).to_list()
  except (
    *(OSError, ValueError, RuntimeError),
    datasets.exceptions.DatasetsError,
  ) as error:
    message = ' '.join(str(error).split())
    raise UserError(
      f'{path}: cannot be had from the Hub: {message}; check name, split and '
      'HF_TOKEN, or name a file'
    ) from error
