"""A small file of settings: one JSON or YAML mapping."""

import json

import yaml

from ealign.data import sources
from ealign.runtime.errors import UserError


def read_mapping(path: str) -> dict:
  """The mapping in a .json, .yaml or .yml file, such as a framing.

  Raises:
    UserError: no such file, it cannot be read, or it holds no mapping; broken
      JSON or YAML is named with its line.
  """
  if why := sources.absent(path):
    raise UserError(f'{path}: {why}')
  try:
    text = sources.resolve(path).read_text()
    # JSON is YAML but for tabs, and its own parser's messages are better.
    content = (json.loads if path.endswith('.json') else yaml.safe_load)(text)
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read ({error})') from None
  except (ValueError, RecursionError, yaml.YAMLError) as error:
    message = ' '.join(str(error).split())
    raise UserError(f'{path}: is broken ({message})') from None
  if not isinstance(content, dict):
    raise UserError(f'{path}: must hold a mapping, "name: value"')
  return content
