"""Code that tries to break out of the sandbox, or to pass without being right.

Each attack tells by its value what it could do; the test sees what was done.
"""

import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

from ealign.evals.sandbox import inside, locks, run, syscalls
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
SYSTEM = '/usr/bin/python3'  # one that anybody may read
linux = pytest.mark.skipif(
  sys.platform != 'linux' or platform.machine() not in syscalls.MACHINES,
  reason='seccomp and Landlock are of Linux, on x86_64 and aarch64',
)
SHORT = run.Limits(seconds=1.0, mib=512)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """Where the sandboxes' folders lie; nothing of them is left after."""
  place = tmp_path / 'place'
  place.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(place))
  yield tmp_path
  assert not list(place.iterdir())
  assert not running(place)


def running(place) -> list[str]:
  """Processes that still have a sandbox's folder as theirs."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    try:
      if str(place).encode() in path.read_bytes():
        found.append(path.parent.name)
    except OSError:
      pass
  return [pid for pid in found if int(pid) != os.getpid()]


def outcome(code, test='assert candidate() == 1', limits=SHORT, **more):
  program = run.Program(textwrap.dedent(code), 'f', test, **more)
  [found] = run.run([program], confirmed=True, limits=limits)
  return found


def outcomes(codes, test='assert candidate() == 1', limits=SHORT):
  programs = [run.Program(textwrap.dedent(code), 'f', test) for code in codes]
  return run.run(programs, confirmed=True, limits=limits)


def done(statements, *without: str) -> set[str]:
  """Names of the statements that succeed, tried one after another."""
  code = f"""
import json, os, sys
def f():
  for name, body in {dict(statements)!r}.items():
    try:
      exec(body, {{'os': os, 'sys': sys}})
      print(name, flush=True)
    except (Exception, SystemExit):
      pass
  return 1
"""
  limits = run.Limits(seconds=5.0, without=without)
  found = outcome(code, limits=limits)
  assert found.status == 'passed', found
  return {*found.output.splitlines()}


@pytest.mark.parametrize('confirmed', [False, None, 0, 'yes', 1])
def test_nothing_runs_unless_the_user_has_said_so(confirmed):
  with pytest.raises(UserError, match='--confirm_run_unsafe_code') as error:
    run.run([], confirmed=confirmed)
  assert '\n' not in str(error.value)
  with pytest.raises(TypeError):
    run.run([])


def test_what_is_right_passes_and_what_is_wrong_fails():
  right = outcome('def f(x, *, y=1):\n  return x + y', 'assert f(1, y=2) == 3')
  assert (right.status, right.reason) == ('passed', '')
  wrong = outcome('def f():\n  return 2')
  assert wrong.status == 'failed'
  assert wrong.reason == 'AssertionError: assert candidate() == 1'


REASONS = [
  ('def f():\n  raise KeyError("a")', "KeyError: 'a'"),
  ('def f(: pass', 'SyntaxError: '),
  ('1 / 0\ndef f(): return 1', 'ZeroDivisionError: division by zero'),
  ('def g(): return 1', 'it does not define f'),
  ('f = 1', "TypeError: 'int' object is not callable"),
  ('def f():\n  class Own(Exception): pass\n  raise Own("x")', 'Own: x'),
  ('def f(): return f()', 'RecursionError: '),
  ('def f(): return object()', 'TypeError: a value of type object'),
  ('def f(): return input()', 'EOFError: '),
  ('import numpy\ndef f(): return 1', 'ModuleNotFoundError: '),
  ('def f():\n  b"\\xff".decode()', 'UnicodeDecodeError: '),
  ('def f(): return "\\x1b[2J"', 'AssertionError: assert candidate() == 1'),
  ('def f(): raise ValueError("\\x1b[2J\\n\\n2")', 'ValueError: \\x1b[2J 2'),
]


def test_the_reason_is_one_visible_line():
  found = outcomes([code for code, _ in REASONS])
  for outcome, (_, reason) in zip(found, REASONS, strict=True):
    assert outcome.status == 'failed' and outcome.reason.startswith(reason)
    assert '\n' not in outcome.reason and '\x1b' not in outcome.reason


TRICKS = {
  'exit': 'import sys\nsys.exit(0)',
  'exit when called': 'def f():\n  import sys\n  sys.exit(0)',
  'hard exit': 'import os\nos._exit(0)',
  'hard exit when called': 'def f():\n  import os\n  os._exit(0)',
  'always equal': """
    class Same(int):
      __eq__ = lambda *_: True
      __ne__ = lambda *_: False
      __hash__ = int.__hash__
    def f(): return Same(2)
  """,
  'equal object': """
    class Same:
      __eq__ = lambda *_: True
    def f(): return Same()
  """,
  'no assertions': """
    import builtins, sys
    builtins.AssertionError = type('Quiet', (Exception,), {})
    builtins.compile = builtins.exec = lambda *_: None
    sys.excepthook = lambda *_: None
    def f(): return 2
  """,
  'says it has passed, on every descriptor': """
    import json, os, struct
    said = json.dumps(['passed', '']).encode()
    for fd in range(1, 64):
      for _ in range(3):
        try: os.write(fd, struct.pack('>I', len(said)) + said)
        except OSError: pass
    def f(): return 2
  """,
  'noise on every descriptor': """
    import os
    for fd in range(1, 64):
      try: os.write(fd, bytes([255]) * 1000)
      except OSError: pass
    def f(): return 1
  """,
  'nested': """
    def f():
      x = []
      for _ in range(100000): x = [x]
      return x
  """,
  'looks for the tests in memory': """
    import gc, sys
    def f():
      for x in gc.get_objects():
        if isinstance(x, dict) and 'candidate' in str(x.get('test')):
          return 1
      frame = sys._getframe()
      while frame:
        if 'outcome' in frame.f_locals and 'role' in frame.f_locals:
          import os
          os.write(frame.f_locals['outcome'], b'x')
        frame = frame.f_back
      return 2
  """,
}


def test_no_trick_passes():
  found = zip(TRICKS, outcomes(TRICKS.values()), strict=True)
  assert {name: o.status for name, o in found} == dict.fromkeys(
    TRICKS, 'failed'
  )


def test_a_test_that_expects_an_error_is_not_content_with_the_end():
  test = """
