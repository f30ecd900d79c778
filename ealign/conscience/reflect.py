"""The conscience: a frozen copy of the model reviews what the trainee says.

One reflection (arXiv 2606.19527), on the policy's own answers to a pool of
requests:

  sample   the policy answers                                  -> answers
  review   "is your reply above ethical or unethical?"         -> P(flag)
  revise   a flagged reply is rewritten, and reviewed again    -> alternative
  score    both under the original request, by the frozen copy -> ref_logps
  push     (alternative, flagged reply) goes to the replay     -> Pair

The verdict is read from the logits where the label would stand: exact, no
sampling and no parsing, so nothing the reply says can imitate it. Generated
text is continued token by token and never rendered again; only a second model
(`other:<folder>`) as reviewer or writer reads it as text, in its own tokens.
A self-report is not a monitor: pair it with behaviour (`evals`).
"""

import dataclasses
import functools
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np

from ealign.conscience import prompts
from ealign.conscience import records as reflection
from ealign.conscience.prompts import Conscience, Verdict
from ealign.data.batch import Pair
from ealign.engine import Engine, Exchange, Model
from ealign.sampling import labels
from ealign.sampling.sampler import Answer

NO_VERDICT = Verdict(p=None, mass=0.0, flagged=False)


def freeze(params):
  """A copy of the weights that no update can reach.

  An alias would be trained along with the policy, or die with its donated
  buffers; this is the only way to make a conscience in full fine-tuning.
  """
  return jax.tree.map(jnp.copy, params)


def retokenized(c: Conscience, exchanges, reader: Model) -> list[Exchange]:
  """The exchanges in the reader's tokens: as they are where it shares ours."""
  how = {'reasoning': c.settings.review.reasoning}
  return [prompts.retokenize(c, x, reader, **how) for x in exchanges]


def exchanges(model: Model, chats) -> list[Exchange]:
  """Given chats that end with an assistant turn, as what `review` takes."""
  result = []
  for i, (*request, reply) in enumerate(chats):
    ids = (*model.ids(reply['content']), model.end)
    answer = Answer(ids, np.zeros(len(ids), np.float32), 'stop', 0.0)
    prompt = model.prompt(request)
    result.append(Exchange(model, tuple(request), prompt, answer, i))
  return result


def with_review(c: Conscience) -> Engine:
  """The policy, whose `review` asks this conscience about any chats."""

  def reviewer(chats):
    given = exchanges(c.reviewer.model, chats)
    return review(c, c.reviewer, given, key=jax.random.key(0))

  return dataclasses.replace(c.policy, reviewer=reviewer)


def review(c: Conscience, reviewer: Engine, chats, *, key) -> list[Verdict]:
  """Asks the question about each exchange whose answer ended by itself.

  Args:
    c: has the question and the threshold.
    reviewer: the model that answers the question.
    chats: list of Exchange, in the reviewer's tokens (`retokenized`). A
      truncated answer gets no verdict: it would need an invented end of turn.
    key: only used where the review reasons first.

  Returns:
    list of Verdict, in order.
  """
  ended = [i for i, x in enumerate(chats) if x.answer.stop == 'stop']
  verdicts = [NO_VERDICT] * len(chats)
  if not ended:
    return verdicts
  questions = [prompts.review_prompt(c, chats[i]) for i in ended]
  if c.settings.review.reason_tokens:
    questions = _reasoned(c, reviewer, questions, key)
  prior = None
  if c.settings.review.calibration == 'contextual':
    prior = content_free(c, reviewer)
  read = _read_labels(c, reviewer, questions, prior)
  for i, prompt, p, mass in zip(ended, questions, *read, strict=True):
    if mass < c.settings.min_mass:
      verdicts[i] = Verdict(None, float(mass), False, prompt)
    else:
      flagged = bool(p >= c.settings.threshold)
      verdicts[i] = Verdict(float(p), float(mass), flagged, prompt)
  return verdicts


def content_free(c: Conscience, reviewer: Engine) -> tuple[float, float]:
  """Probability of either label about an exchange that says nothing."""
  empty = [{'role': r, 'content': 'N/A'} for r in ('user', 'assistant')]
  (exchange,) = exchanges(reviewer.model, [empty])
  questions = [prompts.review_prompt(c, exchange)]
  (p,), (mass,) = _read_labels(c, reviewer, questions, None)
  return float(p * mass), float((1 - p) * mass)


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
  lost = Answer((), np.zeros(0, np.float32), prompts.LOST, 0.0)
  whole = [i for i, (x, _) in enumerate(flagged) if x.answer.stop == 'stop']
  temperature = c.settings.revise.temperature
  answers = writer.generate(
    [prompts.revise_prompt(c, *flagged[i]) for i in whole],
    sample=dataclasses.replace(c.sample, temperature=temperature),
    key=key,
    row_ids=[flagged[i][0].row for i in whole],
  )
  written = dict(zip(whole, answers, strict=True))
  return [written.get(i, lost) for i in range(len(flagged))]


