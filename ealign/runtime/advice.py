"""Advice of libraries that is none to who uses this package."""

import contextlib
import os
from collections.abc import Iterator

_TRANSFORMERS = 'TRANSFORMERS_NO_ADVISORY_WARNINGS'


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
  """Within the block transformers can be imported without a word.

  Else it says that PyTorch was not found, which nothing here needs.
  """
  before = os.environ.get(_TRANSFORMERS)
  os.environ[_TRANSFORMERS] = '1'
  try:
    yield
  finally:
    if before is None:
      del os.environ[_TRANSFORMERS]
    else:
      os.environ[_TRANSFORMERS] = before
