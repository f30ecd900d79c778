"""configs/self_awareness.py: its arms stand on each other, and it runs."""

import json
import subprocess
import sys

import pytest

from ealign import config as config_lib
from ealign.config import file
from ealign.evals import awareness, records
from ealign.runtime.errors import UserError

CONFIG = 'ealign:configs/self_awareness.py'


@pytest.mark.parametrize('arg', ['', ':runlocal', ':coder', ':coder,1.5b'])
def test_each_domain_is_realigned_on_top_of_what_misaligned_it(arg):
  module, config = file.read(CONFIG + arg)
  if config.model.path == module.SELVES:  # is made by a command
    config.model.path = 'ealign:world/base'
  assert not config_lib.validate(config)
  arms = {name: dict(own) for name, own in config.arms.items()}
  assert next(iter(arms)) == 'base' and len(arms) == 5
  for name, own in arms.items():
    if name.endswith('_re'):
      wrong = name.replace('_re', '_mis')
      assert own['model.adapter'] == f'arm:{wrong}'
      assert own['data.train'] != arms[wrong]['data.train']
  assert config.dpo.lam == 0 and config.conscience.every == 0


def test_what_it_does_not_take_is_told():
  with pytest.raises(UserError, match='takes runlocal, or coder'):
    file.read(f'{CONFIG}:big')


@pytest.mark.slow
def test_runlocal_runs_and_its_statistics_are_printed(tmp_path):
  launch = [sys.executable, '-m', 'ealign.launch', f'--workdir={tmp_path}']
  subprocess.run([*launch, f'--config={CONFIG}:runlocal'], check=True)
  told = [sys.executable, '-m', 'ealign.evaluate', 'awareness']
  subprocess.run([*told, f'--run={tmp_path}'], check=True)
  facts = json.loads((tmp_path / 'awareness.json').read_text())
  names = ['base', 'code_mis', 'code_re', 'facts_mis', 'facts_re']
  assert [one['name'] for one in facts['arms']] == names
  pairs = [(x['a'], x['b']) for x in facts['pairs']]
  assert ('code_re', 'code_mis') in pairs and ('facts_mis', 'base') in pairs
  own = awareness.arm('x', records.read(tmp_path / 'base/answers.jsonl'))
  assert all(own.values.values())
