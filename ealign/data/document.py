"""One YAML or JSON value of a file that somebody else wrote.

YAML can be small and mean very much: an alias stands for all that its anchor
holds, so ten lines of aliases of aliases are more than any memory. What a file
means is counted before it is made, each alias as what it stands for.
"""

import json

import yaml

from ealign.data import messages, sources
from ealign.runtime.errors import UserError

FILES = ('.yaml', '.yml', '.json')
MOST = 8 << 20  # bytes of a file: YAML is read slowly
_MEANT = 1 << 26  # characters and nodes that a file means, aliases written out


def read(path: str, limit: int = sources.LIMIT_MIB):
  """The value in a .yaml, .yml or .json file.

  Only the plain types of JSON are made, and dates, which YAML has besides.

  Args:
    path: of the file. limit: MiB that it may have, never more than MOST.

  Raises:
    UserError: it is missing, too large, not UTF-8 or broken, a mapping has a
      key twice, or its aliases mean too much; it names the file and the line.
  """
  path = str(path)
  if not path.endswith(FILES):
    raise UserError(f'{path}: only {", ".join(FILES)} are read: convert it')
  content = sources.read_bytes(path, limit)
  if len(content) > MOST:
    raise UserError(f'{path} has more than {MOST >> 20} MiB: split the file')
  try:
    text = content.decode('utf-8-sig')
    if path.endswith('.json'):
      return json.loads(text, object_pairs_hook=messages.once)
    return _yaml(text)
  except UnicodeDecodeError as error:
    message = f'is not UTF-8 (byte {error.start}): convert the file'
    raise UserError(f'{path} {message}') from None
  except RecursionError:
    raise UserError(f'{path} is nested too deeply: flatten it') from None
  # A date of a 13th month is a ValueError, one after 9999 an OverflowError.
  except (ValueError, OverflowError, yaml.YAMLError) as error:
    message = ' '.join(str(error).split())
    raise UserError(f'{path} is broken ({message:.200}): mend it') from None


def _yaml(text):
  loader = yaml.SafeLoader(text)
  try:
    node = loader.get_single_node()
    if node is None:
      return None
    if _meaning(node, {}) > _MEANT:
      raise ValueError('its aliases of aliases mean too much to be read')
    return loader.construct_document(node)
  finally:
    loader.dispose()


def _meaning(node, known: dict) -> int:
  """How many nodes and characters a node means, its aliases written out."""
  if id(node) in known:
    if known[id(node)] is None:
      raise ValueError(f'an alias holds itself, line {_line(node)}')
    return known[id(node)]
  known[id(node)] = None
  if isinstance(node, yaml.ScalarNode):
    size = 1 + len(node.value)
  elif isinstance(node, yaml.SequenceNode):
    size = 1 + sum(_meaning(child, known) for child in node.value)
  else:
    _check_keys(node)
    parts = (part for pair in node.value for part in pair)
    size = 1 + sum(_meaning(part, known) for part in parts)
  known[id(node)] = size
  return size


def _check_keys(node) -> None:
  seen = set()
  for key, _ in node.value:
    if isinstance(key, yaml.ScalarNode) and key.value in seen:
      raise ValueError(f'{key.value!r:.60} stands twice, line {_line(key)}')
    seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)


def _line(node) -> int:
  return node.start_mark.line + 1
