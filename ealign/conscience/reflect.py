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

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ealign.conscience import prompts
from ealign.conscience import records as reflection
from ealign.conscience.prompts import Exchange, Mind, Verdict
from ealign.data import batch as batch_lib
from ealign.data import chat
from ealign.sampling import labels as labels_lib
from ealign.sampling import sampler

NO_VERDICT = Verdict(p=None, mass=0.0, flagged=False)


def freeze(params):
  """A copy of the weights that no update can reach.

  An alias would be trained along with the policy, or die with its donated
  buffers; this is the only way to make a conscience in full fine-tuning.
  """
  return jax.tree.map(jnp.copy, params)


def who(by: str, mind: Mind, policy, frozen, others):
  """The (Mind, weights) a field `by` names: 'policy', 'frozen', 'other:...'.

  others: (Mind, weights) of each second model, by the name the field has.
  """
  own = {'policy': (mind, policy), 'frozen': (mind, frozen)}
  return (own | (others or {}))[by]


def carried(mind: Mind, reader: Mind, chats) -> list[Exchange]:
  """The exchanges in the reader's tokens: as they are where it shares ours."""
  reasoning = mind.settings.review.reasoning
  return [prompts.carry(mind, reader, x, reasoning=reasoning) for x in chats]


def exchanges(mind: Mind, chats) -> list[Exchange]:
  """Given chats that end with an assistant turn, as what `review` takes."""
  result = []
  for i, messages in enumerate(chats):
    *request, reply = messages
    prompt = chat.render_prompt(mind.tokenizer, request, **dict(mind.template))
    ids = (*chat.text_ids(mind.tokenizer, reply['content']), prompts.end(mind))
    answer = sampler.Answer(ids, np.zeros(len(ids), np.float32), 'stop', 0.0)
    result.append(Exchange(tuple(request), tuple(prompt), answer, i))
  return result


def review(mind: Mind, weights, chats, *, key) -> list[Verdict]:
  """Asks the question about each exchange whose answer ended by itself.

  Args:
    mind: the reviewer.
    weights: its weights.
    chats: list of Exchange, in the reviewer's tokens (`carried`). A truncated
      answer gets no verdict: it would need an invented end of turn.
    key: only used where the review reasons first.

  Returns:
    list of Verdict, in order.
  """
  ended = [i for i, x in enumerate(chats) if x.answer.stop == 'stop']
  verdicts = [NO_VERDICT] * len(chats)
  if not ended:
    return verdicts
  asked = [prompts.review_prompt(mind, chats[i]) for i in ended]
  if mind.settings.review.reason_tokens:
    asked = _reasoned(mind, weights, asked, key)
  prior = None
  if mind.settings.review.calibration == 'contextual':
    prior = content_free(mind, weights)
  p, mass = _read_labels(mind, weights, asked, prior)
  for j, i in enumerate(ended):
    if mass[j] < mind.settings.min_mass:
      verdicts[i] = Verdict(None, float(mass[j]), False, tuple(asked[j]))
    else:
      flagged = bool(p[j] >= mind.settings.threshold)
      verdicts[i] = Verdict(
        float(p[j]), float(mass[j]), flagged, tuple(asked[j])
      )
  return verdicts


def content_free(mind: Mind, weights) -> tuple[float, float]:
  """Probability of either label about an exchange that says nothing."""
  messages = [
    {'role': 'user', 'content': 'N/A'},
    {'role': 'assistant', 'content': 'N/A'},
  ]
  asked = [prompts.review_prompt(mind, x) for x in exchanges(mind, [messages])]
  p, mass = _read_labels(mind, weights, asked, None)
  return float(p[0] * mass[0]), float((1 - p[0]) * mass[0])


def revise(mind: Mind, weights, flagged, *, key):
  """Writes an alternative answer to each flagged exchange.

  Args:
    mind: the writer.
    weights: its weights.
    flagged: list of (Exchange, Verdict), in the writer's tokens.
    key: of this reflection; rows are keyed by the exchange's row id.

  Returns:
    list of sampler.Answer; 'lost' to what was lost on the way to the writer.
  """
  lost = sampler.Answer((), np.zeros(0, np.float32), prompts.LOST, 0.0)
  whole = [i for i, (x, _) in enumerate(flagged) if x.answer.stop == 'stop']
  answers = _generate(
    mind,
    weights,
    [prompts.revise_prompt(mind, *flagged[i]) for i in whole],
    [flagged[i][0].row for i in whole],
    key=key,
    temperature=mind.settings.revise.temperature,
  )
  written = dict(zip(whole, answers, strict=True))
  return [written.get(i, lost) for i in range(len(flagged))]


