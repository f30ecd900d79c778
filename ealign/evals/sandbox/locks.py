"""What code in the sandbox may not do, and the proof of it.

Locks are shut in this order, by the process itself, before the code is there:

  limits    CPU seconds, memory, open files, no core, no byte to any file, no
            new process (POSIX; root is not held by the last)
  rights    root becomes nobody, or where nobody cannot read Python's library,
            gives up all its capabilities
  paths     Landlock (Linux 5.13): reads Python's library, opens nothing else
  calls     seccomp (Linux): no socket, no process or thread, no change to
            files, no signal to others
  hook      an audit hook of Python: the same for what the kernel could not
            refuse; code that knows how gets round it

`proved` then tries what must fail: only what did fail is claimed. On macOS
there are the limits, what rights give, and the hook: it reads what the user
reads. No lock keeps from a fault of the kernel, or from using the CPU.
"""

import contextlib
import ctypes
import math
import mmap
import os
import pathlib
import platform
import resource
import signal
import socket
import struct
import sys
import sysconfig

from ealign.evals.sandbox import syscalls

NOBODY = 65534
FILES = 64  # open at once
FACTS = ('network', 'processes', 'writing', 'reading', 'signals', 'memory')
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# prctl's, which no module names
_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS, _AMBIENT = 1, 4, 24, 38, 47


def libc():
  return ctypes.CDLL(None, use_errno=True)


def shut(*, seconds: float, mib: int, without: tuple[str, ...] = ()) -> None:
  """Shuts every lock that this system has, but for those named in `without`.

  Raises:
    RuntimeError: it is root and cannot give up its rights.
  """
  opened = [] if 'paths' in without else _opened()
  if 'limits' not in without:
    limit(seconds, mib)
  drop_rights()
  if sys.platform == 'linux':
    # No other process of this user looks into it; it ends with its parent.
    libc().prctl(_DUMPABLE, 0, 0, 0, 0)
    libc().prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if 'paths' not in without:
      _shut_paths(opened)
  if 'limits' not in without:
    _limit(resource.RLIMIT_NPROC, 0)
  if sys.platform == 'linux' and 'calls' not in without:
    _shut_calls(platform.machine())


def limit(seconds: float, mib: int) -> None:
  _limit(resource.RLIMIT_CPU, math.ceil(seconds))
  _limit(resource.RLIMIT_CORE, 0)
  _limit(resource.RLIMIT_FSIZE, 0)
  _limit(resource.RLIMIT_NOFILE, FILES)
  _limit(resource.RLIMIT_AS, mib << 20)


def _limit(which, value) -> None:
  # A limit that the system has not is found by `proved`.
  with contextlib.suppress(OSError, ValueError):
    resource.setrlimit(which, (value, value))


def drop_rights() -> None:
  """Root becomes nobody, or gives up all it can do beyond its own files."""
  if os.geteuid() != 0:
    return
  if _nobody_reads(sysconfig.get_path('stdlib')):
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)  # of root, all three of its ids
    return
  if sys.platform == 'linux':
    for capability in range(64):
      libc().prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    libc().prctl(_AMBIENT, 4, 0, 0, 0)
    header = struct.pack('Ii', 0x20080522, 0)
    if libc().capset(header, bytes(24)) == 0:
      return
  raise RuntimeError(
    'it would run as root: nobody else may read the library of this Python'
  )


def _nobody_reads(folder: str) -> bool:
  path = pathlib.Path(folder).resolve()
  walk = all(part.stat().st_mode & 0o001 for part in (path, *path.parents))
  return walk and bool(path.stat().st_mode & 0o004)


def _opened() -> list[tuple[int, bool]]:
  """What may be read, opened while that is allowed: (descriptor, is_folder)."""
  if sys.platform != 'linux':
    return []
  names = {
    *(sysconfig.get_path(name) for name in ('stdlib', 'platstdlib')),
    *(f'{sys.base_prefix}/lib', '/lib', '/lib64', '/usr/lib', '/usr/lib64'),
    *('/usr/share/zoneinfo', '/etc/localtime', '/etc/ld.so.cache'),
    *('/dev/null', '/dev/zero', '/dev/urandom'),
  }
  return [
    (os.open(name, os.O_PATH | os.O_CLOEXEC), os.path.isdir(name))
    for name in sorted(names)
    if os.path.exists(name)
  ]


