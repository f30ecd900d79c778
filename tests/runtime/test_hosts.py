"""Several processes: who they are, and how they end together."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from safetensors.numpy import load_file

from ealign.evals import records as records_lib
from ealign.runtime import hosts
from ealign.runtime.cluster import Cluster
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
PROGRAM = (HERE / 'host_program.py',)


def test_one_process_is_all_there_is():
  here = hosts.join(None)
  assert (here.index, here.count, here.writes) == (0, 1, True)
  assert here.gather([1, 'x']) == [[1, 'x']] and not here.stopping()
  alone = Cluster('here', 99, 1, 0, explicit=True)
  assert hosts.join(alone).count == 1


def test_a_tpu_that_is_part_of_nothing_is_one_host(monkeypatch):
  def unknown(**_):
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(hosts, '_on_tpu_vm', lambda: True)
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  monkeypatch.setattr(jax.distributed, 'initialize', unknown)
  assert hosts.join(None).count == 1


def test_a_tpu_that_a_notebook_has_used_is_one_host(monkeypatch):
  monkeypatch.setattr(hosts, '_on_tpu_vm', lambda: True)
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  assert jax.devices()  # from here on JAX joins no other hosts
  assert hosts.join(None).count == 1

  def late(**_):
    raise RuntimeError('DEADLINE_EXCEEDED: a host is missing')

  monkeypatch.setattr(jax.distributed, 'initialize', late)
  with pytest.raises(RuntimeError, match='a host is missing'):
    hosts.join(None)


def test_a_port_that_is_taken_is_named():
  with socket.create_server(('', 0)) as taken:
    port = taken.getsockname()[1]
    cluster = Cluster('here', port - 1, 2, 0, explicit=True)
    with pytest.raises(UserError, match=f'cannot listen on port {port}'):
      hosts.join(cluster)


def free_port():
  """A port with a free one after it."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1] - 1


def refused(count, *indices, port=None):
  """What each of these hosts is told, if the run must not begin."""

  def host(index):
    here = Cluster('127.0.0.1', port or free, count, index, explicit=True)
    with pytest.raises(UserError) as told:
      hosts.join(here)
    return str(told.value), told.value.exit_code

  free = free_port()
  with futures.ThreadPoolExecutor() as pool:
    return list(pool.map(host, indices))


def test_the_port_of_jax_is_tried_before_jax_dies_of_it():
  with socket.create_server(('', free_port())) as taken:
    port = taken.getsockname()[1]
    told = refused(2, 0, 1, port=port)
  assert len(set(told)) == 1 and told[0][1] == 2
  assert f'host 0 cannot listen on port {port} (' in told[0][0]


def test_two_processes_with_one_number_are_named():
  told = refused(3, 0, 1, 1)
  assert len(set(told)) == 1 and told[0][1] == 2
  name = f'host 1 ({socket.gethostname()})'
  assert f'{name} and {name} were both started as --process=' in told[0][0]


def test_a_host_that_was_started_again_is_not_two():
  port = free_port()
  hello = b'{"index": %d, "name": "x", "about": ""}\n'

  def report(index):
    with contextlib.suppress(ConnectionRefusedError):
      link = socket.create_connection(('127.0.0.1', port + 1))
      link.sendall(hello % index)
      return link

  with futures.ThreadPoolExecutor() as pool:
    first = Cluster('127.0.0.1', port, 3, 0)
    found = pool.submit(hosts._listen, first, time.monotonic() + 30)
    while not (gone := report(1)):
      time.sleep(0.05)
    gone.close()
    again, other = report(1), report(2)
    links = found.result()
  assert [link.index for link in links] == [1, 2]
  for end in (again, other, *links):
    end.close()


def test_an_ask_to_stop_is_counted_over_all_runs(monkeypatch):
  asked = []
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', asked.append
  )
  here = hosts.Hosts(1, 2)
  for _ in range(3):
    here.stopping()
  assert asked == [1, 2, 3]


class Bucket(pathlib.Path().__class__):
  """A folder that hangs, or fails once as only buckets do."""

  failures, free = 0, None

  def mkdir(self, **more):
    super().mkdir(**more)
    if self.free:
      self.free.wait(30)
    self.failures -= 1
    if self.failures >= 0:
      raise RuntimeError('429: too many requests')


@pytest.fixture
def linked(monkeypatch):
  """A host with heartbeats, and what its link to another says."""
  monkeypatch.setattr(hosts, 'BEAT_S', 0.02)
  monkeypatch.setattr(hosts, 'KEEP_S', 0.02)
  ours, theirs = socket.socketpair()
  link = hosts._Link(1, 'x', ours, ours.makefile('rb'))
  here = hosts.Hosts(0, 2, [link])
  here.watch()
  theirs.settimeout(5)
  with theirs, theirs.makefile('rb') as lines:
    yield here, lines
    theirs.sendall(b'{"left": true}\n')  # else its reader ends this process


