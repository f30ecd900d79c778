"""Several processes as one program: roll call, heartbeats, a common end.

JAX alone names nobody: an absent host aborts in C++, a killed one surfaces as a
collective error, and then the survivors hang in a barrier. So before
`jax.distributed.initialize` every host reports to host 0 over TCP, and keeps
that connection open. Whoever closes it, or is silent for 20 s, is named by
host 0 to all, and all end with exit code 42, which cluster managers restart.
Messages are lines of JSON.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import sys
import threading
import time
import traceback
from typing import BinaryIO

import numpy as np

from ealign.runtime.cluster import PORTS, Cluster, of_tpu_vm
from ealign.runtime.errors import NonFinite, Preempted, UserError

BEAT_S, SILENCE_S, ROLL_CALL_S = 4.0, 20.0, 45.0
KEEP_S = 32.0  # between writes of hosts/I.json
_HELLO_S = 5.0  # a host says who it is at once; others hold the roll call up
LOST = 42  # xpk and our JobSet restart on it


class Lost(UserError):
  """A host is missing or gone; the same command continues the run."""

  exit_code = LOST


@dataclasses.dataclass
class _Link:
  """The connection to another host; `about` is what it reported of itself."""

  index: int
  name: str
  socket: socket.socket
  lines: BinaryIO
  about: str = ''
  left: bool = False

  def send(self, **message) -> None:
    with contextlib.suppress(OSError):  # its reader will see that it is closed
      self.socket.sendall(json.dumps(message).encode() + b'\n')

  @property
  def closed(self) -> bool:
    """Whether the other side is gone; nothing is read, and nothing waits."""
    self.socket.settimeout(0)
    try:
      return not self.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
      return False
    except OSError:
      return True
    finally:
      self.socket.settimeout(_HELLO_S)

  def close(self) -> None:
    self.lines.close()
    self.socket.close()

  def __str__(self) -> str:
    return f'host {self.index} ({self.name})'


class Hosts:
  """All processes of the run; this is the `index`-th of `count`.

  Host 0 has a link to each other host, the others have one to host 0.
  """

  def __init__(self, index: int = 0, count: int = 1, links=()):
    self.index, self.count, self._links = index, count, list(links)
    self._ending, self._polls = threading.Lock(), 0

  @property
  def writes(self) -> bool:
    """Whether this host is the one that writes metrics, records and reports."""
    return self.index == 0

  def gather(self, value) -> list:
    """Every host's value, in host order, on every host; it goes as JSON."""
    if self.count == 1:
      return [value]
    from jax.experimental import multihost_utils

    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([data.size], np.int32))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    return [
      json.loads(bytes(row[: int(size[0])]))
      for row, size in zip(rows, sizes, strict=True)
    ]

  def stopping(self) -> bool:
    """Whether all are to save and end now, since one got SIGTERM.

    All hosts must call this equally often: they agree on the number of the
    call at which to stop. It is counted here and not by steps, since those
    begin anew with every run.
    """
    if self.count == 1:
      return False
    from jax.experimental import multihost_utils

    self._polls += 1
    return multihost_utils.reached_preemption_sync_point(self._polls)

  def __enter__(self) -> 'Hosts':
    return self

  def __exit__(self, kind, error, trace) -> None:
    """Ends the other hosts as this one ends.

    Normally, or by what all hosts see, each ends by itself. Else all end now,
    with this host's exit code: JAX's own shutdown would wait for hosts that are
    gone. After an error in which a lost host may show itself, a reader has time
    to name that one, and ends this process with 42; if none is lost it is an
    error like any other: its traceback, and exit code 1.
    """
    if error is None or isinstance(error, NonFinite | Preempted):
      for link in self._links:
        link.send(left=True)
    elif self.count > 1:
      code, text = getattr(error, 'exit_code', 1), str(error)
      if isinstance(error, KeyboardInterrupt):
        code, text = 130, 'interrupted; the same command continues'
      told = text
      if not isinstance(error, UserError | KeyboardInterrupt):
        time.sleep(SILENCE_S + BEAT_S)
        text = ''.join(traceback.format_exception(error))
        told = text.splitlines()[-1]
      self._end(code, text, others=f'host {self.index}: {told}')

  def watch(self) -> None:
    """Starts the threads that send and expect heartbeats."""
    for link in self._links:
      threading.Thread(target=self._read, args=(link,), daemon=True).start()
    threading.Thread(target=self._beat, daemon=True).start()

  def keep(self, folder) -> None:
    """Starts a thread that writes <folder>/<index>.json every KEEP_S seconds.

    One process alone writes none. The thread is not that of the heartbeats,
    which a bucket that hangs must not delay.
    """
    if self.count > 1:
      threading.Thread(target=self._keep, args=(folder,), daemon=True).start()

  def _beat(self) -> None:
    while True:
      for link in self._links:
        link.send(beat=self._polls)
      time.sleep(BEAT_S)

  def _keep(self, folder) -> None:
    about = {'host': self.index, 'name': socket.gethostname()}
    while True:
      about |= {'pid': os.getpid(), 'asked': self._polls, 'time': time.time()}
      with contextlib.suppress(Exception):  # a bucket's many; no run ends of it
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{self.index}.json').write_text(json.dumps(about) + '\n')
      time.sleep(KEEP_S)

  def _read(self, link: _Link) -> None:
    link.socket.settimeout(SILENCE_S)
    try:
      for line in link.lines:
        message = json.loads(line)
        link.left = link.left or 'left' in message
        if 'code' in message:
          self._end(message['code'], message['text'], but=link)
      why = 'its process ended'
    except TimeoutError:
      why = f'not heard of for {SILENCE_S:.0f} s'
    except (OSError, ValueError):
      why = 'its connection broke'
    if not link.left:
      self._end(LOST, f'{link} is lost: {why}; the same command continues')

  def _end(self, code, text, *, others='', but: _Link | None = None) -> None:
    """Tells the other hosts to end with `code`; prints the text and exits.

    others: what they print, by default the same text. but: a host not to tell.
    """
    with self._ending:  # never released: one thread ends the process
      for link in self._links:
        if link is not but:
          link.send(code=code, text=others or text)
      sys.stdout.flush()
      sys.stderr.write(f'{text}\n')
      sys.stderr.flush()
      if not self.index:  # with it goes JAX's coordinator, which aborts those
        time.sleep(1)  # who have not read yet
      os._exit(code)


