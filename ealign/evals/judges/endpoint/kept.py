"""Keeps replies in a file of lines, so that nothing is asked and paid twice."""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping

from ealign.evals.judges.endpoint.cost import Spent
from ealign.evals.judges.endpoint.replies import Reply
from ealign.workdir.folder import usable

_VERSION = 1  # of what the hash is of


def name(address: str, request: Mapping) -> str:
  """A hash of all that a reply depends on: where, whom and what one asks."""
  text = json.dumps([_VERSION, address, request], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:40]


class Kept:
  """Replies by their names, and what all of them together have cost.

  In a file that is written line by line as replies arrive, by this process
  alone; a line that is cut off or broken is left out. It holds no prompt and
  no key. Without a path they are kept in memory.
  """

  def __init__(self, path: pathlib.Path | str | None):
    self.path = path and pathlib.Path(path)
    self.replies: dict[str, Reply] = {}
    self.spent = Spent()
    if self.path:
      self._read()

  def _read(self) -> None:
    with usable(self.path.parent):
      if not self.path.exists():
        return
      with self.path.open('rb') as file:
        for line in file:
          if (found := _of_line(line)) and found[0] not in self.replies:
            self._know(*found)

  def _know(self, key: str, reply: Reply, spent: Spent) -> None:
    self.replies[key] = reply
    self.spent += spent

  def add(self, key: str, reply: Reply, spent: Spent) -> None:
    """Keeps one more reply; it is in the file when this returns."""
    self._know(key, reply, spent)
    if not self.path:
      return
    row = {'key': key} | dataclasses.asdict(reply)
    row |= {'spent': dataclasses.astuple(spent)}
    with usable(self.path.parent):
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with self.path.open('ab') as file:
        # A newline first: the line before may be cut off.
        file.write(b'\n' + json.dumps(row).encode() + b'\n')


def _of_line(line: bytes) -> tuple[str, Reply, Spent] | None:
  try:
    row = json.loads(line)
    top = tuple((str(token), float(logp)) for token, logp in row['top'])
    if not all(logp <= 0 and not math.isnan(logp) for _, logp in top):
      return None
    reply = Reply(
      top=top,
      path=tuple(map(str, row['path'])),
      text=str(row['text']),
      cut=bool(row['cut']),
      usage=row['usage'] and tuple(map(int, row['usage'])),
      served=str(row['served']),
      fingerprint=str(row['fingerprint']),
      filtered=bool(row['filtered']),
    )
    spent = Spent(*map(int, row['spent']))
    return str(row['key']), reply, spent
  except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
    return None
