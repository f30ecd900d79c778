"""What asking an endpoint costs: guessed before, counted afterwards."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ealign.evals.judges.endpoint.replies import Reply
from ealign.runtime.errors import UserError

_CHARACTERS = 4.0  # of a token of English
_TURN, _CHAT = 4, 3  # tokens that frame a message, and a chat
_MILLION = 1e6


@dataclasses.dataclass(frozen=True)
class Price:
  """Dollars for a million tokens, read and written."""

  read: float
  written: float

  @classmethod
  def of(cls, text: str, field: str = '--price') -> 'Price':
    """From 'IN,OUT'.

    Raises:
      UserError: these are not two prices.
    """
    try:
      read, written = (float(part) for part in text.split(','))
    except ValueError:
      read = written = math.nan
    if not (0 <= read < math.inf and 0 <= written < math.inf):
      message = 'must be the dollars for a million tokens read and written'
      raise UserError(f'{field}={text!r}: {message}, such as 2.50,10')
    return cls(read, written)


@dataclasses.dataclass(frozen=True)
class Spent:
  """Tokens of replies. guessed: replies whose server did not count them."""

  replies: int = 0
  read: int = 0
  written: int = 0
  guessed: int = 0

  def __add__(self, other: 'Spent') -> 'Spent':
    both = zip(
      dataclasses.astuple(self), dataclasses.astuple(other), strict=True
    )
    return Spent(*(a + b for a, b in both))

  def dollars(self, price: Price) -> float:
    read, written = self.read * price.read, self.written * price.written
    return (read + written) / _MILLION

  def text(self, price: Price | None) -> str:
    """Such as '2,400 replies, 1,204,112 tokens read, 2,400 written, $3.03'."""
    about = 'about ' if self.guessed else ''
    said = f'{self.replies:,} replies, {about}{self.read:,} tokens read, '
    said += f'{self.written:,} written'
    return f'{said}, {about}${self.dollars(price):,.2f}' if price else said


def guess(messages: Sequence[Mapping], written: int) -> Spent:
  """What a request will cost, by the length of its text."""
  size = sum(len(m['content']) / _CHARACTERS + _TURN for m in messages)
  return Spent(1, math.ceil(size) + _CHAT, written, 1)


def of(reply: Reply, guessed: Spent) -> Spent:
  """What a reply cost: as its server counts, else as was guessed."""
  return Spent(1, *reply.usage) if reply.usage else guessed
