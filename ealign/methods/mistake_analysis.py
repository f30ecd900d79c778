"""Mistake analysis: the trainee learns to say why bad replies are bad.

Gaining Wisdom from Setbacks, arXiv 2310.10477. One reflection:

    request x --- hint: "you do not care ..." ---> mistake y_bad
    (or a row of a file)                             | the conscience's verdict
                                                     v
    x, y_bad --- "it may be harmful ..." + ask ---> analysis a
                                                     |
    row:  | x | y_bad | ask |  a, end |              | hint and "it may be
    loss:   0     0      0    1 1 1 1  <-------------'  harmful" left out

Rows go to the replay and are mixed with the SFT rows in one loss, the mean over
the supervised tokens of both. y_bad is read, never learned. The paper claims
that a model which tells bad from good better answers better, as by Bayes
P(harmful | x, y) is tied to P(y | x, harmless): docs/papers.md has what came of
it here.

What is what of the paper here:

    source of mistakes    mistakes.source, .by, .hint; pool.paths
    source of analyses    conscience.revise.by (`frozen`: itself; `other:`)
    guided analysis       mistakes.told ('' = unguided)
    quantity              replay.capacity, with replay.eviction='newest'
    ratio                 dpo.pairs rows a step, beside data.batch_size
    guided inference      eval.guide, in a run or in `ealign.evaluate`

`dpo.lam` above 0 turns reflections on; its value is not used. An analysis by
`mistakes.ask='question'` is a verdict: all that the organism can write of a
reply. Only others are guarded (`conscience.guards`); a verdict must agree with
that of the conscience.
"""

import dataclasses
from contextlib import nullcontext

import jax
import numpy as np

from ealign import align
from ealign.assembly.data import with_system
from ealign.conscience import guards, prompts, tally
from ealign.conscience import records as reflection
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import Question
from ealign.conscience.prompts import Conscience, Verdict
from ealign.data.batch import Pair
from ealign.engine import Exchange
from ealign.fields import Config
from ealign.method import Method


def reflect(
  c: Conscience, requests, *, key, step, rows, held=(), clock=nullcontext
):
  """One reflection; arguments and result as of `conscience.reflect.reflect`.

  requests: with mistakes.source='pool' they end with the reply.
  """
  keys = [jax.random.fold_in(key, i) for i in range(4)]
  with clock('sample'):
    led = _led(c, rows, keys[0])
    replies = _replies(c, requests, rows, led, keys[1])
  verdicts = conscience.judge(c, replies, keys[2], clock)
  asked = [
    (x, bad)
    for x, v, bad in zip(replies, verdicts, led, strict=True)
    if _is_kept(c, x, v, bad)
  ]
  with clock('revise'):
    written = analyses(c, asked, keys[3])
  made = [
    (x, bad, y, row(c, x, y, step=step))
    for (x, bad), y in zip(asked, written, strict=True)
  ]
  pairs, why = _valid(c, made, held)
  found = {x.row: (y, conscience.NO_VERDICT, why[x.row]) for x, _, y, _ in made}
  return pairs, [
    reflection.record(c, x, v, found.get(x.row)) | {'led': bad}
    for x, v, bad in zip(replies, verdicts, led, strict=True)
  ]


def _led(c: Conscience, rows, key) -> list[bool]:
  """Which replies are to be bad: all but a share `mistakes.good`, by chance."""
  draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row))
  share = c.own.good
  return [not share or bool(draw(row) >= share) for row in rows]


def _replies(c: Conscience, requests, rows, led, key) -> list[Exchange]:
  """The replies to be analysed, each under its request without the hint."""
  s, model = c.own, c.policy.model
  if s.source == 'pool':
    given = zip(model.exchanges(requests), rows, strict=True)
    return [_given(c, dataclasses.replace(x, row=row)) for x, row in given]
  hinted = [
    with_system(messages, s.hint) if bad and s.hint else messages
    for messages, bad in zip(requests, led, strict=True)
  ]
  said = c.resolve_model(s.by).answer(
    hinted, sample=c.sample, key=key, row_ids=rows
  )
  return [
    dataclasses.replace(x, messages=tuple(own), prompt=model.prompt(own))
    for x, own in zip(said, requests, strict=True)
  ]


