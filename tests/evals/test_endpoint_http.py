"""The endpoint judge against a server of the standard library, no network."""

import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from replied import KEY, body, chats

from ealign.evals.judges import endpoint
from ealign.evals.judges.endpoint import client, retries
from ealign.evals.judges.endpoint.kept import Kept
from ealign.runtime.errors import UserError

GOOD = json.dumps(body([('85', 0.9)])).encode()
_SKIP = 'needs the extra [openai]'


@dataclasses.dataclass
class Server:
  """script: (status, headers, body, seconds) of the first replies; then GOOD.

  A body that is None closes the connection. requests: what was asked.
  """

  port: int = 0
  script: list = dataclasses.field(default_factory=list)
  requests: list = dataclasses.field(default_factory=list)
  delay: float = 0.0
  now: int = 0  # requests being replied to, and the most that ever were
  most: int = 0


@pytest.fixture
def server(monkeypatch):
  state = Server()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      size = int(self.headers['Content-Length'])
      asked = json.loads(self.rfile.read(size))
      headers = {k.lower(): v for k, v in self.headers.items()}
      state.requests.append((self.path, headers, asked))
      script = state.script or [(200, {}, GOOD, state.delay)]
      status, headers, raw, delay = script.pop(0)
      state.now += 1
      state.most = max(state.most, state.now)
      time.sleep(delay)
      state.now -= 1
      if raw is None:
        self.close_connection = True
        return
      with contextlib.suppress(OSError):  # the other side may have left
        self.send_response(status)
        headers = {'Content-Length': str(len(raw))} | headers
        for name, value in headers.items():
          self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
      pass

  class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
      pass

  host = Quiet(('127.0.0.1', 0), Handler)
  state.port = host.server_port
  threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
  monkeypatch.setenv('OPENAI_BASE_URL', f'http://127.0.0.1:{state.port}/v1')
  monkeypatch.setenv('OPENAI_API_KEY', KEY)
  monkeypatch.setattr(retries, 'FIRST_S', 0.002)
  yield state
  host.shutdown()
  host.server_close()


def graded(path=None, n=1, **how):
  pytest.importorskip('openai', reason=_SKIP)
  how = {'say': str} | how
  return endpoint.connect('openai:m', path, **how).scale(chats(n))


def error_of(**how):
  with pytest.raises(UserError) as error:
    graded(**how)
  text = str(error.value)
  assert KEY not in text and '\n' not in text and len(text) < 500
  assert text.startswith("eval.judge='openai:m': ")
  return text


def test_a_request_as_such_servers_expect_it(server):
  (found,) = graded()
  assert found.score == pytest.approx(85)
  ((path, headers, asked),) = server.requests
  assert path == '/v1/chat/completions'
  assert headers['authorization'] == f'Bearer {KEY}'
  assert asked == {
    'model': 'm',
    'messages': list(chats(1)[0]),
    'max_tokens': 1,
    'temperature': 0,
    'seed': 0,
    'logprobs': True,
    'top_logprobs': 20,
  }


def test_text_of_any_kind_is_sent_as_it_is(server):
  pytest.importorskip('openai', reason=_SKIP)
  grader = endpoint.connect('m', None, say=str)
  text = 'a\ud800\u2028\x00\x1b "quoted" \U0001f600'
  prompt = grader.model.prompt([{'role': 'user', 'content': text}])
  grader.scale([prompt])
  sent = server.requests[0][2]['messages'][0]['content']
  assert sent == text.replace('\ud800', '?')


def test_what_passes_is_asked_again(server):
  again = {'Retry-After': '0'}
  server.script = [
    (429, again, b'{"error": {"message": "slow down"}}', 0),
    (503, {}, b'<html><title>502</title>', 0),
    (200, {}, None, 0),  # the connection is closed
    (200, {'Content-Length': '9999'}, GOOD, 0),  # and here, half way
    (200, {}, b'<html>', 0),
  ]
  (found,) = graded(seconds=5)
  assert found.score == pytest.approx(85) and len(server.requests) == 6


@pytest.mark.parametrize(
  'status, raw, said',
  [
    (400, b'{"error": {"message": "no \\u001b[31m logprobs"}}', 'HTTP 400: no'),
    (401, b'{"error": {"message": "bad key %s"}}' % KEY.encode(), '[key]'),
    (403, b'<html><title>Forbidden</title>' + b'x' * 10**6, "'Forbidden'"),
    (404, b'{"detail": "Not Found"}', 'HTTP 404: Not Found; check the name'),
    (422, b'\xff\xfe', 'HTTP 422'),
  ],
)
def test_what_does_not_pass_is_asked_once(server, status, raw, said):
  server.script = [(status, {}, raw, 0)] * 9
  assert said in error_of(n=20)
  assert len(server.requests) == 1


def test_tries_are_counted_here_alone(server):
  server.script = [(500, {}, b'{"error": "down"}', 0)] * 20
  text = error_of(tries=3)
  assert 'HTTP 500: down; this was try 3 of 3' in text
  assert '0 of 1 replies are kept, the same command continues' in text
  assert len(server.requests) == 3


def test_a_server_that_hangs_is_left(server):
  server.script = [(200, {}, GOOD, 1.0)] * 2
  begun = time.monotonic()
  assert 'no reply within 0.2 s' in error_of(tries=2, seconds=0.2)
  assert time.monotonic() - begun < 3


def test_nobody_there(server, monkeypatch):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  monkeypatch.setenv('OPENAI_BASE_URL', f'http://u:{KEY}@127.0.0.1:{port}/v1')
  assert 'this was try 2 of 2' in error_of(tries=2)


