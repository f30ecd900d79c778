"""The right to run a cell: a file LEASE, renewed as long as its owner lives.

On a disk the file is created exclusively. A bucket cannot do that: there the
last launcher that wrote the file, and still finds its own token after a while,
has the lease. If two believe so, both run the cell, which does no harm: each
works in a folder of its own, and the first STATUS.json that says done stands.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from ealign.runtime import atomic
from ealign.runtime.errors import UserError

BEAT_S, STALE_S = 10.0, 120.0  # renewed so often; free after such silence
SETTLE_S = 2.0  # before a lease in a bucket is read back


@dataclasses.dataclass(frozen=True)
class Lease:
  """The right to do something alone, as long as it is renewed."""

  path: epath.Path
  token: str
  exclusive: bool

  def renew(self) -> bool:
    """Renews the heartbeat; False where another has taken the lease."""
    with _guard(self.path, self.exclusive):
      if self._lost():
        return False
      atomic.write(self.path, _signed(self.token))
      return True

  def release(self) -> None:
    with contextlib.suppress(OSError), _guard(self.path, self.exclusive):
      if not self._lost():
        self.path.unlink()

  def _lost(self) -> bool:
    found = holder(self.path)
    return found is None or found.get('token') != self.token


def take(path, *, exclusive: bool = True) -> Lease | None:
  """The lease at `path`, or None where someone alive has it.

  exclusive: whether files can be created exclusively, as on a disk.
  """
  path, token = epath.Path(path), secrets.token_hex(8)
  path.parent.mkdir(parents=True, exist_ok=True)
  with _guard(path, exclusive):
    found = holder(path)
    if found and not expired(found):
      return None
    if not exclusive:
      path.write_text(_signed(token))
      time.sleep(SETTLE_S)
      lease = Lease(path, token, exclusive)
      return None if lease._lost() else lease
    if found:
      path.unlink(missing_ok=True)
    try:
      with pathlib.Path(path).open('x') as file:
        file.write(_signed(token))
    except FileExistsError:
      return None
  return Lease(path, token, exclusive)


def holder(path) -> dict[str, Any] | None:
  """Who has the lease: host, pid, heartbeat; None if nobody has."""
  path = epath.Path(path)
  try:
    text = path.read_text()
  except FileNotFoundError:
    return None
  try:
    found = {'host': '?', 'heartbeat': 0.0} | json.loads(text)
    return found | {'heartbeat': float(found['heartbeat'])}
  except (ValueError, TypeError):  # written by half, so far
    return {'host': '?', 'heartbeat': float(path.stat().mtime)}


def expired(found: dict[str, Any]) -> bool:
  """Whether the owner is known to be dead, or has been silent for too long."""
  pid, born = found.get('pid'), found.get('born')
  here = bool(pid and born) and found.get('machine') == _machine()
  if here and _born(pid) != born:
    return True
  return time.time() - found['heartbeat'] > STALE_S


def _signed(token: str) -> str:
  me = {'token': token, 'host': socket.gethostname(), 'machine': _machine()}
  me |= {'pid': os.getpid(), 'born': _born(os.getpid())}
  return json.dumps(me | {'heartbeat': time.time()}) + '\n'


def _machine() -> str:
  """Names this boot of the host and its process id namespace."""
  read = lambda path: pathlib.Path(path).read_text().strip()
  with contextlib.suppress(OSError):
    boot = read('/proc/sys/kernel/random/boot_id')
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  return socket.gethostname()


def _born(pid: int) -> str:
  """When a process started, '' if there is none: ids are reused."""
  with contextlib.suppress(OSError):
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    fields = stat.rpartition(')')[2].split()
    return '' if fields[0] in 'ZX' else fields[19]
  if os.path.exists('/proc/self/stat'):
    return ''
  with contextlib.suppress(PermissionError):
    try:
      os.kill(pid, 0)  # no /proc: it is there, or not
    except ProcessLookupError:
      return ''
  return 'alive'


@contextlib.contextmanager
def _guard(path, exclusive: bool) -> Iterator[None]:
  """Within the block no other process reads or changes leases there."""
  if not exclusive:
    yield
    return
  import fcntl  # of POSIX only

  with pathlib.Path(path).with_name('.lock').open('a') as file:
    with contextlib.suppress(OSError):  # a disk without locks: expiry remains
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def kept(
  leases: Sequence[Lease], beat: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], None]]:
  """Within the block a thread renews the leases and calls `beat`.

  It yields a function that ends the calls of `beat`, and waits for a running
  one. If another launcher has taken one of the leases, as this process was
  silent for too long, the process exits: both would write the same files.
  """
  ended, beating, calls = threading.Event(), threading.Lock(), [beat]

  def hush():
    with beating:
      calls.clear()

  def renew():
    while not ended.wait(BEAT_S):
      for lease in leases:
        with contextlib.suppress(OSError):  # a disk may be away for a moment
          if not lease.renew() and not ended.is_set():
            _give_way(lease)
      with beating, contextlib.suppress(OSError, UserError):
        for each in calls:
          each()

  thread = threading.Thread(target=renew, daemon=True)
  thread.start()
  try:
    yield hush
  finally:
    ended.set()
    thread.join()
    for lease in leases:
      lease.release()


def _give_way(lease: Lease) -> None:
  host = (holder(lease.path) or {}).get('host', 'nobody')
  message = f'silent for {STALE_S:.0f} s, taken over by {host}; this one ends'
  print(f'{lease.path}: {message}, nothing is lost', flush=True)
  os._exit(143)
