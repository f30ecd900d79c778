"""Cells that train the tiny model: what they compile, cost, and survive."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import runs

from ealign.cli import launch
from ealign.runtime import provenance
from ealign.workdir import status as cells

ROOT = pathlib.Path(__file__).parents[2]
FILE = f"""
import sys
sys.path.insert(0, {str(ROOT / 'tests')!r})
import runs
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  changes = {{'train.steps': 8}} if arg == 'long' else {{'train.steps': 2}}
  frozen = config_lib.flatten(runs.small(**changes))
  return config_lib.apply_arm(config, frozen)[0]

def sweep_lam():
  return [{{'dpo.lam': 0.1}}, {{'dpo.lam': 0.3}}]

def sweep_both():
  return [{{'dpo.lam': 0.1}}, {{'dpo.lam': 0.3, 'seed': 1}}]
"""


@pytest.fixture(scope='module')
def argv(tmp_path_factory):
  file = tmp_path_factory.mktemp('file') / 'my.py'
  file.write_text(FILE)

  def make(arg, workdir, sweep):
    flags = [f'--config={file}{arg}', f'--workdir={workdir}']
    return ['launch', *flags, f'--sweep={sweep}']

  return make


def test_cells_of_equal_shapes_compile_once(argv, tmp_path, monkeypatch):
  monkeypatch.setattr(launch, 'compile_cache', lambda: None)
  before = provenance.compiles()
  command = argv('', tmp_path / 'out', 'both')
  # A size of its own: nothing else in this process has compiled it.
  assert launch.main([*command, '--config.train.chunk=77']) == 0
  found = sorted((tmp_path / 'out' / 'cells').iterdir())
  statuses = [cells.read(folder) for folder in found]
  assert [s.state for s in statuses] == ['done'] * 2
  assert statuses[0].compiles == provenance.compiles() - before > 0
  assert statuses[1].compiles == 0
  for status in statuses:
    assert 0 < status.overhead_s < status.seconds and status.step == 2
  labels = {r['arm'] for r in runs.answers(found[0])}
  assert labels == {'lam=0.1'}


@pytest.fixture(scope='module')
def start(argv):
  return lambda folder: subprocess.Popen(
    [
      sys.executable,
      '-m',
      'ealign.launch',
      *argv(':long', folder, 'lam')[1:],
      '--only=lam=0.3',
    ],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    cwd=ROOT,
  )


@pytest.fixture(scope='module')
def whole(start, tmp_path_factory):
  """The folder of the grid that nobody killed."""
  folder = tmp_path_factory.mktemp('whole')
  assert start(folder).wait(600) == 0
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_launcher_continues_its_cell(start, whole, tmp_path, how):
  parts = tmp_path / 'parts'
  process = start(parts)
  saved = 'cells/lam=0.3-*/checkpoints/4'
  while not list(parts.glob(saved)):
    assert process.poll() is None, 'it ended before the checkpoint'
    time.sleep(0.01)
  process.send_signal(how)
  code = process.wait(300)
  assert code == (143 if how == signal.SIGTERM else -signal.SIGKILL)
  (cell,) = parts.glob('cells/lam=0.3-*')
  states = {143: 'preempted', -signal.SIGKILL: 'running'}
  assert cells.read(cell).state == states[code]
  assert start(parts).wait(600) == 0
  for folder in sorted((whole / 'cells').iterdir()):
    other = parts / 'cells' / folder.name
    assert cells.read(other).state == 'done'
    assert cells.read(other).hashes == cells.read(folder).hashes
    name = 'adapter.safetensors'
    assert (folder / name).read_bytes() == (other / name).read_bytes()
    assert runs.answers(folder) == runs.answers(other)
