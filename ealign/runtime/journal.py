"""Files that only grow, and go back with a checkpoint to what they were."""

import hashlib
import os
import pathlib

from ealign.runtime.errors import UserError

NOTHING = {'bytes': 0, 'sha256': hashlib.sha256().hexdigest()}


def mark(path: os.PathLike) -> dict:
  """How long a file is, and the hash of it; what is in it is on the disk.

  Returns:
    bytes: its length, 0 where there is none; sha256: of its content.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return NOTHING
  with path.open('rb') as file:
    os.fsync(file.fileno())
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return {'bytes': file.tell(), 'sha256': digest}


def rewind(path: os.PathLike, to: dict) -> None:
  """Cuts off what was appended since `mark` was taken.

  Raises:
    UserError: the file no longer begins as it was then.
  """
  path, left = pathlib.Path(path), to['bytes']
  if not path.exists() and not left:
    return
  try:
    with path.open('rb+') as file:
      digest = hashlib.sha256(file.read(left)).hexdigest()
      if digest == to['sha256']:
        file.truncate(left)
        return
    why = 'is not what it was when the checkpoint was saved'
  except FileNotFoundError:
    why = 'is gone'
  remedy = 'restore it, or start in a new work folder'
  raise UserError(f'{path}: {why}; {remedy}')
