"""`:runlocal` of configs that no other file of tests runs: studies, sisters.

All of them in one process beside that of the tests, which so imports the
package once; without the audit before the first step, which others test, and
without arms that another of these has.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from ealign.config import file
from ealign.evals import records

pytestmark = pytest.mark.slow
FEW = '--sweep=few,few_seeds'
STUDIES = sorted(
  path.stem for path in pathlib.Path('configs/studies').glob('*.py')
)
SISTERS = {  # what is said beside, and the runs that are to be in the folder
  'grids/sisters': (FEW, ('cells/mistakes,*', 'cells/beside,*')),
  'iteralign': ('--only=sft,iteralign', ('sft', 'iteralign')),
  'mistake_analysis': ('--only=reflected', ('reflected',)),
  'qwen25_sisters': ('--only=mistakes,iteralign', ('mistakes', 'iteralign')),
}
SCRIPT = """
import json, sys
from ealign.cli import launch
told = [launch.main(['launch', *flags]) for flags in json.loads(sys.argv[1])]
print('told', json.dumps(told))
"""


def flags(name: str, more: str, folder) -> list[str]:
  """A command without its program."""
  own = [f'--config=configs/{name}.py:runlocal', f'--workdir={folder}', more]
  if name != 'studies/scratch':  # which begins when its audit says so
    own.append('--config.conscience.audit=off')
  return own


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """Folder and exit code of each config."""
  at = tmp_path_factory.mktemp('runlocal')
  asked = {f'studies/{name}': FEW for name in STUDIES}
  asked |= {name: more for name, (more, _) in SISTERS.items()}
  folders = {name: at / name.replace('/', '_') for name in asked}
  all_of = [flags(name, asked[name], folders[name]) for name in asked]
  argv = [sys.executable, '-c', SCRIPT, json.dumps(all_of)]
  said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
  codes = json.loads(said.stdout.rpartition('told ')[2])
  return {
    name: (folders[name], code) for name, code in zip(asked, codes, strict=True)
  }


@pytest.mark.parametrize('name', SISTERS)
def test_the_sister_methods(ran, name):
  folder, code = ran[name]
  assert code == 0
  for run in SISTERS[name][1]:
    (own,) = folder.glob(run)
    made = records.read(own / 'answers.jsonl')
    phases = {'eval'} if run == 'sft' else {'eval', 'reflect'}
    assert {record['phase'] for record in made} == phases
    assert any(record['text'] for record in made if record['phase'] == 'eval')


@pytest.mark.parametrize('name', STUDIES)
def test_studies(ran, name):
  folder, code = ran[f'studies/{name}']
  assert code == 0
  study = file.read(f'configs/studies/{name}.py')[0]
  cells = sorted(folder.glob('cells/*'))
  found = [records.read(cell / 'answers.jsonl') for cell in cells]
  assert cells and all(
    any(r['phase'] == 'eval' for r in each) for each in found
  )
  if name == 'scratch':  # random weights begin at once, or cannot
    pairs = zip(cells, found, strict=True)
    steps = {c.name[:7]: study.began(r) for c, r in pairs}
    assert steps == {'default': None, 'start=f': 0}
  if name == 'zero_shot':
    last = (cells[0] / 'metrics.jsonl').read_text().splitlines()
    assert any(json.loads(x).get('conscience/pairs_total', 0) for x in last)
  if name == 'fooled':  # the same answers, read by others
    (taught,) = [x for x in cells if x.name.startswith('lam=0')]
    own = records.latest(records.read(taught / 'answers.jsonl'))
    for cell in (x for x in cells if x != taught):
      other = records.latest(records.read(cell / 'answers.jsonl'))
      assert study.fooled(own, other)['answers'] == 8