def test_a_bucket_that_hangs_holds_no_heartbeat_up(tmp_path, linked):
  here, lines = linked
  bucket = Bucket(tmp_path)
  bucket.free = threading.Event()
  here.keep(bucket)
  for _ in range(50):
    assert 'beat' in json.loads(lines.readline())
  bucket.free.set()


def test_a_bucket_that_fails_is_tried_again(tmp_path, linked):
  here, _ = linked
  bucket = Bucket(tmp_path)
  bucket.failures = 2
  here.keep(bucket)
  limit = time.monotonic() + 5
  while not (tmp_path / '0.json').exists():
    assert time.monotonic() < limit
    time.sleep(0.02)


# --- Real processes ----------------------------------------------------------


class Together:
  """Processes of one cluster, and what came of them."""

  def __init__(
    self,
    tmp_path,
    processes,
    count=None,
    program=PROGRAM,
    address='127.0.0.1',
    within=lambda i: (),
    own=None,
    **more,
  ):
    port = free_port()
    env = os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    env |= {'JAX_PLATFORMS': 'cpu'} | (own or {})
    self.logs = {i: tmp_path / f'{i}.log' for i in processes}
    self.running = {}
    for i in processes:
      flags = [
        f'--{k}={v[i] if isinstance(v, list) else v}' for k, v in more.items()
      ]
      command = [*within(i), sys.executable, *map(str, program), *flags]
      command += [f'--coordinator={address}:{port}', f'--process={i}']
      command += [f'--processes={count or len(processes)}']
      with self.logs[i].open('w') as log:
        self.running[i] = subprocess.Popen(
          command, env=env, stdout=log, stderr=subprocess.STDOUT
        )

  def said(self, i):
    return self.logs[i].read_text()

  def meet(self):
    limit = time.monotonic() + 120
    while not all('together' in self.said(i) for i in self.running):
      assert time.monotonic() < limit, {i: self.said(i) for i in self.running}
      time.sleep(0.1)

  def codes(self):
    try:
      return {i: p.wait(300) for i, p in self.running.items()}
    finally:
      for process in self.running.values():
        process.kill()


def test_they_gather_and_leave(tmp_path):
  all_of_them = Together(tmp_path, range(2), steps=3)
  assert all_of_them.codes() == {0: 0, 1: 0}
  assert 'all done' in all_of_them.said(1)


@pytest.mark.slow
@pytest.mark.parametrize('who', [0, 2])
def test_a_killed_host_is_named_and_the_others_end(tmp_path, who):
  all_of_them = Together(tmp_path, range(3))
  all_of_them.meet()
  all_of_them.running[who].send_signal(signal.SIGKILL)
  killed = time.monotonic()
  codes = all_of_them.codes()
  assert time.monotonic() - killed < 30
  assert codes.pop(who) == -signal.SIGKILL
  # Without its coordinator JAX's own runtime may be the first to abort.
  allowed = {42, -signal.SIGABRT} if who == 0 else {42}
  assert set(codes.values()) <= allowed, codes
  named = [f'host {who} ' in all_of_them.said(i) for i in codes]
  assert any(named) if who == 0 else all(named)


@pytest.mark.slow
def test_a_host_that_is_gone_before_jax_starts_is_named(tmp_path):
  all_of_them = Together(tmp_path, range(3), gone=[0, 9, 0])
  assert all_of_them.codes() == {0: 42, 1: 9, 2: 42}
  for i in (0, 2):
    assert 'host 1 ' in all_of_them.said(i)


@pytest.mark.slow
def test_a_host_that_hangs_is_named(tmp_path):
  all_of_them = Together(tmp_path, range(3))
  all_of_them.meet()
  all_of_them.running[1].send_signal(signal.SIGSTOP)
  codes = {i: all_of_them.running[i].wait(60) for i in (0, 2)}
  assert codes == {0: 42, 2: 42}
  for i in codes:
    assert 'host 1 ' in all_of_them.said(i)
    assert 'not heard of for 3 s' in all_of_them.said(i)
  all_of_them.running[1].send_signal(signal.SIGCONT)
  assert all_of_them.codes()[1] in (42, -signal.SIGABRT)  # it ends as well


@pytest.mark.slow
@pytest.mark.parametrize('absent', [0, 1])
def test_an_absent_host_is_named(tmp_path, absent):
  there = [i for i in range(3) if i != absent]
  some = Together(tmp_path, there, count=3)
  assert set(some.codes().values()) == {42}
  assert all(f'missing: host {absent}' in some.said(i) for i in there)


