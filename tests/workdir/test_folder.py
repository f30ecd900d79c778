"""A run's folder on one host, on several, and beside a bucket."""

import os
import pathlib
import threading
from concurrent import futures

import pytest
from etils import epath

from ealign.runtime.errors import UserError
from ealign.workdir import folder as folder_lib


def files(path):
  path = pathlib.Path(path)
  found = [x for x in path.rglob('*') if x.is_file()]
  return {
    str(x.relative_to(path)): x.read_text()
    for x in found
    if not x.name.startswith('.')
  }


def test_on_one_host_it_is_the_folder_itself(tmp_path):
  found = folder_lib.of(tmp_path / 'a')
  assert found.local == tmp_path / 'a' == pathlib.Path(found.shared)
  assert found.writes and not found.copied
  (found / 'sft').pull()
  found.push()
  assert not (tmp_path / 'a').exists()
  assert folder_lib.of(found) is found


def test_another_host_reads_a_copy_and_writes_nothing(tmp_path):
  (tmp_path / 'sft' / 'checkpoints').mkdir(parents=True)
  (tmp_path / 'sft' / 'checkpoints' / 'x').write_text('large')
  (tmp_path / 'sft' / 'adapter').write_text('1')
  found = folder_lib.of(tmp_path, index=3)
  found.pull()
  assert files(found.local) == {'sft/adapter': '1'}
  (found.local / 'sft' / 'mine').write_text('2')
  found.push()
  assert not (tmp_path / 'sft' / 'mine').exists()


def test_host_0_brings_what_is_new_to_the_bucket(tmp_path):
  local, shared = tmp_path / 'here', tmp_path / 'bucket'
  found = folder_lib.Folder(local, epath.Path(shared)) / 'a'
  found.local.mkdir(parents=True)
  (found.local / 'metrics.jsonl').write_text('1')
  os.utime(found.local / 'metrics.jsonl', ns=(0, 10**18))
  found.push()
  assert files(shared) == {'a/metrics.jsonl': '1'}
  (shared / 'a' / 'metrics.jsonl').write_text('theirs')
  (found.local / 'DONE').write_text('')
  found.push()  # what did not change stays as it is there
  assert files(shared) == {'a/metrics.jsonl': 'theirs', 'a/DONE': ''}
  (found.local / 'metrics.jsonl').write_text('12')
  found.push()
  assert files(shared)['a/metrics.jsonl'] == '12'
  # JAX's traces lie in plugins/profile of the folder they are given.
  trace = pathlib.Path('a', 'profile', 'plugins', 'profile', 'today', 'x.pb')
  (local / trace).parent.mkdir(parents=True)
  (local / trace).write_text('trace')
  found.push()
  assert files(shared)[str(trace)] == 'trace'
  (shared / trace).unlink()
  fresh = folder_lib.Folder(tmp_path / 'again', epath.Path(shared))
  fresh.pull()
  assert files(tmp_path / 'again') == files(shared)


def test_what_was_written_while_it_pushed_is_pushed_next(tmp_path):
  found = folder_lib.Folder(tmp_path / 'here', epath.Path(tmp_path / 'bucket'))
  found.local.mkdir()
  found.push()
  since = (found.local / '.pushed').stat().st_mtime_ns
  for name, time in (('at', since), ('before', since - 1)):
    (found.local / name).write_text(name)
    os.utime(found.local / name, ns=(0, time))
  found.push()
  assert files(tmp_path / 'bucket') == {'at': 'at'}


def test_a_bucket_without_its_extra_names_the_extra(monkeypatch):
  def missing(self):
    raise ImportError('Please install gcsfs')

  monkeypatch.setattr(type(epath.Path('gs://b')), 'exists', missing)
  with pytest.raises(UserError, match=r'--workdir=gs://b/x: .*ealign\[gcs\]'):
    folder_lib.of('gs://b/x')


# --- What all hosts see ------------------------------------------------------


def checked(*folders):
  """The error that each host of these folders ends with, or None."""
  met, box = threading.Barrier(len(folders)), [None] * len(folders)

  class Host:
    count = len(folders)

    def __init__(self, index):
      self.index = index

    def gather(self, value):
      box[self.index] = value
      met.wait(30)
      found = list(box)
      met.wait(30)
      return found

  def check(index):
    place = folder_lib.Folder(
      folders[index], epath.Path(folders[index]), writes=not index
    )
    try:
      folder_lib.check(place, Host(index))
    except UserError as error:
      if 'written' in str(error):
        met.abort()  # as `Hosts.fail` ends the others
      return str(error)
    except threading.BrokenBarrierError:
      return 'ended by another'
    return None

  with futures.ThreadPoolExecutor() as pool:
    return list(pool.map(check, range(len(folders))))


def test_a_folder_that_all_hosts_see(tmp_path):
  shared = tmp_path / 'a'
  assert checked(shared, shared, shared) == [None, None, None]
  assert not files(shared)
  assert checked(shared) == [None]


def test_a_disk_that_is_not_shared(tmp_path, monkeypatch):
  monkeypatch.setattr(folder_lib, 'SEEN_S', 0.3)
  shared, own = tmp_path / 'a', tmp_path / 'own'
  for path, said in zip(
    (shared, shared, own), checked(shared, shared, own), strict=True
  ):
    assert f'--workdir={path}: host 2 does not see' in said
    assert 'a disk that all hosts share, or gs://' in said
  assert not files(shared) and not own.exists()


def test_what_comes_late_is_waited_for(tmp_path):
  late = tmp_path / 'late'
  timer = threading.Timer(0.5, late.write_text, ('',))
  timer.start()
  assert folder_lib._seen(late)
  timer.join()


def test_a_folder_that_host_0_cannot_write(tmp_path):
  (tmp_path / 'a').write_text('a file')
  first, second = checked(tmp_path / 'a', tmp_path / 'a')
  assert first.startswith(f'--workdir={tmp_path}/a: cannot be written (')
  assert second == 'ended by another'
