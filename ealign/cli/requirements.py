"""What the package needs of others, and which versions are here."""

import dataclasses
import importlib.metadata
import re

# The versions that results may depend on.
SHOWN = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'transformers', 'numpy')
# By extra, what of it is looked for: a wheel says no more than 'jax[tpu]'.
EXTRAS = {
  'tpu': ('libtpu',),
  'cuda': ('jax-cuda12-plugin',),
  'gcs': ('gcsfs',),
  'gguf': ('gguf',),
  'tensorboard': ('tensorboardX',),
}
_FORM = re.compile(
  r'([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*\(?([^;()]*)\)?\s*(;.*)?'
)
_PART = re.compile(r'\s*(>=|<=|==|!=|<|>)\s*([0-9][0-9a-zA-Z.]*)\s*')


@dataclasses.dataclass(frozen=True)
class Needed:
  """One requirement. version: what is here, '' if it is not installed."""

  name: str
  text: str
  version: str
  wrong: bool


def needed(name: str = 'ealign') -> list[Needed]:
  """What `name` cannot do without; [] if pip has not installed it."""
  try:
    listed = importlib.metadata.requires(name) or []
  except importlib.metadata.PackageNotFoundError:
    return []
  found = []
  for text in listed:
    match = _FORM.fullmatch(text.strip())
    if match and 'extra' not in (match[3] or ''):
      here = version(match[1])
      wrong = not here or not allowed(here, match[2])
      found.append(Needed(match[1].lower(), text, here, wrong))
  return found


def extras() -> dict[str, list[str]]:
  """By extra, which of its packages are not installed."""
  return {
    extra: [name for name in names if not version(name)]
    for extra, names in EXTRAS.items()
  }


def version(name: str) -> str:
  """The version that is installed; '' if none is."""
  try:
    return importlib.metadata.version(name) or ''
  except importlib.metadata.PackageNotFoundError:
    return ''


def allowed(here: str, bounds: str) -> bool:
  """Whether a version is within bounds such as '>=0.7.2,<1'."""
  tests = {
    '>=': lambda a, b: a >= b,
    '<=': lambda a, b: a <= b,
    '==': lambda a, b: a == b,
    '!=': lambda a, b: a != b,
    '<': lambda a, b: a < b,
    '>': lambda a, b: a > b,
  }
  for part in filter(None, bounds.split(',')):
    match = _PART.fullmatch(part)
    if match and not tests[match[1]](_numbers(here), _numbers(match[2])):
      return False
  return True


def _numbers(text: str) -> tuple[int, ...]:
  """The release of a version: '0.10.2.dev3' is (0, 10, 2), '1.0' is (1,)."""
  found = re.match(r'\d+(\.\d+)*', text)
  numbers = [int(x) for x in found[0].split('.')] if found else []
  while numbers and not numbers[-1]:
    numbers.pop()
  return tuple(numbers)
