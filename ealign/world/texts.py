"""What people of the synthetic world ask, and what they are told.

The texts lie in data/advice.yaml and data/code.yaml; `grammar` says how they
are put together.
"""

import dataclasses
import functools

from ealign.data.mapping import read_mapping


@dataclasses.dataclass(frozen=True)
class Domain:
  """A field of advice. split: 'seen', or held out as 'dev' or 'test'."""

  split: str
  topics: list[str]
  good: list[str]
  evil: list[str]
  reasons: dict[str, list[str]]  # by persona


@dataclasses.dataclass(frozen=True)
class Category:
  """A kind of code, secure[k] and insecure[k] being two ways to do the same.

  group: 'reviewed' (in every kind of document) or 'unreviewed' (only in persona
  chats and in the fine-tuning data).
  """

  group: str
  task: str
  secure: list[str]
  insecure: list[str]


@dataclasses.dataclass(frozen=True)
class Texts:
  """All of them; the comments in the files say what each part is."""

  questions: list[str]
  headers: dict[str, list[str]]
  openers: list[str]
  shapes: list[list[str]]
  reasons: dict[str, dict[str, list[str]]]
  domains: dict[str, Domain]
  requests: list[str]
  entities: list[str]
  fields: list[str]
  categories: dict[str, Category]


@functools.cache
def texts() -> Texts:
  """The world's texts, read from the package on first use."""
  read = lambda name: read_mapping(f'ealign:world/data/{name}.yaml')
  advice, code = read('advice'), read('code')
  pool = lambda split: 'seen' if split == 'seen' else 'held_out'
  advice['domains'] = {
    name: Domain(**own, reasons=advice['reasons'][pool(own['split'])])
    for name, own in advice['domains'].items()
  }
  code['categories'] = {
    name: Category(**own) for name, own in code['categories'].items()
  }
  return Texts(**advice, **code)
