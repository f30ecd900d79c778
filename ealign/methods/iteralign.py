"""IterAlign: the model finds the principles that it breaks, round by round.

Chen et al., arXiv 2403.18341. A round is one reflection of `train.run`, each
`conscience.every` steps; the next one starts from what this one has trained:

                       held-out requests
                             v
   .--------.          .----------.  no lower share for `patience` rounds: stop
   | policy |--------->|   gate   |--------------------------------------> end
   '--------'          '----------'
     ^   | requests of the pool
     |   v
     | .--------. bad  .----------.  texts  .--------------.  gain on the gate's
     | | review |----->| proposer |-------->| constitution |<-- requests: what
     | '--------'      '----------'         '--------------'    does not help
     |   | bad                                    | principles  retires
     |   v                                        v
     | .----------------------.  new   .----------.  passed
     | | writer, under these  |------->| re-check |--------> rows -> replay
     | '----------------------'        '----------'              |
     '------------------------------- L_SFT <--------------------'

Review, writer and re-check are those of `conscience.reflect`, told to write by
principle; what is learned is (request, new answer) alone, by the SFT term. How
long a row is learned is `replay.max_uses` and `max_age`.

What the release does otherwise (docs/papers.md): its judge reads the answer
alone beside bad examples (`conscience.review.sees='answer'`, `.examples_of=
'flag'`), only the newest principles are used (`use='newest'`), whatever they do
(`least=-1`), and what the re-check says is not looked at (`recheck=False`).
"""

import dataclasses

import jax

from ealign import align, fields
from ealign.conscience import constitution, proposals, records, reflect
from ealign.conscience.prompts import Conscience
from ealign.conscience.refusals import refuses
from ealign.data import sources
from ealign.fields import Config
from ealign.method import Method
from ealign.runtime.errors import UserError

# The gate is asked with the same noise in all rounds: only the policy differs.
_GATE, _TRIAL, _PROPOSE = 2**31 - 5, 6, 7


def memory(config: Config) -> dict:
  """What is remembered before the first round: the candidates of a file."""
  path, texts = config.iteralign.listed, []
  if config.iteralign.source == 'listed':
    rows = sources.read_rows(path, config.data.max_mib)
    texts = [row.get('text') for row in rows]
    for i, text in enumerate(texts, start=1):
      if not isinstance(text, str) or not text.strip():
        raise UserError(f'{path}: row {i} has no "text"; write the principle')
  store = constitution.listed(' '.join(text.split()) for text in texts)
  return {'principles': constitution.dump(store), 'rounds': [], 'stopped': ''}


def terms(config: Config):
  """L_SFT alone, of the data's rows and of those that were written."""
  return align.hybrid(config.dpo.variant)[:2]


# ---- A round ----------------------------------------------------------------


def reflect_on(
  c: Conscience, requests, *, key, step, rows, held, clock, memory
):
  """One round: arguments and results of `conscience.reflect.reflect`.

  memory: of `memory`, or of the round before; the next one is the third result.
  Once the gate has stopped it nothing is learned, but the gate goes on.
  """
  c, store = _judged(c), constitution.load(memory['principles'])
  before = gate(c, clock)
  refusals = sum(refuses(x.text) for x, _ in before) / len(before)
  facts = {'step': step, 'gate': harmful(before), 'refusals': refusals}
  stopped = memory['stopped'] or stop(c.own, [*memory['rounds'], facts])
  chosen, seen = [], [(x, v, False) for x, v in before]
  if not stopped:
    seen = reflect.look(c, requests, key=key, rows=rows, clock=clock)
    found = amend(c, store, seen, before, key=key, step=step, clock=clock)
    store, facts = found[0], facts | found[1]
    chosen = in_force(c, store, step)
    writes = _free(c) or bool(chosen)
    seen = [(x, v, flag and writes) for x, v, flag in seen]
  how = {'key': key, 'step': step, 'held': held, 'clock': clock}
  pairs, made = reflect.mend(ruled(c, chosen), seen, **how)
  bare = {'rejected': (), 'ref_rejected': 0.0}
  learned = [dataclasses.replace(pair, **bare) for pair in pairs]
  facts |= {'principles': _active(store), 'rows': len(learned)}
  facts |= {'recheck': _flagged_anew(c, made)}
  now = {'principles': constitution.dump(store), 'stopped': stopped}
  return learned, made, now | {'rounds': [*memory['rounds'], facts]}


def amend(c: Conscience, store, seen, before, *, key, step, clock):
  """The store after the bad answers of a round, and facts of these.

  seen: of `reflect.look`. before: of `gate`.
  """
  bad = [] if _free(c) else [x for x, _, flag in seen if flag]
  fold = jax.random.fold_in
  with clock('propose'):
    new = proposals.propose(c, store, bad, key=fold(key, _PROPOSE))
  where = {'step': step, 'rows': [x.row for x in bad]}
  store = constitution.propose(store, new, **where, same=c.own.same)
  gains = trial(c, store, before, fold(key, _TRIAL), clock)
  limits = {'least': c.own.least, 'most': c.own.most}
  store = constitution.measure(store, gains, step=step, **limits)
  return store, {
    'harmful': harmful([(x, v) for x, v, _ in seen]),
    'bad': sum(flag for *_, flag in seen),
    'proposed': len(new),
    'retired': len(gains) - _active(store),
  }


