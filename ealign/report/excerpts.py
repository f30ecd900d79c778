"""Which answers the report shows: chosen by rule, never by taste."""

import collections
import hashlib
from collections.abc import Mapping, Sequence

from ealign.conscience import tally
from ealign.conscience.framings import FRAMINGS
from ealign.conscience.tally import flagged, has_verdict, kept
from ealign.evals import counts
from ealign.evals.judges.measure import Judge
from ealign.report.runs import Run
from ealign.runtime.errors import quantity


def verdict(record: Mapping) -> dict | None:
  """The verdict as shown: the label's word, its probability, the outcome."""
  given = record.get('verdict')
  if not given:
    return None
  framing = FRAMINGS.get(given.get('framing'))
  number = lambda x: x if isinstance(x, int | float) else None
  return {
    'word': framing.flag[0] if framing else 'flagged',
    'p': number(given.get('p')),
    'mass': number(given.get('mass')) if tally.asked(record) else None,
    'flagged': given.get('flagged') if has_verdict(record) else None,
  }


def shown(record: Mapping, judge: Judge) -> dict:
  """One answer as the template shows it."""
  return {
    'alternative': None,
    **record,
    'cut': record.get('stop') == 'length',
    'code': judge.code.get(record.get('kind')),
    'outcome': judge.outcome(record),
    'verdict': verdict(record),
  }


def draw(text) -> str:
  # An order that has nothing to do with the answers, the same every time.
  return hashlib.sha256(str(text).encode('utf-8', 'replace')).hexdigest()


def questions(
  records: Sequence[Mapping], kind: str, judge: Judge, count: int = 8
) -> list:
  """Held-out questions side by side: (kind, messages, answer of each arm).

  Those come first that most arms answered and whose answers differ between
  good and bad; then a draw by hash. Of eight, two are of the kinds that have
  measures of their own and one is asked in another way, where there are such;
  one question per prompt cluster.
  """
  by_question = {}
  for record in counts.final(records):
    answers = by_question.setdefault((record['kind'], record['question']), {})
    answers.setdefault(record.get('arm'), record)
  ranked = sorted(by_question.items(), key=lambda item: _rank(*item, judge))
  # In this order on the page: 0 the headline's, 1 others, 2 kinds apart.
  slots = {kind: 0} | dict.fromkeys(judge.claimed, 2)
  slot = lambda own: slots.get(own, 1)
  there = collections.Counter(slot(own) for own, _ in by_question)
  room = {1: min(count // 8, there[1]), 2: min(count // 4, there[2])}
  room[0] = count - sum(room.values())
  chosen, used = [], set()
  for (own, _), answers in ranked:
    first = next(iter(answers.values()))
    cluster = own, first.get('cluster') or first['question']
    if room[slot(own)] and cluster not in used:
      used.add(cluster)
      room[slot(own)] -= 1
      cells = {arm: shown(record, judge) for arm, record in answers.items()}
      chosen.append((own, first['messages'], cells))
  return sorted(chosen, key=lambda item: slot(item[0]))


def _rank(key, answers, judge):
  outcomes = {judge.outcome(record)[1] for record in answers.values()}
  differ = {'good', 'bad'} <= outcomes
  return -len(answers), not differ, draw(key)


def examples(records: Sequence[Mapping], judge: Judge) -> list[dict]:
  """The conscience at work: five answers of training, in order of step.

  Flagged ones with an alternative from early, middle and late steps, one
  whose alternative was dropped and one that was not flagged.
  """
  reviewed = [r for r in records if r['phase'] == 'reflect' and has_verdict(r)]
  reviewed.sort(key=lambda r: draw((r['step'], r.get('sample'), r['text'])))
  end = max([r['step'] for r in reviewed], default=0) + 1
  good = [*filter(kept, reviewed)]
  groups = [[r for r in good if r['step'] * 3 // end == at] for at in range(3)]
  groups.append([r for r in reviewed if _dropped(r)])
  groups.append([r for r in reviewed if not flagged(r)])
  chosen = [group[0] for group in groups if group]
  rest = [r for r in good if not any(r is other for other in chosen)]
  chosen += rest[: 5 - len(chosen)]
  return [shown(r, judge) for r in sorted(chosen, key=lambda r: r['step'])]


def _dropped(record) -> bool:
  return bool(record.get('alternative')) and not kept(record)


def work(run: Run) -> tuple[str, str, list[dict]] | None:
  """Name, counts in words and examples of an arm that reflected."""
  seen = [r for r in run.answers if r['phase'] == 'reflect']
  if not seen:
    return None
  times = len({(r.get('seed'), r['step']) for r in seen})
  words = tally.line(run.health.counts, run.config)
  said = f'{quantity(times, "reflection")}: {words}.'
  return run.name, said, examples(seen, run.judge)
