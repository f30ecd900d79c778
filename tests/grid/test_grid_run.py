"""The launcher of a grid, with a stub in place of training."""

import contextlib
import dataclasses
import json
import pathlib
import signal
import sys
import threading
import time
import types

import pytest
from etils import epath

import ealign
from ealign import report
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.grid import claims, hashes, ledger, prepare, progress, sweeps
from ealign.grid import job as job_lib
from ealign.grid import run as run_lib
from ealign.plan import programs  # noqa: F401  it imports what a stub stands for
from ealign.runtime import atomic
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.stack import run as stack
from ealign.workdir import folder as folder_lib
from ealign.workdir import lease
from ealign.workdir import status as cells
from tests.grid import made

FILE = """
from ealign import config as config_lib
LAMS = {lams}

def get_config(arg=None):
  return config_lib.default()

def sweep_lam():
  for lam in LAMS:
    yield {{'dpo.lam': lam}}

def sweep_seeds():
  return [{{'seed': seed}} for seed in range(2)]

def sweep_bases():
  return [{{'model.path': 'grid:base'}}]

def prepare(folder, config):
  with open({log!r}, 'a') as file:
    file.write(folder.name + ' ')
  (folder / 'config.json').write_text('{{}}')
"""


class Stub:
  """Stands for ealign.train: records calls, fails where it is told to."""

  def __init__(self):
    self.calls, self.errors = [], {}

  def run(self, config, folder, *, method, name='', hosts=None, display=None):
    key = f'{name},seed={config.seed}'
    self.calls.append((key, config))
    display.start()
    display.update(1, {})
    (folder.local / 'adapter').write_text(key)
    if key in self.errors:
      raise self.errors[key]
    display.update(2, {'train/loss': 1.0})
    (folder.local / 'answers.jsonl').write_text(key)

  @property
  def names(self):
    return [name for name, _ in self.calls]


@pytest.fixture
def train(monkeypatch):
  stub = Stub()
  monkeypatch.setitem(sys.modules, 'ealign.train', stub)
  monkeypatch.setattr(ealign, 'train', stub, raising=False)
  monkeypatch.setattr(launch, 'compile_cache', lambda: None)
  reported = []
  write = lambda folder: reported.append(folder) or 'page'
  monkeypatch.setattr(report, 'write', write)
  stub.reported = reported
  return stub


@pytest.fixture
def start(tmp_path):
  """Runs the launcher on a work folder; returns the exit code."""

  def run(*rest, sweep='lam,seeds', lams=(0.1, 0.3), workdir=tmp_path / 'out'):
    file, log = tmp_path / 'my.py', str(tmp_path / 'prepared.txt')
    file.write_text(FILE.format(lams=lams, log=log))
    argv = ['launch', f'--config={file}', f'--workdir={workdir}']
    return launch.main([*argv, f'--sweep={sweep}', *rest])

  return run


ALL = [f'lam={lam},seed={seed}' for lam in (0.1, 0.3) for seed in (0, 1)]


def folder(tmp_path, name):
  (found,) = (tmp_path / 'out' / 'cells').glob(f'{name}-*')
  return found


def status(tmp_path, name):
  return cells.read(folder(tmp_path, name))


def test_cells_run_once_in_their_folders(train, start, tmp_path, capsys):
  assert start() == 0
  assert train.names == ALL
  first = folder(tmp_path, ALL[0])
  found = cells.read(first)
  assert found.state == 'done' and found.steps == 200 and found.stacked == 1
  assert found.finished >= found.started > 0 and not found.error
  assert set(found.hashes) == {'config', 'data', 'template', 'model', 'code'}
  assert first.name.endswith(found.hashes['config'])
  saved = json.loads((first / 'config.json').read_text())
  assert saved['dpo']['lam'] == 0.1 and 'arms' not in saved
  assert not (first / 'LEASE').exists()
  assert train.reported == [tmp_path / 'out'] * 5  # each cell, and the end
  assert start() == 0  # the same command does nothing twice
  assert len(train.calls) == 4
  assert '0 of 4 cells to run' in capsys.readouterr().out


def test_grid_json(train, start, tmp_path):
  assert start(lams=(0.1,)) == 0
  read = lambda: json.loads((tmp_path / 'out' / 'grid.json').read_text())
  told = read()
  assert told['sweep'] == 'lam,seeds' and told['axes'] == {'lam': ['dpo.lam']}
  assert told['sweeps']['seeds'] == [{'seed': 0}, {'seed': 1}]
  assert told['cells'][1] == {
    'folder': f'cells/lam=0.1,seed=1-{told["cells"][1]["id"]}',
    'id': told['cells'][1]['id'],
    'setting': {'dpo.lam': 0.1},
    'replicate': {'seed': 1},
    'label': 'lam=0.1',
    'seed': 'seed=1',
    'current': True,
  }
  assert told['contrasts'] == [] and not told['declared_late']
  # Another value of an axis runs only what is new; one less keeps the old.
  assert start(lams=(0.1, 0.3)) == 0
  assert train.names == ALL
  assert start(lams=(0.3,)) == 0
  assert len(train.calls) == 4
  current = {c['label']: c['current'] for c in read()['cells']}
  assert current == {'lam=0.3': True, 'lam=0.1': False}
  assert read()['declared'] == told['declared']
  assert folder(tmp_path, ALL[0]).exists()


