import json
import os
import pathlib
import signal
import subprocess
import sys
import types

import jax
import pytest

import ealign
from ealign import report
from ealign.cli import launch
from ealign.grid import run as run_lib
from ealign.runtime.errors import Collapsed, NonFinite, Preempted, UserError

FILE = """
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  config.model.path = {folder!r}
  config.pool.paths = ({folder!r},)
  if arg == 'arms':
    config.arms = {{
      'base': {{'train.steps': 0}},
      'sft': {{'optim.lr': 1e-3}},
      'recovery': {{'model.adapter': 'arm:sft'}},
    }}
  return config
"""


class Stub:
  """Stands for ealign.train: records calls, fails where it is told to."""

  def __init__(self):
    self.calls, self.errors = [], {}

  def run(
    self,
    config,
    folder,
    *,
    name='',
    profile=None,
    hosts=None,
    display=None,
    method=None,
    stop=None,
  ):
    workdir = folder.local
    self.calls.append((name, workdir.name, config))
    if name in self.errors:
      raise self.errors[name]
    (workdir / 'metrics.jsonl').write_text('')


@pytest.fixture
def train(monkeypatch):
  """Puts stubs in place of training, reporting and the compile cache."""
  stub = Stub()
  monkeypatch.setitem(sys.modules, 'ealign.train', stub)
  monkeypatch.setattr(ealign, 'train', stub, raising=False)
  monkeypatch.setattr(launch, 'compile_cache', lambda: None)
  reported = []
  monkeypatch.setattr(run_lib, '_show', lambda path: None)
  monkeypatch.setattr(report, 'write', reported.append)
  stub.reported = reported
  return stub


@pytest.fixture
def start(tmp_path):
  """Runs the launcher on a work folder; returns the exit code."""
  file = tmp_path / 'my.py'
  file.write_text(FILE.format(folder=str(tmp_path)))

  def run(*rest, arg='', workdir=tmp_path / 'out'):
    spec = f'{file}:{arg}' if arg else str(file)
    argv = ['launch', f'--config={spec}', f'--workdir={workdir}', *rest]
    return launch.main(argv)

  return run


def names(train):
  return [name for name, _, _ in train.calls]


def test_one_run_sits_in_the_work_folder(train, start, tmp_path):
  assert start('--config.dpo.lam=0.5') == 0
  ((name, folder, config),) = train.calls
  assert (name, folder, config.dpo.lam) == ('', 'out', 0.5)
  saved = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert saved['dpo']['lam'] == 0.5
  assert train.reported == [tmp_path / 'out']


def test_the_same_command_does_nothing_twice(train, start, capsys):
  assert start() == start() == 0
  assert len(train.calls) == 1
  assert 'done already' in capsys.readouterr().out


def test_arms_run_in_order_in_their_folders(train, start, tmp_path):
  assert start(arg='arms') == 0
  assert [call[:2] for call in train.calls] == [
    *(('base', 'base'), ('sft', 'sft'), ('recovery', 'recovery'))
  ]
  recovery = train.calls[2][2]
  assert recovery.model.adapter == str(tmp_path / 'out' / 'sft')
  saved = json.loads((tmp_path / 'out/recovery/config.json').read_text())
  assert saved['model']['adapter'] == 'arm:sft' and 'arms' not in saved
  top = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert list(top['arms']) == ['base', 'sft', 'recovery']
  assert (tmp_path / 'out' / 'sft' / 'DONE').exists()


def test_only_some_arms(train, start, capsys):
  assert start('--only=ba*,sft', arg='arms') == 0
  assert names(train) == ['base', 'sft']
  assert start('--only=recovery', arg='arms') == 0  # sft is at hand now
  assert names(train) == ['base', 'sft', 'recovery']
  assert start('--only=stf', arg='arms') == 2
  assert "no such arm (base; sft; recovery). Did you mean 'sft'?" in (
    capsys.readouterr().err
  )


def test_only_without_what_it_starts_from(train, start, capsys):
  assert start('--only=recovery', arg='arms') == 2
  assert "'recovery' starts from sft; add it" in capsys.readouterr().err
  assert train.calls == []


def test_a_run_that_fails_leaves_the_others(train, start, capsys, tmp_path):
  train.errors['sft'] = NonFinite('steps 11 to 20: the loss became nan')
  assert start(arg='arms') == 1
  assert names(train) == ['base', 'sft']
  err = capsys.readouterr().err
  assert 'the loss became nan' in err and 'not run, sft failed' in err
  assert not (tmp_path / 'out' / 'sft' / 'DONE').exists()
  assert train.reported
  del train.errors['sft']
  assert start(arg='arms') == 0
  assert names(train) == ['base', 'sft', 'sft', 'recovery']


def test_a_run_that_collapses_leaves_the_others(train, start, capsys):
  train.errors['base'] = Collapsed('stopped at step 3 and saved: collapsed')
  assert start(arg='arms') == 1
  assert names(train) == ['base', 'sft', 'recovery']
  assert 'step 3 and saved: collapsed' in capsys.readouterr().err


def test_a_mistake_found_by_a_run_ends_all(train, start, capsys):
  train.errors['base'] = UserError('pool.jsonl:3: no assistant turn')
  assert start(arg='arms') == 2
  assert names(train) == ['base']
  assert capsys.readouterr().err == 'pool.jsonl:3: no assistant turn\n'


