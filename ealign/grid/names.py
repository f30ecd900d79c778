"""Names of cells: a hash, and a text that people can read."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config

_USUAL = config_lib.flatten(Config())
_MOST = 24  # characters of a value
# Fields, and sections of methods, that came after the first grids.
_NEWER = ('method', 'iteralign.', 'mistakes.', 'eval.guide')
_NEWER += ('conscience.review.share', 'conscience.review.examples_of')
_NEWER += ('conscience.start',)


def identity(config: Config) -> str:
  """A hash, eight hex digits, of all fields that can change a result."""
  fields = config_lib.results(config)
  # Older grids must keep their hashes: a renamed field counts by its old name,
  # a new one only where it is not at its default.
  fields['mesh.arm'] = fields.pop('mesh.stack')
  newer = [name for name in fields if name.startswith(_NEWER)]
  for name in newer:
    if fields[name] == _USUAL[name]:
      del fields[name]
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def readable(overrides: Mapping[str, Any]) -> str:
  """Such as 'lam=0.3,review.by=policy': short, and safe as a folder's name."""
  return ','.join(
    f'{_short(name)}={_safe(value)}' for name, value in overrides.items()
  )


@functools.cache
def _short(name: str) -> str:
  """The shortest end of a field's dotted name that no other field ends in."""
  parts = name.split('.')
  for start in reversed(range(len(parts))):
    end = '.'.join(parts[start:])
    alike = [n for n in config_lib.field_types() if f'.{n}'.endswith(f'.{end}')]
    if alike == [name]:
      return end
  return name


def _safe(value: Any) -> str:
  if isinstance(value, tuple | list):
    text = '+'.join(map(_safe, value))
  elif isinstance(value, float):
    text = f'{value:g}'
  else:
    text = str(value).replace('noisy:', 'noisy-')
    text = re.split(r'[/:]', text)[-1] or text
  text = re.sub(r'[^A-Za-z0-9._+-]+', '-', text).strip('-.')
  return text[:_MOST].rstrip('-.') or 'none'