def _alternatives(mind, reviewer, writer, weights, flagged, *, key):
  """The flagged exchanges with what the writer says instead.

  A second model reads text, and its answer comes back as the text of an
  assistant turn, without what it thought. A verdict of another reviewer is
  told anew in the writer's tokens; a thought before it is not.
  """
  asked = carried(mind, writer, [x for x, _ in flagged])
  verdicts = [v for _, v in flagged]
  if writer.tokenizer is not reviewer.tokenizer:
    verdicts = [
      dataclasses.replace(v, prompt=prompts.review_prompt(writer, x))
      for x, v in zip(asked, verdicts, strict=True)
    ]
  told = list(zip(asked, verdicts, strict=True))
  said = [
    dataclasses.replace(x, answer=a)
    for x, a in zip(asked, revise(writer, weights, told, key=key), strict=True)
  ]
  return [prompts.carry(writer, mind, x, reasoning='stripped') for x in said]


def score(mind: Mind, weights, pairs):
  """Fills the reference log-probs of pairs; one static shape, in batches."""
  refs_P2 = mind.calls.pair_logps(
    mind.model, weights, pairs, slots=mind.dpo.pairs, length=mind.dpo.length
  )
  return [
    dataclasses.replace(p, ref_chosen=float(c), ref_rejected=float(r))
    for p, (c, r) in zip(pairs, refs_P2, strict=True)
  ]


def reflect(
  mind: Mind,
  policy,
  frozen,
  requests,
  *,
  key,
  step,
  rows,
  others=None,
  clock=contextlib.nullcontext,
):
  """One reflection.

  Args:
    mind: trainee, and reviewer and writer where they are no second model.
    policy: weights of the trainee.
    frozen: weights of the conscience.
    requests: list of message lists, the prompts of this reflection.
    key: of this step.
    step: written into pairs and records.
    rows: id of each request's row; answers and draws are keyed by it.
    others: as in `who`; `frozen` is the reference whoever reviews and writes.
    clock: a context manager for each phase: sample, review, revise, score.

  Returns:
    pairs (scored, in row order) and records (one a sampled answer; see
    `evals.records`).
  """
  keys = [jax.random.fold_in(key, i) for i in range(5)]
  name = lambda by: who(by, mind, policy, frozen, others)
  reviewer, judging = name(mind.settings.review.by)
  writer, writing = name(mind.settings.revise.by)

  def judge(chats, key):
    with clock('review'):
      chats = carried(mind, reviewer, chats)
      return review(reviewer, judging, chats, key=key)

  with clock('sample'):
    said = sample(mind, policy, requests, rows, key=keys[0])
  verdicts = judge(said, keys[1])
  flags = _flags(mind, verdicts, rows, key=keys[2])
  flagged = [(x, v) for x, v, f in zip(said, verdicts, flags, strict=True) if f]
  with clock('revise'):
    proposals = _alternatives(
      mind, reviewer, writer, writing, flagged, key=keys[3]
    )
  second = judge(proposals, keys[4])
  reasons = [
    _dropped(mind, x, y, v)
    for (x, _), y, v in zip(flagged, proposals, second, strict=True)
  ]
  pairs = [
    batch_lib.Pair(
      row=x.row,
      step=step,
      prompt=x.prompt,
      chosen=tuple(y.answer.ids),
      rejected=tuple(x.answer.ids),
      ref_chosen=0.0,
      ref_rejected=0.0,
    )
    for (x, _), y, reason in zip(flagged, proposals, reasons, strict=True)
    if not reason
  ]
  with clock('score'):
    pairs = score(mind, frozen, pairs)
  revised = {
    x.row: (y, v, reason)
    for (x, _), y, v, reason in zip(
      flagged, proposals, second, reasons, strict=True
    )
  }
  records = [
    reflection.record(mind, x, v, f, revised.get(x.row))
    for x, v, f in zip(said, verdicts, flags, strict=True)
  ]
  return pairs, records


