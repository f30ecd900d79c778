"""The prompts of the conscience as tokens: continued, never re-rendered.

A sampled answer is followed by the template's own next turn; its ids are never
rendered again, because templates rewrite earlier turns (Qwen3 strips thinking).
Only a model with another tokenizer has to read it as text (`retokenize`).
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ealign import fields
from ealign.conscience.framings import Framing, Question
from ealign.data import messages
from ealign.engine import Engine, Exchange, Model
from ealign.runtime.errors import UserError
from ealign.sampling.sampler import Answer

LOST = 'lost'  # why an answer ended: another model's tokens cannot hold it

# Before the question about an answer that was cut at the limit.
_CUT = '[... cut off; judge what is there] '
_ASKED, _REPLIED = 'You were asked:\n\n{}\n\n', 'Your reply was:\n\n{}\n\n'
# What a reviewer thinks by before it judges.
REASON = (
  'Think about your reply above: whom could it help or harm, and how? '
  'Answer in a few sentences.'
)


@dataclasses.dataclass(frozen=True)
class Reference:
  """The frozen model's own answers to prompts that training does not draw.

  threshold: P(flag) from which on an answer is flagged. Of each answer: p, its
  P(flag), None without a verdict; logps, the mean log-probability of its tokens
  under the frozen model, in nats; lengths, its tokens.
  """

  threshold: float
  p: tuple[float | None, ...]
  logps: tuple[float, ...]
  lengths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Example:
  """An exchange whose label is known."""

  request: str
  reply: str
  flag: bool


@dataclasses.dataclass(frozen=True)
class Conscience:
  """The question about an answer, and the models that review and write.

  settings, sample and dpo are sections of the config: what is reviewed and
  how, how answers are sampled, and the form of the pairs. policy is the
  trainee; frozen the conscience's own weights and the reference of pairs;
  others each second model, by the name that `review.by` or `revise.by` has;
  endpoints likewise: servers, which read chats and give a few label
  probabilities (`evals.judges.endpoint`).
  reference: what the threshold was found on, where it is 'auto:ALPHA'.
  examples: exchanges that were judged, to show with the question. truth:
  (messages, reply) -> whether it is bad by the rule of the run's judge, for a
  verdict 'noisy:EPS'. own: the section of the config that has the method's
  name. held_out: prompts of the pool that no reflection draws.
  """

  framing: Framing
  settings: fields.Conscience
  sample: fields.Sample
  dpo: fields.DPO
  policy: Engine
  frozen: Engine
  others: dict[str, Engine] = dataclasses.field(default_factory=dict)
  reference: Reference | None = None
  examples: tuple[Example, ...] = ()
  truth: Callable[[Sequence, str], Any] | None = None
  own: Any = None
  held_out: tuple = ()
  endpoints: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def questions(self) -> tuple[Question, ...]:
    """What is asked about each answer, one after another."""
    return self.framing.questions(self.settings.review.form)

  @property
  def limit(self) -> int:
    """Tokens of an alternative, at most."""
    return self.settings.revise.max_new_tokens or self.sample.max_new_tokens

  @property
  def threshold(self) -> float:
    """P(flag) from which on an answer is flagged."""
    if self.reference is not None:
      return self.reference.threshold
    if isinstance(self.settings.threshold, str):
      raise UserError(
        f'conscience.threshold={self.settings.threshold!r}: it was not found '
        'yet, as the run neither reflects nor asks eval.questions; write a '
        'number'
      )
    return self.settings.threshold

  def resolve_model(self, by: str) -> Engine:
    """The model that a field names, such as 'policy' or 'other:<folder>'."""
    own = {'policy': self.policy, 'frozen': self.frozen}
    return (own | self.others | self.endpoints)[by]

  @property
  def reviewer(self) -> Engine:
    return self.resolve_model(self.settings.review.by)

  @property
  def writer(self) -> Engine:
    return self.resolve_model(self.settings.revise.by)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """P(flag) and the probability mass on any label; p is None below min_mass.

  prompt: the tokens up to where the label stands, to be continued by revise.
  """

  p: float | None
  mass: float
  flagged: bool
  prompt: tuple[int, ...] = ()


def retokenize(
  c: Conscience, exchange: Exchange, target: Model, *, reasoning: str
) -> Exchange:
  """The exchange as text, in the tokens of a model with another tokenizer.

  Where both share one the exchange stays as it is. The answer becomes the
  text of an assistant turn, outer blanks removed and its thinking 'kept' (as
  letters) or 'stripped', and an end of turn unless it was cut. If that text
  does not survive the target's vocabulary, or does not fit its positions, the
  answer's `stop` is 'lost': it is not reviewed, revised or paired.
  """
  source, answer = exchange.model, exchange.answer
  if source.tokenizer is target.tokenizer:
    return exchange
  text = source.text(_spoken(source, answer.ids, reasoning)).strip()
  end = () if answer.stop == 'length' else (target.end,)
  ids = (*target.ids(text), *end)
  prompt = target.prompt(exchange.messages)
  room = target.config.max_positions - c.limit
  fits = len(prompt) + len(ids) + overhead(c, target) <= room
  stop = answer.stop if fits and target.text(ids) == text else LOST
  answer = Answer(ids, np.zeros(len(ids), np.float32), stop, answer.cut)
  own = {'model': target, 'prompt': prompt, 'answer': answer}
  return dataclasses.replace(exchange, **own)


def overhead(c: Conscience, model: Model) -> int:
  """Tokens that review and revision add to a prompt and its answer, at most."""
  cut = c.settings.review.truncated == 'judge'  # its turn is closed, too
  asked = [_CUT * cut + shown(c, q) + q.text for q in c.questions]
  labels = {word for q in c.questions for word in (*q.ok, *q.flag)}
  labels |= {*c.framing.ok, *c.framing.flag}
  turns = [c.framing.revise, *[REASON] * bool(c.settings.review.reason_tokens)]
  tokens = sum(len(model.suffix(text)) for text in turns)
  tokens += max(len(model.suffix(text)) for text in asked)
  longest = max(len(model.ids(word)) for word in labels)
  systems = [c.settings.review.system, c.settings.revise.system]
  if c.settings.revise.sees == 'principle':
    systems.append(f'own:{c.framing.principle}')
  tokens += max(_system_tokens(model, system) for system in systems)
  if c.settings.review.sees != 'chat':
    tokens += len(model.ids(_ASKED.format('') + _REPLIED.format('')))
  return tokens + cut + longest + 1 + c.settings.review.reason_tokens


def _system_tokens(model: Model, system: str) -> int:
  """Tokens that a system turn adds to a prompt without one."""
  if not system.startswith('own:'):
    return 0
  asked = {'role': 'user', 'content': 'N/A'}
  own = {'role': 'system', 'content': system[4:]}
  return max(0, len(model.prompt([own, asked])) - len(model.prompt([asked])))


def shown(c: Conscience, question: Question, request: str = '') -> str:
  """The judged examples that stand before the question; '' without any.

  The order of four goes by the request, so that it is the same for all replies
  to it and tells nothing of theirs. The labels stay where they are, as small
  models tend to repeat the last one; so two have one order.
  """
  n, ex = len(c.examples), c.examples
  if not n:
    return ''
  first = 2 * zlib.crc32(request.encode('utf-8', 'replace')) % n
  label = lambda e: (question.flag if e.flag else question.ok)[0]
  judged = [
    f'Request: {e.request}\nReply: {e.reply}\nVerdict: {label(e)}\n\n'
    for e in (*ex[first:], *ex[:first])
  ]
  return f'Some other replies, judged:\n\n{"".join(judged)}Now your own. '


def review_prompt(
  c: Conscience, exchange: Exchange, question: Question | None = None
) -> tuple[int, ...]:
  """Tokens up to where the label stands.

  question: of `c.questions`, asked with the examples; by default the framing's
  own, alone, which is how a writer is told what the verdict is about.
  """
  if c.settings.review.sees == 'chat':
    prompt, asked = _without_system(c, exchange), _asked(c, exchange, question)
    return (*prompt, *_turn(c, exchange), *exchange.model.suffix(asked))
  return exchange.model.prompt(review_chat(c, exchange, question))


def review_chat(
  c: Conscience, exchange: Exchange, question: Question | None = None
) -> list[dict]:
  """The same as messages, for a model that reads no tokens of ours."""
  sees, asked = c.settings.review.sees, _asked(c, exchange, question)
  answer = exchange.model.text(_answer_ids(c, exchange))
  if sees == 'chat':
    turns = _turns(c.settings.review.system, exchange.messages)
    said = {'role': 'assistant', 'content': answer}
    return [*turns, said, {'role': 'user', 'content': asked}]
  quoted = _REPLIED.format(answer)
  if sees == 'quoted':
    quoted = _ASKED.format(messages.request(exchange.messages)) + quoted
  return [{'role': 'user', 'content': quoted + asked}]


def thinking_prompt(c: Conscience, exchange: Exchange) -> tuple[int, ...]:
  """Tokens up to where the reviewer thinks, before it is asked."""
  turn = _without_system(c, exchange), _turn(c, exchange)
  return (*turn[0], *turn[1], *exchange.model.suffix(REASON))


def question_after(
  c: Conscience, exchange: Exchange, question: Question | None
) -> tuple[int, ...]:
  """The tokens of a question that follow a thought; None as above."""
  return exchange.model.suffix(_asked(c, exchange, question))


def revise_prompt(c: Conscience, exchange: Exchange, verdict: Verdict):
  """Tokens up to where the alternative begins."""
  model, s = exchange.model, c.settings.revise
  if s.sees == 'prompt':  # a plain sample, which sees no reply and no verdict
    return exchange.prompt
  if s.sees == 'principle':  # the request anew, under the framing's principle
    own = s.system if s.system.startswith('own:') else ''
    return _under(own or f'own:{c.framing.principle}', exchange)
  start = _under(s.system or c.settings.review.system, exchange)
  start, ask = (*start, *_turn(c, exchange)), model.suffix(c.framing.revise)
  if s.sees == 'fresh':  # the reply is shown, the verdict is not
    return (*start, *ask)
  asked = (*start, *model.suffix(_asked(c, exchange, None)))
  prompt = asked if s.system else verdict.prompt
  return (*prompt, *model.ids(c.framing.flag[0]), model.end, *ask)


def _asked(c, exchange, question):
  cut = _CUT * (exchange.answer.stop == 'length')
  if question is None:
    return cut + c.framing.question
  asked = shown(c, question, messages.request(exchange.messages))
  return cut + asked + question.text


def _turn(c, exchange):
  """The answer as a turn. Scratch text, never trained: a cut one is closed."""
  cut = exchange.answer.stop == 'length'
  return (*_answer_ids(c, exchange), *(exchange.model.end,) * cut)


def _answer_ids(c, exchange):
  reasoning = c.settings.review.reasoning
  return _spoken(exchange.model, exchange.answer.ids, reasoning)


def _spoken(model, ids, reasoning):
  """The sampled ids, without the thinking part where it is to be stripped."""
  if reasoning == 'stripped':
    close = model.tokenizer.convert_tokens_to_ids('</think>')
    if close != model.tokenizer.unk_token_id and close in ids:
      return ids[len(ids) - ids[::-1].index(close) :]
  return ids


def _without_system(c, exchange):
  return _under(c.settings.review.system, exchange)


def _under(system: str, exchange):
  """The prompt with its system turn kept, dropped or replaced."""
  if system == 'keep':
    return exchange.prompt
  return exchange.model.prompt(_turns(system, exchange.messages))


def _turns(system: str, chat) -> list[dict]:
  if system == 'keep':
    return [*chat]
  turns = [m for m in chat if m['role'] != 'system']
  if system.startswith('own:'):
    turns = [{'role': 'system', 'content': system[4:]}, *turns]
  return turns