def test_a_giant_reply_is_not_read_to_its_end(server):
  server.script = [(200, {}, b' ' * (2 * client.BODY), 0)]
  assert f'more than {client.BODY:,} bytes' in error_of()


def test_the_key_is_nowhere_but_in_the_request(server, tmp_path, capfd):
  pytest.importorskip('openai', reason=_SKIP)
  server.script = [(500, {}, f'{{"error": "{KEY}"}}'.encode(), 0)] * 2
  lines = []
  grader = endpoint.connect('m', tmp_path / 'r', say=lines.append)
  grader.scale(chats(3))
  written = (tmp_path / 'r').read_text() + repr(grader) + ''.join(lines)
  assert 'next try' in written and '[key]' in written
  assert KEY not in written and KEY not in ''.join(capfd.readouterr())
  (tmp_path / 'r').unlink()
  names = set(grader.kept.replies)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('OPENAI_API_KEY', 'another')
    other = endpoint.connect('m', tmp_path / 'r', say=str)
    other.scale(chats(3))
  assert set(other.kept.replies) == names, 'the name of a reply has the key'


def test_nothing_is_asked_without_key_package_model_or_price(
  server, monkeypatch
):
  fails = lambda match, *a, **k: pytest.raises(UserError, match=match)
  with fails('name a model'):
    endpoint.connect('openai:', None)
  with fails('cap of \\$2 needs the price'):
    endpoint.connect('m', None, cap=2)
  monkeypatch.setitem(sys.modules, 'openai', None)
  with fails("pip install 'ealign\\[openai\\]'"):
    endpoint.connect('m', None)
  for bad in ('', '  ', 'two words', 'line\nfeed', 'k\u00e9y', 'a\x00b'):
    with pytest.MonkeyPatch.context() as patch:
      if '\x00' in bad:
        patch.setattr(os, 'environ', {'OPENAI_API_KEY': bad})
      else:
        patch.setenv('OPENAI_API_KEY', bad)
      with fails('OPENAI_API_KEY') as error:
        client.key('eval.judge')
    assert not bad.strip() or bad not in str(error.value)


@pytest.mark.parametrize(
  'text, address',
  [
    ('', client.ADDRESS),
    ('http://localhost:8000/v1/', 'http://localhost:8000/v1'),
    ('https://me:secret@h.example/v1?key=secret', 'https://h.example/v1'),
    ('http://[::1]:80/v1', 'http://[::1]:80/v1'),
    ('localhost:8000', None),
    ('ftp://h/v1', None),
    ('http://', None),
    ('http://h:99999999/v1', None),
    ('http://[::1', None),
  ],
)
def test_the_address_is_without_secrets(monkeypatch, text, address):
  monkeypatch.setenv('OPENAI_BASE_URL', text)
  if address:
    assert client.address() == address
  else:
    with pytest.raises(UserError, match='OPENAI_BASE_URL must be'):
      client.address()


def test_as_many_are_under_way_as_there_are_workers(server):
  pytest.importorskip('openai', reason=_SKIP)
  server.delay = 0.1
  graded(n=17, workers=8)
  assert 6 <= server.most <= 8


# Sends by the standard library, so that it is tested without the package.
_PROGRAM = """
import json, signal, sys, urllib.request
# A shell's background job ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from ealign.evals.judges.endpoint import Endpoint, Kept

def send(request):
  url, data = sys.argv[1], json.dumps(request).encode()
  return urllib.request.urlopen(url, data, timeout=60).read()

prompts = [({'role': 'user', 'content': f'Answer {i}: fine.'},)
           for i in range(int(sys.argv[3]))]
grader = Endpoint('m', send, Kept(sys.argv[2]), workers=4)
grader.scale(prompts)
"""


@contextlib.contextmanager
def process(server, path, n):
  command = [sys.executable, '-c', _PROGRAM]
  command += [f'http://127.0.0.1:{server.port}/v1', str(path), str(n)]
  root = str(pathlib.Path(__file__).parents[2])
  with subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': root, 'JAX_PLATFORMS': 'cpu'},
  ) as running:
    try:
      yield running
    finally:
      running.kill()


def until(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.002)


def test_killed_at_any_moment_only_what_was_under_way_is_asked_again(
  server, tmp_path
):
  n, path, server.delay = 60, tmp_path / 'r', 0.01
  for more in (7, 23):
    with process(server, path, n) as running:
      start = len(server.requests)
      until(lambda start=start, more=more: len(server.requests) > start + more)
      running.kill()
      running.wait()
  assert len(Kept(path).replies) < n
  address = f'http://127.0.0.1:{server.port}/v1'

  def send(request):
    data = json.dumps(request).encode()
    return urllib.request.urlopen(address, data, timeout=60).read()

  found = endpoint.Endpoint('m', send, Kept(path), say=str).scale(chats(n))
  assert [x.score for x in found] == pytest.approx([85] * n)
  assert len(Kept(path).replies) == n
  assert n <= len(server.requests) <= n + 2 * 4


def test_ctrl_c_ends_at_once_though_a_server_hangs(server, tmp_path):
  server.script = [(200, {}, GOOD, 0)] * 3
  server.delay = 20.0
  with process(server, tmp_path / 'r', 30) as running:
    until(lambda: len(server.requests) == 7)
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - begun < 10  # of the 20 s that it would take
  assert 'KeyboardInterrupt' in err and running.returncode
  assert 'in all 3 replies' in out and len(Kept(tmp_path / 'r').replies) == 3