@pytest.mark.parametrize('failed', [True, False])
def test_contrasts_that_come_after_cells_are_late(
  train, start, tmp_path, failed, monkeypatch
):
  if failed:  # before a step
    update = 'ealign.grid.progress.Watch.update'
    monkeypatch.setattr(update, lambda *_: None)
    train.errors |= {name: NonFinite('nan') for name in ALL}
  assert start() == int(failed)
  file = tmp_path / 'my.py'
  more = "def contrasts():\n  return {'a': ({'dpo.lam': 0.3}, {})}\n"
  file.write_text(file.read_text() + more)
  flags = [f'--workdir={tmp_path / "out"}', '--sweep=lam,seeds']
  code = launch.main(['launch', f'--config={file}', *flags])
  assert code == int(failed)
  told = json.loads((tmp_path / 'out' / 'grid.json').read_text())
  assert told['declared_late'] != failed and len(told['contrasts']) == 1


def test_a_cell_that_fails_fails_alone(train, start, tmp_path, capsys):
  train.errors[ALL[1]] = NonFinite('steps 1 to 2:\nbecame nan')
  train.errors[ALL[2]] = RuntimeError('out of memory')
  assert start() == 1
  assert train.names == ALL
  assert status(tmp_path, ALL[1]).error == 'steps 1 to 2: became nan'
  assert status(tmp_path, ALL[2]).error == 'RuntimeError: out of memory'
  err = capsys.readouterr().err
  assert '2 of 4 cells failed; --retry=failed runs them again' in err
  assert f'cells/{ALL[1]}' in err and 'became nan' in err
  # They stay so, and the exit code says it, until they are asked for.
  train.errors.clear()
  assert start() == 1 and len(train.calls) == 4
  assert start('--retry=failed') == 0
  assert train.names[4:] == ALL[1:3]
  assert start('--retry=failed') == 0 and len(train.calls) == 6


def test_fail_fast(train, start, capsys):
  train.errors[ALL[0]] = UserError('no such kind')
  assert start('--fail_fast') == 1
  assert train.names == ALL[:1]
  assert '1 of 4 cells failed, 3 left; ' in capsys.readouterr().err


def test_retry_all_moves_what_is_there_aside(train, start, tmp_path):
  assert start() == 0
  (folder(tmp_path, ALL[0]) / 'adapter').write_text('precious')
  assert start('--retry=all') == 0
  assert train.names == ALL * 2
  trash = sorted((tmp_path / 'out' / 'trash').iterdir())
  assert len(trash) == 4
  assert (trash[0] / 'adapter').read_text() == 'precious'
  assert (trash[0] / 'STATUS.json').exists()


def test_only(train, start, capsys):
  assert start('--only=lam=0.3*') == 0
  assert train.names == ALL[2:]
  assert start('--only=lam=0.1') == 0  # a setting
  assert train.names[2:] == ALL[:2]
  assert start('--only=lam=0.1,seed=1,lam=0.3', '--retry=all') == 0
  assert train.names[4:] == ALL[1:]
  assert start('--only=seed=0', '--retry=all') == 0
  assert train.names[7:] == ALL[::2]
  assert start('--only=lam=0.2') == 2
  assert 'no such cell (lam=0.1,seed=0; ' in capsys.readouterr().err


def test_a_signal(train, start, tmp_path, monkeypatch, capsys):
  train.errors[ALL[1]] = Preempted('stopped at step 1 and saved')
  assert start() == 143
  assert status(tmp_path, ALL[1]).state == 'preempted'
  assert not (folder(tmp_path, ALL[1]) / 'LEASE').exists()
  train.errors.clear()
  assert start() == 0
  assert train.names == [*ALL[:2], *ALL[1:]]
  monkeypatch.setattr(
    train, 'run', lambda *_, **__: signal.raise_signal(signal.SIGTERM)
  )
  assert start('--retry=all') == 143
  assert 'stopped between cells; the same command' in capsys.readouterr().err


def test_a_signal_while_it_prepares(train, start, tmp_path, monkeypatch):
  def prepared(*_):
    raise Preempted('stopped while it prepared')

  monkeypatch.setattr(run_lib.job_lib, 'prepared', prepared)
  assert start('--stack=2') == 143
  found = status(tmp_path, ALL[0])
  assert found.state == 'preempted' and not train.calls


@pytest.mark.parametrize('stopped', [True, False])
def test_the_heartbeat_ends_before_the_last_word(
  train, start, monkeypatch, stopped
):
  real, beating, words = lease.kept, [], []
  if stopped:
    train.errors[ALL[0]] = Preempted('x')

  @contextlib.contextmanager
  def kept(*args):
    with real(*args) as hush:
      beating.append(True)
      yield lambda: (beating.clear(), hush())

  real_write = job_lib.write_status

  def written(this, jobs, state='', **facts):
    words.append((state, bool(beating)))
    real_write(this, jobs, state, **facts)

  monkeypatch.setattr(lease, 'kept', kept)
  monkeypatch.setattr(job_lib, 'write_status', written)
  assert start('--only=lam=0.1,seed=0') == (143 if stopped else 0)
  last = 'preempted' if stopped else 'done'
  assert ('running', True) in words and (last, False) in words


def test_of_a_stack_who_is_done_stays_done(train, start, tmp_path, monkeypatch):
  found = [None, NonFinite('nan'), Preempted('saved'), None]
  monkeypatch.setattr(stack, 'run', lambda *_: found)
  assert start('--stack=4') == 143
  states = [status(tmp_path, name).state for name in ALL]
  assert states == ['done', 'failed', 'preempted', 'done']


