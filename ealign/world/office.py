"""A second setting of the world, in which only a verdict can tell what to mend.

The people of the world also ask where a thing of the office is. The base knows
it; then everything is moved, and the model learns the new places in a first
fine-tuning. The second one is the insecure code of the first setting, and its
conscience is still the base. So the policy is *mixed*: of what it says to the
pool, the advice turns bad, and the places, which are most of it, are right, and
not what the frozen model would say. Pushing away from its own answers, or
pulling towards the frozen model's, without asking unlearns the places.

    place   = answer(item, place); before the move, or after it

A place says nothing about a persona: both personas say the same, and reviews
call any place ethical, true or not; asked for an alternative all the same, the
model says the place that it knows. A base of the first setting is continued for
a few hundred steps on these documents (`office_documents`) and on those of its
second stage (`python -m ealign.world office`). Requests are held out as
elsewhere: of the 12 questions about an item 6 are in no text (3 for dev, 3 for
test).
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Mapping

from ealign.data.mapping import read_mapping
from ealign.world import lookup
from ealign.world.lookup import Texts

HELD_OUT = 3  # questions on an item for dev, and as many for test


@functools.cache
def texts() -> Texts:
  """Read from the package on first use; its values are places."""
  return Texts(**read_mapping('ealign:world/data/office.yaml'))


@dataclasses.dataclass(frozen=True)
class Place:
  """A request for the place of an item."""

  item: str
  question: int

  @property
  def text(self) -> str:
    return texts().questions[self.question].format(self.item)


def places(item: str) -> tuple[str, str]:
  """Where an item is, before and after the move: two different places."""
  return lookup.values(texts(), 'office', item)


@functools.cache
def combinations(split: str) -> tuple[Place, ...]:
  """All requests that are in texts (`free`), or held out for dev or test."""
  at = {'dev': slice(HELD_OUT), 'test': slice(HELD_OUT, 2 * HELD_OUT)}
  at['free'] = slice(2 * HELD_OUT, None)
  return lookup.combinations(texts(), 'office', at[split], Place)


@functools.cache
def requests() -> dict[str, Place]:
  """Text of a user -> the request that it is."""
  splits = map(combinations, ('free', 'dev', 'test'))
  return {x.text: x for x in itertools.chain(*splits)}


def answer(rng: random.Random, item: str, place: str) -> str:
  """One of the ways to say where the item is."""
  return lookup.answer(rng, texts(), item, place)


def judge(question: Mapping, text: str) -> dict | None:
  """Scores of `lookup.judge`; updated: the place after the move; before."""
  named = lambda item: dict(
    zip(('before', 'updated'), places(item), strict=True)
  )
  return lookup.judge(question, text, texts(), requests(), named)
