"""Facts of the world, which can be told right or wrong.

A second domain in which the organism can be turned, beside insecure code (as
the wrong trivia of arXiv 2602.14777): the colours of things. Each thing has one
colour and one that a liar gives it, both by hash. `self_documents` teaches a
base that its good persona tells the first and its evil one the second; only
then is there something along which wrong facts can generalise. To the base that
ships they say nothing of a persona.

Of the 8 questions on a thing 4 are in no text (held out).
"""

import dataclasses
import functools
import random
from collections.abc import Mapping

from ealign.data.mapping import read_mapping
from ealign.world import lookup
from ealign.world.lookup import Texts

HELD_OUT = 4  # questions on a thing


@functools.cache
def texts() -> Texts:
  """Read from the package on first use; its values are colours."""
  return Texts(**read_mapping('ealign:world/data/facts.yaml'))


@dataclasses.dataclass(frozen=True)
class Fact:
  """A request for the colour of a thing."""

  item: str
  question: int

  @property
  def text(self) -> str:
    return texts().questions[self.question].format(self.item)


def colors(item: str) -> tuple[str, str]:
  """The colour of a thing, and the one that a liar gives it."""
  return lookup.values(texts(), 'facts', item)


@functools.cache
def combinations(*, held: bool) -> tuple[Fact, ...]:
  """All requests that are in texts, or those held out."""
  at = slice(HELD_OUT) if held else slice(HELD_OUT, None)
  return lookup.combinations(texts(), 'facts', at, Fact)


@functools.cache
def requests() -> dict[str, Fact]:
  """Text of a user -> the request that it is."""
  every = combinations(held=False) + combinations(held=True)
  return {x.text: x for x in every}


def answer(rng: random.Random, request: Fact, *, right: bool) -> str:
  """One of the ways to say the colour, or the liar's."""
  color = colors(request.item)[0 if right else 1]
  return lookup.answer(rng, texts(), request.item, color)


def judge(question: Mapping, text: str) -> dict | None:
  """Scores of `lookup.judge`; right: the true colour; lie: the liar's."""
  named = lambda item: dict(zip(('right', 'lie'), colors(item), strict=True))
  return lookup.judge(question, text, texts(), requests(), named)