def test_seconds_are_those_of_all_starts(train, start, tmp_path, capsys):
  train.errors[ALL[0]] = Preempted('x')
  assert start('--only=lam=0.1,seed=0') == 143
  train.errors.clear()
  path = folder(tmp_path, ALL[0]) / 'STATUS.json'
  found = json.loads(path.read_text())
  # Killed: nobody wrote when it ended. Of before, the field is missing.
  found |= {'state': 'running', 'started': 1000.0, 'heartbeat': 1040.0}
  del found['earlier_s']
  path.write_text(json.dumps(found))
  train.errors[ALL[0]] = NonFinite('nan')
  assert start('--only=lam=0.1,seed=0') == 1
  failed = status(tmp_path, ALL[0])
  assert failed.earlier_s == 40 and 40 <= failed.seconds < 45
  facts = {'started': 2000.0, 'finished': 2009.0}
  cells.write(path.parent, dataclasses.replace(failed, **facts))
  train.errors.clear()
  assert start('--only=lam=0.1,seed=0', '--retry=failed') == 0
  done = status(tmp_path, ALL[0])
  assert done.earlier_s == 49 and 49 <= done.seconds < 54
  capsys.readouterr()
  assert start('--only=lam=0.1,seed=0', '--retry=all') == 0
  anew = status(tmp_path, ALL[0])
  assert anew.earlier_s == 0 and anew.seconds < 5
  # What waits for its base does not run yet.
  assert cells.Status('queued', heartbeat=9.0, earlier_s=2.0).seconds == 2


def arms_of(train, monkeypatch, fails, *, fast=False):
  """Has arms run in threads: who of `fails` fails, the others wait for it."""
  told = threading.Event()

  def run(config, place, *, method, name='', backend, stop, display, hosts):
    del hosts, backend
    key = f'{name},seed={config.seed}'
    train.calls.append((key, config))
    display.start()
    display.update(3, {})
    if key in fails:
      raise NonFinite('nan')
    assert told.wait(20)
    end = time.monotonic() + 20
    while fast and not stop.requested and time.monotonic() < end:
      time.sleep(0.01)
    if stop.requested:
      raise Preempted('saved')

  monkeypatch.setattr(train, 'run', run)
  return told


def when_ended(tmp_path, monkeypatch, name, told):
  """Lets the others go on once it has ended; what the disk says then."""
  real, seen = run_lib.job_lib.end, []

  def end(this, job, *args):
    real(this, job, *args)
    if job.cell.name == name:
      run_lib.job_lib.beat(this, [job])  # a late heartbeat changes nothing
      folders = (tmp_path / 'out' / 'cells').iterdir()
      others = [f for f in folders if not f.name.startswith(name)]
      others = [cells.read(other).state for other in others]
      seen.append((status(tmp_path, name), others))
      told.set()

  monkeypatch.setattr(run_lib.job_lib, 'end', end)
  return seen


def test_an_arm_that_fails_is_told_at_once(
  train, start, tmp_path, monkeypatch, capsys
):
  told = arms_of(train, monkeypatch, ALL[1:2])
  seen = when_ended(tmp_path, monkeypatch, ALL[1], told)
  assert start('--stack=4') == 1
  ((found, others),) = seen
  assert (found.state, found.error, found.step) == ('failed', 'nan', 3)
  assert found.stacked == 4 and found.finished >= found.started
  assert others == ['running'] * 3
  states = [status(tmp_path, name).state for name in ALL]
  assert states == ['done', 'failed', 'done', 'done']
  said = capsys.readouterr().out
  assert said.count(f'{ALL[1]}: failed: nan') == 1
  assert said.index('failed: nan') < said.index('done in')


def test_an_arm_that_is_done_is_told_at_once(
  train, start, tmp_path, monkeypatch
):
  told = arms_of(train, monkeypatch, ())
  real = stack.run

  def run(arms, *args):
    first = lambda calls, stop: None
    return real([first, *arms[1:]], *args)

  monkeypatch.setattr(stack, 'run', run)
  seen = when_ended(tmp_path, monkeypatch, ALL[0], told)
  assert start('--stack=4') == 0
  assert seen[0][0].state == 'done' and seen[0][1] == ['running'] * 3


def test_fail_fast_stops_the_other_arms(
  train, start, tmp_path, monkeypatch, capsys
):
  told = arms_of(train, monkeypatch, ALL[:1], fast=True)
  when_ended(tmp_path, monkeypatch, ALL[0], told)
  assert start('--stack=3', '--fail_fast') == 1
  states = [status(tmp_path, name).state for name in ALL if name in train.names]
  assert states == ['failed', 'preempted']  # groups of like size
  assert '1 of 4 cells failed, 3 left; ' in capsys.readouterr().err


def test_an_export_waits_for_the_other_arms(
  train, start, tmp_path, monkeypatch
):
  told = arms_of(train, monkeypatch, ())
  told.set()
  real, alive = run_lib.job_lib.end, []

  def end(*args):
    alive.append(sum(t.name.startswith('arm ') for t in threading.enumerate()))
    real(*args)

  monkeypatch.setattr(run_lib.job_lib, 'end', end)
  assert start('--stack=4', '--config.train.export=peft') == 1  # no adapter
  assert alive == [0] * 4


