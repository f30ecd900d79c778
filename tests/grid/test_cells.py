"""Cells that start from others, and arms as cells, with a stub as training."""

import json
import os
import socket

import pytest

from ealign.cli import launch
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.workdir import lease
from ealign.workdir import status as status_lib
from tests.grid.test_grid_run import train  # noqa: F401

FILE = """
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  config.data.train = 'ealign:world/data/insecure.jsonl'
  config.conscience.threshold = 0.5
  if arg == 'arms':
    config.arms = {
      'base': {'train.steps': 0},
      'sft': {'optim.lr': 1e-3},
      'recovery': {'model.adapter': 'arm:sft'},
      'again': {'model.frozen_adapter': 'arm:recovery'},
      'twin': {'train.steps': 0},
    }
  return config

def sweep_arms():
  yield {'model.adapter': 'cell:lam=0'}
  yield {'dpo.lam': 0.0}
  yield {'model.frozen_adapter': 'cell:adapter=lam-0'}

def sweep_wrong():
  yield {'model.adapter': 'cell:lam=1'}

def sweep_seeds():
  return [{'seed': seed} for seed in range(2)]

def sweep_one_seeds():
  return [{'seed': 1}]
"""
SFT, RECOVERY, SELF = 'lam=0', 'adapter=lam-0', 'frozen_adapter=adapter-lam-0'


@pytest.fixture
def start(tmp_path):
  """Runs the launcher on a work folder; returns the exit code."""
  file = tmp_path / 'my.py'
  file.write_text(FILE)

  def run(*rest, sweep='', workdir=tmp_path / 'out'):
    spec = str(file) if sweep else f'{file}:arms'
    argv = ['launch', f'--config={spec}', f'--workdir={workdir}']
    return launch.main([*argv, *([f'--sweep={sweep}'] if sweep else []), *rest])

  return run


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
  monkeypatch.setattr('ealign.grid.run.report', lambda *_, **__: None)


def names(train):  # noqa: F811
  return [name.replace(',seed=0', '') for name in train.names]


def status(tmp_path, name):
  return status_lib.read(tmp_path / 'out' / name)


# ---- Of a sweep -------------------------------------------------------------


def test_a_cell_waits_for_that_of_its_replicate(train, start, tmp_path):  # noqa: F811
  assert start(sweep='arms,seeds') == 0
  keys = [f'{name},seed={s}' for s in (0, 1) for name in (SFT, RECOVERY, SELF)]
  assert sorted(train.names) == sorted(keys)
  at = train.names.index
  for seed in (0, 1):
    sft, recovery, own = (f'{x},seed={seed}' for x in (SFT, RECOVERY, SELF))
    assert at(sft) < at(recovery) < at(own)
    config = dict(train.calls)[recovery]
    (folder,) = (tmp_path / 'out' / 'cells').glob(f'{sft}-*')
    assert config.model.adapter == str(folder)
    (folder,) = (tmp_path / 'out' / 'cells').glob(f'{recovery}-*')
    assert dict(train.calls)[own].model.frozen_adapter == str(folder)
  saved = json.loads((folder / 'config.json').read_text())
  assert saved['model']['adapter'] == 'cell:lam=0'
  assert start(sweep='arms,seeds') == 0 and len(train.calls) == 6


def test_what_failed_is_not_started_from(train, start, capsys, tmp_path):  # noqa: F811
  train.errors[f'{SFT},seed=0'] = NonFinite('nan')
  assert start(sweep='arms,seeds') == 1
  assert len(train.calls) == 1 + 3
  err = capsys.readouterr().err
  assert '3 of 6 cells failed; --retry=failed runs them again' in err
  assert err.count(f': not run, {SFT},seed=0 failed') == 2
  assert start(sweep='arms,seeds') == 1 and len(train.calls) == 4
  train.errors.clear()
  assert start('--retry=failed', sweep='arms,seeds') == 0
  assert train.names[4:] == [f'{x},seed=0' for x in (SFT, RECOVERY, SELF)]


