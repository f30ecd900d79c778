"""`ealign COMMAND`: every command, its help in no time, slips."""

import os
import subprocess
import sys

import pytest

import ealign
from ealign.cli import commands, start
from ealign.cli import launch as launch_cli
from ealign.config import page


def test_the_program_lists_all_commands(capsys):
  assert commands.main(['--help']) == 0
  said = capsys.readouterr().out
  assert all(f'\n  {name} ' in said for name in commands.COMMANDS)
  assert 'ealign:configs/demo.py' in said


def test_slips(capsys):
  assert commands.main([]) == 2
  assert commands.main(['lanch', '--workdir=x']) == 2
  said = capsys.readouterr().err
  assert "'lanch' is no command. Did you mean launch?" in said
  assert commands.main(['\x1b[31m']) == 2
  assert '\x1b' not in capsys.readouterr().err


def test_version(capsys):
  assert commands.main(['--version']) == 0
  assert capsys.readouterr().out == f'ealign {ealign.__version__}\n'


def test_a_package_that_is_missing_is_told_in_a_line(monkeypatch, capsys):
  """Whether a command asks for it at its start or later."""
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  monkeypatch.delitem(sys.modules, 'ealign.data.chat', raising=False)
  monkeypatch.setattr(page, 'page', lambda: __import__('tokenizers'))
  assert commands.main(['fields']) == 2
  said = 'tokenizers is not installed: `ealign doctor` says what is missing\n'
  assert capsys.readouterr().err == said
  assert start.main('ealign.data.chat', ['chat'], 'cli/chat.py') == 2
  assert capsys.readouterr().err == said
  with pytest.raises(ModuleNotFoundError, match='ealign.none'):
    start.main('ealign.none', ['none'], 'cli/chat.py')


@pytest.mark.parametrize('name', sorted(commands.COMMANDS))
def test_every_command_helps(name, capsys):
  try:
    code = commands.main([name, '--help'])
  except SystemExit as error:  # argparse
    code = error.code
  assert code == 0
  said = capsys.readouterr().out
  assert len(said.splitlines()) > 2
  assert said.startswith(('usage: ', 'Trains the model organism'))


@pytest.mark.parametrize('name', sorted(commands.COMMANDS))
def test_help_does_not_load_what_takes_long(name):
  program = (
    'import sys; from ealign.cli import commands\n'
    f'try: commands.main([{name!r}, "--help"])\n'
    'except SystemExit: pass\n'
    'slow = {"jax", "numpy", "transformers", "ml_collections"}\n'
    'assert not slow & set(sys.modules), slow & set(sys.modules)'
  )
  subprocess.run(
    [sys.executable, '-c', program], check=True, stdout=subprocess.DEVNULL
  )


def test_help_speaks_of_the_program_that_was_called(capsys):
  commands.main(['launch', '--help'])
  assert capsys.readouterr().out.startswith('usage: ealign launch --config')
  commands.main(['evaluate', 'calibrate', '--help'])
  assert 'usage: ealign evaluate calibrate' in capsys.readouterr().out
  for name in ('export', 'report'):
    with pytest.raises(SystemExit):
      commands.main([name, '--help'])
    assert capsys.readouterr().out.startswith(f'usage: ealign {name} ')
  assert start.main('none', ['x.py', '-h'], 'cli/command.py') == 0
  assert 'usage: python -m ealign.launch' in capsys.readouterr().out


def test_plan_is_launch_with_plan(monkeypatch):
  given = []
  monkeypatch.setattr(launch_cli, 'main', lambda argv: given.append(argv) or 0)
  assert commands.main(['plan', '--workdir=w']) == 0
  assert commands.main(['launch', '--workdir=w']) == 0
  assert given == [
    ['ealign plan', '--plan', '--workdir=w'],
    ['ealign launch', '--workdir=w'],
  ]


def test_arguments_reach_the_commands_of_argparse(tmp_path, capsys):
  assert commands.main(['report', f'--workdir={tmp_path}/none']) == 2
  assert 'none' in capsys.readouterr().err
  missing = ['export', f'--run={tmp_path}', f'--to={tmp_path}/x']
  assert commands.main([*missing, '--format=peft']) == 2


def test_as_a_module():
  done = subprocess.run(
    [sys.executable, '-m', 'ealign', 'configs'], capture_output=True, text=True
  )
  assert done.returncode == 0 and not done.stderr
  assert done.stdout.startswith('ealign:configs/demo.py ')


def test_ctrl_c_while_loading_is_no_traceback(tmp_path):
  (tmp_path / 'slow_module.py').write_text(
    'import os, signal; os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass'
  )
  program = (
    'import signal; from ealign.cli import start\n'
    'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    'start.load("slow_module")'
  )
  paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
  done = subprocess.run(
    [sys.executable, '-c', program],
    env=os.environ | {'PYTHONPATH': paths},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == -2 and not done.stderr