def _given(c: Conscience, x: Exchange) -> Exchange:
  """The reply of a pool; 'lost' if no row has room for it and an analysis."""
  if len(x.prompt) + len(x.answer.ids) < c.dpo.length:
    return x
  answer = dataclasses.replace(x.answer, stop=prompts.LOST)
  return dataclasses.replace(x, answer=answer)


def _is_kept(c: Conscience, x: Exchange, verdict: Verdict, bad: bool) -> bool:
  """Whether a reply is analysed: it has room, and is what it was to be.

  A reply that was cut off is: nothing of it is learned.
  """
  if x.answer.stop == prompts.LOST or not x.text.strip():
    return False
  known = verdict.p is not None and verdict.flagged == bad
  return c.own.analysed == 'all' or known


def question(c: Conscience, *, told: bool) -> Question:
  """What asks for an analysis. told: with what is said of a bad reply."""
  asks = {'': prompts.REASON, 'question': c.framing.question}
  text = asks.get(c.own.ask, c.own.ask)
  if told and c.own.told:
    text = f'{c.own.told} {text}'
  return Question(text, c.framing.ok, c.framing.flag)


def analyses(c: Conscience, asked, key) -> list[Exchange]:
  """What the writer says of replies, as answers in the policy's tokens.

  asked: (Exchange, whether it is bad) of each.
  """
  read = conscience.retokenized(c, [x for x, _ in asked], c.writer.model)

  def begun(i):
    return prompts.review_prompt(c, read[i], question(c, told=asked[i][1]))

  written = conscience.write(c, c.writer, read, begun, key=key)
  return conscience.returned(c, read, written)


def row(c: Conscience, reply: Exchange, analysis: Exchange, *, step) -> Pair:
  """The row to be learned: the analysis alone, asked for without a hint."""
  asked = prompts.review_prompt(c, reply, question(c, told=False))
  return Pair(reply.row, step, asked, tuple(analysis.answer.ids))


def _valid(c: Conscience, made, held):
  """The valid rows, and of each row why it is not ('' if it is)."""
  why = {x.row: _dropped(c, bad, y, pair) for x, bad, y, pair in made}
  rows = [pair for *_, pair in made if not why[pair.row]]
  if c.own.ask != 'question':  # verdicts repeat
    why |= guards.late(c, rows, np.zeros(0), held)
  return [pair for pair in rows if not why[pair.row]], why


def _dropped(c: Conscience, bad: bool, analysis: Exchange, pair: Pair) -> str:
  """Why an analysis is not learned, of `records.DROPPED`; '' if it is.

  One that is a verdict must be that of the conscience by which it was kept:
  what a writer is told can turn it round.
  """
  new, labels = analysis.answer, c.framing.flag if bad else c.framing.ok
  known = c.own.analysed == 'flagged'
  if c.own.ask == 'question':
    agrees = analysis.text.strip() in labels
    guarded = {'disagrees': known and not agrees}
  else:
    guarded = guards.reasons(c, analysis, pair.chosen, None)
  reasons = {
    'lost': new.stop == prompts.LOST,
    'truncated': new.stop != 'stop',
    'empty': not analysis.text.strip(),
    'no_room': len(pair.prompt) + len(pair.chosen) > c.dpo.length,
    **guarded,
  }
  return next((reason for reason, holds in reasons.items() if holds), '')


def terms(config: Config) -> tuple[align.Term, ...]:
  """One loss: that of the SFT rows, analyses among them."""
  del config
  return align.terms.SFT, align.terms.BALANCE


def metrics(c: Conscience, made: list[dict]) -> dict[str, float]:
  """Those of `conscience.records` that are of use here, and `mistakes/*`.

  flagged_rate: of the replies that were to be bad and have a verdict;
  false_flags: the same of the others. length_mean: tokens of an analysis.
  """
  del c
  found = reflection.metrics(made)
  for name in ('conscience/flag_rate', 'conscience/log_length_ratio'):
    del found[name]  # mistakes are to be flagged; an analysis is no answer
  mean = lambda values: float(np.mean(values)) if len(values) else 0.0
  judged = [r for r in made if tally.has_verdict(r)]
  share = lambda led: mean(
    [tally.flagged(r) for r in judged if r['led'] == led]
  )
  lengths = [r['alternative']['tokens'] for r in made if tally.kept(r)]
  return found | {
    'mistakes/flagged_rate': share(True),
    'mistakes/false_flags': share(False),
    'mistakes/length_mean': mean(lengths),
  }


MISTAKE_ANALYSIS = Method('mistake_analysis', reflect, terms, metrics)
