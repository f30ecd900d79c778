"""What a reflection leaves: a record of every answer, and metrics of these."""

import numpy as np

from ealign.conscience import health, tally
from ealign.conscience.prompts import Conscience, Verdict
from ealign.engine import Exchange

DROPPED = (
  *('truncated', 'empty', 'same', 'no_room', 'no_verdict', 'flagged'),
  'lost',  # did not survive the way to a second model, or back
  'disagrees',  # a verdict as analysis of a mistake, unlike the conscience's
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
    'asked': bool(verdict.prompt),
  }


def record(c: Conscience, exchange, verdict, revised) -> dict:
  """An answer with its verdict, whether it was revised, and into what.

  revised: the alternative as an Exchange, its Verdict, and why it makes no pair
  ('' if it does); None where there is no alternative.
  """
  record = answer_record(exchange)
  record['verdict'] = verdict_record(c, verdict)
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


def metrics(records) -> dict[str, float]:
  """Shares, means and counts over the records of a reflection."""
  mean = lambda xs: float(np.mean(xs)) if len(xs) else 0.0
  share = lambda n, among: n / max(among, 1)
  counts, said = tally.count(records), health.figures(records)
  ended = [r['stop'] == 'stop' for r in records]
  mass = [r['verdict']['mass'] for r in records if tally.asked(r)]
  return {
    'conscience/flag_rate': share(counts.flagged, counts.judged),
    'conscience/review_rate': share(counts.judged, len(records)),
    'conscience/label_mass': mean(mass),
    'conscience/asked': len(mass),
    'conscience/no_verdict': counts.answers - counts.judged,
    **{f'conscience/no_verdict_{x}': counts.unjudged[x] for x in tally.CAUSES},
    'conscience/revised': counts.revised,
    'conscience/accept_rate': share(counts.pairs, counts.revised),
    'conscience/pairs': counts.pairs,
    'conscience/log_length_ratio': mean(_log_length_ratios(records)),
    **{f'conscience/dropped_{r}': counts.dropped[r] for r in DROPPED},
    'gen/eos_rate': mean(ended),
    'gen/truncated_rate': mean([not e for e in ended]),
    'gen/length_mean': said.length,
    'gen/refusal_rate': said.refusals,
    'gen/question_rate': said.questions,
    'gen/distinct_rate': said.distinct,
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