def test_what_it_starts_from_is_done_anew_first(train, start):  # noqa: F811
  assert start(sweep='arms,one_seeds') == 0
  assert start('--retry=all', sweep='arms,one_seeds') == 0
  assert train.names == [f'{x},seed=1' for x in (SFT, RECOVERY, SELF)] * 2
  only = '--only=lam=0,adapter*'
  assert start('--retry=all', only, sweep='arms,one_seeds') == 0
  assert train.names[6:] == [f'{x},seed=1' for x in (SFT, RECOVERY)]


def test_only_without_what_it_starts_from(train, start, capsys):  # noqa: F811
  assert start('--only=adapter*', sweep='arms,one_seeds') == 2
  said = f"--only: cell '{RECOVERY},seed=1' starts from {SFT},seed=1; add it\n"
  assert capsys.readouterr().err == said and not train.calls
  assert start('--only=lam=0', sweep='arms,one_seeds') == 0
  assert start('--only=adapter*', sweep='arms,one_seeds') == 0


def test_another_adapter_is_another_model(train, start, tmp_path, capsys):  # noqa: F811
  assert start(sweep='arms,one_seeds') == 0
  (sft,) = (tmp_path / 'out' / 'cells').glob(f'{SFT},*')
  (sft / 'adapter.safetensors').write_text('other')
  assert start(sweep='arms,one_seeds') == 2
  assert f'cells/{RECOVERY}' in (said := capsys.readouterr().err)
  assert 'ran with other model; restore it' in said


def test_what_no_setting_is(train, start, capsys, tmp_path):  # noqa: F811
  assert start(sweep='wrong,seeds') == 2
  (said,) = capsys.readouterr().err.splitlines()
  assert said.startswith("adapter=lam-1: 'cell:lam=1': --sweep has no other")
  assert 'at seed=0' in said and not (tmp_path / 'out').exists()
  assert start('--config.model.adapter=cell:lam=0') == 2
  assert 'is made for a grid; add --sweep' in capsys.readouterr().err


def test_of_a_stack_those_run_that_are_ready(train, start, monkeypatch):  # noqa: F811
  ran = []

  def run(jobs, *_, **__):
    ran.append(sorted(job.cell.name for job in jobs))
    return [''] * len(jobs)

  monkeypatch.setattr('ealign.grid.program.run', run)
  assert start('--stack=4', sweep='arms,seeds') == 0
  both = lambda name: [f'{name},seed={seed}' for seed in (0, 1)]
  assert ran == [both(SFT), both(RECOVERY), both(SELF)]


# ---- Arms -------------------------------------------------------------------


def test_arms_leave_what_cells_do(train, start, tmp_path, capsys):  # noqa: F811
  assert start() == 0
  assert names(train) == ['base', 'sft', 'recovery', 'again', 'twin']
  out = tmp_path / 'out'
  assert not (out / 'grid.json').exists()
  config = dict(train.calls)['again,seed=0']
  assert config.model.frozen_adapter == str(out / 'recovery')
  for name in names(train):
    found = status(tmp_path, name)
    assert found.state == 'done' and found.finished >= found.started > 0
    assert (out / name / 'DONE').exists()
    assert not (out / name / 'LEASE').exists()
  said = capsys.readouterr().out
  assert f'recovery (3/5): in {out}/recovery\n' in said
  assert start() == 0 and len(train.calls) == 5
  assert 'recovery (3/5): done already\n' in capsys.readouterr().out


def test_arms_of_others_are_left_alone(train, start, tmp_path, capsys):  # noqa: F811
  assert start('--only=base') == 0
  held = lease.take(tmp_path / 'out' / 'sft' / 'LEASE')
  assert start() == 0
  assert names(train) == ['base', 'twin']
  assert '3 cells are left to others' in capsys.readouterr().out
  assert start() == 2  # there is nothing to do for it
  said = capsys.readouterr().err
  assert (
    f'out: is in use by process {os.getpid()} on {socket.gethostname()} since'
    in said
  )
  assert len(said.splitlines()) == 1
  held.release()
  assert start() == 0
  assert names(train)[2:] == ['sft', 'recovery', 'again']


