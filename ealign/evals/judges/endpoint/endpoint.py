"""A grader behind an OpenAI-compatible endpoint, asked as an `Engine` is."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ealign.evals.judges.endpoint import asking, client, cost, kept, replies
from ealign.evals.judges.endpoint.cost import Price, Spent
from ealign.evals.judges.endpoint.kept import Kept
from ealign.evals.judges.endpoint.replies import Reply
from ealign.evals.judges.scale import MASS
from ealign.runtime.errors import UserError

MODE, SPLIT = 'top20', 'top20_first_digit'
PREFIX = 'openai:'  # in eval.judge, before the model
_TOP = 20  # tokens that the protocol gives at most
_LABEL = 16  # tokens of a label, at most
_PROBES = 3  # prompts by which a tokenizer that splits numbers is found
_FIXED = {'temperature': 0, 'seed': 0, 'logprobs': True, 'top_logprobs': _TOP}


@dataclasses.dataclass(frozen=True)
class Chats:
  """Stands where an engine has its `Model`: the prompt of a chat is the chat.

  A server applies its own template and tokenizer, so that there are no ids.
  """

  def prompt(self, messages: Sequence[Mapping]) -> tuple[dict, ...]:
    """The messages, each {'role', 'content'} and both text."""
    turn = lambda m: {k: _encodable(m[k]) for k in ('role', 'content')}
    return tuple(map(turn, messages))


def _encodable(text: str) -> str:
  """Text without half characters, which no request can carry."""
  return text.encode('utf-8', 'replace').decode()


@dataclasses.dataclass(frozen=True)
class Scale:
  """What a grader says to a prompt that asks for 0 to 100, by its first token.

  As `sampling.scale.Scale`, of the 20 likeliest tokens.

  Attributes:
    score: mean of the numbers by their probabilities; None: mass below MASS,
      or a first token is only a digit.
    mass: probability of all numbers.
    words: probability of each word, by its first token.
    rest: 1 - mass - words: what was said of all else, or not shown.
    p: probability of 0, 1, ... 100; their sum is `mass`.
    mode: 'top20', whatever was asked for: a server shows no more; or
      'top20_first_digit', where its tokenizer splits numbers into digits, so
      that `p` is of the first digit.
  """

  score: float | None
  mass: float
  words: dict[str, float]
  rest: float
  p: tuple[float, ...]
  mode: str = MODE


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """A model that a server runs.

  The numbers are those of its 20 likeliest first tokens, not of all: local
  judges are exact. Replies are kept by a hash of address, model, messages and
  settings: whoever is stopped asks again only what was under way.

  Attributes:
    name: of the model, as the server knows it.
    send: request -> body of its reply; raises as `retries.failure` says.
    kept: replies of before, and where new ones go.
    address: of the server, for the hash.
    hide: cuts a key out of a text.
    price: of tokens; None: they are counted, and cost nothing.
    cap: dollars that all replies in `kept` may cost together; inf: no cap.
    workers: requests at a time.
    tries: of a request that fails as something that passes.
    say: shows a line.
    field: of the config that names it.
  """

  name: str
  send: Callable[[Mapping], bytes] = dataclasses.field(repr=False)
  kept: Kept = dataclasses.field(repr=False)
  address: str = ''
  hide: Callable[[str], str] = dataclasses.field(default=str, repr=False)
  price: Price | None = None
  cap: float = math.inf
  workers: int = 8
  tries: int = 6
  say: Callable[[str], None] = print
  field: str = 'eval.judge'
  model: Chats = Chats()
  _said: set = dataclasses.field(default_factory=set, repr=False)

  @property
  def where(self) -> str:
    return f"{self.field}='{PREFIX}{self.name}'"

  def scale(
    self,
    prompts: Sequence,
    *,
    words: Sequence[str] = ('CODE', 'REFUSAL'),
    mode: str = MODE,
    groups: Sequence | None = None,
  ) -> list[Scale]:
    """The grader's number 0..100 as a reply to each prompt, or a word.

    Args:
      prompts: chats, from `model.prompt`.
      words: replies allowed beside the numbers.
      mode, groups: of local graders; not used here.

    Raises:
      UserError: the server cannot be asked, or the cap is reached.
    """
    found = self.ask(prompts, written=1)
    mode = SPLIT if self._splits(prompts, found) else MODE
    self._check_names(found)
    return [self._scaled(reply, words, mode) for reply in found]

  def _scaled(self, reply: Reply, words, mode: str) -> Scale:
    ps = replies.numbers(reply)
    mass = math.fsum(ps.values())
    known = mode == MODE and mass >= MASS
    score = math.fsum(k * p for k, p in ps.items()) / mass if known else None
    said = dict(zip(words, self._labelled(reply, words), strict=True))
    rest = max(0.0, 1.0 - mass - math.fsum(said.values()))
    every = tuple(ps.get(k, 0.0) for k in range(101))
    return Scale(score, mass, said, rest, every, mode)

  def labels(
    self,
    prompts: Sequence,
    labels: Sequence[str],
    *,
    groups: Sequence | None = None,
    own: Sequence[Sequence[int]] | None = None,
  ) -> np.ndarray:
    """log P of each label's first token as a reply, float32 [B, M], in nats.

    -inf: not among the 20 likeliest. It is at least that of the whole label,
    and equal for labels of one token (`replies.label_ps`).

    Args:
      prompts: chats, from `model.prompt`.
      labels: must differ in their first tokens.
      groups, own: of local graders; not used here.

    Raises:
      UserError: the labels do not differ in their first tokens, the server
        cannot be asked, or the cap is reached.
    """
    if len(set(labels)) < len(labels):
      raise UserError(self._same('a label stands there twice'))
    written = max(len(label.encode()) for label in labels)
    found = self.ask(prompts, written=min(_LABEL, written))
    self._check_names(found)
    ps_BM = np.array([self._labelled(r, labels) for r in found], np.float64)
    with np.errstate(divide='ignore'):  # log 0 is what it should be
      return np.log(ps_BM).astype(np.float32).reshape(-1, len(labels))

  def _labelled(self, reply: Reply, labels) -> list[float]:
    try:
      return replies.label_ps(reply, labels)
    except ValueError as error:
      raise UserError(self._same(str(error))) from None

  def _same(self, why: str) -> str:
    remedy = 'take labels that differ in their first token, such as letters'
    return f'{self.where}: {why}; {remedy}'

  def ask(self, prompts: Sequence, *, written: int) -> list[Reply]:
    """The reply to each prompt, in their order.

    written: tokens of a reply, at most.
    """
    requests = [
      {'model': self.name, 'messages': list(p), 'max_tokens': written} | _FIXED
      for p in prompts
    ]
    keys = [kept.name(self.address, request) for request in requests]
    todo = dict(zip(keys, requests, strict=True))  # what is alike, once
    todo = {k: v for k, v in todo.items() if k not in self.kept.replies}
    if todo:
      known = len(set(keys)) - len(todo)
      guesses = {k: cost.guess(r['messages'], written) for k, r in todo.items()}
      asking.all_of(todo, guesses, known=known, **self._how)
    return [self.kept.replies[key] for key in keys]

  @property
  def _how(self) -> dict:
    names = 'where send kept hide price cap workers tries say'.split()
    return {name: getattr(self, name) for name in names}

  def _splits(self, prompts, found) -> bool:
    """Whether numbers are split into digits, which it says: a few are asked."""
    seen = [k for reply in found for k in replies.numbers(reply)]
    if not seen or max(seen) > 9:
      return False
    likely = [
      prompt
      for prompt, reply in zip(prompts, found, strict=True)
      if math.fsum(replies.numbers(reply).values()) > 0.5
    ]
    probes = self.ask(likely[:_PROBES], written=4)
    splits = any(replies.split(reply) for reply in probes)
    if splits:
      self._say_once(
        f'{self.where}: its tokenizer splits numbers into digits, and a first '
        'digit is no score, so there is none; take another model, a local '
        'judge, or labels'
      )
    return splits

  def _check_names(self, found) -> None:
    """Says so where one name stood for several systems."""
    names = {(r.served, r.fingerprint) for r in found if r.served}
    if len(names) > 1:
      listed = ', '.join(' '.join(filter(None, n)) for n in sorted(names)[:3])
      self._say_once(f'{self.where}: {len(names)} systems replied: {listed}')

  def _say_once(self, text: str) -> None:
    if text not in self._said:
      self._said.add(text)
      self.say(text)

  def estimate(self, prompts: Sequence, *, written: int = 1) -> Spent:
    """What asking all prompts would cost at most, by the length of texts."""
    return sum((cost.guess(p, written) for p in prompts), Spent())


def connect(
  model: str,
  path: pathlib.Path | str | None,
  *,
  price: Price | None = None,
  cap: float | None = None,
  workers: int = 8,
  tries: int = 6,
  seconds: float = 60.0,
  say: Callable[[str], None] = print,
  field: str = 'eval.judge',
) -> Endpoint:
  """The endpoint at OPENAI_BASE_URL, with the key in OPENAI_API_KEY.

  Args:
    model: as in eval.judge, 'openai:MODEL', or MODEL alone.
    path: where replies are kept; None: nowhere.
    price, workers, tries, say, field: as in `Endpoint`.
    cap: dollars that all replies in the file may cost together.
    seconds: that a reply may take.

  Raises:
    UserError: the package, the key, the model's name or the price is missing.
  """
  name = model.removeprefix(PREFIX).strip()
  where = f"{field}='{PREFIX}{name}'"
  if not name:
    raise UserError(f'{where}: name a model, such as {PREFIX}gpt-4o-2024-08-06')
  if cap is not None and price is None:
    raise UserError(f'{where}: a cap of ${cap:g} needs the price of tokens')
  if cap is not None and not cap >= 0:
    raise UserError(f'{where}: a cap of ${cap:g} must be 0 or more')
  send, hide, address = client.sender(where, seconds=seconds)
  return Endpoint(
    name,
    send,
    Kept(path),
    address=address,
    hide=hide,
    price=price,
    cap=math.inf if cap is None else cap,
    workers=workers,
    tries=tries,
    say=say,
    field=field,
  )
