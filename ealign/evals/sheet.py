"""The files of a blind reading: a sheet, its key, and what readers return.

`sheet.jsonl` has a row for each answer: `id` (a number, in the sheet's order),
`request`, `answer` and an empty `label`. It says neither arm nor P, so it alone
is what a reader gets; he fills in `label` and returns the file, or a `.jsonl`,
`.json` or `.csv` with id and label. `key.json` has the rest, and the hash of
the sheet.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ealign.data import sources
from ealign.evals import gold
from ealign.evals.blind import Answer
from ealign.evals.gold import NEGATIVE, POSITIVE
from ealign.runtime import atomic
from ealign.runtime.errors import UserError

SHEET, KEY, VERSION = 'sheet.jsonl', 'key.json', 1


def write(folder: pathlib.Path, answers: Sequence[Answer], about: dict) -> None:
  """Writes sheet and key; about: facts of the drawing, for the key.

  Raises:
    UserError: there is a key already, whose sheet may have been read.
  """
  if (folder / KEY).exists():
    raise UserError(
      f'{folder / KEY}: is there already, and its sheet may be with a reader; '
      'give another --workdir'
    )
  shown = [
    {'id': i, 'request': a.request, 'answer': a.text, 'label': ''}
    for i, a in enumerate(answers, start=1)
  ]
  lines = [json.dumps(row, ensure_ascii=False) for row in shown]
  text = _utf8('\n'.join([*lines, '']))
  key = {'version': VERSION, 'sheet': hashlib.sha256(text).hexdigest()} | about
  key['rows'] = [dataclasses.asdict(a) for a in answers]
  atomic.write(folder / SHEET, text)
  atomic.write(folder / KEY, _utf8(json.dumps(key, ensure_ascii=False)))


def _utf8(text: str) -> bytes:
  return text.encode('utf-8', 'replace')


def read_key(folder: pathlib.Path) -> tuple[list[Answer], dict]:
  """The answers of a sheet in its order, and what else its key says.

  Raises:
    UserError: there is no key, it is damaged, or the sheet is another one.
  """
  path = folder / KEY
  try:
    key = json.loads(path.read_text('utf-8'))
    sheet = (folder / SHEET).read_bytes()
  except FileNotFoundError as error:
    name = pathlib.Path(error.filename).name
    message = f'has no {name}; draw one with ealign.evaluate sheet'
    raise UserError(f'{folder}: {message}') from None
  except OSError as error:
    raise UserError(f'{folder}: cannot be read ({error.strerror})') from None
  except (ValueError, RecursionError):
    raise UserError(f'{path}: is no JSON; restore it') from None
  if not isinstance(key, Mapping) or key.get('version') != VERSION:
    raise UserError(f'{path}: is no key of version {VERSION}; draw a new sheet')
  if hashlib.sha256(sheet).hexdigest() != key.get('sheet'):
    raise UserError(
      f'{folder / SHEET}: is not the sheet that was drawn; restore it, and '
      'give labels in files of their own'
    )
  try:
    answers = [_answer(row) for row in key['rows']]
  except (KeyError, TypeError, ValueError, AttributeError):
    answers = []
  if not answers:
    raise UserError(f'{path}: is damaged (rows); restore it')
  return answers, {n: x for n, x in key.items() if n != 'rows'}


def _answer(row: Mapping) -> Answer:
  """An answer of a key; an error of Python's where it is none."""
  made = Answer(**row | {'messages': tuple(row['messages'])})
  texts = (made.arm, made.text, *(turn['role'] for turn in made.messages))
  sound = all(isinstance(x, str) for x in texts)
  sound &= isinstance(made.flagged, bool) and isinstance(made.of, Mapping)
  if not (sound and 0 <= made.p <= 1 and 0 < made.weight < math.inf):
    raise ValueError(row)
  return made


def read_labels(
  path: str, answers: Sequence[Answer], limit: int = sources.LIMIT_MIB
) -> list[bool]:
  """Whether a reader calls each answer bad, in the order of the sheet.

  Raises:
    UserError: the file cannot be read, or does not label each row of the sheet
      once, by a word of `gold.POSITIVE` or `gold.NEGATIVE`; it names the row.
  """
  rows, found = gold.rows_of(str(path), limit), {}
  for number, row in enumerate(rows, start=1):
    where = f'{path}: row {number}'
    at = _id(where, row, len(answers))
    if at in found:
      raise UserError(f'{where}, id: {at} is there twice; drop one of them')
    for name, shown in (
      ('answer', answers[at - 1].text),
      ('request', answers[at - 1].request),
    ):
      if row.get(name) is not None and row[name] != _shown(shown):
        why = f'is not that of row {at} of the sheet; labels of another one?'
        raise UserError(f'{where}, {name}: {why}')
    found[at] = _label(where, row)
  missing = [at for at in range(1, len(answers) + 1) if at not in found]
  if missing:
    listed = ', '.join(map(str, missing[:5]))
    listed += ', ...' if len(missing) > 5 else ''
    raise UserError(
      f'{path}: {len(missing)} of {len(answers)} rows of the sheet have no '
      f'label (id {listed}); add them'
    )
  return [found[at] for at in range(1, len(answers) + 1)]


def _shown(text: str) -> str:
  return _utf8(text).decode()


def _id(where, row, count) -> int:
  value = row.get('id')
  if 'id' not in row:
    known = ', '.join(sorted(row)[:6]) or 'nothing'
    raise UserError(f'{where}: has no id (has {known}); keep that of the sheet')
  text = str(value).strip() if isinstance(value, int | str) else ''
  plain = text.isascii() and text.isdecimal() and len(text) < 10
  if isinstance(value, bool) or not plain or not 1 <= int(text) <= count:
    message = f'must be a number of the sheet, 1 to {count}, not {value!r:.40}'
    raise UserError(f'{where}, id: {message}')
  return int(text)


def _label(where, row) -> bool:
  value = row.get('label')
  if isinstance(value, bool):
    return value
  word = str(value).strip().lower() if isinstance(value, int | str) else None
  if word == '' or value is None:
    raise UserError(f'{where}, label: is empty; write bad or ok')
  if word not in POSITIVE + NEGATIVE:
    raise UserError(f'{where}, label: {value!r:.40} is unknown; bad or ok')
  return word in POSITIVE


def gold_rows(
  answers: Sequence[Answer], one: Sequence[bool], other: Sequence[bool]
) -> list[dict[str, Any]]:
  """Rows for `ealign.evaluate calibrate --gold`.

  An answer that one of the readers calls bad has the label bad. weight: how
  many it stands for, which `calibrate` does not use.
  """
  word = lambda bad: 'bad' if bad else 'ok'
  return [
    {
      'id': f'{i}',
      'messages': [
        *({n: m.get(n) or '' for n in ('role', 'content')} for m in a.messages),
        {'role': 'assistant', 'content': a.text},
      ],
      'label': word(x or y),
      'label_1': word(x),
      'label_2': word(y),
      'cluster': a.request,
      'arm': a.arm,
      'weight': a.weight,
    }
    for i, (a, x, y) in enumerate(
      zip(answers, one, other, strict=True), start=1
    )
  ]
