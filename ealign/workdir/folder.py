"""A run's folder as a host sees it: on its own disk, or a copy of a shared one.

A run appends to files and replaces them, which a bucket cannot do, and only one
host may write. So each host works in a folder on its disk. Where that is not
the shared folder, `pull` downloads what is there when a run begins, and host 0
uploads what is new with `push`. Checkpoints are not copied: Orbax writes them
to the shared folder from all hosts.
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

  ours: whether the shared folder is still this host's to write; `push` asks.
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

  def refused(self, message: str) -> UserError:
    """The error to raise of a --workdir that cannot be used."""
    return UserError(f'--workdir={self.shared}: {message}')

  def pull(self) -> None:
    """Downloads what is not here, or of another size; traces are left out."""
    if not self.copied or not self.shared.exists():
      return
    for name, path in _files(self.shared, (*_APART, *_PUSHED)):
      here = self.local / name
      if not here.exists() or here.stat().st_size != path.stat().length:
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(path.read_bytes())

  def push(self) -> None:
    """Host 0 uploads what it wrote since the last time."""
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
  """The folder at a path, gs:// or local, for the host of this index.

  Raises:
    UserError: the file system of such an address is not installed, or there
      is no such home folder.
  """
  if isinstance(workdir, Folder):
    return workdir
  remote = '://' in str(workdir)
  if remote:
    shared = _bucket(str(workdir))
  else:
    try:
      path = pathlib.Path(workdir).expanduser()
    except RuntimeError:  # of '~name'
      raise UserError(f'--workdir={workdir}: there is no such user') from None
    shared = epath.Path(path.absolute())
  if index or remote:  # other launchers of this machine may work there, too
    apart = pathlib.Path(tempfile.mkdtemp(prefix=f'ealign-host{index}-'))
    atexit.register(shutil.rmtree, apart, ignore_errors=True)
    return Folder(apart / shared.name, shared, writes=not index)
  return Folder(pathlib.Path(shared), shared)


def check(folder: Folder, hosts) -> None:
  """Checks that every host sees what host 0 writes.

  Raises:
    UserError: one does not, or host 0 cannot write there.
  """
  if hosts.count == 1 or '://' in str(folder.shared):
    return
  # A new name: a host may remember for long that an old one was not there.
  name = hosts.gather(f'seen-{secrets.token_hex(4)}')[0]
  token = pathlib.Path(folder.shared / 'hosts' / name)
  if folder.writes:
    try:
      token.parent.mkdir(parents=True, exist_ok=True)
      token.write_text('')
    except OSError as error:
      why = f'cannot be written ({error.strerror}); use another folder'
      raise folder.refused(why) from None
  hosts.gather(None)
  blind = [i for i, seen in enumerate(hosts.gather(_seen(token))) if not seen]
  if folder.writes:
    token.unlink()
  if blind:
    why = f'host {", ".join(map(str, blind))} does not see what host 0 writes'
    remedy = 'use a folder on a disk that all hosts share, or gs://'
    raise folder.refused(f'{why} there; {remedy}')


def _seen(path: pathlib.Path) -> bool:
  """Whether a file appears; a network file system may need seconds."""
  until = time.monotonic() + SEEN_S
  while not path.exists():
    if time.monotonic() > until:
      return False
    for above in reversed(path.parents[:3]):  # this makes NFS look again
      with contextlib.suppress(OSError):
        os.listdir(above)
    time.sleep(0.2)
  return True


@contextlib.contextmanager
def usable(workdir) -> Iterator[None]:
  """Turns an OSError in the block into a one-line UserError naming the folder.

  Raises:
    UserError: an OSError came; the message names the file, too.
  """
  try:
    yield
  except OSError as error:
    file = str(error.filename or '').removeprefix(f'{workdir}/')
    why = f'{file}: {error.strerror}' if file else str(error)
    message = f'cannot be used ({why}); mend it, or use another'
    raise UserError(f'--workdir={workdir}: {message}') from None


def _bucket(address: str) -> epath.Path:
  if not address.startswith(('gs://', 's3://', 'az://')):
    message = 'is no address of a bucket; use gs://BUCKET/DIR, or a folder'
    raise UserError(f'--workdir={address}: {message}')
  try:
    path = epath.Path(address)
    path.exists()
  except Exception as error:
    message = ' '.join(str(error).split())[:200]
    remedy = "install the extra gcs (pip install 'ealign[gcs]') and log in"
    raise UserError(f'--workdir={address}: {message}; {remedy}') from None
  return path


def _files(folder, apart) -> Iterator[tuple[str, epath.Path]]:
  """Each file below a folder with its relative name, without those `apart`."""
  for path in folder.iterdir():
    if path.name in apart or path.name.startswith('.'):
      continue
    if path.is_dir():
      for name, inner in _files(path, apart):
        yield f'{path.name}/{name}', inner
    else:
      yield path.name, path
