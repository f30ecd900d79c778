"""From answer records to rows of shares with counts and intervals."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.evals import judges, stats
from ealign.evals.judges.measure import Judge, Measure, scores
from ealign.evals.records import grouped, latest
from ealign.runtime.errors import UserError, line


@dataclasses.dataclass(frozen=True)
class Share:
  """`count` of `total`, with two 95 % intervals.

  interval: Wilson's. clustered: answers to one prompt count as alike.
  """

  count: int
  total: int
  interval: tuple[float, float]
  clustered: tuple[float, float]

  @property
  def value(self) -> float | None:
    return self.count / self.total if self.total else None


def share(flags: Sequence[bool], clusters: Sequence) -> Share:
  """The share of true flags; flags and clusters are in the same order."""
  count, total = sum(map(bool, flags)), len(flags)
  interval = stats.wilson(count, total)
  if not total:
    return Share(0, 0, interval, interval)
  values = [float(bool(flag)) for flag in flags]
  return Share(count, total, interval, stats.clustered(values, clusters)[1:])


@dataclasses.dataclass(frozen=True)
class Mean:
  """The mean of a number over `total` answers, clustered by prompt."""

  value: float | None
  total: int
  interval: stats.Interval | None  # None: of a single cluster


def mean(
  values: Sequence[float],
  clusters: Sequence,
  bounds: stats.Interval = (0.0, math.inf),
) -> Mean:
  """Student-t over the means of the clusters, as if each were one answer.

  bounds: of what a value can be, which no interval leaves.
  """
  if not values:
    return Mean(None, 0, None)
  pairs = zip(map(float, values), clusters, strict=True)
  groups = grouped(pairs, lambda pair: pair[1]).values()
  means = [sum(value for value, _ in group) / len(group) for group in groups]
  value, *interval = stats.student_t(means, bounds=bounds)
  return Mean(value, len(values), tuple(interval) if len(means) > 1 else None)


def final(records: Iterable[Mapping]) -> list[Mapping]:
  """The eval records of each run's last evaluated step, each answer once."""
  records = [r for r in records if r['phase'] == 'eval']
  last = {}
  for record in records:
    run = record.get('arm'), record.get('seed')
    last[run] = max(last.get(run, 0), record['step'])
  at_end = lambda r: r['step'] == last[r.get('arm'), r.get('seed')]
  return latest(filter(at_end, records))


def rows(
  records: Iterable[Mapping],
  token_accuracy: Mapping[str, float | None] | None = None,
  judge: Judge | None = None,
) -> list[dict[str, Any]]:
  """One dict per (arm, kind, split) at the last evaluated step.

  arm, kind, split, step, questions, answers, unscored; then for each measure of
  the judge (by default the world's) its Share or Mean, or None where nothing is
  to be counted: it is of other kinds of questions, or no answer has what it
  needs. token_accuracy: arm -> share of the held-out tokens that was predicted,
  from its metrics; on rows of the kinds that the judge measures apart (the
  world's: code), else on all.
  """
  judge = judge or judges.load(None)
  key = lambda record: (record.get('arm'), record['kind'], record.get('split'))
  groups = grouped(final(records), key)
  arms = list(dict.fromkeys(arm for arm, _, _ in groups))
  result = [_row(key, group, judge) for key, group in groups.items()]
  for row in result:
    of_kind = not judge.claimed or row['kind'] in judge.claimed
    known = (token_accuracy or {}).get(row['arm'])
    row[judge.tokens.name] = known if of_kind else None
  order = lambda row: (arms.index(row['arm']), row['kind'], str(row['split']))
  return sorted(result, key=order)


def _row(key, group, judge: Judge) -> dict[str, Any]:
  scored = sum(bool(record.get('scores')) for record in group)
  return dict(zip(('arm', 'kind', 'split'), key, strict=True)) | {
    'step': max(record['step'] for record in group),
    'questions': len({record['question'] for record in group}),
    'answers': len(group),
    'unscored': len(group) - scored if judge.scores else 0,
    **{m.name: _counted(m, judge, key[1], group) for m in judge.measures},
  }


def _counted(measure: Measure, judge, kind, group) -> Share | Mean | None:
  if kind in judge.apart and measure.kind != kind:
    return None
  have = [r for r in group if not measure.needs or r.get(measure.needs)]
  if not measure.kind:
    applies = kind not in judge.claimed
  else:  # questions of another kind may ask for the same, as the score shows
    named = [scores(record).get(measure.name) for record in have]
    applies = measure.kind in ('*', kind) or any(x is not None for x in named)
  return count(measure, have) if have and applies else None


def count(measure: Measure, records: Iterable[Mapping]) -> Share | Mean:
  """Counts a measure over those of the records that it applies to."""
  try:
    among = measure.known(records)
    values = [measure.of(record) for record in among]
  except Exception as error:
    raise UserError(f'measure {measure.name!r}: {line(error)}') from error
  clusters = clusters_of(among)
  if not measure.number:
    return share(values, clusters)
  return mean(values, clusters, measure.bounds)


def clusters_of(records: Iterable[Mapping]) -> list:
  """The prompt, which alike answers share; a reflection's row is alone."""
  own = lambda record, at: record.get('question', at)
  return [
    own(record, at) if record.get('cluster') is None else record['cluster']
    for at, record in enumerate(records)
  ]


def finite(metrics: Iterable[Mapping], name: str) -> list[float]:
  """The finite values of a metric in the rows of metrics.jsonl."""
  values = (row.get(name) for row in metrics)
  sound = lambda x: isinstance(x, int | float) and math.isfinite(x)
  return [*map(float, filter(sound, values))]


def last_metric(metrics: Iterable[Mapping], name: str) -> float | None:
  """The last finite value of a metric; None if it has none."""
  return (finite(metrics, name) or [None])[-1]


def headline(rows: Iterable[Mapping], kind: str) -> dict[str, Mapping]:
  """arm -> its row of this kind on the split to report.

  That is 'test' where there is one, else the split with the most answers.
  """
  own = (row for row in rows if row['kind'] == kind)
  splits = grouped(own, lambda row: row['split'])
  size = lambda split: sum(row['answers'] for row in splits[split])
  split = 'test' if 'test' in splits else max(splits, key=size, default=None)
  return {row['arm']: row for row in splits.get(split, ())}


def shares(by_arm: Mapping[str, Mapping], name: str) -> dict[str, Share | Mean]:
  """arm -> what its row has of a measure, where anything was counted."""
  found = {arm: row.get(name) for arm, row in by_arm.items()}
  return {arm: share for arm, share in found.items() if share and share.total}


def headline_kind(rows: Iterable[Mapping], judge: Judge) -> str:
  """The kind of questions whose primary measure is the headline figure."""
  kinds = [row['kind'] for row in rows if row.get(judge.first.name)]
  known = not kinds or judge.first_kind in kinds
  return judge.first_kind if known else kinds[0]


def by_part(rows: Sequence[Mapping], judge: Judge) -> dict[str, dict]:
  """Part of a judge -> arm -> its row; '': of what no measure claims."""
  kind = headline_kind(rows, judge)
  if kind in judge.claimed:
    others = (row['kind'] for row in rows if row['kind'] not in judge.claimed)
    kind = next(others, kind)
  return {part: headline(rows, part or kind) for part in ('', *judge.claimed)}