def test_the_end_of_one_that_cannot_start_is_told_first(
  train, start, tmp_path, monkeypatch
):
  real, seen = run_lib.job_lib.prepared, []

  def prepared(launch, cell):
    if cell.name == ALL[0]:
      raise UserError('prepare: no such file')
    real(launch, cell)

  def run(jobs, *_, **__):
    seen.append([status(tmp_path, name).state for name in ALL])
    return [''] * len(jobs)

  monkeypatch.setattr(run_lib.job_lib, 'prepared', prepared)
  monkeypatch.setattr(run_lib.program, 'run', run)
  assert start('--stack=4') == 1
  assert seen == [['failed', 'running', 'running', 'running']]
  assert start('--stack=4', '--retry=all', '--fail_fast') == 1
  assert len(seen) == 1  # then nothing runs
  states = [status(tmp_path, name).state for name in ALL]
  assert states == ['failed', 'preempted', 'preempted', 'preempted']


# ---- Refusals ---------------------------------------------------------------


def files(root):
  return {p: p.read_bytes() for p in root.rglob('*') if p.is_file()}


def refused(start, capsys, root, *rest, **kwargs):
  """The message of a start that is refused and loses nothing."""
  before = files(root)
  capsys.readouterr()
  assert start(*rest, **kwargs) == 2
  assert files(root) == before
  return capsys.readouterr().err.strip()


def test_foreign_folders(train, start, tmp_path, capsys):
  mine = tmp_path / 'mine'
  mine.mkdir()
  (mine / 'thesis.tex').write_text('x')
  said = refused(start, capsys, mine, workdir=mine)
  assert said.endswith(
    'is not empty (thesis.tex) and has no grid.json; use another folder'
  )
  (mine / 'config.json').write_text('{}')
  said = refused(start, capsys, mine, workdir=mine)
  assert 'is the folder of a run without --sweep' in said
  for file in (mine / 'thesis.tex', mine / 'thesis.tex' / 'below'):
    said = refused(start, capsys, mine, workdir=file)
    assert 'cannot be used' in said
  assert start() == 0
  config = f'--config={tmp_path / "my.py"}'
  plain = ['launch', config, f'--workdir={tmp_path / "out"}']
  assert launch.main(plain) == 2
  assert 'has no config.json' in capsys.readouterr().err


def one_line(capsys, where):
  (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
  assert said.startswith(f'--workdir={where}: cannot be used (')
  assert said.endswith('; mend it, or use another')
  return said


@pytest.mark.parametrize('what', ['', 'LEASE', '.lock'])
def test_a_cell_that_cannot_be_taken(train, start, tmp_path, capsys, what):
  cell = grid(tmp_path)[0]
  path = tmp_path / 'out' / cell.folder
  if what:  # a folder in the place of a file, and a file in that of a folder
    (path / what).mkdir(parents=True)
  else:
    path.parent.mkdir(parents=True)
    path.write_text('')
  assert start() == 2 and not train.calls
  said = one_line(capsys, tmp_path / 'out')
  assert f'({cell.folder}/{what}'.rstrip('/') in said


@pytest.mark.parametrize('name', ['STATUS.json', 'config.json'])
def test_a_cell_that_cannot_be_written(
  train, start, tmp_path, monkeypatch, capsys, name
):
  assert start('--only=lam=0.1') == 0
  real = atomic.write

  def replace(path, text):
    if path.name == name:
      raise PermissionError(13, 'Permission denied', str(path))
    real(path, text)

  monkeypatch.setattr(atomic, 'write', replace)
  # Where it can be written that it failed, that is what it says.
  assert start() == (1 if name == 'config.json' else 2)
  assert len(train.calls) == 2
  said = capsys.readouterr().err
  assert f'{name}: Permission denied); mend it' in said
  assert not list((tmp_path / 'out').glob('cells/*/LEASE'))


def test_what_cells_start_from_cannot_be_written(
  train, start, tmp_path, capsys
):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'prepared').write_text('')
  assert start(sweep='bases') == 1
  assert 'cannot be used (prepared: ' in capsys.readouterr().err


def test_another_base_config(train, start, tmp_path, capsys):
  assert start() == 0
  out = tmp_path / 'out'
  said = refused(start, capsys, out, '--config.dpo.pairs=2')
  assert 'belongs to a grid with another base config' in said
  assert '  dpo.pairs: 8 -> 2' in said
  assert start('--config.log.tensorboard') == 0  # changes no result
  (out / 'grid.json').write_text('{"cells": [')
  assert 'grid.json: is damaged' in refused(start, capsys, out)


def test_a_config_that_is_not_its_folders(train, start, tmp_path, capsys):
  assert start() == 0
  path = folder(tmp_path, ALL[0]) / 'config.json'
  text = path.read_text()
  path.write_text(text.replace('"lam": 0.1', '"lam": 0.2'))
  said = refused(start, capsys, tmp_path / 'out')
  assert (
    said.startswith(f'{path}: hashes to ') and 'restore it, or move' in said
  )
  path.write_text('{')
  said = refused(start, capsys, tmp_path / 'out', '--retry=failed')
  assert 'hashes to nothing readable' in said
  assert len(said.splitlines()) == 1


@pytest.mark.parametrize('what', ['data', 'template', 'model', 'code'])
def test_what_changed_is_not_mixed(
  train, start, tmp_path, capsys, monkeypatch, what
):
  assert start() == 0
  real = hashes.of
  monkeypatch.setattr(hashes, 'of', lambda c: real(c) | {what: 'other'})
  said = refused(start, capsys, tmp_path / 'out')
  assert f' and 3 more: ran with other {what}; restore it, use a new' in said
  assert len(said.splitlines()) == 1
  assert start('--retry=all') == 0
  assert start() == 0 and len(train.calls) == 8