def _shut_paths(opened) -> None:
  """Landlock: nothing is opened but what is read below `opened`."""
  create, add, restrict = 444, 445, 446
  call = libc().syscall
  version = call(create, None, 0, 1)
  if version >= 1:
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    all_access = (1 << bits) - 1
    rules = struct.pack('QQQ', all_access, 3, 3)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = call(create, rules, size, 0)
    for descriptor, is_folder in opened:
      access = 0b1100 if is_folder else 0b0100  # files, and lists of folders
      call(add, ruleset, 1, struct.pack('=Qi', access, descriptor), 0)
    call(restrict, ruleset, 0)
    os.close(ruleset)
  for descriptor, _ in opened:
    os.close(descriptor)


def _shut_calls(machine: str) -> None:
  """seccomp: the calls of `syscalls` fail with EPERM."""
  if machine not in syscalls.MACHINES or struct.calcsize('P') != 8:
    return
  program = b''.join(struct.pack('HBBI', *line) for line in calls(machine))
  buffer = ctypes.create_string_buffer(program)
  head = struct.pack('HxxxxxxP', len(program) // 8, ctypes.addressof(buffer))
  libc().prctl(22, 2, ctypes.c_char_p(head), 0, 0)


def calls(machine: str) -> list[tuple[int, int, int, int]]:
  """The filter, (code, jump if true, jump if false, value) a line."""
  load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
  allow, refuse = (give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050001)
  architecture, _ = syscalls.MACHINES[machine]
  argument = lambda i: (load, 0, 0, 16 + 8 * i)
  of = syscalls.asked(machine)
  lines = [
    (load, 0, 0, 4),
    (equal, 1, 0, architecture),
    refuse,
    (load, 0, 0, 0),
    (at_least, 0, 1, syscalls.X32),
    refuse,
  ]
  for number in syscalls.refused(machine).values():
    lines += [(equal, 0, 1, number), refuse]
  tests = [
    ('open', 1, any_bit, (_WRITES,), False),
    ('openat', 2, any_bit, (_WRITES,), False),
    ('kill', 0, equal, (os.getpid(),), True),
    ('tgkill', 0, equal, (os.getpid(),), True),
    ('prlimit64', 0, equal, (0, os.getpid()), True),
    # Who gets the signals of a file: F_SETOWN, F_SETOWN_EX, FIOSETOWN.
    ('fcntl', 1, equal, (8, 15), False),
    ('ioctl', 1, equal, (0x8901, 0x8902), False),
  ]
  for name, at, how, values, good in tests:
    if name not in of:
      continue
    found, other = (allow, refuse) if good else (refuse, allow)
    body = [argument(at)]
    for value in values:
      body += [(how, 0, 1, value), found]
    body += [other]
    lines += [(equal, 0, len(body), of[name]), *body]
  return [*lines, allow]


def hook(event: str, args: tuple) -> None:
  """For `sys.addaudithook`: refuses what the locks should have refused."""
  if event == 'open':
    path, _, flags = args
    if not isinstance(path, int) and (flags or 0) & _WRITES:
      raise PermissionError(f'the sandbox refuses to write {path!r:.80}')
  elif event in _HOOKED or event.partition('.')[0] in _HOOKED:
    raise PermissionError(f'the sandbox refuses {event}')


_HOOKED = {
  *('socket', 'subprocess', 'ctypes', 'shutil', 'pty', 'tempfile', 'mmap'),
  *('ftplib', 'http', 'smtplib', 'urllib', 'webbrowser', 'syslog', 'fcntl'),
  *(
    f'os.{name}'
    for name in 'exec fork forkpty posix_spawn spawn system startfile kill '
    'killpg remove rename rmdir mkdir truncate chmod chown link symlink utime '
    'setxattr removexattr lockf chflags putenv unsetenv'.split()
  ),
  *('signal.pthread_kill', 'resource.setrlimit', 'resource.prlimit'),
}


def proved(mib: int, folder: str, others: str) -> list[str]:
  """Those of FACTS that hold: what must fail was tried, and failed.

  folder: its own, in which it may not write. others: a file outside of Python's
  library, which it may not read.
  """
  new = os.path.join(folder, 'new')
  tries = {
    'network': lambda: socket.socket().close(),
    'processes': _forks,
    'writing': lambda: _writes(new),
    'reading': lambda: os.close(os.open(others, os.O_RDONLY)),
    'signals': lambda: os.kill(os.getppid(), 0),
    'memory': lambda: mmap.mmap(-1, (mib + 1) << 20).close(),
  }
  return [fact for fact in FACTS if _fails(tries[fact])]


def _fails(attempt) -> bool:
  try:
    attempt()
  except (OSError, ValueError, MemoryError):
    return True
  return False


def _forks() -> None:
  child = os.fork()
  if not child:
    os._exit(0)
  os.waitpid(child, 0)


def _writes(path) -> None:
  """Makes a file, which alone is harm: many fill a disk's table."""
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
  os.close(descriptor)
  os.unlink(path)
