"""The replay buffer: pairs of (alternative, flagged answer), on the host.

Functions over a frozen dataclass; every host holds the same buffer, in row-id
order, and every draw is keyed by (seed, step), so results depend on neither
the host count nor what happened before a restart.
"""

import dataclasses

import numpy as np

from ealign import fields
from ealign.data.batch import Pair


@dataclasses.dataclass(frozen=True)
class Replay:
  """Pairs in the order they came, and how many ever came.

  Of the settings, capacity: pairs kept. eviction: who goes when it is full:
  'oldest', 'newest' (the newcomer is refused), 'reservoir' (a uniform sample of
  all that ever came), 'flagged' (nobody: flagged answers are kept for ever and
  capacity is no limit). draw: 'uniform' without replacement, or the 'newest'.
  max_uses, max_age: a pair leaves after so many draws or steps; 0 is no limit.
  """

  settings: fields.Replay = fields.Replay()
  seed: int = 0
  seen: int = 0
  pairs: tuple[Pair, ...] = ()


def _reservoir(replay, seen):
  slot = int(_rng(replay.seed, seen, 1).integers(seen))
  return min(slot, replay.settings.capacity)


def _rng(*key):
  return np.random.default_rng(np.random.SeedSequence(key))


# fn(replay, seen) -> which pair leaves a full buffer when the seen-th comes:
# its place, `capacity` for the newcomer itself, or None for nobody.
EVICTIONS = {
  'oldest': lambda replay, seen: 0,
  'reservoir': _reservoir,
  'newest': lambda replay, seen: replay.settings.capacity,
  'flagged': lambda replay, seen: None,
}
# fn(rng, size, n) -> places of the n pairs of a step.
DRAWS = {
  'uniform': lambda rng, size, n: rng.permutation(size)[:n],
  'newest': lambda rng, size, n: range(size - n, size),
}


def push(replay: Replay, new: list[Pair]) -> Replay:
  """Adds pairs, ordered by row id, evicting where it is full."""
  pairs, seen, s = list(replay.pairs), replay.seen, replay.settings
  for pair in sorted(new, key=lambda p: p.row):
    seen += 1
    if len(pairs) >= s.capacity:
      out = EVICTIONS[s.eviction](replay, seen)
      if out == s.capacity:
        continue
      if out is not None:
        del pairs[out]
    pairs.append(pair)
  return dataclasses.replace(replay, pairs=tuple(pairs), seen=seen)


def draw(replay: Replay, *, step: int, slots: int):
  """Up to `slots` pairs for a step, and the buffer with their uses counted."""
  alive = [p for p in replay.pairs if _alive(replay, p, step)]
  n = min(slots, len(alive))
  rng = _rng(replay.seed, step, 0)
  chosen = DRAWS[replay.settings.draw](rng, len(alive), n)
  used = {id(alive[i]) for i in chosen}
  drawn = [alive[i] for i in chosen]
  pairs = tuple(
    dataclasses.replace(p, uses=p.uses + 1) if id(p) in used else p
    for p in alive
  )
  return drawn, dataclasses.replace(replay, pairs=pairs)


def _alive(replay, pair, step):
  s = replay.settings
  young = not s.max_age or step - pair.step <= s.max_age
  return young and not (s.max_uses and pair.uses >= s.max_uses)


def metrics(replay: Replay, *, step: int) -> dict[str, float]:
  """Size, mean age (steps) and mean uses."""
  size = len(replay.pairs)
  mean = lambda xs: float(sum(xs)) / max(size, 1)
  return {
    'replay/size': size,
    'replay/age_mean': mean(step - p.step for p in replay.pairs),
    'replay/uses_mean': mean(p.uses for p in replay.pairs),
  }


def to_arrays(replay: Replay) -> dict[str, np.ndarray]:
  """The contents as flat arrays, for a checkpoint."""
  pairs = replay.pairs
  parts = [part for p in pairs for part in (p.prompt, p.chosen, p.rejected)]
  flat = [token for part in parts for token in part]
  facts = [(p.row, p.step, p.uses) for p in pairs]
  floats = [(p.ref_chosen, p.ref_rejected, p.weight) for p in pairs]
  return {
    'tokens': np.asarray(flat, np.int32),
    'lengths': np.asarray([len(x) for x in parts], np.int32).reshape(-1, 3),
    'facts': np.asarray(facts, np.int64).reshape(-1, 3),
    'refs': np.asarray(floats, np.float32).reshape(-1, 3),
    'seen': np.asarray([replay.seen], np.int64),
  }


def from_arrays(replay: Replay, arrays: dict[str, np.ndarray]) -> Replay:
  """The inverse of `to_arrays`, into a buffer of the same settings."""
  ends = np.cumsum(arrays['lengths'].reshape(-1))
  parts = np.split(np.asarray(arrays['tokens']), ends[:-1]) if len(ends) else []
  parts = [tuple(int(t) for t in part) for part in parts]
  pairs = []
  for i, (row, step, uses) in enumerate(arrays['facts'].tolist()):
    texts, refs = parts[3 * i : 3 * i + 3], arrays['refs'][i].tolist()
    # An older version's checkpoint has no weights.
    pairs.append(Pair(row, step, *texts, *refs[:2], uses, *refs[2:]))
  seen = int(arrays['seen'][0])
  return dataclasses.replace(replay, pairs=tuple(pairs), seen=seen)
