"""ealign:configs/demo.py: found in a clone and in a wheel, listed, told of."""

import pathlib
import shutil

import pytest

from ealign import config as config_lib
from ealign import configs
from ealign.cli import command as command_lib
from ealign.config import file
from ealign.grid import sweeps
from ealign.runtime import shipped
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  'spec, parts',
  [
    ('a.py', ('a.py', None)),
    ('a.py:', ('a.py', '')),
    ('a.py:x:y', ('a.py', 'x:y')),
    ('ealign:configs/a.py', ('ealign:configs/a.py', None)),
    ('ealign:configs/a.py:x', ('ealign:configs/a.py', 'x')),
  ],
)
def test_a_file_and_its_argument(spec, parts):
  assert file.split(spec) == parts


def test_the_same_config_by_both_names(monkeypatch, tmp_path):
  here = file.read(str(ROOT / 'configs/demo.py:runlocal'))[1]
  monkeypatch.chdir(tmp_path)
  there = file.read('ealign:configs/demo.py:runlocal')[1]
  assert config_lib.to_json(here) == config_lib.to_json(there)
  assert there.train.steps != file.read('ealign:configs/demo.py')[1].train.steps


def test_a_grid_finds_the_demo_beside_it(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  config = '--config=ealign:configs/grids/organism.py:runlocal'
  flags = [config, '--workdir=w', '--sweep=arms,few_seeds']
  grid = sweeps.read(command_lib.parse(['launch', *flags]))
  assert len(grid.cells) == 3


def test_in_a_wheel_they_lie_in_the_package(tmp_path):
  package = tmp_path / 'site/ealign'
  package.mkdir(parents=True)
  at = lambda inside: shipped.path(inside, package)
  assert at('configs/demo.py') == tmp_path / 'site/configs/demo.py'
  assert at('world/base') == package / 'world/base'
  (package / 'shipped').mkdir()
  assert at('configs/demo.py') == package / 'shipped/configs/demo.py'
  assert at('launch') == package / 'shipped/launch'
  assert at('world/base') == package / 'world/base'


def test_the_list_has_all_of_them(capsys):
  files = (ROOT / 'configs').rglob('*.py')
  known = {f'ealign:configs/{x.relative_to(ROOT / "configs")}' for x in files}
  assert set(configs.names()) == known and len(known) >= 5
  assert configs.main([]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split(None, 1)[1].startswith('The main job on the embedded')
  assert len(lines) == len(known)
  assert all(len(line.split(None, 1)) == 2 for line in lines)
  assert configs.main(['x']) == 2 and configs.main(['--help']) == 0


def test_what_is_no_config_of_the_package(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  known = '; did you mean ealign:configs/demo.py[?]'
  for spec in ('configs/demo.py', 'ealign:configs/grids/demo.py:x'):
    with pytest.raises(UserError, match=f'there is no such file{known}'):
      file.read(spec)
  with pytest.raises(UserError, match='`ealign configs` lists those'):
    file.read('ealign:configs/dmo.py')
  with pytest.raises(UserError, match='no such file$'):
    file.read('mine.py')


def test_an_error_in_one_has_its_line(monkeypatch, tmp_path):
  package = tmp_path / 'ealign'
  shutil.copytree(ROOT / 'configs', package / 'shipped/configs')
  (package / 'shipped/configs/demo.py').write_text('a = 1\nb = a / 0\n')
  monkeypatch.setattr(
    file,
    'located',
    lambda path: str(shipped.path(path.removeprefix(shipped.PREFIX), package)),
  )
  with pytest.raises(UserError, match='demo.py, line 2: ZeroDivisionError'):
    file.read('ealign:configs/demo.py')
