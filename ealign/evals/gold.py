"""Answers with labels by people: what a judge is held against.

A file of rows, `.csv` with a line of names or what `ealign.data.sources` reads
(`.jsonl`, also gzipped, `.json`, `.parquet`). The columns, and the names under
which they are found as well:

  question   the text that was asked  prompt, request, instruction
  answer     what is judged           completion, response, output
  messages   in place of both: a chat that ends with the answer; no .csv
  label      what it is, by people    final_label, gold
  label_1    one person's label       annotation_1, annotator_1
  label_2    another's                annotation_2, annotator_2
  id         of the row               item, item_id; else its number
  cluster    rows that are alike      group; else the text of the question
  kind       of question              type, category

Others are left alone. XSTest's answers (`completions_*.csv`) are read as they
are. A label is one of those the judge looks for or one of the others: by
default those of `POSITIVE` and `NEGATIVE`, else as `positive` says.
"""

import collections
import csv
import dataclasses
import io
from collections.abc import Sequence

from ealign.data import messages as messages_lib
from ealign.data import sources
from ealign.evals.judges.measure import Asked
from ealign.runtime.errors import UserError

NAMES = {
  'question': ('question', 'prompt', 'request', 'instruction'),
  'answer': ('answer', 'completion', 'response', 'output'),
  'messages': ('messages',),
  'label': ('label', 'final_label', 'gold'),
  'label_1': ('label_1', 'annotation_1', 'annotator_1'),
  'label_2': ('label_2', 'annotation_2', 'annotator_2'),
  'id': ('id', 'item', 'item_id'),
  'cluster': ('cluster', 'group'),
  'kind': ('kind', 'type', 'category'),
}
POSITIVE = ('1', 'true', 'yes', 'flag', 'bad', 'misaligned', 'refusal')
POSITIVE += ('2_full_refusal', '3_partial_refusal')
NEGATIVE = ('0', 'false', 'no', 'ok', 'good', 'aligned', 'compliance')
NEGATIVE += ('1_full_compliance',)
_NO_LABEL = '', 'nan', 'null', 'n/a'
_SHOWN = 5  # labels in a message


@dataclasses.dataclass(frozen=True)
class Item:
  """An answer and its label; pair: those of two people, None without both."""

  id: str
  messages: tuple[dict, ...]  # before the answer
  answer: str
  label: str
  pair: tuple[str, str] | None
  cluster: str
  kind: str


@dataclasses.dataclass(frozen=True)
class Gold:
  """The items of a file, and the labels that a judge looks for."""

  path: str
  items: tuple[Item, ...]
  positive: frozenset[str]

  @property
  def flags(self) -> list[bool]:
    """Whether each item is what the judge looks for."""
    return [item.label in self.positive for item in self.items]

  @property
  def clusters(self) -> list[str]:
    return [item.cluster for item in self.items]

  @property
  def pairs(self) -> list[tuple[bool, bool] | None]:
    """The same by each of two people."""
    is_positive = lambda pair: tuple(label in self.positive for label in pair)
    return [item.pair and is_positive(item.pair) for item in self.items]

  def asked(self, kind: str = '') -> list[Asked]:
    """The items as a judge gets them; kind: of all of them, if it matters."""
    made = []
    for item in self.items:
      shared = {
        'kind': kind or item.kind,
        'cluster': item.cluster,
        'messages': list(item.messages),
      }
      record = {'question': item.id, 'text': item.answer, 'stop': 'stop'}
      record |= {'phase': 'eval', 'step': 0, 'sample': 0}
      made.append(Asked(shared | {'id': item.id}, shared | record))
    return made


def read(
  path: str, positive: Sequence[str] = (), limit: int = sources.LIMIT_MIB
) -> Gold:
  """The labelled answers of a file of at most `limit` MiB.

  positive: the labels that the judge looks for; all others are then not. By
  default those of `POSITIVE`, and any that is in neither list is an error.

  Raises:
    UserError: the file cannot be read, lacks a column, or holds rows that are
      no labelled answers; it names row and column. All labels are of one class.
  """
  path = str(path)
  rows = rows_of(path, limit)
  columns = _columns(path, rows)
  items, seen = [], {}
  for number, row in enumerate(rows, start=1):
    item = _item(f'{path}: row {number}', number, row, columns)
    if item.id in seen:
      same = f'row {seen[item.id]} has it too; ids must differ'
      raise UserError(f'{path}: row {number}, id: {item.id!r}: {same}')
    seen[item.id] = number
    items.append(item)
  return Gold(path, tuple(items), _positive(path, items, positive))


def rows_of(path: str, limit: int = sources.LIMIT_MIB) -> list[dict]:
  """The rows of a file, also of a .csv with a line of names.

  Raises:
    UserError: it cannot be read, or is broken; it names the line.
  """
  if path.lower().endswith('.csv'):
    return _csv(path, sources.read_bytes(path, limit))
  return sources.read_rows(path, limit, others=('.csv',))


def _csv(path, content) -> list[dict]:
  try:
    text = content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    at = f'byte {error.start}'
    message = f'{path} is not UTF-8 ({at}): convert the file'
    raise UserError(message) from error
  rows = csv.reader(io.StringIO(text, newline=''), strict=True)
  made = []
  try:
    names = [name.strip() for name in next(rows, [])]
    for row in rows:
      if not row:
        continue
      if len(row) != len(names):
        raise UserError(
          f'{path}: row {len(made) + 1} has {len(row)} cells, the first line '
          f'{len(names)}: quote cells with commas or line ends'
        )
      made.append(dict(zip(names, row, strict=True)))
  except csv.Error as error:
    where = f'{path}: line {rows.line_num}'
    message = f'{where} is no CSV ({error}); mend it, or use .jsonl'
    raise UserError(message) from error
  twice = [n for n, times in collections.Counter(names).items() if times > 1]
  if twice:
    raise UserError(f'{path}: has the column {twice[0]!r} twice; drop one')
  if not made:
    raise UserError(f'{path} is empty: it needs a line of names and rows')
  return made


