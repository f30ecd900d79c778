import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from ealign.runtime.errors import UserError
from ealign.workdir import lease
from ealign.workdir import status as cells


def test_one_at_a_time(tmp_path):
  path = tmp_path / 'cell' / 'LEASE'
  mine = lease.take(path)
  assert mine and lease.take(path) is None
  assert lease.holder(path)['pid'] == os.getpid()
  assert mine.renew()
  mine.release()
  assert not path.exists() and lease.take(path)


def test_of_many_threads_one_gets_it(tmp_path):
  path, got = tmp_path / 'LEASE', []
  path.write_text(json.dumps({'heartbeat': 0.0}))  # a stale one at that
  threads = [
    threading.Thread(target=lambda: got.append(lease.take(path)))
    for _ in range(16)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len([x for x in got if x]) == 1


def test_who_looks_at_a_lease_waits_for_who_changes_it(tmp_path):
  path = tmp_path / 'LEASE'
  taken = threading.Event()
  thread = threading.Thread(target=lambda: lease.take(path) and taken.set())
  with lease._guard(path, exclusive=True):
    thread.start()
    assert not taken.wait(0.3)
  assert taken.wait(20)
  thread.join()


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path):
  path = tmp_path / 'LEASE'
  code = f"""
from ealign.workdir import lease
import os
assert lease.take({str(path)!r})
os._exit(9)
"""
  subprocess.run([sys.executable, '-c', code])
  assert lease.holder(path)['pid'] != os.getpid()
  assert lease.take(path)


def test_another_machine_is_waited_for(tmp_path, monkeypatch):
  path = tmp_path / 'LEASE'
  monkeypatch.setattr(lease, '_machine', lambda: 'another')
  assert lease.take(path)
  monkeypatch.undo()
  assert lease.take(path) is None
  now = time.time()
  monkeypatch.setattr(lease.time, 'time', lambda: now + lease.STALE_S + 1)
  assert lease.take(path)


def test_a_reused_pid_is_no_owner(tmp_path):
  path = tmp_path / 'LEASE'
  lease.take(path)
  held = json.loads(path.read_text())
  path.write_text(json.dumps(held | {'born': 'long ago'}))
  assert lease.take(path)


def test_a_lease_that_lacks_its_process_counts_from_its_beat(tmp_path):
  path = tmp_path / 'LEASE'
  lease.take(path)
  held = json.loads(path.read_text())
  for name in ('pid', 'born'):
    path.write_text(json.dumps({k: v for k, v in held.items() if k != name}))
    assert lease.take(path) is None
    late = {'heartbeat': time.time() - lease.STALE_S - 1}
    path.write_text(
      json.dumps({k: v for k, v in held.items() if k != name} | late)
    )
    assert lease.take(path)


def test_a_lease_that_cannot_be_released_hides_no_error(tmp_path):
  mine = lease.take(tmp_path / 'cell' / 'LEASE')
  with pytest.raises(KeyError), lease.kept([mine]):
    shutil.rmtree(tmp_path / 'cell')  # as when its disk is gone
    raise KeyError('the error itself')


def test_a_beat_that_cannot_tell_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(lease, 'BEAT_S', 0.01)
  mine, told = lease.take(tmp_path / 'LEASE'), []

  def tell():
    told.append(1)
    raise UserError('the disk is away for a moment')

  with lease.kept([mine], tell):
    _until(lambda: len(told) > 2)


def test_a_half_written_lease_counts_from_its_time(tmp_path, monkeypatch):
  path = tmp_path / 'LEASE'
  path.write_text('')
  assert lease.take(path) is None
  now = time.time()
  monkeypatch.setattr(lease.time, 'time', lambda: now + lease.STALE_S + 1)
  assert lease.take(path)


def test_in_a_bucket_the_last_one_to_write_has_it(tmp_path, monkeypatch):
  path = tmp_path / 'LEASE'
  monkeypatch.setattr(lease, 'SETTLE_S', 0.0)
  mine = lease.take(path, exclusive=False)
  assert mine and lease.take(path, exclusive=False) is None

  def other(seconds):
    path.write_text(json.dumps({'token': 'theirs', 'heartbeat': time.time()}))

  path.unlink()
  monkeypatch.setattr(lease.time, 'sleep', other)
  assert lease.take(path, exclusive=False) is None
  assert not mine.renew()
  mine.release()
  assert path.exists()  # theirs


def test_kept_renews_tells_and_hushes(tmp_path, monkeypatch):
  monkeypatch.setattr(lease, 'BEAT_S', 0.01)
  path, told, lost = tmp_path / 'LEASE', [], []
  monkeypatch.setattr(lease, '_give_way', lost.append)
  mine = lease.take(path)
  first = lease.holder(path)['heartbeat']
  with lease.kept([mine], lambda: told.append(1)) as hush:
    _until(lambda: len(told) > 2)
    assert lease.holder(path)['heartbeat'] > first
    hush()
    count = len(told)
    path.write_text(json.dumps({'token': 'theirs', 'heartbeat': time.time()}))
    _until(lambda: lost)
    assert len(told) == count
  assert lost[0] is mine and path.exists()


def test_who_has_lost_its_lease_ends(tmp_path, monkeypatch, capsys):
  codes = []
  monkeypatch.setattr(lease.os, '_exit', codes.append)
  monkeypatch.setattr(lease, 'BEAT_S', 0.01)
  path = tmp_path / 'LEASE'
  mine = lease.take(path)
  held = {'token': 'theirs', 'host': 'far', 'heartbeat': time.time()}
  path.write_text(json.dumps(held))
  with lease.kept([mine]):
    _until(lambda: codes)
  assert codes[0] == 143  # which cluster managers restart
  assert 'taken over by far; this one ends' in capsys.readouterr().out


def _until(ready):
  end = time.monotonic() + 20
  while not ready():
    assert time.monotonic() < end
    time.sleep(0.005)


def test_status_both_ways(tmp_path):
  assert cells.read(tmp_path) is None
  status = cells.Status('running', host='h', step=3, hashes={'code': 'x'})
  cells.write(tmp_path, status)
  assert cells.read(tmp_path) == status
  assert [p.name for p in tmp_path.iterdir()] == ['STATUS.json']


@pytest.mark.parametrize(
  'text',
  [
    *('', '{', '[]', '{"state": "ran"}', '{"state": "done", "step": "x"}'),
    '{"state": "running", "heartbeat": "x"}',
    '{"state": "running", "step_time_s": null}',
  ],
)
def test_a_damaged_status(tmp_path, text):
  (tmp_path / 'STATUS.json').write_text(text)
  with pytest.raises(UserError, match='STATUS.json: is damaged; --retry=fail'):
    cells.read(tmp_path)
  assert cells.read(tmp_path, damaged=cells.Status('failed')).state == 'failed'


def test_done_has_hashes(tmp_path):
  cells.write(tmp_path, cells.Status('done'))
  with pytest.raises(UserError, match='is damaged'):
    cells.read(tmp_path)
  cells.write(tmp_path, cells.Status('done', hashes={'code': 'x'}))
  assert cells.read(tmp_path).state == 'done'
  cells.write(tmp_path, cells.Status('running'))
  assert cells.read(tmp_path).state == 'running'


def test_a_lease_whose_time_is_no_number_is_as_old_as_its_file(tmp_path):
  path = tmp_path / 'LEASE'
  path.write_text('{"host": "far", "heartbeat": "soon"}\n')
  found = lease.holder(path)
  assert found['host'] == '?' and not lease.expired(found)
