"""Asks a server what is not kept yet, within what it may cost."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping

from ealign.evals.judges.endpoint import cost, pool, replies, retries
from ealign.evals.judges.endpoint.cost import Price, Spent
from ealign.evals.judges.endpoint.kept import Kept
from ealign.evals.judges.endpoint.replies import Reply
from ealign.runtime.display import clock
from ealign.runtime.errors import UserError, line

_SECONDS = 20.0  # between lines of progress
_SHORT, _LONG = 'max_tokens', 'max_completion_tokens'  # of older, newer models


def all_of(
  todo: Mapping[str, Mapping],
  guesses: Mapping[str, Spent],
  *,
  known: int,
  where: str,
  send: Callable[[Mapping], bytes],
  kept: Kept,
  hide: Callable[[str], str],
  price: Price | None,
  cap: float,
  workers: int,
  tries: int,
  say: Callable[[str], None],
) -> None:
  """Sends all requests and keeps the replies as they arrive.

  Args:
    todo: name -> request. guesses: what each will cost.
    known: replies of before, for the first line.
    where: begins each line.
    the others: as in `Endpoint`.

  Raises:
    UserError: a request failed for good, or the next would go above the cap.
  """
  text = sum(guesses.values(), Spent()).text(price)
  old = f' ({known:,} replies of before are kept)' if known else ''
  say(f'{where}: to ask: {text.replace("replies", "requests", 1)}{old}')
  tally = _Tally(kept, guesses, price, cap, where, say)
  stop = threading.Event()
  asker = _Asker(todo, send, tries, stop, lambda why: tally.note(hide(why)))
  try:
    pool.each(
      todo,
      asker.ask,
      tally.take,
      workers=min(workers, len(todo)),
      stop=stop,
      admit=tally.admit,
    )
  except UserError as error:
    done = f'{tally.spent.replies:,} of {len(todo):,} replies are kept'
    why = f'{where}: {hide(line(error))}'
    text = f'{why}; {done}, the same command continues'
    raise type(error)(text) from None  # its exit code, too
  finally:
    say(f'{where}: in all {kept.spent.text(price)}')


@dataclasses.dataclass
class _Asker:
  """What the threads do."""

  todo: Mapping[str, Mapping]
  send: Callable[[Mapping], bytes]
  tries: int
  stop: threading.Event
  note: Callable[[str], None]
  field: str = _SHORT

  def ask(self, key: str) -> Reply:
    try:
      return retries.persist(
        lambda: self._once(self.todo[key]),
        tries=self.tries,
        wait=self.stop.wait,
        note=self.note,
      )
    except retries.Filtered:
      return Reply(filtered=True)

  def _once(self, request: Mapping) -> Reply:
    field = self.field
    if field != _SHORT:
      rest = {k: v for k, v in request.items() if k != _SHORT}
      request = rest | {field: request[_SHORT]}
    try:
      return replies.parse(self.send(request))
    except replies.Malformed as error:
      raise retries.Again(f'a malformed reply: {error}') from None
    except replies.NoLogprobs:
      raise UserError(
        'it gives no log-probabilities, without which nothing can be judged; '
        'take a model and a server that give them'
      ) from None
    except UserError as error:
      if field == _SHORT and _LONG in str(error):
        self.field = _LONG
        raise retries.Again(str(error), 0.0) from None
      raise


class _Tally:
  """Keeps replies, adds up what they cost, and stops at the cap."""

  def __init__(self, kept, guesses, price, cap, where, say):
    self.kept, self.guesses, self.price, self.cap = kept, guesses, price, cap
    self.where, self.say = where, say
    self.flying: dict[str, Spent] = {}
    self.spent = Spent()  # by these replies
    self.counted = self.guessed = 0  # tokens read, where a server counts them
    self.begun = self.shown = time.monotonic()
    self.noted = -math.inf

  def take(self, key: str, reply: Reply) -> None:
    del self.flying[key]
    spent = cost.of(reply, self._corrected(self.guesses[key]))
    if reply.usage:
      self.counted += spent.read
      self.guessed += self.guesses[key].read
    self.spent += spent
    self.kept.add(key, reply, spent)
    now = time.monotonic()
    left = len(self.guesses) - self.spent.replies
    if left and now - self.shown >= _SECONDS:
      self.shown = now
      rest = clock((now - self.begun) / self.spent.replies * left)
      self.say(f'{self.where}: {self.spent.text(self.price)}; {rest} left')

  def admit(self, key: str) -> None:
    """Lets a request begin, unless it would go above the cap."""
    self.flying[key] = self.guesses[key]
    if not self.price or self.cap == math.inf:
      return
    due = self._corrected(sum(self.flying.values(), Spent()))
    if (self.kept.spent + due).dollars(self.price) > self.cap:
      del self.flying[key]
      raise UserError(
        f'the next request would go above the cap of ${self.cap:g}: '
        f'{self.kept.spent.text(self.price)} so far; raise the cap'
      )

  def _corrected(self, guess: Spent) -> Spent:
    """By how much longer texts were, so far, than their length let guess."""
    ratio = self.counted / self.guessed if self.guessed else 1.0
    return dataclasses.replace(guess, read=math.ceil(guess.read * ratio))

  def note(self, why: str) -> None:
    """Says why one is asked again; called from the threads, so rarely."""
    now = time.monotonic()
    if now - self.noted >= _SECONDS:
      self.noted = now
      self.say(f'{self.where}: ' + ' '.join(why.split()))
