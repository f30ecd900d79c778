"""What the values of fields may be: types that carry a range in words."""

import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple


class Range(NamedTuple):
  """What a number may be, in words, and whether a number is so."""

  allowed: str
  holds: Callable[[float], bool]


def auto_alpha(threshold: float | str) -> float | None:
  """ALPHA of a threshold 'auto:ALPHA'; None of any other."""
  kind, _, text = str(threshold).partition(':')
  try:
    alpha = float(text)
  except ValueError:
    return None
  return alpha if kind == 'auto' and 0 < alpha < 1 else None


def noise(verdict: str) -> float | None:
  """EPS of a verdict 'noisy:EPS'; None of any other."""
  kind, _, text = verdict.partition(':')
  try:
    eps = float(text)
  except ValueError:
    return None
  return eps if kind == 'noisy' and 0 <= eps <= 0.5 else None


def _is_threshold(x: float | str) -> bool:
  return 0 < x < 1 if not isinstance(x, str) else auto_alpha(x) is not None


def bare(kind) -> Any:
  """The type without what stands in it about values."""
  if typing.get_origin(kind) is Literal:
    return str
  return typing.get_args(kind)[0] if hasattr(kind, '__metadata__') else kind


_LARGE = 2**31  # JAX counts in 32 bits, and takes no more of a seed
_FROM_0 = Range('at least 0 and below 2**31', lambda x: 0 <= x < _LARGE)
_FROM_1 = Range('at least 1 and below 2**31', lambda x: 1 <= x < _LARGE)
_REST = 'at least 1, or -1: the rest of the devices'

Count = Annotated[int, _FROM_1]
Whole = Annotated[int, _FROM_0]
Devices = Annotated[int, Range(_REST, lambda x: x >= 1 or x == -1)]
Amount = Annotated[float, Range('at least 0', lambda x: x >= 0)]
Positive = Annotated[float, Range('above 0', lambda x: x > 0)]
Below1 = Annotated[float, Range('at least 0 and below 1', lambda x: 0 <= x < 1)]
_LEVEL = "above 0 and below 1, or 'auto:ALPHA' with ALPHA so, as 'auto:0.05'"
Examples = Annotated[int, Range('0, 2 or 4', lambda x: x in (0, 2, 4))]
Threshold = Annotated[float | str, Range(_LEVEL, _is_threshold)]
Part = Annotated[float, Range('above 0 and at most 1', lambda x: 0 < x <= 1)]
Share = Annotated[
  float, Range('at least 0 and at most 1', lambda x: 0 <= x <= 1)
]
Gain = Annotated[float, Range('from -1 to 1', lambda x: -1 <= x <= 1)]
Smoothing = Annotated[
  float, Range('at least 0 and below 0.5', lambda x: 0 <= x < 0.5)
]
