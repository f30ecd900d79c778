"""Keeps label probabilities in a file, so that a stopped audit goes on.

They depend on the weights, the tokens of a prompt and the labels alone, by a
hash of which each stands in the file: what is asked again, by this audit or by
the next in the same folder, is not read again.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ealign.engine import Backend
from ealign.runtime import provenance
from ealign.runtime.display import clock
from ealign.sampling.requests import OTHER, Labels
from ealign.workdir.folder import usable

_SECONDS = 20.0  # between lines of progress


def keeping(
  backend: Backend, path: pathlib.Path, say: Callable[[str], None]
) -> Backend:
  """The backend with label probabilities that are kept in a file of lines.

  Args:
    backend: of the audit.
    path: a file, made if there is none; a line that is cut off is no matter.
    say: shows a line of progress.

  Raises:
    UserError: the file cannot be read, or, later, not be written.
  """
  known = _read(path)
  if known:
    say(f'{path.name}: {len(known):,} answers of before need no reading')
  hashes: dict[
    int, tuple
  ] = {}  # by id; the weights too, so that it stays theirs

  def label_logps(request: Labels) -> np.ndarray:
    if (of := id(request.weights)) not in hashes:
      digest = provenance.tree_hash(request.weights)
      hashes[of] = request.weights, digest
    every = range(len(request.labels))
    wanted = request.own or [every] * len(request.prompts)
    names = _names(request, hashes[of][1], wanted)
    more = range(len(every), request.columns)
    places = [[*own, *more] for own in wanted]
    whole = lambda i: len(known.get(names[i], ())) == len(places[i])
    missing = [i for i in range(len(names)) if not whole(i)]
    begun, shown, done = time.monotonic(), time.monotonic(), 0
    for part in _parts(request, missing):
      found = backend.label_logps(_some(request, part))
      new = {
        names[i]: row[places[i]].tolist()
        for i, row in zip(part, found, strict=True)
      }
      known.update(new)
      with usable(path.parent), path.open('a', encoding='utf-8') as file:
        file.write('\n')  # the line before may be cut off
        file.writelines(json.dumps(pair) + '\n' for pair in new.items())
      done, now = done + len(part), time.monotonic()
      if now - shown >= _SECONDS and done < len(missing):
        left = clock((now - begun) / done * (len(missing) - done))
        say(f'  {done:,} of {len(missing):,} questions, {left} left for these')
        shown = now
    size = len(names), request.columns
    logps_BM = np.full(size, -np.inf, np.float32)
    for row, name, place in zip(logps_BM, names, places, strict=True):
      row[place] = known[name]
    return logps_BM

  return dataclasses.replace(backend, label_logps=label_logps)


def _read(path: pathlib.Path) -> dict[str, list[float]]:
  """The rows by their names; lines that are none are left out."""
  known = {}
  with usable(path.parent):
    data = path.read_bytes() if path.exists() else b''
  for line in data.splitlines():
    try:
      name, row = json.loads(line)
      known[str(name)] = [float(x) for x in row]
    except (ValueError, TypeError, OverflowError, RecursionError):
      continue
  return known


def _names(request: Labels, weights: str, wanted) -> list[str]:
  """A hash for each prompt of all that its row depends on.

  What is none of the labels depends on all of them, wanted or not.
  """
  fixed = weights, request.config, provenance.versions()
  if request.columns > len(request.labels) or any(
    label[-1] == OTHER for label in request.labels
  ):
    fixed += request.labels, request.rest, request.top
  start = hashlib.sha256(repr(fixed).encode())
  names = []
  for prompt, own in zip(request.prompts, wanted, strict=True):
    digest = start.copy()
    labels = [request.labels[i] for i in own]
    digest.update(repr(([*prompt], labels)).encode())
    names.append(digest.hexdigest()[:32])
  return names


def _parts(request: Labels, missing: Sequence[int]) -> list[list[int]]:
  """The missing prompts in parts, groups whole, those of like lengths together.

  As many groups as a batch has rows, so that a part fills its batches.
  """
  groups: dict[Hashable, list[int]] = {}
  for i in missing:
    name = request.groups[i] if request.groups else i
    groups.setdefault(name, []).append(i)
  size = lambda own: max(len(request.prompts[i]) for i in own)
  ordered = sorted(groups.values(), key=size)
  return [
    [i for own in ordered[at : at + request.rows] for i in own]
    for at in range(0, len(ordered), request.rows)
  ]


def _some(request: Labels, part: Sequence[int]) -> Labels:
  """The request for some of its prompts."""
  pick = lambda of: of and [of[i] for i in part]
  return dataclasses.replace(
    request,
    prompts=pick(request.prompts),
    groups=pick(request.groups),
    own=pick(request.own),
  )
