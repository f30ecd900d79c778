"""Keeps what a model answered in a file, so that stopped work goes on.

An answer depends on the weights, the tokens of its prompt and how it is
sampled; label probabilities on the weights, the prompt and the labels. By a
hash of all that each stands in the file: what is asked again, by the same
command or by another in the same folder, is not computed again.
"""

import dataclasses
import hashlib
import json
import pathlib
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from ealign.engine import Backend
from ealign.runtime import display, provenance
from ealign.sampling.requests import OTHER, Answers, Labels
from ealign.sampling.sampler import Answer
from ealign.workdir.folder import usable

OF_RUN = 'suites.jsonl'  # in a run's folder, what its suites asked
_PIECE = 1  # batches of a group that are computed at a time
_MOST = 4  # batches that are, of whatever groups


@dataclasses.dataclass(frozen=True)
class _Kind:
  """How requests of one kind are named, split and kept.

  names: (request, digest of what all rows share) -> a name for each row.
  parts: (request, missing rows) -> rows that are computed at a time.
  some: (request, rows) -> the request for these rows alone.
  pack, unpack: a row's result as JSON and back; what is no such result may
    raise a ValueError, TypeError or OverflowError.
  gather: (request, results of all rows) -> what the backend returns.
  """

  what: str
  names: Callable
  parts: Callable
  some: Callable
  pack: Callable
  unpack: Callable
  gather: Callable


def keeping(
  backend: Backend,
  path: pathlib.Path,
  say: Callable[[str], None],
  hashes: Callable[[dict], str] = provenance.tree_hash,
  note: Callable[[int, int, str], None] = lambda kept, of, what: None,
  others: Sequence[pathlib.Path] = (),
) -> Backend:
  """The backend with its answers and log-probabilities kept in a file.

  Args:
    backend: what computes those that are not in the file.
    path: a file of lines, made if there is none; one that is cut off is no
      matter.
    say: shows a line of progress.
    hashes: weights -> their hash.
    note: is told how many rows of a request are in the file, of how many, and
      what they are, whenever there are more.
    others: such files of runs, which are read alone.

  Raises:
    UserError: the file cannot be read, or, later, not be written.
  """
  known = {name: row for file in others for name, row in _read(file).items()}
  if known:
    say(f'{len(known):,} results that runs kept need no computing')
  if own := _read(path):
    say(f'{path.name}: {len(own):,} results of before need no computing')
  known |= own
  of: dict[tuple, tuple] = {}  # weights that are gone must not be held by it

  def weights_hash(weights) -> str:
    leaves = jax.tree.leaves(weights)
    name = tuple(map(id, leaves))
    held, digest = of.get(name, ((), ''))
    if not held or any(ref() is not x for ref, x in zip(held, leaves)):  # noqa: B905
      held, digest = tuple(map(_weak, leaves)), hashes(weights)
      of[name] = held, digest
    return digest

  def kept(kind: _Kind, compute: Callable) -> Callable:
    def answered(request):
      names = kind.names(request, weights_hash(request.weights))
      rows = [_row(kind, request, i, known.get(n)) for i, n in enumerate(names)]
      missing = [i for i, row in enumerate(rows) if row is None]
      left = len(missing)
      note(len(rows) - left, len(rows), kind.what)
      with display.counting(left, kind.what, say) as done:
        for part in kind.parts(request, missing):
          made = compute(kind.some(request, part))
          new = {
            names[i]: kind.pack(request, i, row)
            for i, row in zip(part, made, strict=True)
          }
          _append(path, new)
          known.update(new)
          left -= len(part)
          note(len(rows) - left, len(rows), kind.what)
          done(len(part))
      for i in missing:
        rows[i] = kind.unpack(request, i, known[names[i]])
      return kind.gather(request, rows)

    return answered

  return dataclasses.replace(
    backend,
    generate=kept(_ANSWERS, backend.generate),
    label_logps=kept(_LABELS, backend.label_logps),
    pair_logps=kept(_PAIRS, backend.pair_logps),
  )


def _weak(leaf) -> Callable:
  """A reference that does not keep an array; NumPy's numbers have none."""
  try:
    return weakref.ref(leaf)
  except TypeError:
    return lambda: leaf


def _row(kind: _Kind, request, i: int, value):
  """The result that is kept of a row; None where there is no sound one."""
  try:
    return None if value is None else kind.unpack(request, i, value)
  except (ValueError, TypeError, OverflowError):
    return None


def _append(path: pathlib.Path, new: dict) -> None:
  with usable(path.parent), path.open('a', encoding='utf-8') as file:
    file.write('\n')  # the line before may be cut off
    file.writelines(json.dumps(pair) + '\n' for pair in new.items())


def _read(path: pathlib.Path) -> dict[str, Any]:
  """The rows by their names; lines that are none are left out."""
  known = {}
  with usable(path.parent):
    data = path.read_bytes() if path.exists() else b''
  for line in data.splitlines():
    try:
      name, row = json.loads(line)
      known[str(name)] = list(row)
    except (ValueError, TypeError, RecursionError):
      continue
  return known


def _names(request, weights: str, shared, rows) -> list[str]:
  """A hash for each row of what all of them share and of what is its own."""
  fixed = type(request).__name__, weights, request.config
  start = hashlib.sha256(repr((*fixed, shared, provenance.versions())).encode())
  names = []
  for row in rows:
    digest = start.copy()
    digest.update(repr(row).encode())
    names.append(digest.hexdigest()[:32])
  return names


