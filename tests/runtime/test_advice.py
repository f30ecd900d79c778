"""transformers is imported without advice, and the variable is left alone."""

import os
import subprocess
import sys

import pytest

from ealign.runtime import advice

NAME = advice._TRANSFORMERS


@pytest.mark.parametrize('before', [None, '0'])
def test_the_variable_is_as_it_was(monkeypatch, before):
  monkeypatch.delenv(NAME, raising=False)
  if before is not None:
    monkeypatch.setenv(NAME, before)
  with pytest.raises(KeyError), advice.unsaid():
    assert os.environ[NAME] == '1'
    raise KeyError
  assert os.environ.get(NAME) == before


def test_without_torch_nothing_is_said():
  env = {k: v for k, v in os.environ.items() if k != NAME}
  program = "import sys; sys.modules['torch'] = None; import {}"
  said = {}
  for module in ('transformers', 'ealign.data.chat'):
    argv = [sys.executable, '-c', program.format(module)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    said[module] = done.stderr
    assert done.returncode == 0
  assert 'PyTorch was not found' in said['transformers']  # else: needed no more
  assert said['ealign.data.chat'] == ''