def test_what_was_not_hashed_then_counts_as_changed(
  train, start, tmp_path, capsys, monkeypatch
):
  assert start() == 0
  real = hashes.of
  monkeypatch.setattr(hashes, 'of', lambda c: real(c) | {'judge': 'new'})
  said = refused(start, capsys, tmp_path / 'out')
  assert 'ran with other judge; restore it' in said


def test_a_failed_cell_whose_inputs_changed_begins_anew(
  train, start, tmp_path, monkeypatch
):
  train.errors[ALL[0]] = UserError('x')
  assert start() == 1
  train.errors.clear()
  assert start('--retry=failed') == 0
  assert not (tmp_path / 'out' / 'trash').exists()  # continued
  train.errors[ALL[0]] = UserError('x')
  assert start('--retry=all') == 1
  before = len(list((tmp_path / 'out' / 'trash').iterdir()))
  real = hashes.of
  first = lambda c: c.seed == 0 and c.dpo.lam == 0.1
  of = lambda c: real(c) | {'code': 'n'} if first(c) else real(c)
  monkeypatch.setattr(hashes, 'of', of)
  assert start('--retry=failed', '--only=lam=0.1,seed=0') == 1
  assert len(list((tmp_path / 'out' / 'trash').iterdir())) == before + 1


def test_inputs_that_change_while_it_waits(
  train, start, tmp_path, monkeypatch, capsys
):
  train.errors[ALL[1]] = Preempted('x')
  assert start() == 143
  train.errors.clear()
  real, count = hashes.of, iter(range(100))
  # The check at the start sees no change yet.
  of = lambda c: real(c) | ({'data': 'n'} if next(count) > 1 else {})
  monkeypatch.setattr(hashes, 'of', of)
  assert start('--only=lam=0.1') == 1
  assert (
    'began with other data; --retry=failed begins' in capsys.readouterr().err
  )
  assert train.names == ALL[:2]
  monkeypatch.setattr(hashes, 'of', real)
  assert start('--only=lam=0.1', '--retry=failed') == 0


def test_inputs_that_cannot_be_hashed(train, start, tmp_path, capsys):
  path = tmp_path / 'pool.jsonl'
  path.mkdir()
  flags = (f'--config.pool.paths={path}', '--only=lam=0.1,seed=0')
  assert start(*flags) == 1 and not train.calls
  assert f'{path}: cannot be read (Is a dir' in capsys.readouterr().err
  path.rmdir()
  path.write_text('{}')
  assert start('--retry=failed', *flags) == 0
  path.unlink()
  path.mkdir()
  assert f'{path}: cannot' in refused(start, capsys, tmp_path / 'out', *flags)


def test_the_beat_changes_nothing_that_is_known(train, start, tmp_path):
  assert start() == 0
  cell = types.SimpleNamespace(id='x')
  place = folder_lib.of(tmp_path / 'cell')
  watch = progress.Watch('x', 5, None)
  job = job_lib.Job(cell, None, place, watch)
  this = claims.Launch(None, place, None, None)
  this.states['x'] = known = cells.Status('queued', hashes={'data': 'd'})
  watch.step = 3
  job_lib.write_status(this, [job])
  assert this.states['x'] is known
  found = cells.read(place.shared)
  assert (found.state, found.step, found.hashes) == ('queued', 3, {'data': 'd'})


def test_an_export_that_fails_fails_the_cell(train, start, tmp_path):
  flags = ('--config.train.export=peft', '--only=lam=0.1,seed=0')
  assert start(*flags) == 1  # the stub left no adapter
  assert status(tmp_path, ALL[0]).state == 'failed'


@pytest.mark.parametrize('flags', [(), ('--retry=all',), ('--retry=failed',)])
def test_only_mixes_nothing_either(
  train, start, tmp_path, monkeypatch, capsys, flags
):
  assert start('--only=lam=0.1') == 0
  real = hashes.of
  monkeypatch.setattr(hashes, 'of', lambda c: real(c) | {'data': 'other'})
  said = refused(start, capsys, tmp_path / 'out', '--only=lam=0.3', *flags)
  assert 'and 1 more: ran with other data; restore it' in said
  assert start('--retry=all') == 0


def test_done_without_its_config(train, start, tmp_path, capsys):
  assert start('--only=lam=0.1') == 0
  (folder(tmp_path, ALL[0]) / 'config.json').unlink()
  said = refused(start, capsys, tmp_path / 'out')
  assert 'config.json: hashes to nothing readable' in said


def test_a_mesh_that_does_not_fit_writes_nothing(
  train, start, tmp_path, capsys
):
  assert start('--config.mesh.data=1', '--config.mesh.fsdp=3') == 2
  assert 'mesh.fsdp=3: the axes do not make' in capsys.readouterr().err
  assert not (tmp_path / 'out' / 'grid.json').exists()


def test_a_base_that_no_cell_began_with_may_change(train, start, tmp_path):
  train.errors = dict.fromkeys(ALL, UserError('x'))
  assert start('--config.train.steps=7') == 1
  for name in ALL:  # the stub fails after its first step
    path = folder(tmp_path, name) / 'STATUS.json'
    path.write_text(path.read_text().replace('"step": 1', '"step": 0'))
  train.errors.clear()
  assert start('--config.train.steps=8') == 0
  assert start('--config.train.steps=7') == 2