def _pick(request, part: Sequence[int], *fields: str):
  """The request for some of its rows, which these fields hold."""
  own = {name: getattr(request, name) for name in fields}
  picked = {
    name: None if rows is None else [rows[i] for i in part]
    for name, rows in own.items()
  }
  return dataclasses.replace(request, **picked)


def _batches(
  missing: Sequence[int], size: Callable, rows: int, groups=None
) -> list[list[int]]:
  """The missing rows in parts, groups whole, those of like sizes together.

  As many groups as a batch has rows, so that a part fills its batches; a large
  group is taken in pieces, else nothing would be kept until all of it is done.
  """
  by_group: dict[Hashable, list[int]] = {}
  for i in sorted(missing, key=size):
    by_group.setdefault(groups[i] if groups else i, []).append(i)
  pieces = [
    own[at : at + _PIECE * rows]
    for own in by_group.values()
    for at in range(0, len(own), _PIECE * rows)
  ]
  parts, groups_in = [[]], 0
  for piece in sorted(pieces, key=lambda own: max(map(size, own))):
    if parts[-1] and (
      groups_in == rows or len(parts[-1]) + len(piece) > _MOST * rows
    ):
      parts.append([])
      groups_in = 0
    parts[-1] += piece
    groups_in += 1
  return [part for part in parts if part]


# --- Answers -----------------------------------------------------------------


def _answer_names(request: Answers, weights: str) -> list[str]:
  n = len(request.prompts)
  ids = range(n) if request.row_ids is None else request.row_ids
  key = np.asarray(jax.random.key_data(request.key))
  keys = np.broadcast_to(key, (n, key.shape[-1])).tolist()
  settings = jax.tree.map(
    lambda x: np.broadcast_to(np.asarray(x), n).tolist(),
    dataclasses.asdict(request.settings),
  )
  how = zip(*settings.values(), strict=True)
  shared = request.stop_ids, request.truncate, [*settings]
  # Of two drafts of an answer the longer begins as the shorter one: max_tokens
  # is in the settings, the room that a program has is no matter.
  rows = zip(map(list, request.prompts), keys, ids, how, strict=True)
  return _names(request, weights, shared, rows)


def _some_answers(request: Answers, part: Sequence[int]) -> Answers:
  ids = range(len(request.prompts))
  ids = ids if request.row_ids is None else request.row_ids
  each = lambda x: x if np.ndim(x) == 0 else np.asarray(x)[part]
  request = dataclasses.replace(
    request,
    row_ids=[*ids],
    key=request.key[np.array(part)] if request.key.ndim else request.key,
    settings=jax.tree.map(each, request.settings),
  )
  return _pick(request, part, 'prompts', 'row_ids')


def _answer(request: Answers, i: int, value) -> Answer:
  ids, logps, stop, cut = value
  return Answer(
    tuple(map(int, ids)), np.array(logps, np.float32), str(stop), float(cut)
  )


_ANSWERS = _Kind(
  what='answers',
  names=_answer_names,
  parts=lambda request, missing: _batches(
    missing, lambda i: len(request.prompts[i]), request.rows
  ),
  some=_some_answers,
  pack=lambda request, i, a: [
    *([int(t) for t in a.ids], [float(p) for p in a.logps], a.stop),
    float(a.cut),
  ],
  unpack=_answer,
  gather=lambda request, rows: rows,
)


# --- Labels ------------------------------------------------------------------


def _own(request: Labels, i: int) -> list[int]:
  return [*(request.own[i] if request.own else range(len(request.labels)))]


def _places(request: Labels, i: int) -> list[int]:
  """The columns kept of a row: its own labels, and those that are none."""
  return [*_own(request, i), *range(len(request.labels), request.columns)]


def _label_names(request: Labels, weights: str) -> list[str]:
  """What is none of the labels depends on all of them, wanted or not."""
  shared = None
  if request.columns > len(request.labels) or any(
    label[-1] == OTHER for label in request.labels
  ):
    shared = request.labels, request.rest, request.top
  rows = (
    ([*prompt], [request.labels[m] for m in _own(request, i)])
    for i, prompt in enumerate(request.prompts)
  )
  return _names(request, weights, shared, rows)


def _label_row(request: Labels, i: int, value) -> list[float]:
  row = [*map(float, value)]
  if len(row) != len(_places(request, i)):
    raise ValueError(value)
  return row


def _gather_labels(request: Labels, rows) -> np.ndarray:
  size = len(request.prompts), request.columns
  logps_BM = np.full(size, -np.inf, np.float32)
  for i, row in enumerate(rows):
    logps_BM[i, _places(request, i)] = row
  return logps_BM


_LABELS = _Kind(
  what='questions',
  names=_label_names,
  parts=lambda request, missing: _batches(
    *(missing, lambda i: len(request.prompts[i]), request.rows),
    request.groups,
  ),
  some=lambda request, part: _pick(request, part, 'prompts', 'groups', 'own'),
  pack=lambda request, i, row: row[_places(request, i)].tolist(),
  unpack=_label_row,
  gather=_gather_labels,
)


# --- Pairs -------------------------------------------------------------------


_PAIRS = _Kind(
  what='pairs',
  names=lambda request, weights: _names(
    *(request, weights, request.length),
    ([[*p.prompt], [*p.chosen], [*p.rejected]] for p in request.pairs),
  ),
  parts=lambda request, missing: _batches(
    *(missing, lambda i: 0, 4 * request.slots),
  ),
  some=lambda request, part: _pick(request, part, 'pairs'),
  pack=lambda request, i, row: row.tolist(),
  unpack=lambda request, i, value: [float(x) for x in value],
  gather=lambda request, rows: np.array(rows, np.float32).reshape(-1, 2),
)
