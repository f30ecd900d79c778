"""ealign completion: words in a real bash; zsh and fish where they are."""

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from ealign import config as config_lib
from ealign.cli import commands, completion, words
from ealign.export.__main__ import parser as export_parser

WORDS = words.read()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder to complete in, with the scripts."""
  path = tmp_path_factory.mktemp('here')
  (path / 'runs').mkdir()
  for name in ('demo.py', 'notes.txt', 'rows.jsonl'):
    (path / name).touch()
  for shell, script in completion.SHELLS.items():
    (path / f'c.{shell}').write_text(script(WORDS) + '\n')
  return path


def test_the_words_are_those_of_the_commands():
  assert set(WORDS.flags) == set(commands.COMMANDS)
  flags = {name: dict(found) for name, found in WORDS.flags.items()}
  assert flags['launch']['workdir'] and not flags['launch']['fail_fast']
  assert flags['launch'] == flags['plan']
  assert flags['audit']['exchanges'] and not flags['audit']['choose']
  assert flags['evaluate']['gold'] and not flags['evaluate']['noise']
  assert flags['world']['out']
  actions = export_parser()._actions
  taken = {x.option_strings[-1][2:]: x.nargs != 0 for x in actions}
  assert flags['export'] == taken
  assert set(WORDS.fields) == set(config_lib.field_types())
  assert WORDS.configured == (*('launch', 'plan', 'audit', 'evaluate', 'chat'),)
  assert WORDS.choices['config.model.dtype'] == ('auto', 'float32', 'bfloat16')
  assert 'misalignment' in WORDS.choices['suite']


@contextlib.contextmanager
def bash(folder):
  """An interactive bash that knows the words; yields its terminal."""
  fd, inner = pty.openpty()  # not pty.fork(), which JAX's threads forbid
  env = {'PATH': os.environ['PATH'], 'TERM': 'dumb', 'PS1': '@'}
  env |= {'INPUTRC': '/dev/null', 'HISTFILE': ''}
  argv = ['bash', '--norc', '--noprofile', '-i']
  ends = dict.fromkeys(('stdin', 'stdout', 'stderr'), inner)
  shell = subprocess.Popen(
    argv, cwd=folder, env=env, start_new_session=True, **ends
  )
  os.close(inner)
  try:
    until(fd, '@')
    setup = "bind 'set enable-bracketed-paste off'; ealign() { :; }; . ./c.bash"
    os.write(fd, f'{setup}; echo so"me"thing\n'.encode())
    until(fd, 'something\r\n@')
    yield fd
  finally:
    shell.kill()
    shell.wait()
    os.close(fd)


def until(fd, mark: str) -> str:
  """What the terminal shows up to a mark."""
  shown, end = '', time.monotonic() + 20
  while mark not in shown and time.monotonic() < end:
    if select.select([fd], [], [], 0.2)[0]:
      shown += os.read(fd, 65536).decode(errors='replace')
  assert mark in shown, shown
  return shown


@pytest.mark.parametrize(
  'typed, made',
  [
    ('ealign la', 'ealign launch '),
    ('ealign launch --workd', 'ealign launch --workdir='),
    ('ealign launch --workdir=ru', 'ealign launch --workdir=runs/'),
    ('ealign launch --fail', 'ealign launch --fail_fast '),
    ('ealign launch --config=de', 'ealign launch --config=demo.py '),
    ('ealign launch --config=no', None),
    (
      'ealign launch --config=ealign:configs/d',
      'ealign launch --config=ealign:configs/demo.py ',
    ),
    ('ealign plan --config.dpo.bet', 'ealign plan --config.dpo.beta='),
    (
      'ealign audit --config.model.dtype=b',
      'ealign audit --config.model.dtype=bfloat16 ',
    ),
    ('ealign audit --exchanges=ro', 'ealign audit --exchanges=rows.jsonl '),
    ('ealign evaluate cal', 'ealign evaluate calibrate '),
    ('ealign export --format=p', 'ealign export --format=peft '),
    ('ealign completion f', 'ealign completion fish '),
    ('ealign launch launc', None),
  ],
)
def test_in_a_real_bash(folder, typed, made):
  with bash(folder) as fd:
    os.write(fd, f'{typed}\t'.encode())
    os.write(fd, b'|#\n')
    shown = until(fd, '#')
  # The bell says that there is nothing to add.
  line = shown.replace('\a', '').rpartition('@')[2].partition('|')[0]
  assert line == (typed if made is None else made)


def test_choices_are_shown_in_a_real_bash(folder):
  with bash(folder) as fd:
    os.write(fd, b'ealign export --format=\t\t')
    shown = until(fd, 'peft')
    assert 'merged' in shown


@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_the_syntax_of_other_shells(folder, shell):
  if not shutil.which(shell):
    pytest.skip(f'no {shell} here to read its script')
  subprocess.run([shell, '-n', folder / f'c.{shell}'], check=True)


def test_words_in_a_real_fish(folder):
  if not shutil.which('fish'):
    pytest.skip('no fish here')
  ask = lambda line: (
    subprocess.run(
      ['fish', '--no-config', '-c', f"source c.fish; complete -C'{line}'"],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    ).stdout
  )
  assert ask('ealign la').startswith('launch\t')
  assert ask('ealign launch --workd') == '--workdir\n'
  assert 'runs/' in ask('ealign launch --workdir=ru')
  assert 'ealign:configs/demo.py' in ask('ealign launch --config=ealign:con')
  assert 'peft' in ask('ealign export --format=p')
  assert '--config.dpo.beta' in ask('ealign plan --config.dpo.bet')


def test_slips(capsys):
  assert completion.main(['tcsh']) == 2
  assert "'tcsh': must be one of bash, zsh, fish" in capsys.readouterr().err
  assert completion.main([]) == 2
  assert completion.main(['bash']) == 0
  assert capsys.readouterr().out.endswith('complete -F _ealign ealign\n')
