"""DONE: a run has ended, and these are the hashes of what it left."""

import errno
import hashlib
import json
import pathlib

from ealign.runtime import atomic
from ealign.runtime.errors import UserError

_RESULTS = ('adapter.safetensors', 'answers.jsonl', 'metrics.jsonl')


def _files(folder) -> list[pathlib.Path]:
  """What a run leaves: its records, and an adapter or a whole model."""
  folder = pathlib.Path(folder)
  files = [folder / name for name in _RESULTS]
  files += (folder / 'model').glob('*')
  return sorted(path for path in files if path.is_file())


def _sha256(path) -> str:
  if path.exists() and not path.is_file():
    raise OSError(errno.EINVAL, 'is no regular file')
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write(folder) -> str:
  """Vouches for what the folder of a run holds: {file name: sha256}.

  Returns:
    the hash of DONE itself, for STATUS.json: as `sealed` there it shows that
    DONE is neither gone nor another one.
  """
  folder = pathlib.Path(folder)
  hashes = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder)}
  atomic.write(folder / 'DONE', json.dumps(hashes, indent=1) + '\n')
  return _sha256(folder / 'DONE')


def _sealed(folder: pathlib.Path) -> str:
  """What STATUS.json says of DONE; '' where it is of an older version."""
  try:
    return json.loads((folder / 'STATUS.json').read_text()).get('sealed', '')
  except (OSError, ValueError, RecursionError, AttributeError):
    return ''


def check(folder) -> None:
  """Checks that a run that has ended still holds what it left.

  A folder without DONE is not checked, nor is one whose DONE is empty: that is
  how older versions wrote it.

  Raises:
    UserError: a file was changed or is gone; or DONE itself is damaged.
  """
  path = pathlib.Path(folder) / 'DONE'
  remedy = 'restore it from a copy, or run it again with --retry=all'
  try:
    if (sealed := _sealed(path.parent)) and _sha256(path) != sealed:
      raise UserError(f'{path}: is not what the run left; {remedy}')
    hashes = json.loads(path.read_text() or '{}').items()
  except FileNotFoundError:
    if not sealed:
      return
    raise UserError(f'{path}: is gone; {remedy}') from None
  except (OSError, ValueError, AttributeError):
    raise UserError(f'{path}: is damaged; {remedy}') from None
  for name, wanted in hashes:
    file = path.parent / name
    try:
      if _sha256(file) == wanted:
        continue
      why = 'is not what the run left'
    except OSError as error:
      why = f'cannot be read ({error.strerror})'
    raise UserError(f'{file}: {why} (DONE has its hash); {remedy}')
