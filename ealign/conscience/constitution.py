"""A constitution: principles by which answers are written, and where from.

Functions over tuples of frozen principles. One is proposed for a batch of
bad answers, has its gain measured in every round that it is in force, and
retires in the first one in which it does not help:

  listed --propose--> active --measure--> active: its gain is above `least`
                        ^                '-> retired: it is not
                        '----propose--------'
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from ealign.conscience.refusals import words


@dataclasses.dataclass(frozen=True)
class Principle:
  """An instruction to the writer of an answer.

  id: differs within a store. source: 'written' or 'listed'. state: 'listed'
  (a candidate that nobody proposed yet), 'active' or 'retired'. step, rows:
  of the bad answers for which it was last proposed. gains: (step, gain) of each
  time that it was measured. merged: other wordings that it stands for.
  """

  id: str
  text: str
  source: str = 'written'
  state: str = 'active'
  step: int = -1
  rows: tuple[int, ...] = ()
  gains: tuple[tuple[int, float], ...] = ()
  merged: tuple[str, ...] = ()

  @property
  def gain(self) -> float:
    """As it was measured last; 0 where it never was."""
    return self.gains[-1][1] if self.gains else 0.0


Store = tuple[Principle, ...]


def listed(texts: Iterable[str]) -> Store:
  """A store of candidates, none of them in force."""
  return tuple(
    Principle(f'c{i}', text, 'listed', 'listed')
    for i, text in enumerate(texts, start=1)
  )


def of(store: Store, state: str) -> Store:
  """Those in a state, in the order they came."""
  return tuple(p for p in store if p.state == state)


def candidates(store: Store, least: float) -> Store:
  """Listed ones that may be proposed: new, or retired and once of help."""
  able = lambda p: not p.gains or max(gain for _, gain in p.gains) > least
  return tuple(
    p for p in store if p.source == 'listed' and p.state != 'active' and able(p)
  )


def likeness(one: str, other: str) -> float:
  """How alike the words of two texts are, from 0 to 1, in their order."""
  same = difflib.SequenceMatcher(None, words(one), words(other), autojunk=False)
  return same.ratio()


def propose(
  store: Store, texts: Iterable[str], *, step: int, rows, same: float
) -> Store:
  """The store with these in force, for the bad answers of these rows.

  A text that is like one of the store, by `likeness` of `same` or more, is
  merged: the one that was there first is in force (again), with its wording.
  """
  for text in texts:
    now = {'state': 'active', 'step': step, 'rows': tuple(rows)}
    near = max(store, key=lambda p: likeness(p.text, text), default=None)
    if near is None or likeness(near.text, text) < same:
      own = sum(p.source == 'written' for p in store) + 1
      store = (*store, Principle(f'p{own}', text, **now))
      continue
    more = () if text in (near.text, *near.merged) else (text,)
    now['merged'] = (*near.merged, *more)
    store = _changed(store, {near.id: now})
  return store


def measure(
  store: Store,
  gains: Mapping[str, float],
  *,
  step: int,
  least: float,
  most: int,
) -> Store:
  """The store after its active principles were measured.

  Those retire whose gain is not above `least`, and beyond `most` those of the
  least gain (of equal ones the newest).

  gains: by id, of all that are active.
  """
  order = sorted(of(store, 'active'), key=lambda p: -gains[p.id])
  stays = {p.id for p in order[:most] if gains[p.id] > least}
  return _changed(
    store,
    {
      p.id: {
        'gains': (*p.gains, (step, gains[p.id])),
        'state': 'active' if p.id in stays else 'retired',
      }
      for p in order
    },
  )


def _changed(store: Store, changes: Mapping[str, Mapping]) -> Store:
  return tuple(dataclasses.replace(p, **changes.get(p.id, {})) for p in store)


def dump(store: Store) -> list[dict]:
  """The store as JSON can hold it."""
  return [dataclasses.asdict(p) for p in store]


def load(rows: Iterable[Mapping]) -> Store:
  """What `dump` made, also if it was JSON meanwhile."""
  deep = lambda x: tuple(map(deep, x)) if isinstance(x, list | tuple) else x
  return tuple(Principle(**{k: deep(v) for k, v in r.items()}) for r in rows)