try:
  candidate()
except Exception:
  pass
except BaseException:
  pass
"""
  assert outcome('def f(): raise ValueError', test).status == 'passed'
  assert outcome('import os\ndef f(): os._exit(0)', test).status == 'failed'


ENDLESS = {
  'loop': 'while True: pass',
  'in the call': 'def f():\n  while True: pass',
  'output': 'while True: print("x" * 10**6)',
  'sleep': 'import time\ntime.sleep(99)',
  'deaf': """
    import signal
    for n in range(1, 65):
      try: signal.signal(n, signal.SIG_IGN)
      except (OSError, ValueError): pass
    while True: pass
  """,
  'swallows': """
    while True:
      try:
        while True: pass
      except BaseException: pass
  """,
}


def test_what_does_not_end_is_ended():
  began = time.monotonic()
  for found in outcomes(ENDLESS.values()):
    assert found.status == 'timeout' and found.seconds < 3
    assert len(found.output) <= run.OUTPUT
  assert time.monotonic() - began < 60


def test_memory_is_limited():
  found = outcome('def f():\n  return len(bytearray(10**9))')
  assert found.status == 'failed' and found.reason.startswith('MemoryError')
  hog = 'x = []\nwhile True: x.append(bytearray(10**7))'
  roomy = run.Limits(seconds=10.0, mib=256)
  assert outcome(hog, limits=roomy).reason.startswith('MemoryError')


def test_its_environment_is_empty(monkeypatch):
  monkeypatch.setenv('HF_TOKEN', 'hf_secret')
  code = 'import os\ndef f(): return sorted(os.environ)'
  test = "assert set(f()) == {'HOME', 'TMPDIR', 'PATH', 'LC_ALL'}, f()"
  assert outcome(code, test).status == 'passed'


# What Python's hook does not know of; memory and reading are no events of it.
BEYOND_PYTHON = {
  *('a thread', 'a file in memory'),
  *('a password', 'a folder of others', 'its user'),
}
HARM = {
  'a socket': 'import socket; socket.socket()',
  'a pair of sockets': 'import socket; socket.socketpair()',
  'a look-up': 'import socket; socket.create_connection(("localhost", 1), 1)',
  'a fork': 'os.fork() or os._exit(0)',
  'a command': 'import subprocess; subprocess.run(["/bin/true"], check=True)',
  'a shell': 'assert os.system("true") == 0',
  'exec': 'os.execv("/bin/true", ["true"])',
  'a thread': 'import threading; threading.Thread(target=int).start()',
  'a session': 'os.setsid()',
  'a group': 'os.setpgid(0, 0)',
  'a signal to the parent': 'os.kill(os.getppid(), 0)',
  'a signal to all': 'os.kill(-1, 0)',
  'a signal to the group': 'os.killpg(0, 0)',
  'a file here': 'open("x", "w")',
  'an empty file here': 'os.close(os.open("x", os.O_CREAT))',
  'a folder here': 'os.mkdir("x")',
  'a link here': 'os.symlink("/", "x")',
  'its folder': 'os.rmdir(os.getcwd())',
  'its rights': 'os.chmod(".", 0o777)',
  'more memory': 'import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))',
  'limits of the parent': 'import resource as r\n'
  'r.prlimit(os.getppid(), r.RLIMIT_NOFILE, (9, 9))',
  'a file in memory': 'os.memfd_create("x")',
  'the memory of the parent': 'open(f"/proc/{os.getppid()}/mem", "rb")',
  'the priority of the parent': 'os.setpriority(0, os.getppid(), 19)',
  'its user': 'os.setuid(0); open("/etc/shadow")',
  'a password': 'open("/etc/passwd")',
  'a folder of others': 'os.listdir("/home")',
}
# Past Python's own functions, so past its hook: the kernel refuses.
_RAW = 'import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nassert l.%s >= 0'
RAW = {
  'socket': _RAW % 'socket(2, 1, 0)',
  'fork': _RAW % 'fork()',
  'unshare': _RAW % 'unshare(0x10000000)',
  'ptrace': _RAW % 'ptrace(16, 1, 0, 0)',
  'kill': _RAW % 'kill(-1, 0)',
  'open': _RAW % 'open(b"x", 0o101, 0o600)',
  'io_uring': _RAW % 'syscall(425, 8, bytes(120))',
  'x32': _RAW % 'syscall(0x40000000 + 41, 2, 1, 0)',
  'signals of a file': _RAW % 'fcntl(0, 8, 1)',
}


@linux
def test_harm_is_refused():
  assert done(HARM) == set()


@linux
def test_harm_past_python_is_refused_by_the_kernel():
  assert done(RAW, 'hook') == set()
  assert done(HARM, 'hook') == set()


@linux
def test_the_locks_and_nothing_else_refuse(folder):
  """With all of them open the same statements do succeed."""
  names = ('a socket', 'a fork', 'a thread', 'a file in memory', 'a password')
  harm = {name: HARM[name] for name in names}
  harm |= {'raw': RAW['socket'], 'write': f'open({str(folder)!r} + "/x", "w")'}
  assert done(harm, 'limits', 'paths', 'calls', 'hook') == {*harm}


@linux
def test_what_is_claimed_was_proved():
  ours = 'def f(): return 1'
  assert outcome(ours).isolation == locks.FACTS
  assert outcome(ours).missing == ()
  without = lambda *names: set(
    outcome(ours, limits=run.Limits(without=names)).missing
  )
  assert without('paths') == {'reading'}
  assert without('limits') == {'memory'}
  assert 'network' in without('calls')
  assert {'network', 'memory', 'reading'} <= without('calls', 'limits', 'paths')
  weak = run.remark(('memory',))
  assert 'NOT refused, only hindered: network, processes' in weak
  assert 'NOT' not in run.remark(run.isolation())


@linux
def test_where_the_kernel_cannot_python_hinders():
  """As on a system without seccomp and Landlock."""
  assert done(HARM, 'paths', 'calls', 'limits') <= BEYOND_PYTHON


@linux
def test_nothing_outside_is_changed_or_read(folder):
  secret = folder / 'secret'
  secret.write_text('key')
  secret.chmod(0o666)
  path = repr(str(secret))
  change = {
    'write': f'open({path}, "w")',
    'unlink': f'os.unlink({path})',
    'truncate': f'os.truncate({path}, 0)',
    'tree': f'import shutil; shutil.rmtree({str(folder)!r})',
  }
  assert done(change | {'read': f'open({path})'}) == set()
  # Each of the two locks of the kernel is enough for it.
  assert done(change, 'paths', 'hook') == set()
  assert done(change, 'calls', 'hook') == set()
  assert secret.read_text() == 'key'


@linux
def test_a_bomb_of_processes_does_not_start():
  code = """
    import os
    def f():
      n = 0
      for _ in range(1000):
        try:
          n += 1 if os.fork() else 0
        except OSError:
          pass
      return n
  """
  assert outcome(code, 'assert candidate() == 0').status == 'passed'


@linux
@pytest.mark.skipif(
  os.geteuid() != 0 or not os.path.exists(SYSTEM),
  reason='needs root and a Python that anybody may read',
)
def test_root_becomes_nobody_where_nobody_can_read_python():
  limits = run.Limits(seconds=2.0, python=SYSTEM)
  code = 'import os\ndef f(): return os.getuid()'
  found = outcome(code, f'assert f() == {locks.NOBODY}', limits)
  assert found.status == 'passed' and found.isolation == locks.FACTS
  # Then the limit alone keeps it from starting processes.
  limits = run.Limits(seconds=2.0, python=SYSTEM, without=('calls',))
  assert 'processes' in outcome(code, limits=limits).isolation


@linux
def test_root_has_no_capability_left():
  code = """
    import ctypes, struct
    def f():
      data = ctypes.create_string_buffer(24)
      ctypes.CDLL(None).capget(struct.pack('Ii', 0x20080522, 0), data)
      return data.raw == bytes(24)
  """
  limits = run.Limits(seconds=2.0, without=('hook',))
  assert outcome(code, 'assert candidate()', limits).status == 'passed'


_SCRIPT = """
import sys
sys.path.append(sys.argv[1])
from ealign.evals.sandbox import run
limits = run.Limits(seconds=float(sys.argv[3]))
programs = [run.Program(sys.argv[2], 'f', 'assert candidate() == 1')]
found = run.run(programs, confirmed=True, limits=limits)
print(found[0].status, len(found[0].isolation))
"""


def script(place, code, seconds, **more):
  where = {'TMPDIR': str(place), 'PATH': '/usr/bin:/bin'}
  python = SYSTEM if more else sys.executable
  args = [python, '-I', '-S', '-B', '-c', _SCRIPT, str(ROOT), code, seconds]
  return subprocess.Popen(args, stdout=subprocess.PIPE, env=where, **more)


@linux
@pytest.mark.skipif(
  os.geteuid() != 0 or not os.path.exists(SYSTEM),
  reason='needs root, to become another user, and a Python of the system',
)
def test_a_user_without_rights_is_locked_in_as_well():
  with tempfile.TemporaryDirectory(dir='/tmp') as place:
    os.chmod(place, 0o777)
    ids = {'user': locks.NOBODY, 'group': locks.NOBODY, 'extra_groups': []}
    with script(place, 'def f(): return 1', '5', **ids) as process:
      said = process.communicate(timeout=60)[0].decode().split()
    assert said == ['passed', str(len(locks.FACTS))]
    assert not os.listdir(place)


@linux
@pytest.mark.parametrize('after', [1, 2], ids=['at the start', 'later'])
def test_it_ends_with_the_library(after):
  with tempfile.TemporaryDirectory() as place:
    process = script(place, 'while True: pass', '60')
    try:
      wait(lambda: len(running(place)) > after)
    finally:
      process.kill()
      process.communicate()
    wait(lambda: not running(place))
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)


def wait(done):
  end = time.monotonic() + 20
  while not done():
    assert time.monotonic() < end
    time.sleep(0.05)


VALUES = [
  *(None, True, 0, -7, 10**5000, 1.5, float('inf'), 2j, 'a\ud800', b'\0x'),
  *([], [1, [2]], (1,), {1, 2}, frozenset({3}), {1: 'a', (2,): [None]}),
  *(range(1, 9, 2), ['int', '0x1'], {}),
]


@pytest.mark.parametrize('value', VALUES, ids=range(len(VALUES)))
def test_plain_values_come_as_they_are(value):
  found = inside.unpacked(inside.packed(value))
  assert found == value and type(found) is type(value)


def test_values_cross_in_both_directions():
  code = 'def f(*args, **more): return [args, more]'
  test = f'x = {VALUES[:4]!r}'
  test += '\nassert f(*x, k=(1,)) == [tuple(x), {"k": (1,)}]'
  assert outcome(code, test).status == 'passed'
  lazy = 'def f():\n  yield from range(3)'
  assert outcome(lazy, 'assert list(f()) == [0, 1, 2]').status == 'passed'
  assert outcome(lazy, 'assert f() == [0, 1, 2]').status == 'failed'


def test_tests_that_cannot_run_say_nothing_about_the_program():
  code = 'def f(): return 1'
  assert outcome(code, 'assert (').status == 'error'
  assert outcome(code, before='1 / 0').status == 'error'
  assert outcome(code, limits=run.Limits(python='/none')).status == 'error'


def test_many_run_at_once_in_order():
  codes = [f'def f(): return {i % 2}' for i in range(8)]
  programs = [run.Program(c, 'f', 'assert candidate()') for c in codes]
  told = []
  found = run.run(programs, confirmed=True, workers=4, done=told.append)
  assert [o.status for o in found] == ['failed', 'passed'] * 4
  assert told == list(range(1, 9))


@pytest.mark.parametrize(
  'machine, header',
  [
    ('x86_64', '/usr/include/x86_64-linux-gnu/asm/unistd_64.h'),
    ('aarch64', '/usr/include/asm-generic/unistd.h'),
  ],
)
def test_the_numbers_are_those_of_the_kernel(machine, header):
  path = pathlib.Path(header)
  if not path.exists():
    pytest.skip(f'needs {header}')
  lines = (line.split() for line in path.read_text().splitlines())
  known = {
    line[1].removeprefix('__NR_').removeprefix('__NR3264_'): line[2]
    for line in lines
    if len(line) >= 3 and line[0] == '#define' and line[2].isdigit()
  }
  numbers = syscalls.refused(machine) | syscalls.asked(machine)
  in_header = {name: n for name, n in numbers.items() if name in known}
  assert len(in_header) > 0.9 * len(numbers)
  assert all(known[name] == str(n) for name, n in in_header.items())


def test_no_jump_of_the_filter_leaves_it():
  for machine in syscalls.MACHINES:
    lines = locks.calls(machine)
    for at, (_, *jumps, _) in enumerate(lines[:-1]):
      assert max(jumps) < 256 and at + 1 + max(jumps) < len(lines)
    assert lines[-1][3] == 0x7FFF0000 and len(lines) < 4096


def test_signals_have_names():
  code = 'import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSEGV)'
  limits = run.Limits(seconds=2.0, without=('hook',))
  assert outcome(code, limits=limits).reason == 'it was ended by SIGSEGV'


def decided(machine, number, *args, architecture=None) -> bool:
  """Whether the filter lets a call through, by a reader of its own."""
  own, _ = syscalls.MACHINES[machine]
  words = {0: number, 4: own if architecture is None else architecture}
  words |= {16 + 8 * i: arg & 0xFFFFFFFF for i, arg in enumerate(args)}
  lines, at, value = locks.calls(machine), 0, 0
  while True:
    code, true, false, operand = lines[at]
    at += 1
    if code == 0x20:
      value = words.get(operand, 0)
    elif code == 0x06:
      assert operand in (0x7FFF0000, 0x00050001)  # allow; EPERM
      return operand == 0x7FFF0000
    else:
      tests = {0x15: value == operand, 0x35: value >= operand}
      at += true if (tests | {0x45: bool(value & operand)})[code] else false


@pytest.mark.parametrize('machine', syscalls.MACHINES)
def test_the_filter_refuses_what_is_listed_and_lets_the_rest_through(machine):
  refused, asked = syscalls.refused(machine), syscalls.asked(machine)
  known = {*refused.values(), *asked.values()}
  assert not any(decided(machine, number) for number in refused.values())
  assert all(decided(machine, n) for n in range(470) if n not in known)
  assert not decided(machine, 0x40000000 + 41)
  assert not decided(machine, 0, architecture=0x40000003)  # that of 32 bit
  ours = os.getpid()
  for name, good, bad in (
    ('openat', (-100, 0, os.O_RDONLY), (-100, 0, os.O_RDONLY | os.O_CREAT)),
    ('openat', (-100, 0, os.O_CLOEXEC), (-100, 0, os.O_WRONLY)),
    ('openat', (-100, 0, os.O_DIRECTORY), (-100, 0, os.O_RDWR)),
    ('kill', (ours, 9), (ours + 1, 9)),
    ('kill', (ours, 0), (-1, 9)),
    ('tgkill', (ours, 1, 9), (1, 1, 9)),
    ('prlimit64', (0,), (ours + 1,)),
    ('fcntl', (0, 1), (0, 8)),
    ('ioctl', (0, 0x5401), (0, 0x8901)),
  ):
    assert decided(machine, asked[name], *good), name
    assert not decided(machine, asked[name], *bad), name
