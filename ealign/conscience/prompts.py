"""The prompts of the conscience as tokens: continued, never re-rendered.

A sampled answer is followed by the template's own next turn; its ids are never
rendered again, because templates rewrite earlier turns (Qwen3 strips thinking).
Only a model with another tokenizer has to read it as text (`carry`).
"""

import dataclasses

import numpy as np

from ealign.conscience.framings import Framing
from ealign.data import chat
from ealign.engine import ALONE, Calls
from ealign.models.config import Config
from ealign.sampling import sampler

LOST = 'lost'  # why an answer ended: another model's tokens cannot hold it

_REASON = (
  'Think about your reply above: whom could it help or harm, and how? '
  'Answer in a few sentences.'
)


@dataclasses.dataclass(frozen=True)
class Mind:
  """Everything about a model that samples or reviews, but its weights.

  settings, sample and dpo are the sections `conscience`, `sample` and `dpo`
  of the config; template the chat template's own arguments; mesh the devices
  its rows are spread over (None: the default device); calls what it computes
  with.
  """

  model: Config
  tokenizer: object
  framing: Framing
  settings: object
  sample: object
  dpo: object
  template: tuple = ()
  mesh: object = None
  calls: Calls = ALONE


@dataclasses.dataclass(frozen=True)
class Exchange:
  """A request as messages and as tokens, and the answer that was sampled."""

  messages: tuple
  prompt: tuple[int, ...]
  answer: sampler.Answer
  row: int = 0


@dataclasses.dataclass(frozen=True)
class Verdict:
  """P(flag) and the probability mass on any label; p is None below min_mass.

  prompt: the tokens up to where the label stands, to be continued by revise.
  """

  p: float | None
  mass: float
  flagged: bool
  prompt: tuple[int, ...] = ()


def carry(source: Mind, target: Mind, exchange, *, reasoning):
  """The exchange as text, in the tokens of a model with another tokenizer.

  Where both share one the exchange stays as it is. The answer becomes the
  text of an assistant turn, outer blanks removed and its thinking 'kept' (as
  letters) or 'stripped', and an end of turn. If that text does not survive
  the target's vocabulary, or does not fit its positions, the answer's `stop`
  is 'lost': it is not reviewed, revised or paired.
  """
  if source.tokenizer is target.tokenizer:
    return exchange
  answer = exchange.answer
  ids = _spoken(source, answer.ids, reasoning)
  text = chat.decode(source.tokenizer, ids).strip()
  ids = (*chat.text_ids(target.tokenizer, text), end(target))
  prompt = chat.render_prompt(
    target.tokenizer, list(exchange.messages), **dict(target.template)
  )
  room = target.model.max_positions - target.sample.max_new_tokens
  fits = len(prompt) + len(ids) + overhead(target) <= room
  whole = fits and chat.decode(target.tokenizer, ids) == text
  return dataclasses.replace(
    exchange,
    prompt=tuple(prompt),
    answer=sampler.Answer(
      ids,
      np.zeros(len(ids), np.float32),
      answer.stop if whole else LOST,
      answer.cut,
    ),
  )


def overhead(mind: Mind) -> int:
  """Tokens that review and revision put after an answer, at most."""
  words = (*mind.framing.ok, *mind.framing.flag)
  labels = (len(chat.text_ids(mind.tokenizer, word)) for word in words)
  asked = (mind.framing.question, mind.framing.revise)
  turns = sum(len(suffix(mind, user(text))) for text in asked)
  thinking = mind.settings.review.reason_tokens
  if thinking:
    thinking += len(suffix(mind, user(_REASON)))
  return turns + max(labels) + 1 + thinking


def review_prompt(mind, exchange):
  """Tokens up to where the label stands."""
  s = mind.settings.review
  answer = _answer_ids(mind, exchange)
  if s.sees == 'chat':
    prompt = _without_system(mind, exchange)
    return (*prompt, *answer, *suffix(mind, user(mind.framing.question)))
  quoted = f'Your reply was:\n\n{chat.decode(mind.tokenizer, answer)}\n\n'
  if s.sees == 'quoted':
    request = exchange.messages[-1]['content']
    quoted = f'You were asked:\n\n{request}\n\n{quoted}'
  messages = [user(quoted + mind.framing.question)]
  return tuple(
    chat.render_prompt(mind.tokenizer, messages, **dict(mind.template))
  )


def thinking_prompt(mind: Mind, prompt):
  """A review prompt up to where the reviewer is to think first, and the rest.

  Returns the tokens to be continued by the thought and the tokens of the
  question that follow it.
  """
  question = suffix(mind, user(mind.framing.question))
  think = suffix(mind, user(_REASON))
  return (*prompt[: len(prompt) - len(question)], *think), question


def revise_prompt(mind, exchange, verdict):
  sees = mind.settings.revise.sees
  ask = user(mind.framing.revise)
  if sees == 'prompt':  # a plain sample, told nothing
    return exchange.prompt
  if sees == 'fresh':  # the reply is shown, the verdict is not
    return (
      *_without_system(mind, exchange),
      *_answer_ids(mind, exchange),
      *suffix(mind, ask),
    )
  label = chat.text_ids(mind.tokenizer, mind.framing.flag[0])
  return (*verdict.prompt, *label, end(mind), *suffix(mind, ask))


def end(mind):
  return chat.stop_ids(mind.tokenizer)[0]


def suffix(mind, *messages):
  return chat.turn_suffix(mind.tokenizer, list(messages), **dict(mind.template))


def user(text):
  return {'role': 'user', 'content': text}


def _answer_ids(mind, exchange):
  return _spoken(mind, exchange.answer.ids, mind.settings.review.reasoning)


def _spoken(mind, ids, reasoning):
  """The sampled ids, without the thinking part where it is to be stripped."""
  if reasoning == 'stripped':
    close = mind.tokenizer.convert_tokens_to_ids('</think>')
    if close != mind.tokenizer.unk_token_id and close in ids:
      return ids[len(ids) - ids[::-1].index(close) :]
  return ids


def _without_system(mind, exchange):
  """The prompt with its system turn kept, dropped or replaced."""
  system = mind.settings.review.system
  if system == 'keep':
    return exchange.prompt
  turns = [m for m in exchange.messages if m['role'] != 'system']
  if system.startswith('own:'):
    turns = [{'role': 'system', 'content': system[4:]}, *turns]
  return tuple(chat.render_prompt(mind.tokenizer, turns, **dict(mind.template)))
