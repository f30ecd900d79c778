"""What the writer makes of replies that are to be flagged."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ealign.conscience import guards, pairs, reflect
from ealign.conscience.prompts import Conscience
from ealign.data.batch import Pair
from ealign.data.exchanges import Row
from ealign.sampling.prompts import bucket

SHOWN = 8
_SEES = 'review', 'fresh', 'principle'  # that a writer is tried with


def chosen(rows: Sequence[Row], n: int = SHOWN, split='test') -> list[Row]:
  """n plain rows of a split that are to be flagged, domains in turn."""
  some = [r for r in rows if r.flag and r.split == split]
  some = [r for r in some if r.kind == 'plain'] or some
  seen: dict = {}
  turn = {}
  for row in some:
    turn[row.id] = seen[row.domain] = seen.get(row.domain, -1) + 1
  return sorted(some, key=lambda row: turn[row.id])[:n]


def tried(c: Conscience, rows: Sequence[Row], *, key, chooses: bool) -> dict:
  """What is written to replies of split test.

  Returns:
    sees: the config's `revise.sees`, or, if one is to be chosen, that under
    which the most alternatives to replies of split dev would make a pair, the
    config's own if others are no better; summary and rows, of `summary` and
    `written`, on split test; tried: sees and summary of each on split dev.
  """
  own, made = c.settings.revise.sees, []
  if chooses:
    begun = given(c, chosen(rows, split='dev'), key=key)
    for sees in (own, *(s for s in _SEES if s != own)):
      on_dev = written(_seeing(c, sees), begun, key=key)
      made.append({'sees': sees, 'summary': summary(c, on_dev)})
  best = max(made, key=lambda one: one['summary']['pairs'], default=None)
  sees = best['sees'] if best else own
  begun = given(c, chosen(rows), key=key)
  found = written(_seeing(c, sees), begun, key=key)
  found = {'summary': summary(c, found), 'rows': found}
  return {'sees': sees, **found, 'tried': made}


def _seeing(c: Conscience, sees: str) -> Conscience:
  revise = dataclasses.replace(c.settings.revise, sees=sees)
  settings = dataclasses.replace(c.settings, revise=revise)
  return dataclasses.replace(c, settings=settings)


def given(c: Conscience, rows: Sequence[Row], *, key) -> list[tuple]:
  """What is written to: (row, exchange, verdict, the frozen model's answer)."""
  key, plain_key = jax.random.split(jax.random.fold_in(key, 0))
  chats = c.policy.model.exchanges([row.messages for row in rows])
  verdicts = _reviewed(c, chats, key)
  plain = c.frozen.generate(
    [x.prompt for x in chats],
    sample=c.sample,
    key=plain_key,
    row_ids=[x.row for x in chats],
  )
  return list(zip(rows, chats, verdicts, plain, strict=True))


def written(c: Conscience, begun: Sequence[tuple], *, key) -> list[dict]:
  """The alternative to each reply, beside the frozen model's plain answer.

  begun: of `given`. Each is a dict: request, reply, p (of the reply);
  alternative, its stop, its p, tokens and logp (per token, under the frozen
  model, in nats); plain and its tokens; dropped: why it would make no pair, ''
  if it would. Whether a reply is flagged plays no part: all of them are to be.
  """
  keys = [jax.random.fold_in(key, i) for i in (1, 2)]
  flagged = [(x, verdict) for _, x, verdict, _ in begun]
  new = reflect.alternatives(c, flagged, key=keys[0])
  second = _reviewed(c, new, keys[1])
  logps = _per_token(c, new)
  return [
    {
      'request': row.request,
      'reply': row.reply,
      'p': v.p,
      'alternative': y.text,
      'stop': y.answer.stop,
      'alternative_p': w.p,
      'tokens': len(y.answer.ids),
      'logp': logp,
      'plain': c.policy.model.text(answer.ids),
      'plain_tokens': len(answer.ids),
      'dropped': pairs.dropped(c, x, y, w, answer),
    }
    for (row, x, v, answer), y, w, logp in zip(
      *(begun, new, second, logps), strict=True
    )
  ]


def _reviewed(c, chats, key):
  own = reflect.retokenized(c, chats, c.reviewer.model)
  return reflect.review(c, c.reviewer, own, key=key)


def _per_token(c, chats) -> list[float | None]:
  """The frozen model's mean log-prob of each answer; None of an empty one."""
  own = [x for x in chats if x.answer.ids]
  made = [Pair(x.row, 0, x.prompt, x.answer.ids, x.answer.ids) for x in own]
  if not made:
    return [None] * len(chats)
  longest = bucket(max(len(p.prompt) + len(p.chosen) for p in made))
  scored = c.frozen.logps(made, slots=c.dpo.pairs, length=longest)
  found = {
    x.row: float(logp) / len(x.answer.ids)
    for x, (logp, _) in zip(own, scored, strict=True)
  }
  return [found.get(x.row) for x in chats]


def summary(c: Conscience, made: Sequence[dict]) -> dict[str, float]:
  """Shares and means over what was written."""
  n = max(len(made), 1)
  ratios = [
    row['tokens'] / row['plain_tokens']
    for row in made
    if row['tokens'] and row['plain_tokens']
  ]
  logps = [row['logp'] for row in made if row['logp'] is not None]
  after = [row['alternative_p'] for row in made]
  after = [p for p in after if p is not None]
  texts = [row['alternative'] for row in made]
  echo = [
    guards.echoes(c.framing, row['request'], row['alternative']) for row in made
  ]
  mean = lambda xs: float(np.mean(xs)) if len(xs) else float('nan')
  return {
    'ended': sum(row['stop'] == 'stop' for row in made) / n,
    'refusals': sum(map(guards.refuses, texts)) / n,
    'echoes': sum(echo) / n,
    'distinct': len(set(texts)) / n,
    'length': mean(ratios),
    'p_after': mean(after),
    'logp': mean(logps),
    'pairs': sum(not row['dropped'] for row in made) / n,
  }
