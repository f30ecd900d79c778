import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from ealign.runtime import preempt
from ealign.runtime.errors import Preempted


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_a_signal_sets_the_flag_and_nothing_else(name):
  with preempt.watch() as stop:
    assert not stop.requested
    signal.raise_signal(getattr(signal, name))
    assert stop.signal == getattr(signal, name)


def test_previous_handlers_return(monkeypatch):
  seen = []
  handler = lambda number, frame: seen.append(number)
  before = signal.signal(signal.SIGTERM, handler)
  interrupt = signal.getsignal(signal.SIGINT)
  try:
    with pytest.raises(RuntimeError), preempt.watch():
      assert signal.getsignal(signal.SIGTERM) is not handler
      raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGINT) is interrupt
    signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]
  finally:
    signal.signal(signal.SIGTERM, before)


def test_a_second_interrupt_ends_at_once():
  with preempt.watch() as stop, pytest.raises(KeyboardInterrupt):
    signal.raise_signal(signal.SIGINT)
    assert stop.requested
    signal.raise_signal(signal.SIGINT)


def test_an_outer_watch_is_told_too():
  with preempt.watch() as outer:
    with preempt.watch() as inner:
      signal.raise_signal(signal.SIGTERM)
    assert inner.requested and outer.requested


def test_a_second_interrupt_passes_an_inner_watch():
  with pytest.raises(KeyboardInterrupt), preempt.watch(), preempt.watch():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_where_nothing_can_be_lost_it_is_an_error_at_once():
  with preempt.watch() as outer, preempt.watch() as stop:
    with pytest.raises(EOFError), stop.at_once(EOFError()):
      signal.raise_signal(signal.SIGTERM)
      pytest.fail('the block went on')
    assert stop.requested and outer.requested
    with pytest.raises(EOFError), stop.at_once(EOFError()):
      pytest.fail('it began although a stop was asked for')


def test_another_thread_never_sees_it():
  seen = []

  def work():
    with preempt.watch() as stop:
      seen.append(stop.requested)

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [False]
  assert signal.getsignal(signal.SIGTERM) is before


SECOND = """
import signal
from ealign.runtime import preempt
with preempt.watch() as stop:
  signal.raise_signal(signal.SIGTERM)
  assert stop.requested
  signal.raise_signal(signal.SIGTERM)
"""


def test_a_second_sigterm_kills():
  root = pathlib.Path(__file__).parents[2]
  env = os.environ | {'PYTHONPATH': str(root)}
  code = subprocess.run([sys.executable, '-c', SECOND], env=env).returncode
  assert code == -signal.SIGTERM


def test_code_that_catches_errors_does_not_swallow_it():
  with preempt.watch() as stop, pytest.raises(EOFError):
    with stop.at_once(EOFError()):
      try:
        signal.raise_signal(signal.SIGTERM)
      except Exception:
        pytest.fail('it was caught')
  with preempt.watch() as stop, pytest.raises(EOFError):
    with stop.at_once(EOFError()):
      with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


def test_later_within_at_once():
  with preempt.watch() as stop:
    with pytest.raises(EOFError), stop.at_once(EOFError()):
      with stop.later():
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    with stop.later():
      assert stop.requested


@pytest.mark.parametrize('name, code', [('SIGTERM', 143), ('SIGINT', 130)])
def test_the_exit_code_is_that_of_the_signal(name, code):
  with pytest.raises(Preempted) as caught, preempt.watch() as stop:
    with stop.at_once(Preempted('stopped')):
      signal.raise_signal(getattr(signal, name))
  assert caught.value.exit_code == code


def test_a_reader_that_has_seen_enough_is_no_error():
  code = (
    'import sys; from ealign.runtime import preempt; '
    'run = lambda: [print(i, flush=True) for i in iter(int, 1)]; '
    'sys.exit(preempt.command(run))'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as process:
    assert process.stdout.readline() == b'0\n'
    process.stdout.close()
    assert process.stderr.read() == b''
  assert process.returncode == 128 + signal.SIGPIPE


def test_a_finalizer_does_not_swallow_it(capsys):
  class Last:
    def __del__(self):
      signal.raise_signal(signal.SIGTERM)

  with preempt.watch() as stop, pytest.raises(EOFError):
    with stop.at_once(EOFError()):
      Last()
  assert capsys.readouterr().err == ''


STUCK = """
import hashlib, os, signal, threading
from ealign.runtime import preempt
from ealign.runtime.errors import Preempted
preempt.GRACE_S = 0.5
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
with preempt.watch() as stop:
  with stop.{block}:
    hashlib.pbkdf2_hmac('sha256', b'', b'', {count})
  print('went on')
"""


@pytest.mark.parametrize(
  'block, ends',
  [
    ("at_once(Preempted('one line'))", True),
    ("at_once(Preempted('one line'), ends=False)", False),
    ("later(Preempted('one line'))", True),
    (
      "later(Preempted('outer')), stop.at_once(Preempted('one line'), "
      'ends=False)',
      True,
    ),
    ('later()', False),
  ],
)
def test_a_process_inside_a_library_is_ended_where_nothing_is_lost(block, ends):
  root = pathlib.Path(__file__).parents[2]
  env = os.environ | {'PYTHONPATH': str(root)}
  ended = subprocess.run(
    [sys.executable, '-c', STUCK.format(block=block, count=8_000_000)],
    env=env,
    capture_output=True,
    text=True,
  )
  assert (ended.returncode == 143 and ended.stderr == 'one line\n') == ends
  if block == 'later()':
    assert ended.stdout == 'went on\n'