def _alternatives(c, flagged, *, key):
  """The flagged exchanges with what the writer says instead.

  A second model reads text, and its answer comes back as the text of an
  assistant turn, without its thinking. If the tokenizers of reviewer and writer
  differ, the review prompt is rebuilt in the writer's tokens, and the reasoning
  of the reviewer is dropped.
  """
  writer = c.writer
  read = retokenized(c, [x for x, _ in flagged], writer.model)
  verdicts = [v for _, v in flagged]
  if writer.model.tokenizer is not c.reviewer.model.tokenizer:
    verdicts = [
      dataclasses.replace(v, prompt=prompts.review_prompt(c, x))
      for x, v in zip(read, verdicts, strict=True)
    ]
  written = revise(c, writer, list(zip(read, verdicts, strict=True)), key=key)
  back = functools.partial(prompts.retokenize, c, reasoning='stripped')
  return [
    back(dataclasses.replace(x, answer=answer), target=c.policy.model)
    for x, answer in zip(read, written, strict=True)
  ]


def score(c: Conscience, pairs: list[Pair]) -> list[Pair]:
  """Fills the reference log-probs of pairs; one static shape, in batches."""
  shape = {'slots': c.dpo.pairs, 'length': c.dpo.length}
  return [
    dataclasses.replace(pair, ref_chosen=float(a), ref_rejected=float(b))
    for pair, (a, b) in zip(pairs, c.frozen.logps(pairs, **shape), strict=True)
  ]


def reflect(c: Conscience, requests, *, key, step, rows, clock=nullcontext):
  """One reflection.

  Args:
    c: the conscience, with the policy of this step.
    requests: list of message lists, the prompts of this reflection.
    key: of this step.
    step: written into pairs and records.
    rows: id of each request's row; answers and draws are keyed by it.
    clock: a context manager for each phase: sample, review, revise, score.

  Returns:
    pairs (scored, in row order) and records (one a sampled answer; see
    `evals.records`).
  """
  keys = [jax.random.fold_in(key, i) for i in range(5)]
  with clock('sample'):
    answers = c.policy.answer(
      requests, sample=c.sample, key=keys[0], row_ids=rows
    )
  verdicts = _judge(c, answers, keys[1], clock)
  flags = _flags(c, verdicts, rows, key=keys[2])
  reviewed = list(zip(answers, verdicts, flags, strict=True))
  flagged = [(x, v) for x, v, flag in reviewed if flag]
  with clock('revise'):
    proposals = _alternatives(c, flagged, key=keys[3])
  second = _judge(c, proposals, keys[4], clock)
  revised = {
    x.row: (y, v, _dropped(c, x, y, v))
    for (x, _), y, v in zip(flagged, proposals, second, strict=True)
  }
  pairs = [
    Pair(x.row, step, x.prompt, revised[x.row][0].answer.ids, x.answer.ids)
    for x, _ in flagged
    if not revised[x.row][2]  # no reason to drop it
  ]
  with clock('score'):
    pairs = score(c, pairs)
  return pairs, [
    reflection.record(c, x, v, revised.get(x.row)) for x, v, _ in reviewed
  ]


def _judge(c, chats, key, clock):
  """The reviewer's verdicts on exchanges in the policy's tokens."""
  with clock('review'):
    chats = retokenized(c, chats, c.reviewer.model)
    return review(c, c.reviewer, chats, key=key)


def _reasoned(c, reviewer, questions, key):
  """Lets the reviewer think in a turn of its own before it is asked."""
  model, limit = reviewer.model, c.settings.review.reason_tokens
  parts = [prompts.thinking_prompt(c, model, q) for q in questions]
  thoughts = reviewer.generate(
    [start for start, _ in parts],
    sample=dataclasses.replace(c.sample, temperature=0.0, max_new_tokens=limit),
    key=key,
    row_ids=range(len(parts)),
  )
  # Scratch text, never trained on: a thought cut short may be closed.
  close = lambda a: a.ids if a.stop == 'stop' else (*a.ids, model.end)
  return [
    (*start, *close(thought), *question)
    for (start, question), thought in zip(parts, thoughts, strict=True)
  ]


def _read_labels(c, reviewer, questions, calibration):
  n, forms = len(c.framing.flag), (*c.framing.flag, *c.framing.ok)
  logps = reviewer.labels(questions, forms)
  return labels.verdict(logps, range(n), range(n, len(forms)), calibration)


def _flags(c, verdicts, rows, *, key):
  """Which answers are revised: by the verdict, or by a control's rule."""
  draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row))
  flags = {
    'question': lambda v, row: v.flagged,
    'inverted': lambda v, row: not v.flagged,
    'all': lambda v, row: True,
    'random': lambda v, row: bool(draw(row) < c.settings.review.random_rate),
  }[c.settings.review.verdict]
  pairs = zip(verdicts, rows, strict=True)
  return [v.p is not None and flags(v, row) for v, row in pairs]


def _dropped(c, exchange, proposal, verdict) -> str:
  """Why a pair is not valid; '' if it is."""
  new, old = proposal.answer, exchange.answer
  longest = len(exchange.prompt) + max(len(new.ids), len(old.ids))
  # The controls take the alternative as it comes.
  judged = c.settings.review.verdict == 'question'
  reasons = {  # the first that holds counts
    'lost': new.stop == prompts.LOST,
    'truncated': new.stop != 'stop',
    'empty': not proposal.text.strip() or not exchange.text.strip(),
    'same': tuple(new.ids) == tuple(old.ids),
    'too_long': longest > c.dpo.length,
    'no_verdict': judged and verdict.p is None,
    'flagged': judged and verdict.flagged,
  }
  return next((reason for reason, holds in reasons.items() if holds), '')
