"""docs/files.md: the files, fields and exit codes that the code has."""

import dataclasses
import json
import pathlib
import re

import pytest
import runs

from ealign import train
from ealign.cli import audit, evaluate, sheet
from ealign.config import convert
from ealign.evals import records
from ealign.evals import sheet as sheet_lib
from ealign.grid import cells, ledger
from ealign.report import exports
from ealign.report.grid import results
from ealign.runtime import errors, hosts
from ealign.workdir import status

PAGE = (pathlib.Path(__file__).parents[1] / 'docs' / 'files.md').read_text()


def table(title: str) -> dict[str, str]:
  """Code in the first column of the table below a title -> its last column."""
  section = re.split(rf'^#+ {title}$', PAGE, flags=re.M)[1]
  section = re.split(r'^#', section, maxsplit=1, flags=re.M)[0]
  rows = [line.split('|')[1:-1] for line in section.splitlines() if '|' in line]
  return {
    name: row[-1].strip()
    for row in rows
    for name in re.findall(r'`([^`]+)`', row[0])
  }


def test_every_exit_code_is_there():
  rows = re.findall(r'^\| (\d+) \| `?(\w*)`? ?\| (.+) \|$', PAGE, re.M)
  told = {(name, int(code)) for code, name, _ in rows if name}
  kinds = [errors.UserError, hosts.Lost]
  kinds += errors.UserError.__subclasses__()
  own = {k for k in kinds if k.__module__.startswith('ealign.')}
  assert told == {(kind.__name__, kind.exit_code) for kind in own}
  assert {code for code, *_ in rows} == {'0', '1', '2', '42', '130', '143'}


def test_fields_of_a_status_and_of_a_record():
  named = [field.name for field in dataclasses.fields(status.Status)]
  assert list(table('STATUS.json')) == named
  block = re.search(r'  -{5,}.*?\n\n', records.__doc__, re.S)[0]
  fields = re.findall(r'^  (\w+) +\S', block, re.M)
  # In the page the parts of a verdict are named beside their meaning.
  assert list(table('answers.jsonl')) == fields


def test_columns():
  for columns in (results.COLUMNS, exports.RESULTS, exports.ANSWERS):
    assert ', '.join(columns) in re.sub(r'\s+', ' ', PAGE)


def test_every_name_that_the_code_has():
  """Of folders of runs, arms, grids, evaluations and audits."""
  named = {*convert._TAKEN, *ledger._EARLY, *ledger._OWN, *evaluate._FILES}
  named |= {audit.KEPT, sheet.LABELS, sheet.GOLD, sheet_lib.SHEET}
  named |= {sheet_lib.KEY, 'audit.json', 'audit.html', 'ealign_export.json'}
  missing = {n for n in named if not re.search(rf'`{re.escape(n)}[`/]', PAGE)}
  assert not missing


def test_fields_of_grid_json():
  grid = cells.Grid(runs.small(), 'x', {}, [], [])
  row = next(x for x in PAGE.splitlines() if x.startswith('| `grid.json`'))
  for name in ledger._record(grid, {}, late=False):
    assert f'`{name}`' in row


@pytest.mark.slow
def test_a_run_leaves_what_is_on_the_page(tmp_path):
  run = table('A run')
  few = {'conscience.threshold': 'auto:0.3', 'conscience.held_out': 20}
  train.run(runs.small(**few, **{'train.steps': 2}), tmp_path)
  made = {x.name + '/' * x.is_dir() for x in tmp_path.iterdir()}
  assert made <= set(run)
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert set(facts) <= set(table('run.json')), facts
  for line in (tmp_path / 'answers.jsonl').read_text().splitlines():
    assert json.loads(line).keys() <= table('answers.jsonl').keys()