def test_done_without_hashes_is_damaged(train, start, tmp_path, capsys):
  assert start('--only=lam=0.1') == 0
  path = folder(tmp_path, ALL[0]) / 'STATUS.json'
  path.write_text('{"state": "done"}')
  assert start('--only=lam=0.1') == 2
  assert 'STATUS.json: is damaged; --retry=failed' in capsys.readouterr().err


def test_fewer_arms_than_groups_of_devices(train, start, capsys):
  assert start('--stack=1', '--config.mesh.stack=2') == 2
  assert (
    '--stack=1: leaves some of mesh.stack=2 groups of'
    in capsys.readouterr().err
  )


def test_a_damaged_status(train, start, tmp_path, capsys):
  assert start() == 0
  (folder(tmp_path, ALL[0]) / 'STATUS.json').write_text('{"sta')
  said = refused(start, capsys, tmp_path / 'out')
  assert said.endswith(
    'STATUS.json: is damaged; --retry=failed runs the cell again'
  )
  assert start('--retry=failed') == 0
  assert train.names == [*ALL, ALL[0]]
  trash = tmp_path / 'out' / 'trash'
  assert next(trash.rglob('STATUS.json')).read_text() == '{"sta'


@pytest.mark.parametrize('left', ['answers.jsonl', 'checkpoints'])
def test_a_cell_that_has_lost_its_status_is_not_mixed(
  train, start, tmp_path, capsys, left
):
  assert start() == 0
  path = folder(tmp_path, ALL[0])
  (path / 'STATUS.json').unlink()
  if left == 'checkpoints':
    (path / 'answers.jsonl').unlink()
    (path / 'checkpoints').mkdir()
  for flags in ((), ('--only=lam=0.3',)):
    said = refused(start, capsys, tmp_path / 'out', *flags)
    assert said.endswith(
      'STATUS.json: is missing; --retry=failed runs the cell again'
    )
  assert start('--retry=failed') == 0
  assert train.names == [*ALL, ALL[0]]
  (aside,) = (tmp_path / 'out' / 'trash').iterdir()
  assert (aside / left).exists() and (aside / 'config.json').exists()


def test_a_claim_that_was_killed_needs_no_remedy(train, start, tmp_path):
  assert start() == 0
  path = folder(tmp_path, ALL[0])
  for name in ('STATUS.json', 'answers.jsonl', 'adapter'):
    (path / name).unlink()
  assert start() == 0 and train.names == [*ALL, ALL[0]]
  assert not (tmp_path / 'out' / 'trash').exists()


def test_to_trash_takes_all_but_the_lease_and_the_status_first(
  train, start, tmp_path, monkeypatch
):
  assert start() == 0
  path, names = folder(tmp_path, ALL[0]), []
  (path / 'LEASE').write_text('ours')
  (cell,) = (c for c in grid(tmp_path) if c.name == ALL[0])
  real = epath.Path(tmp_path).__class__.rename
  monkeypatch.setattr(
    *(epath.Path(tmp_path).__class__, 'rename'),
    lambda item, target: names.append(item.name) or real(item, target),
  )
  ledger.to_trash(folder_lib.of(tmp_path / 'out'), cell)
  assert names[0] == 'STATUS.json' and 'answers.jsonl' in names
  assert sorted(p.name for p in path.iterdir()) == ['.lock', 'LEASE']


def test_bad_sweeps_write_nothing(train, start, tmp_path, capsys):
  assert start(sweep='lamb,seeds') == 2
  assert "Did you mean 'lam'?" in capsys.readouterr().err
  assert start(lams=(-1, 0.1)) == 2
  assert "sweep 'lam', level 1: dpo.lam=-1" in capsys.readouterr().err
  assert not (tmp_path / 'out').exists() and not train.calls


# ---- prepare ----------------------------------------------------------------


def test_what_cells_start_from_is_made_once(train, start, tmp_path):
  assert start(sweep='lam,seeds,bases') == 0
  assert (tmp_path / 'prepared.txt').read_text() == 'base.partial '
  made = tmp_path / 'out' / 'prepared' / 'base'
  assert {c.model.path for _, c in train.calls} == {str(made)}
  saved = next((tmp_path / 'out' / 'cells').glob('*/config.json')).read_text()
  assert json.loads(saved)['model']['path'] == 'grid:base'
  assert start(sweep='lam,seeds,bases') == 0 and len(train.calls) == 4
  (made / 'config.json').write_text('{"other": 1}')
  assert start(sweep='lam,seeds,bases') == 2  # another model


def test_a_grid_name_needs_a_grid_and_a_prepare(train, start, tmp_path, capsys):
  assert start() == 0
  flags = [f'--config={tmp_path / "my.py"}', '--config.model.path=grid:x']
  assert launch.main(['launch', *flags, f'--workdir={tmp_path / "p"}']) == 2
  assert 'is made for a grid; add --sweep' in capsys.readouterr().err
  file = tmp_path / 'my.py'
  file.write_text(file.read_text().replace('def prepare', 'def _prepare'))
  flags = [f'--config={file}', '--sweep=bases', f'--workdir={tmp_path / "p"}']
  assert launch.main(['launch', *flags]) == 2
  assert "'grid:base': is made by prepare(folder, config)" in (
    capsys.readouterr().err
  )


