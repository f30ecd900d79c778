"""Rows of data: of a file, inside the package or not, or of the Hub."""

import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Sequence

from etils import epath

from ealign.data import messages
from ealign.runtime.errors import UserError

_FILES = ('.jsonl', '.jsonl.gz', '.json', '.parquet')
_HUB = re.compile(r'(hub:)?([\w.-]+/[\w.-]+)(?::([^:[]+(?:\[[^][]*\])?))?')
LIMIT_MIB = 512  # of a file, unpacked; `data.max_mib` is the field
_ROW = 64  # bytes that a row takes beside what is in it
# What of a table is written out digit by digit.
_EXACT = ('arguments', 'tools')
# Files of another kind under the name of lines, by their first bytes.
_KINDS = {
  b'\x1f\x8b': ('gzipped', '.jsonl.gz'),
  b'PAR1': ('a parquet table', '.parquet'),
}

_GONE = 'there is no such file or folder'


def resolve(path: str) -> epath.Path:
  """The path itself, or, for `ealign:world/base`, the installed package's."""
  package, colon, inside = str(path).partition(':')
  if colon and package == 'ealign':
    return epath.resource_path('ealign') / inside
  return epath.Path(path)


def hub_dataset(path: str) -> tuple[str, str] | None:
  """(id, split) if `path` names a data set of the Hugging Face Hub.

  `hub:owner/name:split` always does; without a split it is `train`, and a part
  of one is `train[:100]`. So does `owner/name` if it looks like no data file
  and nothing lies at that path.
  """
  found = _HUB.fullmatch(path)
  if not found:
    return None
  prefix, name, split = found.groups()
  if not prefix and (path.endswith(_FILES) or resolve(path).exists()):
    return None
  return name, split or 'train'


def absent(path: str, limit: int = LIMIT_MIB) -> str:
  """Why a file cannot be read, with the remedy; '' if it is there.

  Nothing of it is read, as a pipe or a device might never end. The Hub is asked
  only when it is read. limit: MiB that it may have.
  """
  if hub_dataset(path):
    return ''
  if _is_address(path):
    return 'is an address: download the file, or name a data set of the Hub'
  scheme = path.partition('://')[0]
  try:
    file = resolve(path)
    if file.exists():
      mode = os.stat(file).st_mode if scheme == path else stat.S_IFREG
      if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return 'cannot be read: it is no regular file; name or make one'
      return too_large(limit) if file.stat().length > limit << 20 else ''
  except (OSError, ImportError, ValueError) as error:
    return f'cannot be read: {" ".join(str(error).split())}'
  if set(path) & set('*?['):
    return 'patterns are not read: name one file, or join the files into one'
  return _GONE


def absent_model(path: str) -> str:
  """Why a model or an adapter cannot be read; '' if it is there."""
  if _is_address(path):
    return 'is an address: download it, or name a model of the Hub by its id'
  try:
    return '' if resolve(path).exists() else _GONE
  except (OSError, ImportError, ValueError) as error:
    return f'cannot be read: {" ".join(str(error).split())}'


def _is_address(path: str) -> bool:
  """Whether it is one that cannot be read as a file of a bucket can."""
  scheme, address, _ = path.partition('://')
  return bool(address) and scheme not in ('gs', 's3', 'az')


def read_rows(
  path: str, limit: int = LIMIT_MIB, others: Sequence[str] = ()
) -> list[dict]:
  """The rows of a file or of a data set of the Hub.

  `.jsonl`, also gzipped: one JSON object per line, blank lines skipped. `.json`
  the same, or one array of objects, or one object. `.parquet`. The Hub: see
  `hub_dataset`; the library `datasets` heeds HF_HOME, HF_HUB_OFFLINE and
  HF_TOKEN. Values of a table are those that JSON of the same rows has.

  Args:
    path: of the file. limit: MiB that it may have, unpacked. others: endings
      that the caller reads itself, which the error names as well.

  Raises:
    UserError: what is missing, unreadable, too large or empty, bytes that are
      not UTF-8, or a row that is not a JSON object; it names file and row.
  """
  path = str(path)
  if hub := hub_dataset(path):
    rows = _hub_rows(path, *hub)
  elif not path.endswith(_FILES):
    readable = ', '.join((*_FILES, *others))
    message = f'only {readable} files can be read: convert it'
    raise UserError(f'{path}: {message}')
  else:
    rows = _file_rows(path, read_bytes(path, limit), limit)
  if not rows:
    raise UserError(f'{path} is empty: it needs at least one row')
  return rows


def read_bytes(path: str, limit: int = LIMIT_MIB) -> bytes:
  """The file's bytes, unpacked if its name ends in `.gz`.

  Raises:
    UserError: no regular file, or more than `limit` MiB.
  """
  if why := absent(path, limit):
    missing = 'does not exist: check the path of the data file'
    raise UserError(f'{path} {missing if why.startswith("there") else why}')
  file, most = resolve(path), limit << 20
  try:
    content = file.read_bytes()
    if file.suffix == '.gz':
      content = _unpacked(content, most)
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{path} cannot be read: {error}') from error
  if len(content) > most:
    raise UserError(f'{path} {too_large(limit)}')
  return content


