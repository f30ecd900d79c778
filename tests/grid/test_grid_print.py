"""Scripts that start many workers on one grid."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ealign.cli import launch, scripts

FILE = """
from ealign import config as config_lib

def get_config(arg=None):
  return config_lib.default()

def sweep_lam():
  return [{'dpo.lam': lam} for lam in (0.1, 0.3, 1.0)]

def sweep_seeds():
  return [{'seed': 0}, {'seed': 1}]
"""


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'my.py').write_text(FILE)

  def run(kind, *rest, sweep='lam,seeds'):
    flags = ['--config=my.py', '--workdir=gs://b/d', f'--sweep={sweep}']
    argv = ['launch', *flags, f'--print_launch={kind}', *rest]
    assert launch.main(argv) == 0
    return capsys.readouterr().out

  return run


@pytest.mark.parametrize('kind', scripts.KINDS)
def test_only_the_lines_on_workers_are_new(printed, kind):
  text = (scripts.folder() / scripts.KINDS[kind]).read_text()
  lines = printed(kind).splitlines()
  more = len(lines) - len(text.splitlines())
  assert more == (4 if kind == 'slurm' else 3)
  first = int(text.startswith('#!'))
  assert 'up to 6 of THIS file at once' in lines[first]
  assert all(line.startswith('#') for line in lines[first : first + more])
  assert ('#SBATCH --array=1-6' in lines) == (kind == 'slurm')
  whole = '\n'.join(lines)
  assert '--sweep=lam,seeds' in whole


@pytest.mark.parametrize('kind', ('xpk', 'tpu_vm', 'slurm'))
def test_shell_is_sound(printed, kind, tmp_path):
  path = tmp_path / 'file.sh'
  path.write_text(printed(kind, '--retry=failed', '--fail_fast', '--stack=2'))
  subprocess.run(['bash', '-n', path], check=True)
  assert '--retry=failed --stack=2 --fail_fast' in path.read_text()
  beside = os.path.dirname(sys.executable)
  tool = shutil.which('shellcheck', path=f'{beside}:{os.environ["PATH"]}')
  if not tool:
    pytest.skip('no shellcheck: pip install -e .[test]')
  done = subprocess.run([tool, path], capture_output=True, text=True)
  assert done.stdout + done.stderr == ''


@pytest.mark.parametrize('kind', ('skypilot', 'gke'))
def test_yaml_is_sound(printed, kind):
  assert list(yaml.safe_load_all(printed(kind)))


def test_the_line_starts_each_worker_under_a_name_of_its_own(printed, tmp_path):
  (tmp_path / 'file.sh').write_text('echo "$JOB" >> names')
  for kind in ('xpk', 'tpu_vm'):
    (line,) = re.findall('^#   (for .*)$', printed(kind), re.MULTILINE)
    subprocess.run(['bash', '-c', line.replace('THIS', 'file.sh')], check=True)
    names = (tmp_path / 'names').read_text().split()
    assert sorted(names) == [f'ealign-my-{i}' for i in range(1, 7)]
    (tmp_path / 'names').unlink()
  text = printed('gke')
  (tmp_path / 'g.yaml').write_text(text)
  (line,) = re.findall('^#   (for .*)$', text, re.MULTILINE)
  line = line.partition(' |')[0].replace('THIS', 'g.yaml') + '; done'
  done = subprocess.run(['bash', '-c', line], capture_output=True, text=True)
  names = re.findall('^  name: (.*?)(?: *#.*)?$', done.stdout, re.MULTILINE)
  assert names == [f'ealign-my-{i}' for i in range(1, 7)]


def test_only_some_cells(printed):
  text = printed('slurm', '--only=lam=0.3')
  assert '#SBATCH --array=1-2' in text and '--only=lam=0.3' in text


def test_as_many_workers_as_there_are_programs(printed):
  assert '#SBATCH --array=1-2' in printed('slurm', '--stack=3')
  assert '#SBATCH --array=1-6' in printed('slurm', '--stack=1')


def test_what_this_machine_lacks_is_a_note(printed, tmp_path, capsys):
  assert '--sweep' in printed('xpk', '--config.model.path=/far/model')
  argv = ['launch', '--config=my.py', '--workdir=gs://b/d', '--sweep=lan']
  assert launch.main([*argv, '--print_launch=xpk']) == 2
  assert "no sweep 'lan'" in capsys.readouterr().err


def test_an_array_task_signals_itself_only(printed, tmp_path, monkeypatch):
  text = printed('slurm')
  names = re.findall(r'(?:scancel|requeue|--jobs=).*?"(\$\w+)"', text)
  assert names == ['$job'] * 3
  lines = [line for line in text.splitlines() if line.startswith('job=')]
  script = '; '.join([*lines, 'echo "$job"']).replace(' # of an array', '')
  run = lambda **env: (
    subprocess.run(
      ['bash', '-uc', script], env=env, capture_output=True, text=True
    ).stdout
  )
  ids = {'SLURM_JOB_ID': '9'}
  assert run(**ids) == '9\n'
  array = {'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': '2'}
  assert run(**ids, **array) == '7_2\n'