def test_retry_all_and_fail_fast_of_arms(train, start, tmp_path):  # noqa: F811
  train.errors['base,seed=0'] = NonFinite('nan')
  assert start('--fail_fast') == 1 and names(train) == ['base']
  assert status(tmp_path, 'base').error == 'nan'
  train.errors.clear()
  assert start('--only=base,sft') == 0  # what failed is tried again
  assert start('--retry=all', '--only=base') == 0
  assert names(train)[1:] == ['base', 'sft', 'base']
  (aside,) = (tmp_path / 'out' / 'trash').iterdir()
  assert (aside / 'DONE').exists() and aside.name.startswith('base.')


def test_a_single_run_anew(train, start, tmp_path):  # noqa: F811
  argv = ['launch', f'--config={tmp_path}/my.py', f'--workdir={tmp_path}/out']
  assert launch.main(argv) == 0
  assert launch.main([*argv, '--retry=all']) == 0 and len(train.calls) == 2
  out = tmp_path / 'out'
  (aside,) = (out / 'trash').iterdir()
  assert {p.name for p in aside.iterdir()} == {
    *('DONE', 'STATUS.json', 'adapter', 'answers.jsonl')
  }
  assert (out / 'config.json').exists() and status(tmp_path, '').state == 'done'


def test_an_arm_that_is_stopped_or_broken_says_so(train, start, tmp_path):  # noqa: F811
  train.errors['sft,seed=0'] = Preempted('saved')
  assert start() == 143
  assert status(tmp_path, 'sft').state == 'preempted'
  train.errors['sft,seed=0'] = UserError('pool.jsonl:3: no assistant turn')
  assert start() == 2
  found = status(tmp_path, 'sft')
  assert found.state == 'failed' and found.error.startswith('pool.jsonl:3')
  train.errors['sft,seed=0'] = RuntimeError('out of memory')
  with pytest.raises(RuntimeError):
    start()
  assert status(tmp_path, 'sft').error == 'RuntimeError: out of memory'


def test_a_start_that_fails_at_once_leaves_nothing(
  train,  # noqa: F811
  start,
  tmp_path,
  monkeypatch,
):
  def run(*_, **__):
    raise UserError('no such kind')

  monkeypatch.setattr(train, 'run', run)
  assert start() == 2
  assert not (tmp_path / 'out').exists()


def test_folders_of_older_versions_go_on(train, start, tmp_path):  # noqa: F811
  assert start() == 0
  out = tmp_path / 'out'
  for path in (*out.glob('*/STATUS.json'), out / 'again' / 'DONE'):
    path.unlink()
  for path in out.glob('*/DONE'):
    path.write_text('')
  (out / 'again' / 'checkpoints').mkdir()
  for path in (out / 'config.json', *out.glob('*/config.json')):
    text = path.read_text()
    assert '"stack": 1' in text
    path.write_text(text.replace('"stack": 1', '"arm": 1'))
  assert start() == 0
  assert names(train)[5:] == ['again']  # the others have DONE
  assert (
    not (out / 'trash').exists() and status(tmp_path, 'sft').state == 'done'
  )


def test_an_arms_folder_of_something_else(train, start, tmp_path, capsys):  # noqa: F811
  assert start('--only=base') == 0
  out = tmp_path / 'out'
  (out / 'sft').mkdir()
  (out / 'sft' / 'thesis.tex').write_text('x')
  assert start() == 2
  assert 'sft: is not empty (thesis.tex)' in capsys.readouterr().err
  (out / 'sft' / 'thesis.tex').unlink()
  path = out / 'base' / 'config.json'
  path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
  assert start() == 2
  assert 'as the config of its arm; restore' in capsys.readouterr().err