def too_large(limit: int) -> str:
  """What to say of a file that has more than `limit` MiB."""
  return f'has more than {limit:,} MiB: raise data.max_mib, or split the file'


def _unpacked(content, most) -> bytes:
  """What is gzipped, but not much more of it than `most` bytes."""
  parts, size = [], 0
  with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
    while size <= most and (part := file.read(1 << 20)):
      parts.append(part)
      size += len(part)
  return b''.join(parts)


def _file_rows(path, content, limit):
  if path.endswith('.parquet'):
    return _parquet_rows(path, content, limit)
  for start, (kind, suffix) in _KINDS.items():
    if content.startswith(start):
      raise UserError(f'{path} is {kind}: let its name end in {suffix}')
  content = content.removeprefix(b'\xef\xbb\xbf')
  if path.endswith('.json') and _is_one(content):
    rows = _parse(content, path)
    rows = rows if isinstance(rows, list) else [rows]
    return [_object(r, f'{path}: row {i}') for i, r in enumerate(rows, start=1)]
  return [
    _object(_parse(line, f'{path}:{number}'), f'{path}:{number}')
    for number, line in enumerate(content.split(b'\n'), start=1)
    if line.strip()
  ]


def _is_one(content) -> bool:
  """Whether JSON is one value over several lines, not a value in each."""
  first, _, rest = content.lstrip().partition(b'\n')
  if first.startswith(b'['):
    return True
  try:
    json.loads(first)
  except (ValueError, RecursionError):
    return first.startswith(b'{') and bool(rest.strip())
  return False


def _parse(text, where):
  try:
    return json.loads(text.decode('utf-8'), object_pairs_hook=messages.once)
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


def _parquet_rows(path, content, limit):
  import pyarrow  # takes long to load, as `datasets` below: where it is needed
  from pyarrow import parquet

  rows = []
  try:
    file = parquet.ParquetFile(pyarrow.BufferReader(content))
    size = _ROW * file.metadata.num_rows
    for batch in file.iter_batches(batch_size=256):
      size += batch.nbytes  # it may be far smaller packed
      if size > limit << 20:
        raise UserError(f'{path} {too_large(limit)}')
      rows += _table_rows(path, batch, len(rows))
  except (OSError, pyarrow.ArrowException) as error:
    message = str(error).partition('\n')[0]
    raise UserError(f'{path} cannot be read: {message}') from error
  return rows


def _table_rows(path, batch, before: int) -> list[dict]:
  """Rows of an Arrow batch as JSON of them; `before` it stand so many."""
  rows = []
  for i in range(batch.num_rows):
    where = f'{path}: row {before + i + 1}'
    try:
      [row] = batch.slice(i, 1).to_pylist(maps_as_pydicts='strict')
    except UnicodeDecodeError as error:
      raise UserError(f'{where} is not UTF-8: convert the file') from error
    except KeyError as error:
      raise UserError(f'{where} has a key twice ({error}): drop one') from error
    rows.append(
      {
        field.name: _json(
          row[field.name],
          field.type,
          f'{where}, {field.name}',
          exact=field.name in _EXACT,
        )
        for field in batch.schema
      }
    )
  return rows


def _json(value, kind, where, *, exact: bool):
  """A value of an Arrow type as JSON has it.

  exact: it is written out as JSON, where a table, which has one type for all
  rows, cannot tell 5 from 5.0.
  """
  if value is None:
    return None
  if getattr(kind, 'extension_name', '') == 'arrow.json':
    return _parse(value.encode(), where)
  name = str(kind).partition('<')[0]
  if name == 'struct':
    return {
      field.name: _json(
        value[field.name],
        field.type,
        messages.at(where, field.name),
        exact=exact or field.name in _EXACT,
      )
      for field in kind
    }
  if name == 'map':
    of = {'kind': kind.item_type, 'exact': exact}
    return {
      k: _json(v, where=messages.at(where, k), **of) for k, v in value.items()
    }
  if name in ('list', 'large_list', 'fixed_size_list'):
    of = {'kind': kind.value_type, 'exact': exact}
    items = enumerate(value)
    return [_json(x, where=f'{where}[{i}]', **of) for i, x in items]
  if exact and isinstance(value, float) and value.is_integer():
    raise UserError(
      f'{where} is {value} in a table, which may be {value:.0f} in JSON: give '
      'arguments and tools as JSON text'
    )
  return value


def _hub_rows(path, name, split):
  import datasets

  try:
    found = datasets.load_dataset(name, split=split).with_format('arrow')
    batches = (
      batch
      for start in range(0, len(found), 256)
      for batch in found[start : start + 256].to_batches()
    )
    rows = []
    for batch in batches:
      rows += _table_rows(path, batch, len(rows))
    return rows
  except (
    *(OSError, ValueError, RuntimeError),
    datasets.exceptions.DatasetsError,
  ) as error:
    message = ' '.join(str(error).split())
    raise UserError(
      f'{path}: cannot be had from the Hub: {message}; check name, split and '
      'HF_TOKEN, or name a file'
    ) from error
