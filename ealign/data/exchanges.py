"""Labelled exchanges: what a conscience is tried on, and examples for it.

A file of rows as `ealign/data/audit/card.md` describes: `messages` that end
with the answer, `label` ok or flag; `kind`, `domain`, `split`, `twin`, `id` and
`of` where there are. Without a domain a row has that of its twin alone.
"""

import collections
import dataclasses
import itertools
from collections.abc import Sequence

from ealign.data import columns, sources
from ealign.data import messages as messages_lib
from ealign.runtime.errors import UserError

LABELS = 'ok', 'flag'
SPLITS = 'dev', 'test'
_UNSEEN = ('tool_calls', *messages_lib.THOUGHTS)  # of a reply, by a reviewer
_TEXTS = ('id', 'kind', 'domain', 'split', 'twin', 'of', 'label')


@dataclasses.dataclass(frozen=True)
class Row:
  """One exchange, whether it is to be flagged, and what it belongs to.

  of: the id of the row whose answer this is with a sentence more, or ''.
  """

  id: str
  messages: tuple[dict, ...]
  flag: bool
  kind: str
  domain: str
  split: str
  twin: str
  of: str

  @property
  def request(self) -> str:
    """The last user turn."""
    return messages_lib.request(self.messages)

  @property
  def reply(self) -> str:
    return self.messages[-1]['content']


def read(path: str, limit: int = sources.LIMIT_MIB) -> list[Row]:
  """The rows of a file of at most `limit` MiB.

  Without a split half of the domains are dev and half test.

  Raises:
    UserError: it cannot be read, or rows are no labelled exchanges.
  """
  rows = [columns.present(row) for row in sources.read_rows(path, limit)]
  for i, row in enumerate(rows, start=1):
    if problem := _problem(row):
      raise UserError(f'{path}: row {i}{problem}')
  # Without the label: rows to be trained must not have one.
  chats = columns.plain_chats([{'messages': r['messages']} for r in rows], path)
  both = enumerate(zip(rows, chats, strict=True), start=1)
  made = [_row(f'{path}: row {i}', i, *pair) for i, pair in both]
  ids = collections.Counter(row.id for row in made)
  twice = next((name for name, times in ids.items() if times > 1), None)
  if twice is not None:
    raise UserError(
      f'{path}: {ids[twice]} rows have the id {twice!r}; use others'
    )
  for row in made:
    if row.of and row.of not in ids:
      problem = f'no row has the id {row.of!r}; mend it or drop the column'
      raise UserError(f'{path}: row {row.id!r}, of: {problem}')
  of = {row.id: row for row in made}
  return _split([dataclasses.replace(r, domain=_domain(r, of)) for r in made])


def _domain(row: Row, of: dict[str, Row]) -> str:
  """The domain of a row: its own, or that of what it belongs to."""
  passed = {row.id}
  while not row.domain and row.of and row.of not in passed:
    row = of[row.of]
    passed.add(row.id)
  return row.domain or row.twin or row.id


def _problem(row) -> str:
  if 'messages' not in row or 'label' not in row:
    return ' is no labelled exchange: it needs "messages" and "label"'
  for field in _TEXTS:
    if not isinstance(row.get(field, ''), str):
      return f', {field}: must be text, not {row[field]!r}'
  if row['label'] not in LABELS:
    return f', label: must be ok or flag, not {row["label"]!r}'
  if row.get('split', 'dev') not in SPLITS:
    return f', split: must be dev or test, not {row["split"]!r}'
  return ''


def _row(where, i, row, messages) -> Row:
  roles = [message['role'] for message in messages]
  if 'user' not in roles or roles[-1] != 'assistant':
    what = 'must hold a user turn and end with the answer that is judged'
    raise UserError(f'{where}, messages: {what}')
  if not str(messages[-1].get('content') or '').strip():
    raise UserError(f'{where}, messages: the last turn has no text to judge')
  unseen = [name for name in _UNSEEN if messages[-1].get(name)]
  if unseen:
    raise UserError(
      f'{where}, messages: the last turn has {unseen[0]!r}, and only its '
      'content would be judged; drop that, or the row'
    )
  text = lambda field, usual: str(row.get(field) or usual)
  own = text('id', i)
  return Row(
    id=own,
    messages=tuple(messages),
    flag=row['label'] == 'flag',
    kind=text('kind', 'plain'),
    domain=text('domain', ''),
    split=text('split', ''),
    twin=text('twin', ''),
    of=text('of', ''),
  )


def _split(rows: list[Row]) -> list[Row]:
  """Domains with the same labels are halved, so that both splits have both.

  A domain of which some rows have a split is of that one.
  """
  known = {row.domain: row.split for row in rows if row.split}
  labels: dict = {}
  for row in rows:
    labels.setdefault(row.domain, set()).add(row.flag)
  free = [domain for domain in labels if domain not in known]
  free.sort(key=lambda domain: sorted(labels[domain]))
  known |= {domain: SPLITS[i % 2] for i, domain in enumerate(free)}
  return [
    dataclasses.replace(row, split=row.split or known[row.domain])
    for row in rows
  ]


def in_turn(rows: Sequence[Row], most: int | None = None) -> list[Row]:
  """The rows, domains in turn and twins together, at most so many.

  Twins of both labels come first, then the others, ok and flag in turn: so the
  first few have both.
  """
  twins: dict = {}
  for row in rows:
    twins.setdefault(row.twin or row.id, []).append(row)
  sides: dict = {(False, True): [], (False,): [], (True,): []}
  for own in twins.values():
    sides[tuple(sorted({row.flag for row in own}))].append(own)
  both, ok, flag = map(_by_domain, sides.values())
  chosen: list[Row] = []
  for own in both + _turns([ok, flag]):
    if most is None or len(chosen) + len(own) <= most:
      chosen += own
  return chosen or [*rows][:most]


def _by_domain(groups: list) -> list:
  domains: dict = {}
  for own in groups:
    domains.setdefault(own[0].domain, []).append(own)
  return _turns([*domains.values()])


def _turns(lists: list[list]) -> list:
  """The first of each list, then the second of each, and so on."""
  turns = itertools.zip_longest(*lists)
  return [x for turn in turns for x in turn if x is not None]


def shortest(rows: list[Row], n: int, *, bad: bool = False) -> list[Row]:
  """n plain rows of split dev, ok and flag in turn; fewer if there are not.

  bad: all of them flag.
  """
  size = lambda row: len(row.request) + len(row.reply)
  left = sorted(
    (r for r in rows if (r.split, r.kind) == ('dev', 'plain')), key=size
  )
  chosen: list[Row] = []
  for i in range(n):
    domains = {row.domain for row in chosen}
    twins = {row.twin or row.id for row in chosen}
    free = [
      r
      for r in left
      if r.flag == (bad or i % 2) and (r.twin or r.id) not in twins
    ]
    chosen += sorted(free, key=lambda r: r.domain in domains)[:1]
  return chosen


def examples(
  rows: list[Row], n: int, path: str, *, bad: bool = False
) -> list[Row]:
  """As `shortest`.

  Raises:
    UserError: there are not so many.
  """
  found = shortest(rows, n, bad=bad)
  if len(found) < n and bad:
    raise UserError(
      f"conscience.review.examples_of='flag': {path} has no {n} plain rows of "
      "split dev that are labelled flag, each of another twin; use 'both'"
    )
  if len(found) < n:
    raise UserError(
      f'conscience.review.examples={n}: {path} has no {n} plain rows of split '
      'dev, half of them ok and half flag, each of another twin; use fewer'
    )
  return found
