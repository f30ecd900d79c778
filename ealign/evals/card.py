"""The card of a judge as JSON: written, and read from a file with checks."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from ealign.evals.calibration import Calibration
from ealign.evals.noise import Noise
from ealign.runtime.errors import UserError

VERSION = 1


def to_json(card: Calibration) -> dict[str, Any]:
  """As JSON has it: infinite degrees of freedom are null."""
  return {'version': VERSION} | _plain(dataclasses.asdict(card))


def _plain(value):
  if isinstance(value, Mapping):
    return {str(name): _plain(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(x) for x in value]
  return None if value == math.inf else value


def from_json(value: Any, where: str) -> Calibration:
  """The card that `to_json` wrote.

  Raises:
    UserError: it is something else; `where` and the field are named.
  """
  if not isinstance(value, Mapping) or value.get('version') != VERSION:
    have = value.get('version') if isinstance(value, Mapping) else value
    what = f'is no card of a judge of version {VERSION} (has {have!r:.40})'
    raise UserError(f'{where} {what}; calibrate the judge anew')
  fields = {name: x for name, x in value.items() if name != 'version'}
  return _made(Calibration, fields, where)


def read(path: Any) -> Calibration:
  """The card in a file.

  Raises:
    UserError: it cannot be read, or is no card.
  """
  try:
    with open(path, encoding='utf-8') as file:
      value = json.load(file)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from None
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is not JSON ({error}); calibrate anew') from None
  return from_json(value, str(path))


def _made(kind, value, where):
  """A value of a type of the card from JSON, checked."""
  if isinstance(kind, types.UnionType):
    inner, _ = typing.get_args(kind)
    return None if value is None else _made(inner, value, where)
  origin = typing.get_origin(kind)
  if origin is tuple:
    return _many(typing.get_args(kind), value, where)
  if origin is not None:  # the mapping of noise
    if isinstance(value, Mapping):
      return {k: _made(Noise, x, f'{where}, {k}') for k, x in value.items()}
  elif dataclasses.is_dataclass(kind):
    return _dataclass(kind, value, where)
  elif kind is float and value is None and where.endswith('freedom'):
    return math.inf
  elif kind is float and isinstance(value, int | float):
    if not isinstance(value, bool) and math.isfinite(value):
      return float(value)
  elif type(value) is kind:
    return value
  raise UserError(f'{where}: is {value!r:.40}; calibrate the judge anew')


def _many(kinds, value, where):
  """A tuple; with an ellipsis of one or more."""
  kinds = [kinds[0]] * len(value or ()) if kinds[-1] is ... else list(kinds)
  if not isinstance(value, list) or not value or len(value) != len(kinds):
    raise UserError(f'{where}: is {value!r:.40}; calibrate the judge anew')
  pairs = enumerate(zip(kinds, value, strict=True))
  return tuple(_made(kind, x, f'{where}[{i}]') for i, (kind, x) in pairs)


def _dataclass(kind, value, where):
  hints = typing.get_type_hints(kind)
  if not isinstance(value, Mapping) or set(value) != set(hints):
    have = set(value) if isinstance(value, Mapping) else set()
    off = sorted(map(str, have ^ set(hints)))
    raise UserError(f'{where}: fields differ ({", ".join(off[:4])})')
  made = {k: _made(hints[k], x, f'{where}, {k}') for k, x in value.items()}
  try:
    return kind(**made)
  except ValueError as error:
    raise UserError(f'{where}: {error}') from None
