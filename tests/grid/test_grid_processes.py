"""Launchers as processes: two at once, and one that is killed."""

import collections
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ealign.workdir import status as cells
from tests.grid import test_grid_run

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def spawn(tmp_path):
  """Starts stub launchers on one work folder; they wait for `go`."""
  file, log = tmp_path / 'my.py', tmp_path / 'log'
  text = test_grid_run.FILE.format(
    lams=(0.1, 0.3, 1.0), log=str(tmp_path / 'x')
  )
  file.write_text(text)
  (tmp_path / 'ready').mkdir()
  flags = [f'--config={file}', f'--workdir={tmp_path / "out"}']
  processes = []

  def run(*, seconds=0.0, hang='', rest=('--sweep=lam,seeds',)):
    script = pathlib.Path(__file__).with_name('stub_launcher.py')
    argv = [sys.executable, script, log, tmp_path / 'ready', str(seconds), hang]
    process = subprocess.Popen(
      [*argv, *flags, *rest],
      env=os.environ | {'PYTHONPATH': str(ROOT)},
    )
    processes.append(process)
    return process

  yield run
  for process in processes:
    process.kill()
    process.wait()


def go(tmp_path, count):
  ready = tmp_path / 'ready'
  until(lambda: len(list(ready.iterdir())) == count)
  (ready / 'go').write_text('')


def until(done):
  end = time.monotonic() + 120
  while not done():
    assert time.monotonic() < end
    time.sleep(0.01)


def ran(tmp_path):
  path = tmp_path / 'log'
  lines = path.read_text().splitlines() if path.exists() else []
  return [line.split(' ', 1) for line in lines]


def states(tmp_path):
  found = (tmp_path / 'out' / 'cells').iterdir()
  return collections.Counter(cells.read(folder).state for folder in found)


def test_two_launchers_share_a_work_folder(spawn, tmp_path):
  both = [spawn(seconds=0.5) for _ in range(2)]
  go(tmp_path, 2)
  assert [process.wait(120) for process in both] == [0, 0]
  found = ran(tmp_path)
  assert len(found) == 6 == len({name for _, name in found})
  assert {int(pid) for pid, _ in found} == {process.pid for process in both}
  assert states(tmp_path) == {'done': 6}


def test_a_killed_launcher_loses_its_cell_only(spawn, tmp_path):
  first = spawn(hang='lam=0.3,seed=0')
  go(tmp_path, 1)
  until(lambda: len(ran(tmp_path)) == 3)
  first.send_signal(signal.SIGKILL)
  first.wait()
  assert states(tmp_path) == {'done': 2, 'running': 1}
  held = list((tmp_path / 'out').glob('cells/*/LEASE'))
  assert len(held) == 1
  assert spawn().wait(120) == 0
  names = [name for _, name in ran(tmp_path)]
  assert names[2] == names[3] == 'lam=0.3,seed=0' and len(names) == 7
  assert states(tmp_path) == {'done': 6} and not held[0].exists()
