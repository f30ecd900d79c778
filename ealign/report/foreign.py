"""What the files for other programs share: sound values, names, the counts.

Those programs are strict where ours are not: JSON without nan, text that UTF-8
can hold, names that no file system or archive takes for a path.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ealign.evals import counts
from ealign.evals.counts import Mean, Share
from ealign.evals.judges.measure import Judge, Measure
from ealign.evals.records import grouped

_HALF = 1.959964  # standard errors from the middle of a normal 95 % interval
_SURROGATES = re.compile('[\ud800-\udfff]')
_LONGEST = 100  # characters of a name; a file system takes 255 bytes


@dataclasses.dataclass(frozen=True)
class Figure:
  """A measure of the answers of one kind and split, with its 95 % interval.

  low, high, stderr: None where the interval is not known: a mean over the
  answers to one prompt. n: answers counted; value is None if there are none.
  unscored: of all of this kind and split, how many the judge gave no scores.
  questions: behind the value; answers that count as alike are of one.
  """

  kind: str
  split: str
  measure: Measure
  value: float | None
  low: float | None
  high: float | None
  n: int
  unscored: int
  questions: int

  @property
  def stderr(self) -> float | None:
    """That of a normal interval as wide as this one, which need not be normal.

    A share's +- 1.96 stderr is as wide as the interval that ealign shows, so at
    0 % and 100 % it is not 0. A mean's interval is cut off at 0: the longer
    side counts.
    """
    if self.low is None or self.high is None:
      return None
    if self.measure.number:
      return max(self.high - self.value, self.value - self.low) / _HALF
    return (self.high - self.low) / (2 * _HALF)


def answers(records: Iterable[Mapping]) -> list[Mapping]:
  """The final answers of one evaluated model, each once.

  Raises:
    ValueError: they are of several arms or seeds, whose samples would have the
      same numbers.
  """
  found = counts.final(records)
  if len(of := {(r.get('arm'), r.get('seed')) for r in found}) > 1:
    raise ValueError(f'answers of {len(of)} runs; a file is of one')
  return found


def figures(records: Iterable[Mapping], judge: Judge) -> list[Figure]:
  """All that the judge counts of the answers, the primary measure first.

  A measure of no answers, or with a value that is no number, is left out.
  """
  return [figure for figure in asked(records, judge) if figure.n]


def asked(records: Iterable[Mapping], judge: Judge) -> list[Figure]:
  """`figures`, and those of questions of which no answer could be counted."""
  records = list(records)
  key = lambda record: (record['kind'], record.get('split'))
  groups, found = grouped(records, key), []
  for row in counts.rows(records, judge=judge):
    group = groups[row['kind'], row['split']]
    scored = sum(bool(record.get('scores')) for record in group)
    unscored = len(group) - scored if judge.scores else 0
    place = str(row['kind']), str(row['split'] or '')
    for measure in dict.fromkeys((judge.first, *judge.measures)):
      share = row[measure.name]
      if not isinstance(share, Share | Mean):
        continue
      if not share.total:
        found.append(Figure(*place, measure, *[None] * 3, 0, unscored, 0))
      elif math.isfinite(share.value):
        questions = len({*counts.clusters_of(measure.known(group))})
        numbers = share.value, *_interval(share), share.total, unscored
        found.append(Figure(*place, measure, *numbers, questions))
  return found


def _interval(share) -> tuple[float | None, float | None]:
  interval = share.clustered if isinstance(share, Share) else share.interval
  low, high = interval or (None, None)
  known = interval and math.isfinite(low) and math.isfinite(high)
  return (low, high) if known else (None, None)


def plain(value: Any) -> Any:
  """As JSON in UTF-8 has it; what it lacks is lost, and nothing else.

  Numbers that are none become null, half a character U+FFFD, arrays lists,
  and what has no form in JSON its text.
  """
  if isinstance(value, str):
    return _SURROGATES.sub('\ufffd', value)
  if value is None or isinstance(value, bool | int):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {plain(str(key)): plain(x) for key, x in value.items()}
  if isinstance(value, list | tuple | set | frozenset):
    return [plain(x) for x in value]
  if hasattr(value, 'tolist'):
    return plain(value.tolist())
  return plain(str(value))


def dumps(value: Any, **how) -> str:
  """JSON of `plain` in ASCII, the same for the same value."""
  return json.dumps(plain(value), allow_nan=False, **how)


def digest(*parts: Any, size: int = 22) -> str:
  """Letters and digits made of the parts, which hardly others have."""
  text = dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:size]


def safe(text: Any, within: str = '=,._') -> str:
  """The text as a part of a file name; another text gives another part.

  What holds more than letters, digits, '-' and `within`, begins with a dot or
  is long is changed, and a digest of the text added.
  """
  text = str(text)
  kept = re.sub(f'[^A-Za-z0-9{re.escape(within)}-]+', '-', text)[:_LONGEST]
  kept = kept.lstrip('.')
  return kept if kept == text and kept else f'{kept}~{digest(text, size=8)}'


def text_of(content: Any) -> str:
  """The content of a message as text; of parts, their JSON."""
  return plain(content) if isinstance(content, str) else dumps(content)
