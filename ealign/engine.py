"""Model and Engine: chats in; answers, label and pair log-probabilities out.

An `Engine` is the only way in which evaluation, conscience and methods
generate or score. What computes for it is its `Backend`: this run alone
(`alone.ALONE`), or a stack that answers several runs together (`stack`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ealign import fields
from ealign.data import chat
from ealign.data.batch import Pair
from ealign.models.config import Config
from ealign.runtime.errors import UserError
from ealign.sampling import prompts as batching
from ealign.sampling import requests
from ealign.sampling import scale as scales
from ealign.sampling.choose import Sampling
from ealign.sampling.sampler import Answer


@dataclasses.dataclass(frozen=True)
class Model:
  """How a model reads and writes: its shape, its tokens, its chat template.

  A tokenizer may have added tokens for which the embedding has no row (Gemma 3
  1B has one, for images): what would read one is a UserError.

  template: the chat template's own arguments, as (name, value).
  """

  config: Config
  tokenizer: object
  template: tuple = ()

  def prompt(self, messages) -> tuple[int, ...]:
    """The tokens of a chat up to where its next answer begins."""
    messages, more = list(messages), dict(self.template)
    return self.held(chat.render_prompt(self.tokenizer, messages, **more))

  def suffix(self, text: str) -> tuple[int, ...]:
    """The tokens of one more user turn, after an answer that has ended."""
    turn, more = {'role': 'user', 'content': text}, dict(self.template)
    return self.held(chat.turn_suffix(self.tokenizer, [turn], **more))

  def ids(self, text: str) -> tuple[int, ...]:
    return self.held(chat.text_ids(self.tokenizer, text))

  def exchanges(self, chats) -> list['Exchange']:
    """Given chats that end with an assistant turn, as if it were sampled."""
    result = []
    for i, (*request, reply) in enumerate(chats):
      ids = (*self.ids(reply['content']), self.end)
      answer = Answer(ids, np.zeros(len(ids), np.float32), 'stop', 0.0)
      prompt = self.prompt(request)
      result.append(Exchange(self, tuple(request), prompt, answer, i))
    return result

  def held(self, ids) -> tuple[int, ...]:
    """The ids, each of which must have a row in the embedding."""
    ids, rows = tuple(ids), self.config and self.config.vocab_size
    if rows and max(ids, default=0) >= rows:
      token = self.tokenizer.convert_ids_to_tokens(max(ids))
      raise UserError(
        f'the token {token!r} has the id {max(ids)}, but the embedding only '
        f'{rows} rows: the model has not learnt it'
      )
    return ids

  def text(self, ids) -> str:
    return chat.decode(self.tokenizer, ids)

  @property
  def end(self) -> int:
    """The token that ends a turn."""
    return self.held(self.stops[:1])[0]

  @property
  def stops(self) -> tuple[int, ...]:
    """The tokens that end an answer: `end`, then the tokenizer's own."""
    return chat.stop_ids(self.tokenizer, **dict(self.template))


@dataclasses.dataclass(frozen=True)
class Exchange:
  """A request as messages and as tokens of `model`, and its sampled answer."""

  model: Model
  messages: tuple
  prompt: tuple[int, ...]
  answer: Answer
  row: int = 0

  @property
  def text(self) -> str:
    return self.model.text(self.answer.ids)

  @property
  def chat(self) -> list[dict]:
    """The messages with the answer as the assistant's turn."""
    return [*self.messages, {'role': 'assistant', 'content': self.text}]


@dataclasses.dataclass(frozen=True)
class Backend:
  """The functions a run computes with.

  generate, label_logps, pair_logps: the answers to `sampling.requests`.
  step: (update, state, frozen, batch) -> (state, metrics). state: what `step`
    returned as an `align.TrainState`.
  share: share(name, make) is make(), or what another run made of that name.
  apart: apart(function, *args), of what runs do one after another.
  alone: whether no other run computes in this process.
  """

  generate: Callable
  label_logps: Callable
  pair_logps: Callable
  step: Callable
  state: Callable
  share: Callable
  apart: Callable
  alone: bool


