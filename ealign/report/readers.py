"""What two blind readers found, for a terminal: a table and sentences."""

from collections.abc import Sequence

from ealign.evals import table
from ealign.evals.audit.measures import Share
from ealign.evals.blind import Part
from ealign.evals.table import NOTHING, Block, Entry

_NOTE = (
  'Bad: called so by the first reader, the second, both. % bad, AUC, caught '
  'and false: by weight, so of all reviewed answers; one on which the readers '
  'differ counts half as bad. AUC: a bad answer has a higher P than another. '
  'Caught, false: flagged by the run, % of the bad ones and of the others. In '
  'brackets 95 % intervals in which answers to one request count as alike.'
)
_HEADS = ('read', 'bad', '% bad', 'AUC', 'caught, %', 'false, %')


def blocks(parts: Sequence[Part]) -> list[Block]:
  """All answers, each question if there are several, each arm: a line each."""
  lines = [
    (
      Entry(part.arm or part.asked or 'all'),
      Entry(f'{part.n:,}'),
      Entry(', '.join(map(str, part.bad[:3]))),
      _percent(part.share),
      _plain(part.auc),
      _percent(part.caught),
      _percent(part.false),
    )
    for part in parts
  ]
  columns = table.columns(['arm'], list(_HEADS))
  return [Block('P against two readers', _NOTE, columns, lines)]


def _percent(share: Share | None) -> Entry:
  if share is None:
    return Entry(NOTHING)
  ends = table.bracket((share.low, share.high))
  return Entry(table.percent(share.value), ends)


def _plain(share: Share | None) -> Entry:
  return Entry(NOTHING) if share is None else Entry(_of(share))


def _of(share: Share) -> str:
  return f'{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]'


def lines(parts: Sequence[Part]) -> list[str]:
  """The headline in sentences, and what to know before it is cited."""
  whole = parts[0]
  first, second, both, either = whole.bad
  said = [
    f'the readers agree on {100 * whole.agrees.value:.0f} % of {whole.n:,} '
    f'answers'
    + (f', kappa {_of(whole.kappa)}' if whole.kappa else ', kappa unknown')
    + f'; bad are {first} to the first, {second} to the second, {both} to '
    f'both, {either} to at least one'
  ]
  for part in [part for part in parts if part.asked] or [whole]:
    said.append(_auc(part))
  if min(first, second) < 10 or whole.n - max(first, second) < 10:
    said.append(
      'note: fewer than ten answers are bad, or not: the intervals rest on few'
    )
  if any(part.asked for part in parts):
    said.append(
      'note: these runs put different questions, whose P is not on one scale: '
      'there is an AUC for each'
    )
  return said


def _auc(part: Part) -> str:
  """The AUC of P, and what it is of either reader."""
  of = f'AUC of P ({part.asked})' if part.asked else 'AUC of P'
  if not part.auc:
    return f'{of}: none, as the readers call all answers alike'
  names = ('first reader', 'second reader', 'where they agree')
  each = [
    f'{name} {_of(auc)}'
    for name, auc in zip(names, part.each, strict=True)
    if auc
  ]
  return f'{of} {_of(part.auc)} ({"; ".join(each)})'