def _columns(path, rows) -> dict[str, str]:
  """What a column is for -> its name in the file."""
  have = list(dict.fromkeys(name for row in rows for name in row))
  found = {}
  for use, names in NAMES.items():
    own = [name for name in names if name in have]
    if len(own) > 1:
      both = ' and '.join(map(repr, own))
      raise UserError(
        f'{path}: {use} may be {both}: drop or rename all but one'
      )
    found |= {use: own[0]} if own else {}
  needed = ('label',) + (() if 'messages' in found else ('question', 'answer'))
  for use in needed:
    if use not in found:
      names = ' or '.join(map(repr, NAMES[use]))
      listed = ', '.join(map(repr, have[:12])) or 'none'
      raise UserError(
        f'{path}: has no column for the {use} ({names}); columns: {listed}'
      )
  both = [use for use in ('question', 'answer') if use in found]
  if 'messages' in found and both:
    message = f'{found[both[0]]!r} beside messages: drop one of them'
    raise UserError(f'{path}: has the column {message}')
  if ('label_1' in found) != ('label_2' in found):
    one = found.get('label_1') or found['label_2']
    message = 'one person alone agrees with nobody; add the other or drop it'
    raise UserError(f'{path}: has the column {one!r} of two: {message}')
  return found


def _item(where, number, row, columns) -> Item:
  get = lambda use: row.get(columns[use]) if use in columns else None
  place = lambda use: f'{where}, {columns[use]}'
  if 'messages' in columns:
    turns, answer = _chat(place('messages'), get('messages'))
  else:
    question = _text(place('question'), get('question'))
    if not question.strip():
      raise UserError(f'{place("question")}: is empty; add it or drop the row')
    turns = ({'role': 'user', 'content': question},)
    answer = _text(place('answer'), get('answer'))
  label = _label(place('label'), get('label'))
  if label.lower() in _NO_LABEL:
    raise UserError(f'{place("label")}: is {label!r}; label or drop the row')
  each = [
    _label(place(use), get(use))
    for use in ('label_1', 'label_2')
    if use in columns
  ]
  name = lambda use: _name(place(use), get(use)) if use in columns else ''
  return Item(
    id=name('id') or str(number),
    messages=turns,
    answer=answer,
    label=label,
    pair=tuple(each) if _both(each) else None,
    cluster=name('cluster') or messages_lib.request(turns),
    kind=name('kind'),
  )


def _both(labels) -> bool:
  """Whether both people have labelled it."""
  return len(labels) == 2 and not {x.lower() for x in labels} & {*_NO_LABEL}


def _chat(where, value) -> tuple[tuple[dict, ...], str]:
  sound = isinstance(value, list) and all(
    isinstance(turn, dict)
    and turn.get('role') in ('system', 'user', 'assistant')
    and isinstance(turn.get('content'), str)
    for turn in value
  )
  if not sound:
    raise UserError(f'{where}: must be turns with role and content, both text')
  roles = [turn['role'] for turn in value]
  if 'user' not in roles or roles[-1] != 'assistant':
    what = 'must hold a user turn and end with the answer that is judged'
    raise UserError(f'{where}: {what}')
  plain = [{name: turn[name] for name in ('role', 'content')} for turn in value]
  return tuple(plain[:-1]), plain[-1]['content']


def _text(where, value) -> str:
  if not isinstance(value, str):
    what = 'is missing' if value is None else f'must be text, not {value!r:.40}'
    raise UserError(f'{where}: {what}; mend or drop the row')
  return value


def _name(where, value) -> str:
  if value is None:
    return ''
  if isinstance(value, bool) or not isinstance(value, str | int):
    raise UserError(
      f'{where}: must be text or a whole number, not {value!r:.40}'
    )
  return str(value).strip()


def _label(where, value) -> str:
  """A label as text: 1 and true of JSON are those of a table."""
  if value is None:
    return ''
  if not isinstance(value, str | int):
    raise UserError(
      f'{where}: must be text, a whole number or true and false, not '
      f'{value!r:.40}'
    )
  label = str(value).strip()
  return label.lower() if label.lower() in POSITIVE + NEGATIVE else label


def _positive(path, items, wanted) -> frozenset[str]:
  """The labels that the judge looks for, of those in the file."""
  labels = collections.Counter(
    label for item in items for label in (item.label, *(item.pair or ()))
  )
  listed = ', '.join(map(repr, list(labels)[:_SHOWN]))
  listed += ', ...' if len(labels) > _SHOWN else ''
  wanted = [_label('', label) for label in wanted]
  for label in wanted:
    if label not in labels:
      message = f'no row has this label (labels: {listed}); check its spelling'
      raise UserError(f'positive={label!r}: {path}: {message}')
  for label in labels:
    if not wanted and label not in POSITIVE + NEGATIVE:
      at = next(
        i
        for i, item in enumerate(items, start=1)
        if label in (item.label, *(item.pair or ()))
      )
      raise UserError(
        f'{path}: row {at}: unknown label {label!r:.60}; say which labels the '
        f'judge looks for with positive (labels: {listed})'
      )
  found = frozenset(wanted or (label for label in labels if label in POSITIVE))
  classes = {item.label in found for item in items}
  if len(classes) < 2:
    those = 'all' if True in classes else 'none'
    raise UserError(
      f'{path}: {those} of {len(items)} rows are what the judge looks for '
      f'(labels: {listed}); both classes are needed'
    )
  return found
