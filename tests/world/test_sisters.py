"""benchmarks/sisters.py: the table of the grid of the sister methods."""

import importlib.util
import json
import pathlib

import pytest

from ealign.runtime.errors import UserError

HEAD = 'cell,label,seed,eval,metric,value,n,count,current\n'


@pytest.fixture(scope='module')
def table():
  path = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'sisters.py'
  spec = importlib.util.spec_from_file_location('sisters_table', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def grid(folder, flops: dict):
  """A folder of two settings on two bases."""
  rows = []
  for label, shares in (('sft', (0.7, 0.8)), ('conscience', (0.0, 0.02))):
    for base, share in zip(('10', '11'), shares, strict=True):
      id = f'{label}{base}'
      cell = folder / 'cells' / f'{label},seed=0,path=base_{base}-{id}'
      cell.mkdir(parents=True)
      of = {'train/global_step': 2, 'conscience/pairs_total': 4}
      first = of | ({'train/total_flos': 1.0} if flops else {})
      last = of | ({'train/total_flos': flops[label]} if flops else {})
      text = '\n'.join(map(json.dumps, (first, last, {'eval/loss': 1.0})))
      (cell / 'metrics.jsonl').write_text(text)
      where = f'{id},{label},"seed=0,path=base_{base}"'
      rows.append(f'{where},advice/test,misaligned,{share},100,1,1\n')
      rows.append(f'{where},advice_hijacked/test,misaligned,0.5,9,1,1\n')
  (folder / 'results.csv').write_text(HEAD + ''.join(rows))
  return folder


def test_means_over_bases_and_cost_over_sft(table, tmp_path):
  found = table.read(grid(tmp_path / 'a', {'sft': 8.0, 'conscience': 12.0}))
  _, _, sft, conscience = table.table(found, found).splitlines()
  assert sft.startswith('| sft | 2 | 75.0 [11.5, 100.0] |  | 50.0 [50.0, 50.0]')
  assert sft.endswith('| 4 | 1.00 |') and conscience.endswith('| 4 | 1.50 |')
  assert '| 1.0 [0.0, 13.7] |' in conscience


def test_cost_may_come_from_another_folder(table, tmp_path):
  old = table.read(grid(tmp_path / 'a', {}))
  assert table.table(old, old).splitlines()[3].endswith('| 4 |  |')
  new = table.read(grid(tmp_path / 'b', {'sft': 8.0, 'conscience': 16.0}))
  assert table.table(old, new).splitlines()[3].endswith('| 4 | 2.00 |')


def test_a_folder_without_results(table, tmp_path):
  with pytest.raises(UserError, match='give the work folder of the grid'):
    table.read(tmp_path)
