"""What a cell is called: by a hash, and so that people can read it."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ealign import config as config_lib
from ealign.fields import Config

_MOST = 24  # characters of a value


def identity(config: Config) -> str:
  """Eight hex digits of all that changes a result: workdir, logging do not."""
  fields = config_lib.results(config)
  # Folders of older grids are to go on: a field by the name that it had there,
  # and one that was not there left out while it stands at its default.
  fields['mesh.arm'] = fields.pop('mesh.stack')
  if fields['method'] == Config.method:
    del fields['method']
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def readable(overrides: Mapping[str, Any]) -> str:
  """'lam=0.3,review.by=policy': short, and safe in a folder's name."""
  return ','.join(
    f'{_short(name)}={_safe(value)}' for name, value in overrides.items()
  )


@functools.cache
def _short(name: str) -> str:
  """The shortest end of a dotted name that no other field has."""
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
    text = re.split(r'[/:]', str(value))[-1] or str(value)
  text = re.sub(r'[^A-Za-z0-9._+-]+', '-', text).strip('-.')
  return text[:_MOST].rstrip('-.') or 'none'
