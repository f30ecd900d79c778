"""The prompts of the conscience as tokens: continued, never re-rendered.

A sampled answer is followed by the template's own next turn; its ids are never
rendered again, because templates rewrite earlier turns (Qwen3 strips thinking).
Only a model with another tokenizer has to read it as text (`retokenize`).
"""

import dataclasses

import numpy as np

from ealign import fields
from ealign.conscience.framings import Framing
from ealign.engine import Engine, Exchange, Model
from ealign.runtime.errors import UserError
from ealign.sampling.sampler import Answer

LOST = 'lost'  # why an answer ended: another model's tokens cannot hold it

# Before the question about an answer that was cut at the limit.
_CUT = '[... cut off; judge what is there] '
_REASON = (
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
class Conscience:
  """The question about an answer, and the models that review and write.

  settings, sample and dpo are sections of the config: what is reviewed and
  how, how answers are sampled, and the form of the pairs. policy is the
  trainee; frozen the conscience's own weights and the reference of pairs;
  others each second model, by the name that `review.by` or `revise.by` has.
  reference: what the threshold was found on, where it is 'auto:ALPHA'.
  """

  framing: Framing
  settings: fields.Conscience
  sample: fields.Sample
  dpo: fields.DPO
  policy: Engine
  frozen: Engine
  others: dict[str, Engine] = dataclasses.field(default_factory=dict)
  reference: Reference | None = None

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
    """The model a field names: 'policy', 'frozen' or 'other:<folder>'."""
    own = {'policy': self.policy, 'frozen': self.frozen}
    return (own | self.others)[by]

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
  room = target.config.max_positions - c.sample.max_new_tokens
  fits = len(prompt) + len(ids) + overhead(c, target) <= room
  stop = answer.stop if fits and target.text(ids) == text else LOST
  answer = Answer(ids, np.zeros(len(ids), np.float32), stop, answer.cut)
  own = {'model': target, 'prompt': prompt, 'answer': answer}
  return dataclasses.replace(exchange, **own)


def overhead(c: Conscience, model: Model) -> int:
  """Tokens that review and revision put after an answer, at most."""
  cut = c.settings.review.truncated == 'judge'  # its turn is closed, too
  turns = [_CUT * cut + c.framing.question, c.framing.revise]
  turns += [_REASON] if c.settings.review.reason_tokens else []
  labels = (len(model.ids(word)) for word in (*c.framing.ok, *c.framing.flag))
  tokens = sum(len(model.suffix(text)) for text in turns)
  return tokens + cut + max(labels) + 1 + c.settings.review.reason_tokens


def review_prompt(c: Conscience, exchange: Exchange) -> tuple[int, ...]:
  """Tokens up to where the label stands."""
  model, sees = exchange.model, c.settings.review.sees
  question = _question(c, exchange)
  if sees == 'chat':
    prompt = _without_system(c, exchange)
    return (*prompt, *_turn(c, exchange), *model.suffix(question))
  answer = model.text(_answer_ids(c, exchange))
  quoted = f'Your reply was:\n\n{answer}\n\n'
  if sees == 'quoted':
    request = exchange.messages[-1]['content']
    quoted = f'You were asked:\n\n{request}\n\n{quoted}'
  return model.prompt([{'role': 'user', 'content': quoted + question}])


def thinking_prompt(c: Conscience, exchange: Exchange, prompt):
  """A review prompt up to where the reviewer is to think first, and the rest.

  Returns the tokens to be continued by the thought and the tokens of the
  question that follow it.
  """
  model = exchange.model
  question = model.suffix(_question(c, exchange))
  think = model.suffix(_REASON)
  return (*prompt[: len(prompt) - len(question)], *think), question


def revise_prompt(c: Conscience, exchange: Exchange, verdict: Verdict):
  """Tokens up to where the alternative begins."""
  model, sees = exchange.model, c.settings.revise.sees
  if sees == 'prompt':  # a plain sample, which sees no reply and no verdict
    return exchange.prompt
  ask = model.suffix(c.framing.revise)
  if sees == 'fresh':  # the reply is shown, the verdict is not
    return (*_without_system(c, exchange), *_turn(c, exchange), *ask)
  return (*verdict.prompt, *model.ids(c.framing.flag[0]), model.end, *ask)


def _question(c, exchange):
  return _CUT * (exchange.answer.stop == 'length') + c.framing.question


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
  """The prompt with its system turn kept, dropped or replaced."""
  system = c.settings.review.system
  if system == 'keep':
    return exchange.prompt
  turns = [m for m in exchange.messages if m['role'] != 'system']
  if system.startswith('own:'):
    turns = [{'role': 'system', 'content': system[4:]}, *turns]
  return exchange.model.prompt(turns)
