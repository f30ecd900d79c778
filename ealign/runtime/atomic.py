"""Files that appear whole: a reader, or a kill, sees the old one or the new."""

import contextlib
import os
import threading

from etils import epath


def write(path, content: str | bytes) -> None:
  """Writes a file at once, on a disk or in a bucket.

  The half-written file beside it carries process and thread in its name, so
  that several writers of one path do not meet.

  Args:
    path: of the file; its folder is made.
    content: text goes as UTF-8.

  Raises:
    OSError: of `path`; the file is as it was.
  """
  path = epath.Path(path)
  data = content.encode() if isinstance(content, str) else content
  path.parent.mkdir(parents=True, exist_ok=True)
  if '://' in str(path):  # an object of a bucket appears whole
    path.write_bytes(data)
    return
  writer = f'{os.getpid()}-{threading.get_ident()}'
  partial = path.with_name(f'.{path.name}.{writer}')
  try:
    partial.write_bytes(data)
    os.replace(partial, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      partial.unlink()
    # Of the file that was asked for: nobody knows the other one.
    raise OSError(error.errno, error.strerror, str(path)) from None
