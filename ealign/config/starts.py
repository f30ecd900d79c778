"""What conscience.start='auto' needs of the other fields."""

from collections.abc import Iterator
from typing import Any

from ealign import kinds


def problems(flat: dict[str, Any]) -> Iterator[tuple]:
  """(field, what is wrong) of a conscience that is to begin by itself."""
  name, by = 'conscience.start', flat['conscience.review.by']
  if flat[name] != 'auto':
    return
  if by != 'policy':
    what = "needs conscience.review.by='policy', not"
    yield name, f'{what} {by!r}, which does not learn; or use first'
  if not flat['conscience.exchanges']:
    what = "names no file for conscience.start='auto' to ask about"
    yield 'conscience.exchanges', f'{what}; name one'
  if kinds.auto_alpha(flat['conscience.threshold']) is not None:
    what = "is found before the first step, and conscience.start='auto' is for"
    what += ' a model that cannot answer then'
    yield 'conscience.threshold', f'{what}; write a number, such as 0.5'
