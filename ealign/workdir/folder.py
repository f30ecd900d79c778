"""A run's folder as a host sees it: on its own disk, or a copy of a shared one.

Files grow line by line and are replaced, which a bucket cannot do; and only one
host may write. So each host works in a folder on its disk. Where that is not
the shared one itself, `pull` copies what is there when a run begins, and host 0
brings back what is new with `push`. Checkpoints are not copied: Orbax writes
them to the shared folder from all hosts.
"""

import atexit
import contextlib
import dataclasses
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

from etils import epath

from ealign.runtime.errors import UserError

SEEN_S = 10.0
_APART = ('checkpoints', 'hosts', 'STATUS.json', 'LEASE')
_PUSHED = ('profile',)  # large, and no run reads it


@dataclasses.dataclass(frozen=True)
class Folder:
  """local: where this host reads and writes. shared: what all hosts see.

  ours: asked before each `push` whether what is shared is this host's still.
  """

  local: pathlib.Path
  shared: epath.Path
  writes: bool = True
  ours: Callable[[], bool] = lambda: True

  def __truediv__(self, name: str) -> 'Folder':
    return dataclasses.replace(
      self, local=self.local / name, shared=self.shared / name
    )

  @property
  def copied(self) -> bool:
    return str(self.local) != str(self.shared)

  def pull(self) -> None:
    """Copies what is in the shared folder and not here, or of another size.

    Traces stay there.
    """
    if not self.copied or not self.shared.exists():
      return
    for name, path in _files(self.shared, (*_APART, *_PUSHED)):
      here = self.local / name
      if not here.exists() or here.stat().st_size != path.stat().length:
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(path.read_bytes())

  def push(self) -> None:
    """Host 0 copies what it wrote since the last time into the shared one."""
    if not self.copied or not self.writes or not self.ours():
      return
    mark = self.local / '.pushed'
    since = mark.stat().st_mtime_ns if mark.exists() else 0
    fresh = mark.with_name('.pushing')
    fresh.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_text('')
    for name, path in _files(epath.Path(self.local), _APART):
      if pathlib.Path(path).stat().st_mtime_ns >= since:
        target = self.shared / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.copy(target, overwrite=True)
    fresh.replace(mark)


def of(workdir, *, index: int = 0) -> Folder:
  """The folder that a path, gs:// or local, is to the host of this index.

  Raises:
    UserError: a kind of address whose file system is not installed.
  """
  if isinstance(workdir, Folder):
    return workdir
  remote = '://' in str(workdir)
  if remote:
    shared = _bucket(str(workdir))
  else:
    shared = epath.Path(pathlib.Path(workdir).expanduser().absolute())
  if index or remote:  # other launchers of this machine may work there, too
    apart = pathlib.Path(tempfile.mkdtemp(prefix=f'ealign-host{index}-'))
    atexit.register(shutil.rmtree, apart, ignore_errors=True)
    return Folder(apart / shared.name, shared, writes=not index)
  return Folder(pathlib.Path(shared), shared)


def check(folder: Folder, hosts) -> None:
  """Checks that every host sees what host 0 writes.

  Raises:
    UserError: it is not, or cannot be written.
  """
  where = f'--workdir={folder.shared}'
  if hosts.count == 1 or '://' in str(folder.shared):
    return
  # A new name: that an old one is not there a host may remember for long.
  name = hosts.gather(f'seen-{secrets.token_hex(4)}')[0]
  token = pathlib.Path(folder.shared / 'hosts' / name)
  if folder.writes:
    try:
      token.parent.mkdir(parents=True, exist_ok=True)
      token.write_text('')
    except OSError as error:
      message = f'cannot be written ({error.strerror}); use another folder'
      raise UserError(f'{where}: {message}') from None
  hosts.gather(None)
  blind = [i for i, seen in enumerate(hosts.gather(_seen(token))) if not seen]
  if folder.writes:
    token.unlink()
  if blind:
    listed = ', '.join(map(str, blind))
    message = f'host {listed} does not see what host 0 writes there'
    remedy = 'use a folder on a disk that all hosts share, or gs://'
    raise UserError(f'{where}: {message}; {remedy}')


def _seen(path: pathlib.Path) -> bool:
  """Whether a file is there; a network's file system may take its time."""
  until = time.monotonic() + SEEN_S
  while not path.exists():
    if time.monotonic() > until:
      return False
    for above in reversed(path.parents[:3]):  # listed, NFS asks for it anew
      with contextlib.suppress(OSError):
        os.listdir(above)
    time.sleep(0.2)
  return True


@contextlib.contextmanager
def usable(workdir) -> Iterator[None]:
  """Turns an OSError in the block into a one-line UserError naming the folder.

  Raises:
    UserError: an OSError came; it says of which file.
  """
  try:
    yield
  except OSError as error:
    file = str(error.filename or '').removeprefix(f'{workdir}/')
    why = f'{file}: {error.strerror}' if file else str(error)
    message = f'cannot be used ({why}); mend it, or use another'
    raise UserError(f'--workdir={workdir}: {message}') from None


def _bucket(address: str) -> epath.Path:
  try:
    path = epath.Path(address)
    path.exists()
  except Exception as error:
    message = ' '.join(str(error).split())[:200]
    remedy = "install the extra gcs (pip install 'ealign[gcs]') and log in"
    raise UserError(f'--workdir={address}: {message}; {remedy}') from None
  return path


def _files(folder, apart) -> Iterator[tuple[str, epath.Path]]:
  """Each file below with its name from there, but those that go apart."""
  for path in folder.iterdir():
    if path.name in apart or path.name.startswith('.'):
      continue
    if path.is_dir():
      for name, inner in _files(path, apart):
        yield f'{path.name}/{name}', inner
    else:
      yield path.name, path
