"""A killed process: the same command goes on as if nothing had happened."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import runs

from ealign import config

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('file') / 'config.py'
  path.write_text(CONFIG)
  return path


@pytest.fixture(scope='module')
def whole(file):
  """The folder of the run that nobody killed."""
  assert launch(file, file.parent / 'whole').wait(300) == 0
  return file.parent / 'whole'


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_killed_process_continues_bit_for_bit(tmp_path, file, whole, how):
  parts = tmp_path / 'parts'
  process = launch(file, parts)
  wait_for(parts / 'checkpoints' / '8', process)
  process.send_signal(how)
  code = process.wait(120)
  assert code == (143 if how == signal.SIGTERM else -signal.SIGKILL)
  assert not (parts / 'DONE').exists()
  assert launch(file, parts).wait(300) == 0
  name = 'adapter.safetensors'
  assert (whole / name).read_bytes() == (parts / name).read_bytes()
  assert runs.answers(whole) == runs.answers(parts)


CONFIG = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_kill import small_dict
def get_config(arg=None):
  return small_dict()
"""


def small_dict():
  """`small` as a ConfigDict of 24 steps, for another process."""
  c = config.default()
  frozen = dataclasses.asdict(runs.small())
  frozen['train'] |= {'steps': 24, 'checkpoint_every': 8}

  def put(section, values):
    for name, value in values.items():
      if isinstance(value, dict):
        put(section[name], value)
      elif value is not None:
        section[name] = value

  put(c, frozen)
  return c


def launch(file, workdir):
  command = [sys.executable, '-m', 'ealign.launch', f'--config={file}']
  return subprocess.Popen(
    [*command, f'--workdir={workdir}'], cwd=ROOT, env=os.environ
  )


def wait_for(path, process):
  while not path.exists():
    assert process.poll() is None, 'it ended before the checkpoint'
    time.sleep(0.01)