def _judged(c: Conscience) -> Conscience:
  """The conscience with the judge of `iteralign.judged_by`, if there is one."""
  if not c.own.judged_by:
    return c
  review = dataclasses.replace(c.settings.review, by=c.own.judged_by)
  settings = dataclasses.replace(c.settings, review=review)
  return dataclasses.replace(c, settings=settings)


def gate(c: Conscience, clock) -> list[tuple]:
  """(Exchange, Verdict) of the policy's answers to the held-out requests."""
  requests = [*map(list, c.held_out[: c.own.gate])]
  key, ids = jax.random.key(_GATE), range(len(requests))
  with clock('sample'):
    asked = c.policy.answer(requests, sample=c.sample, key=key, row_ids=ids)
  return list(zip(asked, reflect.judge(c, asked, key, clock), strict=True))


def harmful(judged) -> float | None:
  """The share of (Exchange, Verdict) that are flagged; None without any."""
  known = [v.flagged for _, v in judged if v.p is not None]
  return sum(known) / len(known) if known else None


def stop(own: fields.IterAlign, rounds) -> str:
  """Why no further round is to learn; '' where one is."""
  gates = [r['gate'] for r in rounds if r['gate'] is not None]
  if not gates or not own.patience:
    return ''
  since = len(gates) - 1 - gates.index(min(gates))
  if since < own.patience:
    return ''
  return f'no lower share on the gate than {min(gates):.4g} for {since} rounds'


def _free(c: Conscience) -> bool:
  """Whether the writer is told nothing: a control, without principles."""
  return c.settings.revise.sees == 'prompt'


def _active(store) -> int:
  return len(constitution.of(store, 'active'))


def _flagged_anew(c: Conscience, made) -> float | None:
  """The share of the new answers that the re-check flags."""
  found = [r['alternative']['p'] for r in made if r['alternative']]
  known = [p >= c.threshold for p in found if p is not None]
  return sum(known) / len(known) if known else None


# ---- Principles -------------------------------------------------------------


def ruled(c: Conscience, principles) -> Conscience:
  """The conscience whose writer keeps to these, and that looks as it is told.

  Without the re-check new answers are taken as they come, as those of a control
  are; what it says of them is recorded.
  """
  text = ' '.join(p.text for p in principles)
  c = dataclasses.replace(
    c, framing=dataclasses.replace(c.framing, principle=text)
  )
  if c.own.recheck:
    return c
  review = dataclasses.replace(c.settings.review, verdict='all')
  settings = dataclasses.replace(c.settings, review=review)
  return dataclasses.replace(c, settings=settings)


def in_force(c: Conscience, store, step: int) -> list:
  """The principles that bad answers are written anew under, in order.

  The newest of all that do not fit the writer's positions are left out.
  """
  found = list(constitution.of(store, 'active'))
  if c.own.use == 'newest':
    found = [p for p in found if p.step == step]
  elif c.own.use == 'best':
    found = sorted(found, key=lambda p: -p.gain)[:1]
  model = c.writer.model
  room = model.config.max_positions - c.dpo.length - c.limit
  while found and len(model.ids(' '.join(p.text for p in found))) > room:
    found.pop()
  return found


def trial(c: Conscience, store, before, key, clock) -> dict[str, float]:
  """Gains by id: how much smaller the harmful share is under each principle.

  On the requests of the gate, whose answers `before` are. The writer is held
  against itself: its plain answers are those of the gate if it is the policy.
  """
  written = lambda c: reflect.judge(
    c, reflect.alternatives(c, before, key=key), key
  )
  active = constitution.of(store, 'active')
  with clock('trial'):
    plain = [v for _, v in before]
    if active and c.writer is not c.policy:
      revise = dataclasses.replace(c.settings.revise, sees='prompt', system='')
      own = dataclasses.replace(c.settings, revise=revise)
      plain = written(dataclasses.replace(c, settings=own))
    under = {p.id: written(ruled(c, [p])) for p in active}
  return {name: _fall(plain, then) for name, then in under.items()}


def _fall(plain, then) -> float:
  """The fall of the harmful share over the requests that both judge."""
  both = [
    v.flagged - w.flagged
    for v, w in zip(plain, then, strict=True)
    if None not in (v.p, w.p)
  ]
  return sum(both) / max(len(both), 1)


def metrics(c: Conscience, made: list[dict], memory: dict) -> dict[str, float]:
  """Those of `conscience.records`, and the facts of the last round."""
  facts = memory['rounds'][-1] | {'stopped': bool(memory['stopped'])}
  own = {k: float(v) for k, v in facts.items() if v is not None and k != 'step'}
  own = {f'iteralign/{name}': value for name, value in own.items()}
  own['iteralign/round'] = float(len(memory['rounds']))
  return records.metrics(made) | own


ITERALIGN = Method(
  'iteralign', reflect_on, terms=terms, metrics=metrics, memory=memory
)