# --- The roll call -----------------------------------------------------------


def join(cluster: Cluster | None, about: str = '') -> Hosts:
  """Calls the roll, then starts JAX's own runtime.

  Args:
    cluster: from `cluster.find`. None: one process, or the slice of a TPU VM;
      of several slices that JAX alone knows, the roll is called after its
      runtime has started.
    about: what all hosts must agree on, such as the config as text.

  Raises:
    Lost: a host did not report within 45 s; all that did name it.
    UserError: a host reports with another `about`, or the index of another;
      a port is taken.
  """
  if cluster is None and not _on_tpu_vm():
    return Hosts()
  cluster = cluster or of_tpu_vm()
  if cluster is not None and cluster.count == 1:
    return Hosts()
  import jax  # not before the command line has been checked

  # Who is lost while JAX starts is named as well.
  here = _watched(cluster, about) if cluster else None
  try:
    jax.distributed.initialize(**_arguments(cluster))
  except (ValueError, RuntimeError) as error:
    # A notebook's TPU: part of nothing that JAX knows, or in use by now.
    used = 'must be called before' in str(error)
    if cluster is None and (used or isinstance(error, ValueError)):
      return Hosts()
    raise
  if cluster is None:
    alone = jax.process_count() == 1
    return Hosts() if alone else _watched(_after_start(), about)
  here.index, here.count = jax.process_index(), jax.process_count()
  return here


def _arguments(cluster: Cluster | None) -> dict:
  """Those of jax.distributed.initialize."""
  # Our heartbeats end a run sooner and name the host; JAX's are the net below.
  arguments = {
    'initialization_timeout': int(ROLL_CALL_S),
    'heartbeat_timeout_seconds': 60,
  }
  if cluster and cluster.explicit:
    arguments |= {
      'coordinator_address': f'{cluster.address}:{cluster.port}',
      'num_processes': cluster.count,
      'process_id': cluster.index,
    }
  return arguments


def _watched(cluster: Cluster, about: str) -> Hosts:
  here = Hosts(cluster.index, cluster.count, _roll_call(cluster, about))
  here.watch()
  return here


def _on_tpu_vm() -> bool:
  return any(pathlib.Path('/dev').glob('accel[0-9]')) or any(
    pathlib.Path('/dev/vfio').glob('[0-9]*')
  )


