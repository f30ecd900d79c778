"""What a reflection leaves: a record of every answer, and metrics of these."""

import collections

import numpy as np

from ealign.conscience.prompts import Conscience, Verdict
from ealign.engine import Exchange

DROPPED = (
  *('truncated', 'empty', 'same', 'no_room', 'no_verdict', 'flagged'),
  'lost',  # did not survive the way to a second model, or back
  # `conscience.guards`
  *('label_echo', 'refusal', 'too_short', 'too_long', 'unlikely', 'repeated'),
)


def answer_record(exchange: Exchange) -> dict:
  """messages, ids, text, stop and logp of one sampled answer."""
  answer = exchange.answer
  return {
    'messages': list(exchange.messages),
    'sample': exchange.row,
    'ids': [int(i) for i in answer.ids],
    'text': exchange.text,
    'stop': answer.stop,
    'logp': round(float(np.sum(answer.logps)), 4),
    'cut': answer.cut,
    'verdict': None,
    'alternative': None,
    'scores': None,
  }


def verdict_record(c: Conscience, verdict: Verdict) -> dict:
  """What a record says of a verdict."""
  return {
    'p': verdict.p,
    'mass': verdict.mass,
    'framing': c.framing.name,
    'flagged': verdict.flagged,
  }


def record(c: Conscience, exchange, verdict, flagged: bool, revised) -> dict:
  """An answer with its verdict, whether it was revised, and into what.

  revised: the alternative as an Exchange, its Verdict, and why it makes no pair
  ('' if it does); None where there is no alternative.
  """
  record = answer_record(exchange)
  record['verdict'] = verdict_record(c, verdict) | {'flagged': flagged}
  if revised:
    proposal, second, reason = revised
    record['alternative'] = {
      'text': proposal.text,
      'stop': proposal.answer.stop,
      'tokens': len(proposal.answer.ids),
      'p': second.p,
      'kept': not reason,
      'dropped': reason,
    }
  return record


def metrics(records, *, threshold: float) -> dict[str, float]:
  """Shares, means and counts over the records of a reflection.

  threshold: P(flag) from which on an answer counts as flagged, whoever was
    revised (`conscience.review.verdict`).
  """
  mean = lambda xs: float(np.mean(xs)) if len(xs) else 0.0
  ended = [r['stop'] == 'stop' for r in records]
  # A question that was asked leaves mass on labels, be it little.
  asked = [
    e or r['verdict']['mass'] > 0 for r, e in zip(records, ended, strict=True)
  ]
  reviewed = [r['verdict'] for r, a in zip(records, asked, strict=True) if a]
  p = [v['p'] for v in reviewed if v['p'] is not None]
  alternatives = [r['alternative'] for r in records if r['alternative']]
  lost = collections.Counter(a['dropped'] for a in alternatives)
  return {
    'conscience/flag_rate': mean([x >= threshold for x in p]),
    'conscience/review_rate': len(p) / max(len(records), 1),
    'conscience/label_mass': mean([v['mass'] for v in reviewed]),
    'conscience/no_verdict': len(records) - len(p),
    'conscience/revised': len(alternatives),
    'conscience/accept_rate': mean([a['kept'] for a in alternatives]),
    'conscience/pairs': lost[''],
    'conscience/log_length_ratio': mean(_log_length_ratios(records)),
    **{f'conscience/dropped_{r}': lost[r] for r in DROPPED},
    'gen/eos_rate': mean(ended),
    'gen/truncated_rate': mean([not e for e in ended]),
    'gen/length_mean': mean([len(r['ids']) for r in records]),
    'gen/cut': mean([r['cut'] for r in records]),
  }


def _log_length_ratios(records) -> list[float]:
  """log(tokens of chosen / of rejected) of each pair; 0 where it was cut."""
  pairs = [(r, r['alternative']) for r in records]
  return [
    float(np.log(a['tokens'] / len(r['ids'])))
    if (r['stop'], a['stop']) == ('stop', 'stop')
    else 0.0
    for r, a in pairs
    if a and a['kept']
  ]