@pytest.mark.slow
def test_sigterm_to_one_saves_all_at_the_same_step(tmp_path):
  all_of_them = Together(tmp_path, range(2))
  all_of_them.meet()
  all_of_them.running[1].send_signal(signal.SIGTERM)
  assert all_of_them.codes() == {0: 143, 1: 143}
  steps = {
    all_of_them.said(i).partition('saved at ')[2].split()[0] for i in (0, 1)
  }
  assert len(steps) == 1


@pytest.mark.slow
def test_what_one_host_cannot_do_ends_all_with_its_code(tmp_path):
  all_of_them = Together(tmp_path, range(3), fail_at=[-1, 2, -1])
  assert set(all_of_them.codes().values()) == {2}
  assert 'host 1: no such file' in all_of_them.said(2)


@pytest.mark.slow
def test_an_error_that_is_no_loss_restarts_nothing(tmp_path):
  both = Together(tmp_path, range(2), error_at=[-1, 2])
  assert both.codes() == {0: 1, 1: 1}
  assert 'Traceback' in both.said(1)
  assert 'RESOURCE_EXHAUSTED: out of memory' in both.said(0)


@pytest.mark.slow
def test_hosts_of_different_configs_do_not_begin(tmp_path):
  both = Together(tmp_path, range(2), about=['a', 'b'])
  assert both.codes() == {0: 2, 1: 2}
  for i in (0, 1):
    assert 'host 1' in both.said(i) and 'work folder or ' in both.said(i)


@pytest.fixture
def network():
  """Two network namespaces joined by a cable: 10.77.0.1 and 10.77.0.2."""
  names = [f'ealign{os.getpid()}{x}' for x in 'ab']
  ip = lambda *args: subprocess.run(
    ('ip', *args), check=True, capture_output=True, text=True
  )
  etc = [pathlib.Path('/etc/netns', name) for name in names]
  try:
    for name in names:
      ip('netns', 'add', name)
    cable = ('type', 'veth', 'peer', 'name', 'v1', 'netns', names[1])
    ip('link', 'add', 'v0', 'netns', names[0], *cable)
    for i, name in enumerate(names):
      address = f'10.77.0.{i + 1}'
      ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', f'v{i}')
      ip('-n', name, 'link', 'set', 'lo', 'up')
      ip('-n', name, 'link', 'set', f'v{i}', 'up')
      etc[i].mkdir(parents=True)  # gloo listens where the host's name leads
      (etc[i] / 'hosts').write_text(f'{address} {socket.gethostname()}\n')
    yield names
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'needs network namespaces and the right to make them: {error}')
  finally:
    for name, folder in zip(names, etc, strict=True):
      subprocess.run(('ip', 'netns', 'del', name), capture_output=True)
      shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_hosts_with_networks_of_their_own(tmp_path, network):
  both = Together(
    tmp_path,
    range(2),
    address='10.77.0.1',
    within=lambda i: ('ip', 'netns', 'exec', network[i]),
    steps=3,
  )
  assert both.codes() == {0: 0, 1: 0}, both.said(0)
  assert 'all done' in both.said(1)


# --- The method on several processes -----------------------------------------


def stepped(tmp_path, processes, **more):
  program, to = (HERE / 'step_program.py',), tmp_path / f'{processes}.npz'
  found = Together(tmp_path, range(processes), program=program, to=to, **more)
  assert set(found.codes().values()) == {0}, found.said(0)
  return np.load(to)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  return stepped(tmp_path_factory.mktemp('alone'), 1)


@pytest.mark.slow
@pytest.mark.parametrize('processes, devices, fsdp', [(2, 1, 1), (2, 2, 2)])
def test_steps_equal_those_of_one_process(
  tmp_path, alone, processes, devices, fsdp
):
  found = stepped(tmp_path, processes, devices=devices, fsdp=fsdp)
  for name, start, close in (
    ('grads', 0.0, 1e-5),
    ('sgd', alone['start'], 1e-5),
    ('adam', alone['start'], 1e-3),  # it amplifies rounding
  ):
    size = np.linalg.norm(alone[name] - start)
    assert np.linalg.norm(found[name] - alone[name]) <= close * size, name
  told = [name for name in alone if '/' in name]
  assert {'sgd/loss', 'adam/loss', 'sgd/grad_norm'} <= set(told)
  for name in told:
    most = np.max(np.abs(alone[name]))
    assert np.max(np.abs(found[name] - alone[name])) <= 1e-5 * most, name


LAUNCH = ('-m', 'ealign.launch', '--config=configs/demo.py:runlocal')


def launched(tmp_path, processes, workdir, *flags, own=None, **fields):
  """`:runlocal` of the demo's conscience, all answers revised."""
  within = fields.pop('within', lambda i: ())
  fields = {'review.verdict': 'all', 'every': 2} | fields
  program = (
    *LAUNCH,
    '--only=conscience',
    '--config.train.eval_every=0',
    *(f'--config.conscience.{k}={v}' for k, v in fields.items()),
    *flags,
  )
  more = {'program': program, 'workdir': workdir, 'own': own}
  return Together(tmp_path, processes, within=within, **more)