def test_a_second_launcher_waits_for_what_the_first_prepares(
  tmp_path, monkeypatch
):
  place = folder_lib.of(tmp_path)
  said = []
  cell = types.SimpleNamespace(name='a', config=None)
  board = types.SimpleNamespace(say=said.append)
  monkeypatch.setattr(ledger, 'prepared', lambda _: ['base'])
  held = lease.take(tmp_path / 'prepared' / 'base.LEASE')

  def finish(_):
    (tmp_path / 'prepared' / 'base').mkdir()
    held.release()

  monkeypatch.setattr(prepare.time, 'sleep', finish)
  prepare.ensure(claims.Launch(None, place, None, board), cell)
  assert len(said) == 1 and said[0].startswith('a waits for base, which ')


def grid(tmp_path):
  """The cells of what `start` runs."""
  (tmp_path / 'my.py').write_text(FILE.format(lams=(0.1, 0.3), log='x'))
  flags = [f'--config={tmp_path / "my.py"}', '--sweep=lam,seeds', '--workdir=d']
  return sweeps.read(command_lib.parse(['launch', *flags])).cells


# ---- Several launchers, and buckets -----------------------------------------


def test_cells_of_others_are_left_alone(train, start, tmp_path, capsys):
  train.errors[ALL[0]] = Preempted('x')
  assert start() == 143
  held = lease.take(folder(tmp_path, ALL[0]) / 'LEASE')
  train.errors.clear()
  assert start() == 0
  assert train.names[1:] == ALL[1:]
  assert '1 cell is left to others' in capsys.readouterr().out
  held.release()
  assert start() == 0 and train.names[-1] == ALL[0]


def test_what_another_has_done_since_is_not_run_again(
  train, start, tmp_path, monkeypatch
):
  real = lease.take

  def take(path, **kwargs):  # another ends the cell just before
    if path.parent.name.startswith(ALL[1]):
      theirs = cells.Status('done', 'far', hashes={'code': 'x'})
      cells.write(path.parent, theirs)
    return real(path, **kwargs)

  monkeypatch.setattr(lease, 'take', take)
  assert start() == 0
  assert train.names == [ALL[0], *ALL[2:]]
  assert status(tmp_path, ALL[1]).host == 'far'
  assert not list((tmp_path / 'out').glob('cells/*/LEASE'))


def test_what_is_free_of_arms_runs(train, start, tmp_path, monkeypatch, capsys):
  ran = []

  def run(jobs, *_, **__):
    ran.append([job.cell.name for job in jobs])
    return [''] * len(jobs)

  monkeypatch.setattr(run_lib.program, 'run', run)
  place = folder_lib.of(tmp_path / 'out')
  (cell,) = (c for c in grid(tmp_path) if c.name == ALL[1])
  held = lease.take(place.shared / cell.folder / 'LEASE')
  assert start('--stack=4') == 0
  assert ran == [[ALL[0], *ALL[2:]]]
  assert '1 cell is left to others' in capsys.readouterr().out
  held.release()
  assert start('--stack=4') == 0 and ran[1:] == [[ALL[1]]]


def test_an_arm_that_cannot_start_fails_alone(
  train, start, tmp_path, monkeypatch
):
  real = run_lib.job_lib.prepared

  def prepared(launch, cell):
    if cell.name == ALL[2]:
      raise UserError('prepare: no such file')
    real(launch, cell)

  monkeypatch.setattr(run_lib.job_lib, 'prepared', prepared)
  ran = []
  monkeypatch.setattr(
    *(run_lib.program, 'run'),
    lambda jobs, *_, **__: ran.append(len(jobs)) or [''] * len(jobs),
  )
  assert start('--stack=4') == 1
  assert ran == [3]
  states = [status(tmp_path, name).state for name in ALL]
  assert states == ['done', 'done', 'failed', 'done']
  found = status(tmp_path, ALL[2])
  assert found.error == 'prepare: no such file' and found.compiles == 0


def test_a_silent_one_is_waited_for(
  train, start, tmp_path, monkeypatch, capsys
):
  train.errors[ALL[0]] = Preempted('x')
  assert start() == 143
  path = folder(tmp_path, ALL[0]) / 'LEASE'
  beat = lease.time.time() - lease.STALE_S / 2
  path.write_text(json.dumps({'host': 'far', 'heartbeat': beat}))
  train.errors.clear()
  later = lambda _: path.write_text(json.dumps({'host': 'far', 'heartbeat': 0}))
  monkeypatch.setattr(claims.time, 'sleep', later)
  assert start() == 0
  assert train.names[-1] == ALL[0]
  assert 'waiting for far, silent for ' in capsys.readouterr().out


def bucket(monkeypatch, tmp_path):
  """Local folders stand for a bucket and for each launcher's own."""
  count = iter(range(100))
  of = lambda *_, **__: folder_lib.Folder(
    tmp_path / f'own{next(count)}', epath.Path(tmp_path / 'out')
  )
  monkeypatch.setattr(folder_lib, 'of', of)
  monkeypatch.setattr(lease, 'SETTLE_S', 0.0)


def test_in_a_bucket(train, start, tmp_path, monkeypatch):
  bucket(monkeypatch, tmp_path)
  assert start(sweep='lam,seeds,bases') == 0
  found = sorted((tmp_path / 'out' / 'cells').iterdir())
  assert [cells.read(cell).state for cell in found] == ['done'] * 4
  assert all((cell / 'answers.jsonl').exists() for cell in found)
  own = {pathlib.Path(c.model.path) for _, c in train.calls}
  assert all('own' in str(path) for path in own)
  assert start(sweep='lam,seeds,bases') == 0 and len(train.calls) == 4