def test_a_preempted_run_exits_143(train, start, tmp_path):
  train.errors['sft'] = Preempted('stopped and saved')
  assert start(arg='arms') == 143
  assert names(train) == ['base', 'sft']
  assert not train.reported


def test_a_signal_between_runs_exits_143(train, start, monkeypatch, capsys):
  def run(config, workdir, **_):
    signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(train, 'run', run)
  assert start(arg='arms') == 143
  assert 'stopped before sft (2/3); ' in capsys.readouterr().err


def test_all_problems_before_anything_runs(train, start, capsys, tmp_path):
  flags = ('--config.sample.top_p=2', '--config.dpo.beta=0')
  assert start(*flags, arg='arms') == 2
  err = capsys.readouterr().err.splitlines()
  assert [line.partition(':')[0] for line in err] == [
    *('sample.top_p=2.0', 'dpo.beta=0.0')  # as fields.py has them
  ]
  assert train.calls == [] and not (tmp_path / 'out').exists()


def test_a_work_folder_of_another_config(train, start, capsys):
  assert start() == 0
  capsys.readouterr()
  changed = ('--config.dpo.lam=0.5', '--config.log.tensorboard')
  assert start(*changed) == 2
  err = capsys.readouterr().err
  assert 'belongs to a config that differs' in err
  assert '  dpo.lam: 0.1 -> 0.5' in err and 'tensorboard' not in err
  assert start('--config.train.log_every=3') == 0  # changes no result


def test_a_foreign_work_folder(train, start, capsys, tmp_path):
  folder = tmp_path / 'mine'
  folder.mkdir()
  (folder / 'thesis.tex').write_text('x')
  assert start(workdir=folder) == 2
  assert 'is not empty (thesis.tex) and has no' in capsys.readouterr().err
  assert [path.name for path in folder.iterdir()] == ['thesis.tex']


def test_a_work_folder_that_cannot_be(train, start, capsys, tmp_path):
  (tmp_path / 'file').write_text('')
  assert start(workdir=tmp_path / 'file' / 'out') == 2
  assert 'cannot be used (' in capsys.readouterr().err
  assert start(workdir=tmp_path / 'file') == 2
  assert 'cannot be used (' in capsys.readouterr().err


def test_a_damaged_config_json(train, start, capsys, tmp_path):
  folder = tmp_path / 'out'
  folder.mkdir()
  for text in ('{"seed"', '[]'):
    (folder / 'config.json').write_text(text)
    assert start() == 2
    assert 'config.json: is damaged' in capsys.readouterr().err


def test_a_folder_of_a_killed_start_is_ours(train, start, tmp_path):
  folder = tmp_path / 'out'
  folder.mkdir()
  (folder / '.config.json.123-4').write_text('{"se')
  assert start() == 0


def test_a_flag_that_an_arm_sets_itself_is_told(train, start, capsys):
  assert start('--config.optim.lr=1', '--config.seed=3', arg='arms') == 0
  notes = [
    line
    for line in capsys.readouterr().err.splitlines()
    if line.startswith('note')
  ]
  assert notes == [
    "note: --config.optim.lr does not reach arm 'sft', which sets it to "
    '0.001 itself'
  ]


def test_interrupted_twice(train, start, monkeypatch):
  def run(config, workdir, **_):
    raise KeyboardInterrupt

  monkeypatch.setattr(train, 'run', run)
  assert start() == 130


def test_a_run_has_the_compile_cache(train, start, monkeypatch):
  order = []
  monkeypatch.setattr(launch, 'compile_cache', lambda: order.append('cache'))
  monkeypatch.setattr(train, 'run', lambda *_, **__: order.append('train'))
  assert start() == 0
  assert order == ['cache', 'train']


def test_the_compile_cache_is_on(monkeypatch, tmp_path):
  set_to = {}
  config = types.SimpleNamespace(update=set_to.__setitem__)
  monkeypatch.setattr(jax, 'config', config)
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  launch.compile_cache()
  assert set_to == {
    'jax_compilation_cache_dir': f'{tmp_path}/ealign/jax',
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': 0,
  }
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/elsewhere')
  launch.compile_cache()
  assert set_to['jax_compilation_cache_dir'] == '/elsewhere'


PROBE = """
import sys
from ealign.cli import launch
code = launch.main(['launch', *sys.argv[1:]])
# What a field may be stands in tables of the maths, so JAX is there.
heavy = {'transformers', 'orbax', 'datasets'} & sys.modules.keys()
print('loaded:', sorted(heavy))
sys.exit(code)
"""


def test_bad_input_is_told_before_anything_heavy_is_loaded(tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE.format(folder='/nowhere'))
  root = pathlib.Path(__file__).parents[2]
  argv = [f'--config={file}', f'--workdir={tmp_path / "out"}']
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', PROBE, *argv],
    env=os.environ | {'PYTHONPATH': str(root)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stdout == 'loaded: []\n'
  assert done.stderr.splitlines() == [
    "model.path='/nowhere': there is no such file or folder",
    "pool.paths='/nowhere': there is no such file or folder",
  ]


def test_a_profile_beyond_the_last_step(train, start, capsys):
  assert start('--profile=198:201') == 2
  assert 'must end by step 200' in capsys.readouterr().err
  assert start('--profile=198:200') == 0


def test_a_profile_of_a_run_that_is_done(train, start, capsys):
  start()
  assert start('--profile=0:2') == 0
  assert 'done already, --profile traces nothing' in capsys.readouterr().out
