"""--plan of a grid, with a stub in place of the plan of its cell."""

import dataclasses

import pytest

from ealign.cli import launch
from ealign.grid import plan as plan_lib
from ealign.runtime.errors import NonFinite, Preempted, Unfit
from ealign.workdir import status as cells
from tests.grid import test_grid_run
from tests.grid.test_grid_run import ALL, start, train  # noqa: F401


@pytest.fixture
def planned(monkeypatch):
  """The calls of the plan of a cell."""
  calls = []

  def plan(config, workdir, *, slice_name, name, arms, auto, method, price):
    calls.append((config, name, slice_name, arms, auto))

  monkeypatch.setattr(plan_lib.run, 'plan', plan)
  return calls


def words(text):
  return ' '.join(text.split())


def test_what_is_done_and_what_is_left(train, start, planned, tmp_path, capsys):  # noqa: F811
  assert start('--plan', '--topology=v5e:4x4') == 0
  said = words(capsys.readouterr().out)
  assert 'grid lam,seeds: 4 cells done 0 running 0 failed 0 left 4' in said
  first = f"--only='{ALL[0]}', then --plan again"
  assert f'not known before a cell ran: run one with {first}' in said
  assert 'lam=0.3 dpo.lam: 0.1 -> 0.3 2 left' in said
  assert 'lam=0.1 nothing 2 left' in said
  ((config, name, slice_name, *arms),) = planned
  assert (name, slice_name, config.dpo.lam) == (ALL[0], 'v5e:4x4', 0.1)
  assert arms == [4, True]  # --stack=auto may take all of them
  out = tmp_path / 'out'
  assert not (out / 'grid.json').exists() and not train.calls
  train.errors[ALL[1]] = NonFinite('nan')
  assert start() == 1
  for name, seconds in ((ALL[0], 100.0), (ALL[2], 300.0), (ALL[3], 300.0)):
    path = test_grid_run.folder(tmp_path, name)
    facts = {'started': 1000.0, 'finished': 1000.0 + seconds}
    hashes = cells.read(path).hashes
    cells.write(path, cells.Status('done', **facts, hashes=hashes))
  capsys.readouterr()
  assert start('--plan') == 0
  said = words(capsys.readouterr().out)
  assert 'done 3 running 0 failed 1 left 0 expected 0s' in said
  assert 'lam=0.1 nothing 1 done, 1 failed' in said
  assert start('--plan', '--retry=failed') == 0
  said = words(capsys.readouterr().out)
  assert 'left 1 expected 1m40s' in said  # as its setting took
  first = test_grid_run.folder(tmp_path, ALL[0])
  cells.write(first, dataclasses.replace(cells.read(first), stacked=4))
  assert start('--plan', '--retry=failed') == 0
  said = words(capsys.readouterr().out)
  assert 'left 1 expected 25s' in said  # four took them together
  cells.write(first, dataclasses.replace(cells.read(first), stacked=1))
  assert start('--plan', lams=(0.1, 0.3, 1.0)) == 0
  said = words(capsys.readouterr().out)
  # Two of no known setting, at the mean of 100, 300 and 300 s.
  assert 'left 2 expected 7m47s' in said


def test_what_is_left_of_a_cell_that_has_begun(train, start, tmp_path, capsys):  # noqa: F811
  train.errors[ALL[0]] = Preempted('saved')
  assert start() == 143
  path = test_grid_run.folder(tmp_path, ALL[0])
  facts = {'step': 150, 'steps': 200, 'step_time_s': 1.0}
  known = dataclasses.replace(cells.read(path), **facts)
  for stacked, said in ((1, '50s'), (2, '25s')):
    cells.write(path, dataclasses.replace(known, stacked=stacked))
    capsys.readouterr()
    assert start('--plan', f'--only={ALL[0]}') == 0
    assert f'left 1 expected {said}' in words(capsys.readouterr().out)


def test_the_most_demanding_cell_is_planned(train, start, planned, tmp_path):  # noqa: F811
  data = '--config.data.train=ealign:world/data/insecure.jsonl'
  assert start('--plan', data, lams=(0.0, 0.3)) == 0
  assert planned[0][1] == 'lam=0.3,seed=0'


MIXED = """
def sweep_kinds():
  yield {'dpo.lam': 0.3}
  yield {'dpo.lam': 1.0}
  yield {'dpo.lam': 1.0, 'data.length': 128}
  yield {'model.train': 'full'}
"""


def mixed(run, tmp_path, *flags):
  """Plans cells of two shapes, and of full fine-tuning."""
  assert run() == 0  # writes the config file
  file = tmp_path / 'my.py'
  file.write_text(file.read_text() + MIXED)
  out = f'--workdir={tmp_path / "new"}'
  argv = ['launch', f'--config={file}', out, '--sweep=kinds,seeds', '--plan']
  return launch.main([*argv, *flags])


def test_what_is_planned_is_a_program_of_a_launch(
  train,  # noqa: F811
  start,  # noqa: F811
  planned,
  tmp_path,
  capsys,
):
  assert mixed(start, tmp_path, '--stack=8') == 0
  ((config, name, _, *arms),) = planned
  assert config.model.train == 'full' and arms == [1, False]
  said = capsys.readouterr().out
  assert 'other programs hold up to 4 cells: to plan one of them' in said
  # Of LoRA cells the four of one shape, three at most: two and two.
  for count, size in ((8, 4), (3, 2), (1, 1)):
    assert mixed(start, tmp_path, f'--stack={count}', '--only=lam=*') == 0
    config, name, _, *arms = planned[-1]
    assert name == 'lam=0.3,seed=0' and arms == [size, False]
  assert 'other programs' not in capsys.readouterr().out


def test_a_plan_that_ends_in_an_error_leaves_nothing(
  train,  # noqa: F811
  start,  # noqa: F811
  tmp_path,
  monkeypatch,
):
  def plan(*_, **__):
    raise KeyError('adapter')

  monkeypatch.setattr(plan_lib.run, 'plan', plan)
  with pytest.raises(KeyError):
    mixed(start, tmp_path)
  assert not (tmp_path / 'new').exists()


def test_a_folder_that_cannot_be_written(train, start, tmp_path, capsys):  # noqa: F811
  (tmp_path / 'file').write_text('')
  assert start('--plan', workdir=tmp_path / 'file' / 'out') == 2
  assert 'cannot be used (' in capsys.readouterr().err


def test_only_what_is_left_is_in_a_program(train, start, planned):  # noqa: F811
  assert start('--only=seed=0') == 0
  assert start('--plan', '--stack=8') == 0
  assert planned[0][1] == ALL[1] and planned[0][3] == 2


def test_a_base_that_is_not_made_yet(train, start, planned, capsys):  # noqa: F811
  assert start('--plan', sweep='bases') == 0
  said = words(capsys.readouterr().out)
  assert 'grid:base is not made yet: the plan is for ealign:world/base' in said
  assert planned[0][0].model.path == 'ealign:world/base'


def test_a_cell_that_does_not_fit(train, start, monkeypatch, capsys):  # noqa: F811
  def plan(*_, **__):
    raise Unfit('sft: does not fit')

  monkeypatch.setattr(plan_lib.run, 'plan', plan)
  assert start('--plan') == 1
  assert 'does not fit' in capsys.readouterr().err


def test_a_foreign_folder_is_refused_by_a_plan_too(train, start, tmp_path):  # noqa: F811
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'thesis.tex').write_text('x')
  assert start('--plan') == 2
