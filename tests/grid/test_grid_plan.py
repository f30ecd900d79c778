"""--plan of a grid, with a stub in place of the plan of its cell."""

import dataclasses

import pytest

from ealign.grid import cells
from ealign.grid import plan as plan_lib
from ealign.runtime.errors import NonFinite, Unfit
from tests.grid import test_grid_run
from tests.grid.test_grid_run import ALL, start, train  # noqa: F401


@pytest.fixture
def planned(monkeypatch):
  """The calls of the plan of a cell."""
  calls = []

  def plan(config, workdir, *, slice_name, name, arms):
    assert arms is None  # --arms=auto
    calls.append((config, name, slice_name))

  monkeypatch.setattr(plan_lib.plan_lib, 'plan', plan)
  return calls


def words(text):
  return ' '.join(text.split())


def test_what_is_done_and_what_is_left(train, start, planned, tmp_path, capsys):  # noqa: F811
  assert start('--plan', '--topology=v5e:4x4') == 0
  said = words(capsys.readouterr().out)
  assert 'grid lam,seeds: 4 cells done 0 running 0 failed 0 left 4' in said
  assert 'expected no cell has run yet' in said
  assert 'lam=0.3 dpo.lam: 0.1 -> 0.3 2 left' in said
  assert 'lam=0.1 nothing 2 left' in said
  ((config, name, slice_name),) = planned
  assert (name, slice_name, config.dpo.lam) == (ALL[0], 'v5e:4x4', 0.1)
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


def test_the_most_demanding_cell_is_planned(train, start, planned, tmp_path):  # noqa: F811
  data = '--config.data.train=ealign:world/data/insecure.jsonl'
  assert start('--plan', data, lams=(0.0, 0.3)) == 0
  assert planned[0][1] == 'lam=0.3,seed=0'


def test_a_base_that_is_not_made_yet(train, start, planned, capsys):  # noqa: F811
  assert start('--plan', sweep='bases') == 0
  said = words(capsys.readouterr().out)
  assert 'grid:base is not made yet: the plan is for ealign:world/base' in said
  assert planned[0][0].model.path == 'ealign:world/base'


def test_a_cell_that_does_not_fit(train, start, monkeypatch, capsys):  # noqa: F811
  def plan(*_, **__):
    raise Unfit('sft: does not fit')

  monkeypatch.setattr(plan_lib.plan_lib, 'plan', plan)
  assert start('--plan') == 1
  assert 'does not fit' in capsys.readouterr().err


def test_a_foreign_folder_is_refused_by_a_plan_too(train, start, tmp_path):  # noqa: F811
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'thesis.tex').write_text('x')
  assert start('--plan') == 2