@dataclasses.dataclass(frozen=True)
class Engine:
  """A model with weights, on the devices of a mesh.

  weights: bound with an adapter or not. mesh: rows are spread over its devices
  (None: the default device). rows: width of a batch. reviewer: what judges
  chats; `assembly` gives it where there is a conscience.
  """

  model: Model
  weights: dict | None
  backend: Backend
  mesh: jax.sharding.Mesh | None = None
  rows: int = 64
  reviewer: Callable | None = None

  def of(self, weights: dict) -> 'Engine':
    """The same with other weights, such as those of the policy at a step."""
    return dataclasses.replace(self, weights=weights)

  def answer(
    self,
    chats: Sequence,
    *,
    sample: fields.Sample | None = None,
    key: jax.Array | None = None,
    row_ids: Sequence[int] | None = None,
  ) -> list[Exchange]:
    """Samples an answer to each chat (a list of messages).

    Args:
      chats: each ends before the answer.
      sample: how to sample, a section of the config. Default `fields.Sample()`.
      key: of the noise; the same key gives the same answers. Default key(0).
      row_ids: the noise of an answer depends on its id alone. Default 0, 1, ...
    """
    prompts = [self.model.prompt(messages) for messages in chats]
    row_ids = range(len(prompts)) if row_ids is None else row_ids
    key = jax.random.key(0) if key is None else key
    sample = sample or fields.Sample()
    answers = self.generate(prompts, sample=sample, key=key, row_ids=row_ids)
    return [
      Exchange(self.model, tuple(m), p, a, r)
      for m, p, a, r in zip(chats, prompts, answers, row_ids, strict=True)
    ]

  def generate(
    self, prompts, *, sample: fields.Sample, key, row_ids
  ) -> list[Answer]:
    """Samples an answer to each prompt (token ids)."""
    settings = Sampling(
      temperature=sample.temperature,
      top_k=sample.top_k,
      top_p=sample.top_p,
      max_new_tokens=sample.max_new_tokens,
    )
    request = requests.Answers(
      self.model.config,
      self.weights,
      prompts,
      key=key,
      settings=settings,
      stop_ids=self.model.stops,
      max_tokens=sample.max_new_tokens,
      row_ids=row_ids,
      rows=self.rows,
      truncate=sample.candidates,
      mesh=self.mesh,
    )
    return self.backend.generate(request)

  def labels(
    self,
    prompts,
    labels: Sequence[str],
    *,
    groups: Sequence | None = None,
    own: Sequence[Sequence[int]] | None = None,
  ) -> np.ndarray:
    """log P(label and the end of its turn | prompt), float32 [B, M].

    groups, own: of each prompt: what its start is read with, and which labels
    are wanted (`requests.Labels`).
    """
    ids = tuple((*self.model.ids(text), self.model.end) for text in labels)
    of = self.model.config, self.weights, prompts, ids
    how = {'rows': self.rows, 'mesh': self.mesh, 'groups': groups, 'own': own}
    return self.backend.label_logps(requests.Labels(*of, **how))

  def scale(
    self,
    prompts,
    *,
    words: Sequence[str] = ('CODE', 'REFUSAL'),
    mode: str = 'exact',
    groups: Sequence | None = None,
  ) -> list[scales.Scale]:
    """The score of 0 to 100 that the model gives after each prompt (token ids).

    words: what it may say instead. mode: how it is read, of `scale.MODES`.
    groups: as in `labels`.
    """
    form = scales.MODES[mode](self.model.ids, self.model.end, words)
    of = self.model.config, self.weights, prompts, form.labels
    how = {'rows': self.rows, 'mesh': self.mesh, 'groups': groups}
    asked = requests.Labels(*of, **how, rest=True, top=form.top)
    return scales.read(form, self.backend.label_logps(asked))

  def logps(
    self, pairs: Sequence[Pair], *, slots: int, length: int
  ) -> np.ndarray:
    """log p of each pair's chosen and rejected answer, [P, 2], nats."""
    of = self.model.config, self.weights, pairs
    return self.backend.pair_logps(requests.Pairs(*of, slots, length))

  def options(self, prompts, options: Sequence[Sequence[str]]) -> list:
    """log p of the tokens of each option after its prompt, nats.

    Without an end of turn. options: of each prompt some texts, as many as you
    like; the result has a list for each prompt.
    """
    pairs: dict[int, list] = {}
    for at, texts in enumerate(options):
      prompt, ids = tuple(prompts[at]), [self.model.ids(text) for text in texts]
      for i in range(0, len(ids), 2):  # an odd one is its own other
        pair = Pair(at, i, prompt, ids[i], ids[min(i + 1, len(ids) - 1)])
        longest = max(len(pair.chosen), len(pair.rejected))
        length = batching.bucket(len(prompt) + longest)
        pairs.setdefault(length, []).append(pair)
    found = [[0.0] * len(texts) for texts in options]
    for length, own in sorted(pairs.items()):
      slots = max(1, self.rows // 2)
      for pair, both in zip(
        own, self.logps(own, slots=slots, length=length), strict=True
      ):
        part = found[pair.row][pair.step : pair.step + 2]
        found[pair.row][pair.step : pair.step + 2] = both[: len(part)].tolist()
    return found

  def review(self, chats: Sequence) -> list:
    """The conscience's verdict on each chat that ends with an answer."""
    return self.reviewer(chats)
