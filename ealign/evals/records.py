"""One record per sampled answer: the file every figure is made from.

`answers.jsonl` in a run's folder holds one JSON object per line:

  field        meaning
  -----------  --------------------------------------------------------------
  run          name of the run
  arm          name of the arm, which is also the name of its folder
  seed         seed of the run
  step         optimizer steps taken by the weights that answered
  phase        'eval' (held-out question, at the end) | 'curve' (the same
               during training) | 'reflect' (prompt of the pool)
  question     id of the question; with suite, kind, split and cluster only
               where a question was asked, not in 'reflect'
  suite        set of questions it belongs to
  kind         of question, as its file has it; '' where it has none
  split        'dev' | 'test' | ...
  cluster      answers that share it are not independent (same prompt)
  sample       0, 1, ... for several answers to one question at one step; of
               a reflection the row
  messages     the prompt: [{'role', 'content'}, ...]
  ids          token ids of the answer, with the end of turn if it ended
  text         the answer without special tokens
  stop         'stop' (it ended by itself) | 'length'
  logp         sum of the policy's log-probabilities of ids, in nats
  cut          probability a token that the cap `sample.max_candidates` took
               from top-p; 0 where top-p is off
  verdict      null (not reviewed) or the conscience's view of the answer:
                 p        probability of the flagging label; null: no verdict
                          (too little mass, or the answer did not end and
                          `conscience.review.truncated` skips it)
                 mass     probability of both labels together
                 framing  name of the question it was asked
                 flagged  whether the verdict flags it; `alternative` shows
                          what was revised, which a control chooses otherwise
                 asked    whether the question was put: not of an answer that
                          was cut, or lost on the way to a second model
  alternative  null or what the conscience wrote instead:
                 text, p (its own review), tokens (how many it has)
                 stop     as above, or 'lost': a second model wrote it, and
                          reviewed or revised text did not survive the change
                          of vocabulary
                 kept     whether it became the chosen answer of a pair
                 dropped  why not, else ''
  led          only where a reflection of `mistake_analysis` wrote the answer:
               whether a hint led to it; `alternative` is its analysis, and stop
               is 'lost' of a reply of the pool that no row has room for
  scores       null (no judge, or it cannot judge the answer) or the judge's
               findings, an object: see `ealign.evals.judges`

More fields may follow; readers ignore what they do not know. A run that is
killed and continued may write a record twice: the later one counts.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ealign.runtime.errors import UserError

# Without these no table can be made of a record.
NEEDED = ('step', 'phase', 'messages', 'text')
ASKED = ('question', 'kind')  # unless its phase is 'reflect'


def append(path: Any, records: Iterable[Mapping]) -> None:
  """Adds records to the end of a file, which is made if it is not there.

  A half-written last line, as a killed run leaves it, is removed first.
  Numbers that JSON has not (nan, inf) become null.
  """
  lines = []
  for record in records:
    if missing := _missing(record):
      raise ValueError(f'record without {missing}: {record}')
    line = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)
    lines.append(line.encode('utf-8', 'backslashreplace') + b'\n')
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('ab+') as file:
    _drop_half_line(file)
    file.write(b''.join(lines))


def _missing(record) -> str:
  needed = NEEDED if record.get('phase') == 'reflect' else NEEDED + ASKED
  return ', '.join(field for field in needed if field not in record)


def _drop_half_line(file) -> None:
  file.seek(max(0, file.seek(0, 2) - 1))
  if file.read(1) not in (b'', b'\n'):
    file.seek(0)
    file.truncate(file.read().rfind(b'\n') + 1)


def _plain(record):
  """As JSON has it: arrays of numpy and jax as lists, nan and inf as null."""
  text = json.dumps(record, default=lambda array: array.tolist())
  return json.loads(text, parse_constant=lambda _: None)


def read(path: Any) -> list[dict]:
  """All records of a file, in the order written.

  A last line without its newline is dropped when broken: the run that wrote
  it was killed, and writes the record again when it is continued.

  Raises:
    UserError: no such file, or a line that is no record, with its number.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_bytes().decode('utf-8', 'replace')
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from None
  # Not splitlines(): model text may hold U+2028, which JSON leaves as it is.
  lines, records = text.split('\n'), []
  for number, line in enumerate(lines, start=1):
    try:
      records += [_record(line, f'{path}:{number}')] if line.strip() else []
    except UserError:
      if number < len(lines):
        raise
  return records


def _record(line: str, place) -> dict:
  try:
    record = json.loads(line)
  except ValueError as error:
    message = f'{place}: broken JSON ({error}); remove or repair this line'
    raise UserError(message) from None
  if not isinstance(record, dict):
    raise UserError(f'{place}: a record is a JSON object, not {line[:40]!r}')
  if missing := _missing(record):
    raise UserError(f'{place}: no {missing}; not an answer record')
  return record


def grouped(items: Iterable, key: Callable) -> dict[Any, list]:
  """Key -> its items, both in the order in which they come."""
  groups = {}
  for item in items:
    groups.setdefault(key(item), []).append(item)
  return groups


def latest(records: Iterable[Mapping]) -> list[Mapping]:
  """Each answer once: of records written twice, the later one.

  In a reflection the text counts too, as rows may have no number: repeated by
  a continued run, it is the same.
  """
  unique = {}
  for record in records:
    fields = ('arm', 'seed', 'phase', 'step', 'split', 'question', 'sample')
    key = tuple(record.get(field) for field in fields)
    if record['phase'] == 'reflect':
      key += (record['text'],)
    unique[key] = record
  return list(unique.values())