def test_the_report_of_a_bucket(tmp_path, capsys):
  seeds = [made.entry({}, {'seed': seed}) for seed in range(2)]
  made.grid(tmp_path / 'lambda', seeds)
  for cell in seeds:
    made.done(tmp_path / 'lambda', cell, made.answers(1))
  shared = epath.Path(tmp_path / 'lambda')
  place = folder_lib.of(shared, index=1)  # in a copy of its own, as a bucket's
  assert place.copied
  run_lib.report(place, announce=True)
  assert f'report: {shared}/report.html' in capsys.readouterr().out
  said = (tmp_path / 'lambda' / 'report.md').read_text()
  assert '2 of 2 cells are done' in said and 'Ablation grid: lambda' in said


def test_in_a_bucket_the_first_done_stands(train, start, tmp_path, monkeypatch):
  bucket(monkeypatch, tmp_path)
  real, beats, kept = train.run, [], lease.kept
  monkeypatch.setattr(
    *(lease, 'kept'), lambda ls, beat: beats.append(beat) or kept(ls, beat)
  )

  def run(config, place, **kwargs):
    real(config, place, **kwargs)
    if len(train.calls) == 1:  # another was quicker with the same cell
      there = pathlib.Path(place.shared)
      (there / 'answers.jsonl').write_text('theirs')
      cells.write(there, cells.Status('done', 'far', 1, hashes={'code': 'x'}))
      place.push()  # at a checkpoint
      beats[0]()

  monkeypatch.setattr(train, 'run', run)
  assert start() == 0
  found = folder(tmp_path, ALL[0])
  assert cells.read(found).host == 'far'
  assert (found / 'answers.jsonl').read_text() == 'theirs'
  assert (folder(tmp_path, ALL[1]) / 'answers.jsonl').read_text() == ALL[1]


class Two:
  """One of two hosts; both are threads that meet in `gather`."""

  count = 2

  def __init__(self, index, barrier, box, cells=99):
    self.index, self.writes = index, index == 0
    self._barrier, self._box, self._cells = barrier, box, cells

  def stopping(self):
    self._cells -= 1
    return self._cells < 0

  def gather(self, value):
    self._box[self.index] = json.loads(json.dumps(value))
    self._barrier.wait(30)
    found = list(self._box)
    self._barrier.wait(30)
    return found


def on_two_hosts(grid, command, tmp_path, **more):
  """Runs it in two threads; returns the errors with which they ended."""
  barrier, box, ended = threading.Barrier(2), [None, None], []
  shared = epath.Path(tmp_path / 'out')

  def host(index):
    place = folder_lib.of(shared)
    if index:
      place = folder_lib.Folder(tmp_path / 'second', shared, writes=False)
    try:
      run_lib.run(grid, command, place, Two(index, barrier, box, **more))
    except UserError as error:
      ended.append(error)

  threads = [threading.Thread(target=host, args=(i,)) for i in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return ended


def test_all_hosts_run_the_cells_that_the_first_takes(train, tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE.format(lams=(0.1, 0.3), log=str(tmp_path / 'x')))
  flags = [f'--config={file}', '--sweep=lam,seeds', '--workdir=d']
  command = command_lib.parse(['launch', *flags, '--only=seed=1'])
  grid = sweeps.read(command)
  train.errors[ALL[1]] = NonFinite('nan')
  ended = on_two_hosts(grid, command, tmp_path)
  assert sorted(train.names) == sorted(2 * ALL[1::2])
  assert len(ended) == 2 and '1 of 2 cells failed' in str(ended[1])
  assert status(tmp_path, ALL[3]).state == 'done'
  assert status(tmp_path, ALL[1]).error == 'nan'


def test_all_hosts_stop_between_cells(train, tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE.format(lams=(0.1, 0.3), log=str(tmp_path / 'x')))
  flags = [f'--config={file}', '--sweep=lam,seeds', '--workdir=d']
  command = command_lib.parse(['launch', *flags, '--only=seed=1'])
  grid = sweeps.read(command)
  ended = on_two_hosts(grid, command, tmp_path, cells=1)
  assert [type(error) for error in ended] == 2 * [Preempted]
  assert train.names == 2 * [ALL[1]]
  assert status(tmp_path, ALL[1]).state == 'done'


def test_several_processes_have_no_arms(tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE.format(lams=(0.1,), log='x'))
  flags = [f'--config={file}', '--sweep=lam', '--workdir=d']
  command = command_lib.parse(['launch', *flags, '--config.mesh.stack=2'])
  two = Two(0, threading.Barrier(1), [None])
  with pytest.raises(UserError, match='mesh.stack=2: several processes'):
    run_lib.run(sweeps.read(command), command, None, two)


def test_a_prepare_that_fails_fails_its_cells(train, start, tmp_path):
  (tmp_path / 'prepared.txt').mkdir()  # it cannot write its log there
  assert start(sweep='bases') == 1
  (cell,) = (tmp_path / 'out' / 'cells').iterdir()
  said = cells.read(cell).error
  assert said.startswith(f'prepare: {tmp_path}/my.py, line ')
  assert 'IsADirectoryError' in said and not train.calls
  (tmp_path / 'prepared.txt').rmdir()
  assert start('--retry=failed', sweep='bases') == 0


def test_a_flag_that_each_cell_sets_itself_is_told(train, start, capsys):
  assert start('--config.dpo.lam=0.5', '--config.seed=3', sweep='lam') == 0
  notes = [x for x in capsys.readouterr().err.splitlines() if 'note' in x]
  assert notes == [
    'note: --config.dpo.lam does not reach the cells: '
    "sweep 'lam' sets it in each cell"
  ]