def wait_for(text, both):
  limit = time.monotonic() + 300
  while text not in both.said(0):
    assert time.monotonic() < limit, both.said(0)
    time.sleep(0.1)


def records(workdir):
  found = records_lib.read(workdir / 'conscience' / 'answers.jsonl')
  return records_lib.latest(found)  # what a killed start wrote is asked again


@pytest.mark.slow
def test_a_run_on_two_hosts_survives_one_and_ends_on_one(tmp_path):
  flags = '--config.train.steps=8', '--config.train.checkpoint_every=1'
  # A half of the weights lies on each host, also while it samples.
  flags += '--config.mesh.tensor=2', '--config.mesh.data=1'
  both = launched(tmp_path, range(2), tmp_path / 'a', *flags)
  limit = time.monotonic() + 300
  while not (tmp_path / 'a' / 'conscience' / 'checkpoints' / '3').exists():
    assert time.monotonic() < limit, both.said(0)
    time.sleep(0.05)
  both.running[1].kill()
  assert both.codes()[0] == 42
  assert 'host 1 ' in both.said(0)
  assert (tmp_path / 'a' / 'hosts' / '1.json').exists()
  two_devices = {'JAX_NUM_CPU_DEVICES': '2'}
  one = launched(tmp_path, range(1), tmp_path / 'a', *flags, own=two_devices)
  assert one.codes() == {0: 0}, one.said(0)
  assert 'continuing from step' in one.said(0)
  assert (tmp_path / 'a' / 'conscience' / 'DONE').exists()
  unbroken = launched(tmp_path, range(2), tmp_path / 'b', *flags)
  assert unbroken.codes() == {0: 0, 1: 0}, unbroken.said(0)
  told = [
    [(r['phase'], r['step'], r['sample'], r['text']) for r in records(w)]
    for w in (tmp_path / 'a', tmp_path / 'b')
  ]
  assert told[0] == told[1]
  adapters = [
    load_file(w / 'conscience' / 'adapter.safetensors')
    for w in (tmp_path / 'a', tmp_path / 'b')
  ]
  for name, x in adapters[0].items():
    np.testing.assert_allclose(x, adapters[1][name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_sigterm_in_an_evaluation_stops_all_before_the_next_run(tmp_path):
  program = (*LAUNCH, '--only=sft,secure', '--config.train.eval_every=0')
  flags = {'config.eval.limit': 60, 'config.train.steps': 6}
  flags |= {'program': program, 'workdir': tmp_path / 'a'}
  both = Together(tmp_path, range(2), **flags)
  wait_for('sampling answers', both)
  both.running[1].send_signal(signal.SIGTERM)
  assert both.codes() == {0: 143, 1: 143}, both.said(0)
  assert 'stopped before secure (2/2); the same command' in both.said(0)
  assert (tmp_path / 'a' / 'sft' / 'DONE').exists()
  assert not (tmp_path / 'a' / 'secure' / 'metrics.jsonl').exists()
  again = Together(tmp_path, range(2), **flags)
  assert again.codes() == {0: 0, 1: 0}, again.said(0)
  assert 'sft (1/2): done already' in again.said(0)
  assert (tmp_path / 'a' / 'secure' / 'DONE').exists()


@pytest.mark.slow
def test_what_is_wrong_ends_all_hosts_with_2(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'mine.txt').write_text('not a run')
  both = launched(tmp_path, range(2), tmp_path / 'a')
  assert both.codes() == {0: 2, 1: 2}
  for i in (0, 1):
    assert 'is not empty (mine.txt) and has no config.json' in both.said(i)
  wrong = launched(tmp_path, range(2), tmp_path / 'c', threshold=7)
  assert wrong.codes() == {0: 2, 1: 2}
  assert all('threshold=7' in wrong.said(i) for i in (0, 1))
  apart = launched(tmp_path, range(2), [tmp_path / 'd', tmp_path / 'e'])
  assert apart.codes() == {0: 2, 1: 2}
  assert all('config, work folder or' in apart.said(i) for i in (0, 1))


@pytest.mark.slow
def test_a_folder_on_disks_of_their_own_is_refused(tmp_path):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = f'mount -t tmpfs none {disk} && exec "$@"'
  own = ('unshare', '--mount', 'sh', '-c', mount, 'sh')
  if subprocess.run((*own, 'true'), capture_output=True).returncode:
    pytest.skip('needs the right to mount')
  both = launched(tmp_path, range(2), disk / 'a', within=lambda i: own)
  assert both.codes() == {0: 2, 1: 2}
  for i in (0, 1):
    assert f'--workdir={disk}/a: host 1 does not see' in both.said(i)