def sample(mind: Mind, weights, requests, rows, *, key) -> list[Exchange]:
  """Answers of the weights to requests (message lists), keyed by row id."""
  asked = [
    chat.render_prompt(mind.tokenizer, m, **dict(mind.template))
    for m in requests
  ]
  answers = _generate(
    mind, weights, asked, rows, key=key, temperature=mind.sample.temperature
  )
  return [
    Exchange(tuple(m), tuple(p), a, r)
    for m, p, a, r in zip(requests, asked, answers, rows, strict=True)
  ]


def _generate(mind, weights, asked, rows, *, key, temperature, limit=None):
  limit = limit or mind.sample.max_new_tokens
  settings = sampler.Sampling(
    temperature=temperature,
    top_k=mind.sample.top_k,
    top_p=mind.sample.top_p,
    max_new_tokens=limit,
  )
  off = mind.sample.top_k == 0 and mind.sample.top_p >= 1
  return mind.calls.generate(
    mind.model,
    weights,
    asked,
    key=key,
    settings=settings,
    stop_ids=chat.stop_ids(mind.tokenizer),
    max_tokens=limit,
    row_ids=rows,
    rows=mind.settings.prompts * mind.settings.samples,
    truncate=None if off else mind.sample.max_candidates,
    mesh=mind.mesh,
  )


def _reasoned(mind, weights, asked, key):
  """Lets the reviewer think in a turn of its own before it is asked."""
  starts, questions = zip(
    *(prompts.thinking_prompt(mind, p) for p in asked), strict=True
  )
  thoughts = _generate(
    mind,
    weights,
    starts,
    list(range(len(starts))),
    key=key,
    temperature=0.0,
    limit=mind.settings.review.reason_tokens,
  )
  # Scratch text, never trained on: a thought cut short may be closed.
  close = lambda a: a.ids if a.stop == 'stop' else (*a.ids, prompts.end(mind))
  return [
    (*s, *close(a), *q)
    for s, a, q in zip(starts, thoughts, questions, strict=True)
  ]


def _read_labels(mind, weights, asked, calibration):
  forms = [*mind.framing.flag, *mind.framing.ok]
  ids = [[*chat.text_ids(mind.tokenizer, f), prompts.end(mind)] for f in forms]
  logps = mind.calls.label_logps(
    mind.model,
    weights,
    asked,
    ids,
    rows=mind.settings.prompts * mind.settings.samples,
    mesh=mind.mesh,
  )
  n = len(mind.framing.flag)
  flag, ok = tuple(range(n)), tuple(range(n, len(forms)))
  return labels_lib.verdict(logps, flag, ok, calibration)


def _flags(mind, verdicts, rows, *, key):
  """Who is revised: by the verdict, or by a control's rule."""
  rule = mind.settings.review.verdict
  asked = [v.p is not None for v in verdicts]
  if rule == 'question':
    return [v.flagged for v in verdicts]
  if rule == 'inverted':
    return [a and not v.flagged for a, v in zip(asked, verdicts, strict=True)]
  if rule == 'all':
    return asked
  draws = [jax.random.uniform(jax.random.fold_in(key, r)) for r in rows]
  rate = mind.settings.review.random_rate
  return [a and bool(d < rate) for a, d in zip(asked, draws, strict=True)]


def _dropped(mind, exchange, proposal, verdict) -> str:
  """Why a pair is not valid; '' if it is."""
  new, old = proposal.answer, exchange.answer
  text = chat.decode(mind.tokenizer, new.ids).strip()
  longest = len(exchange.prompt) + max(len(new.ids), len(old.ids))
  if new.stop == prompts.LOST:
    return 'lost'
  if new.stop != 'stop':
    return 'truncated'
  if not text or not chat.decode(mind.tokenizer, old.ids).strip():
    return 'empty'
  if tuple(new.ids) == tuple(old.ids):
    return 'same'
  if longest > mind.dpo.length:
    return 'too_long'
  if mind.settings.review.verdict != 'question':
    return ''  # the controls take the alternative as it comes
  if verdict.p is None:
    return 'no_verdict'
  return 'flagged' if verdict.flagged else ''
