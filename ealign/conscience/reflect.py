"""The conscience: a frozen copy of the model reviews what the trainee says.

One reflection (arXiv 2606.19527), on the policy's own answers to a pool of
requests:

  sample   the policy answers                                  -> answers
  review   "is your reply above ethical or unethical?"         -> P(flag)
  revise   a flagged reply is rewritten, and reviewed again    -> alternative
  score    both under the original request, by the frozen copy -> ref_logps
  push     (alternative, flagged reply) goes to the replay     -> Pair

The verdict is read from the logits where the label would stand: exact, no
sampling and no parsing, so nothing the reply says can stand in its place; it
can still move P (the kinds praise and orders of an audit). Generated text is
continued token by token and never rendered again; only a second model
(`other:<folder>`) as reviewer or writer reads it as text, in its own tokens.
A self-report is not a monitor: pair it with behaviour (`evals`).
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np

from ealign.conscience import asking, noisy, prompts
from ealign.conscience import pairs as pairing
from ealign.conscience import records as reflection
from ealign.conscience.prompts import Conscience, Verdict
from ealign.engine import Engine, Exchange, Model
from ealign.sampling.sampler import Answer

NO_VERDICT = Verdict(p=None, mass=0.0, flagged=False)


def freeze(params):
  """A copy of the weights that no update can reach.

  An alias would be trained along with the policy, or die with its donated
  buffers; this is the only way to make a conscience in full fine-tuning.
  """
  return jax.tree.map(jnp.copy, params)


def retokenized(c: Conscience, exchanges, reader: Model) -> list[Exchange]:
  """The exchanges in the reader's tokens: as they are where it shares ours.

  A server reads chats, and has no tokens.
  """
  if not isinstance(reader, Model):
    return [*exchanges]
  how = {'reasoning': c.settings.review.reasoning}
  return [prompts.retokenize(c, x, reader, **how) for x in exchanges]


def with_review(c: Conscience) -> Engine:
  """The policy, whose `review` asks this conscience about any chats."""

  def reviewer(chats):
    given = c.reviewer.model.exchanges(chats)
    return review(c, c.reviewer, given, key=jax.random.key(0))

  return dataclasses.replace(c.policy, reviewer=reviewer)


def review(c: Conscience, reviewer: Engine, chats, *, key) -> list[Verdict]:
  """Asks the question about each exchange that can be judged.

  Args:
    c: has the question and the threshold.
    reviewer: the model that answers the question.
    chats: list of Exchange, in the reviewer's tokens (`retokenized`). A
      truncated answer gets no verdict, or one on as far as it goes
      (`review.truncated`).
    key: only used where the review reasons first, or is noisy.

  Returns:
    list of Verdict, in order.
  """
  stops = {'skip': ('stop',), 'judge': ('stop', 'length')}
  judged = stops[c.settings.review.truncated]
  asked = [i for i, x in enumerate(chats) if x.answer.stop in judged]
  verdicts = [NO_VERDICT] * len(chats)
  if not asked:
    return verdicts
  some = [chats[i] for i in asked]
  if c.settings.review.noise is None:
    read = asking.ask(c, reviewer, some, key=key)
  else:
    read = noisy.ask(c, some, key=key)
  for i, p, mass, prompt in zip(asked, *read, strict=True):
    if mass < c.settings.min_mass:
      verdicts[i] = Verdict(None, float(mass), False, prompt)
    else:
      flagged = bool(p >= c.threshold)
      verdicts[i] = Verdict(float(p), float(mass), flagged, prompt)
  return verdicts


def revise(c: Conscience, writer: Engine, flagged, *, key) -> list[Answer]:
  """Writes an alternative answer to each flagged exchange.

  Args:
    c: has the request for an alternative, and how it is sampled.
    writer: the model that writes.
    flagged: list of (Exchange, Verdict), in the writer's tokens.
    key: of this reflection; rows are keyed by the exchange's row id.

  Returns:
    list of Answer. Where the exchange did not survive the writer's tokens
    (`retokenize`), it is empty and its `stop` is 'lost'.
  """
  begun = lambda i: prompts.revise_prompt(c, *flagged[i])
  return write(c, writer, [x for x, _ in flagged], begun, key=key)


def write(
  c: Conscience, writer: Engine, exchanges, begun: Callable, *, key
) -> list[Answer]:
  """What a writer says of exchanges, sampled as `conscience.revise` says.

  Args:
    c, writer, key: of `revise`.
    exchanges: list of Exchange, in the writer's tokens.
    begun: begun(i) are the tokens up to where it begins of the i-th.

  Returns:
    list of Answer, as `revise`.
  """
  lost = Answer((), np.zeros(0, np.float32), prompts.LOST, 0.0)
  read = lambda x: x.answer.stop != prompts.LOST
  whole = [i for i, x in enumerate(exchanges) if read(x)]
  own = c.settings.revise
  answers = writer.generate(
    [begun(i) for i in whole],
    sample=dataclasses.replace(
      c.sample,
      temperature=own.temperature,
      top_p=min(own.top_p, c.sample.top_p),
      max_new_tokens=c.limit,
    ),
    key=key,
    row_ids=[exchanges[i].row for i in whole],
  )
  written = dict(zip(whole, answers, strict=True))
  return [written.get(i, lost) for i in range(len(exchanges))]


def alternatives(c, flagged, *, key):
  """The flagged exchanges with what the writer says instead.

  A second model reads text, and its answer comes back as the text of an
  assistant turn, without its thinking. If the tokenizers of reviewer and writer
  differ, the review prompt is rebuilt in the writer's tokens, and the reasoning
  of the reviewer is dropped.
  """
  writer = c.writer
  read = retokenized(c, [x for x, _ in flagged], writer.model)
  verdicts = [v for _, v in flagged]
  reviewer = getattr(c.reviewer.model, 'tokenizer', c.policy.model.tokenizer)
  if writer.model.tokenizer is not reviewer:
    verdicts = [
      dataclasses.replace(v, prompt=prompts.review_prompt(c, x))
      for x, v in zip(read, verdicts, strict=True)
    ]
  written = revise(c, writer, list(zip(read, verdicts, strict=True)), key=key)
  return returned(c, read, written)


def returned(c: Conscience, read, written) -> list[Exchange]:
  """What a writer wrote, as answers in the policy's tokens.

  read: the exchanges that it read, in its own tokens. written: of `write`.
  """
  back = functools.partial(prompts.retokenize, c, reasoning='stripped')
  return [
    back(dataclasses.replace(x, answer=answer), target=c.policy.model)
    for x, answer in zip(read, written, strict=True)
  ]


def reflect(
  c: Conscience, requests, *, key, step, rows, held=(), clock=nullcontext
):
  """One reflection.

  Args:
    c: the conscience, with the policy of this step.
    requests: list of message lists, the prompts of this reflection.
    key: of this step.
    step: written into pairs and records.
    rows: id of each request's row; answers and draws are keyed by it.
    held: the pairs of the replay buffer, whose alternatives are not to be
      repeated without end (`guards.repeats`).
    clock: a context manager for each phase: sample, review, revise, score.

  Returns:
    pairs (scored, in row order) and records (one a sampled answer; see
    `evals.records`).
  """
  seen = look(c, requests, key=key, rows=rows, clock=clock)
  return mend(c, seen, key=key, step=step, held=held, clock=clock)


def look(c: Conscience, requests, *, key, rows, clock=nullcontext):
  """The first half of `reflect`: the policy answers, and is reviewed.

  Returns:
    (Exchange, Verdict, whether it is to be revised) of each request.
  """
  of = functools.partial(jax.random.fold_in, key)
  with clock('sample'):
    answers = c.policy.answer(
      requests, sample=c.sample, key=of(0), row_ids=rows
    )
  verdicts = judge(c, answers, of(1), clock)
  flags = _flags(c, verdicts, rows, key=of(2))
  return list(zip(answers, verdicts, flags, strict=True))


def mend(c: Conscience, seen, *, key, step, held=(), clock=nullcontext):
  """The second half: alternatives, their own review, and the valid pairs.

  seen: of `look`, by the same key. Returns as `reflect`.
  """
  of = functools.partial(jax.random.fold_in, key)
  flagged = [(x, v) for x, v, flag in seen if flag]
  with clock('revise'):
    proposals = alternatives(c, flagged, key=of(3))
    plain = _plain(c, [x for x, _ in flagged], of(5))
  second = judge(c, proposals, of(4), clock)
  made = list(zip(flagged, proposals, second, plain, strict=True))
  with clock('score'):
    pairs, why = pairing.make(c, made, step=step, held=held)
  revised = {x.row: (y, w, why[x.row]) for (x, _), y, w, _ in made}
  return pairs, [
    reflection.record(c, x, v, revised.get(x.row)) for x, v, _ in seen
  ]


def _plain(c, flagged, key) -> list[Answer | None]:
  """The frozen model's own answer to each request, where a guard needs it."""
  if not c.settings.guards.measures:
    return [None] * len(flagged)
  return c.frozen.generate(
    [x.prompt for x in flagged],
    sample=c.sample,
    key=key,
    row_ids=[x.row for x in flagged],
  )


def judge(c: Conscience, chats, key, clock=nullcontext) -> list[Verdict]:
  """The reviewer's verdicts on exchanges in the policy's tokens."""
  with clock('review'):
    chats = retokenized(c, chats, c.reviewer.model)
    return review(c, c.reviewer, chats, key=key)


def _flags(c, verdicts, rows, *, key):
  """Which answers are revised: by the verdict, or by a control's rule."""
  own = c.settings.review
  draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row))
  again = lambda row: jax.random.fold_in(jax.random.fold_in(key, row), 1)
  flags = {
    'inverted': lambda v, row: not v.flagged,
    'all': lambda v, row: True,
    'random': lambda v, row: bool(draw(row) < own.random_rate),
  }.get(own.verdict, lambda v, row: v.flagged)
  some = lambda row: (
    own.share == 1 or jax.random.uniform(again(row)) < own.share
  )
  pairs = zip(verdicts, rows, strict=True)
  return [v.p is not None and flags(v, row) and some(row) for v, row in pairs]