def _after_start() -> Cluster:
  """The cluster as JAX found it; host 0 broadcasts where it listens."""
  import jax
  from jax.experimental import multihost_utils

  own = socket.gethostbyname(socket.gethostname())
  own_address = np.frombuffer(socket.inet_aton(own), np.uint8)
  first = multihost_utils.broadcast_one_to_all(own_address)
  address = socket.inet_ntoa(bytes(np.asarray(first, np.uint8)))
  count, index = jax.process_count(), jax.process_index()
  return Cluster(address, PORTS['tpu'] - 1, count, index)


def _roll_call(cluster: Cluster, about: str) -> list[_Link]:
  deadline = time.monotonic() + ROLL_CALL_S
  about = f'{cluster.count} {about}'
  if cluster.index:
    return [_report(cluster, about, deadline)]
  links = _listen(cluster, deadline)
  problem = _problem(cluster, about, links)
  if not problem:
    for link in links:
      link.send(go=True)
    return links
  for link in links:
    link.send(code=problem.exit_code, text=str(problem))
    link.close()
  raise problem


def _problem(cluster: Cluster, about: str, links) -> UserError | None:
  """Why host 0 cannot let the run begin; None: it can.

  A host that has to be started differently is reported before one that is late.
  """
  for link in links:
    if link.about != about:
      why = 'has another number of processes, config, work folder or version'
      return UserError(f'{link} {why} than host 0; start all by one command')
  for link in links:
    if same := [x for x in links if x.index == link.index and x is not link]:
      why = f'{link} and {same[0]} were both started as --process={link.index}'
      last = cluster.count - 1
      return UserError(f'{why}; give each process its own, from 0 to {last}')
  if missing := set(range(1, cluster.count)) - {link.index for link in links}:
    listed = ', '.join(map(str, sorted(missing)))
    reason = f'{len(links) + 1} of {cluster.count} hosts reported in time'
    return Lost(f'missing: host {listed} ({reason}); start all, in any order')
  try:  # JAX would die of it without a word
    if cluster.explicit:
      _server(cluster.port).close()
  except UserError as error:
    return error
  return None


def _server(port: int) -> socket.socket:
  try:
    return socket.create_server(('', port))
  except OSError as error:
    reason = f'host 0 cannot listen on port {port} ({error.strerror})'
    remedy = 'one process alone is host 0; else use another --coordinator'
    raise UserError(f'{reason}; {remedy}') from None


def _listen(cluster: Cluster, deadline: float) -> list[_Link]:
  """Waits, on host 0, for the others; the links to those that came in time.

  Two of the same index are both among them, unless one of them is gone: then
  it was started again.
  """
  links = []
  # The port after JAX's: a coordinator binds its own later.
  with _server(cluster.port + 1) as server:
    while len(links) < cluster.count - 1 and time.monotonic() < deadline:
      server.settimeout(max(deadline - time.monotonic(), 0.01))
      try:
        connection, _ = server.accept()
        connection.settimeout(_HELLO_S)
        lines = connection.makefile('rb')
        hello = json.loads(lines.readline())
        link = _Link(lines=lines, socket=connection, **hello)
      except (OSError, ValueError, TypeError):
        continue  # no host of ours: a port scan, or one that gave up
      gone = [x for x in links if x.closed]
      links = [x for x in links if x not in gone] + [link]
      for old in gone:
        old.close()
  return sorted(links, key=lambda link: link.index)


def _report(cluster: Cluster, about: str, deadline: float) -> _Link:
  """Reports to host 0; the link to it, once all have reported."""
  where = f'{cluster.address}:{cluster.port + 1}'
  while True:
    try:
      connection = socket.create_connection(
        (cluster.address, cluster.port + 1), timeout=5
      )
      break
    except OSError as error:
      if time.monotonic() > deadline:
        reason = f'does not answer at {where} ({error})'
        raise Lost(f'missing: host 0 {reason}; start all hosts') from None
      time.sleep(0.3)
  connection.settimeout(ROLL_CALL_S + 10)
  lines = connection.makefile('rb')
  link = _Link(0, cluster.address, connection, lines)
  link.send(index=cluster.index, name=socket.gethostname(), about=about)
  try:
    answer = json.loads(lines.readline() or '{}')
  except (OSError, ValueError):
    answer = {}
  if 'go' in answer:
    return link
  link.close()
  if 'code' in answer:
    error = Lost if answer['code'] == LOST else UserError
    raise error(answer['text'])
  raise Lost(f'missing: host 0 at {where} ended during the roll call')
