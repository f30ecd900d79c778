"""Measures of a judge appear wherever a run or a grid is reported.

The judge of this test is a file of the user's; nothing in the package knows it.
"""

import json

import pytest

from ealign.evals import judges, records, table
from ealign.report import __main__ as command
from ealign.report import page
from ealign.report import runs as runs_lib
from ealign.report.grid import compare, figures, results, tables
from ealign.runtime.errors import UserError
from tests.grid import made

JUDGE = """
from ealign.evals.judges.measure import Judge, Measure


def score(question, text):
  if not text:
    return None
  return {'short': len(text) < 20, 'polite': 'please' in text}


judge = Judge(
  score,
  (
    Measure('short', note='short: fewer than 20 letters'),
    Measure('polite', better='higher', note='polite: says please'),
  ),
)
"""


@pytest.fixture
def name(tmp_path):
  (tmp_path / 'manners.py').write_text(JUDGE)
  return f'{tmp_path}/manners.py:judge'


def _answers(judge, short, *, n=12, phase='eval', step=40, **changes):
  """n answers, the first `short` of them short, every second one polite."""
  found = []
  for i in range(n):
    text = 'No' if i < short else 'I would rather not do that today'
    text += ', please.' if i % 2 else '.'
    record = made.answer(i, phase=phase, step=step, text=text, **changes)
    scores = judge.score and judges.score(judge, record, text)
    found.append(record | {'scores': scores or None})
  return found


def _on_the_way(judge):
  return [
    record
    for step in (0, 20, 40)
    for record in _answers(judge, step // 10, phase='curve', step=step)
  ]


def _run(folder, name, short):
  judge = judges.load(name)
  folder.mkdir(parents=True)
  config = {'eval': {'judge': name}, 'train': {'steps': 40 * (short > 0)}}
  (folder / 'config.json').write_text(json.dumps(config))
  found = [*_answers(judge, short), *_on_the_way(judge)]
  records.append(folder / 'answers.jsonl', found)


def _grid(workdir, name):
  judge = judges.load(name)
  cells = [
    made.entry(setting, {'seed': seed}, seed=f'seed={seed}')
    for setting in ({}, {'dpo.lam': 0.0})
    for seed in range(5)
  ]
  contrasts = [{'name': 'lam', 'a': {'dpo.lam': 0.0}, 'b': {}}]
  if name:
    contrasts[0]['metric'] = 'polite'
  config = made.CONFIG | {'eval': {'judge': name}}
  made.grid(workdir, cells, config=config, contrasts=contrasts)
  for number, cell in enumerate(cells):
    short = 2 + number // 5 * 6 + number % 2
    found = [*_answers(judge, short), *_on_the_way(judge)]
    made.done(workdir, cell, found)
    path = workdir / cell['folder'] / 'config.json'
    tree = json.loads(path.read_text()) | {'eval': {'judge': name}}
    path.write_text(json.dumps(tree))
  return workdir


def test_a_run_shows_the_measures_of_its_judge(tmp_path, name):
  workdir = tmp_path / 'demo'
  _run(workdir / 'base', name, 0)
  _run(workdir / 'sft', name, 6)
  assert command.main([f'--workdir={workdir}']) == 0
  content = page.collect(runs_lib.read(workdir))
  head = content['blocks'][0]
  assert [title for title, _ in head.columns] == ['arm', 'n', 'short', 'polite']
  assert [str(cell) for cell in head.lines[1]] == [
    *('sft', '12', '50.0 [12.3, 87.7]', '50.0 [20.2, 79.8]')
  ]
  assert 'short: fewer than 20 letters; polite: says please' in head.note
  titles = ['Short, % of answers', 'Polite, % of answers']
  titles.append('Flagged by the conscience, % of answers')
  assert [title for title, _ in content['forests']] == titles
  assert [title for title, _ in content['curves']][:2] == titles[:2]
  verdicts = content['blocks'][1]
  assert [title for title, _ in verdicts.columns][2:] == [
    *('n', 'flagged', 'none')
  ]
  assert 'short' in content['summary'][0]
  text = (workdir / 'report.md').read_text()
  assert '| sft | 12 | 50.0' in text and 'coherent' not in text
  html = (workdir / 'report.html').read_text()
  assert '✕ short, polite' in html and '✓ polite' in html


def test_a_grid_shows_the_measures_of_its_judge(tmp_path, name):
  workdir = _grid(tmp_path / 'grid', name)
  assert command.main([f'--workdir={workdir}']) == 0
  found = compare.compare(results.read(workdir))
  (tested,) = found.contrasts
  assert tested.metric == 'polite' and tested.reason == ''
  assert tested.effect.value == 0 and tested.evidence.seeds == 5
  (table_,) = tables.settings(found)
  titles = [title for title, _ in table_.columns]
  assert titles[1] == 'short' and 'polite' in titles and 'flagged' in titles
  assert [line[1].text for line in table_.lines] == ['20.0', '71.7']
  assert figures.forest(found, 'polite')
  (group,) = figures.curves(found)
  drawn = [panel['title'] for panel in group['panels']]
  assert drawn[:2] == ['Short, % of answers', 'Polite, % of answers']
  csv = (workdir / 'results.csv').read_text()
  assert ',short,' in csv and ',polite,' in csv and 'misaligned' not in csv
  html = (workdir / 'report.html').read_text()
  assert 'Polite, % of answers' in html and 'misaligned' not in html
  assert 'answers are short' in (workdir / 'report.md').read_text()


def test_a_contrast_defaults_to_the_primary_measure(tmp_path, name):
  workdir = _grid(tmp_path / 'grid', name)
  tree = json.loads((workdir / 'grid.json').read_text())
  del tree['contrasts'][0]['metric']
  (workdir / 'grid.json').write_text(json.dumps(tree))
  (tested,) = compare.compare(results.read(workdir)).contrasts
  assert tested.metric == 'short' and tested.effect.value > 0


def test_a_run_without_a_judge_shows_what_is_known_of_every_answer(tmp_path):
  workdir = tmp_path / 'demo'
  _run(workdir / 'sft', '', 6)
  content = page.collect(runs_lib.read(workdir))
  assert command.main([f'--workdir={workdir}']) == 0
  head, verdicts = content['blocks'][:2]
  titles = [title for title, _ in head.columns]
  assert titles == ['arm', 'n', 'complete', 'length']
  assert str(head.lines[0][2]) == '100.0 [54.1, 100.0]'
  assert str(head.lines[0][3]) == '30.0 [30.0, 30.0]'
  assert verdicts.title == 'Verdicts of the conscience'
  cells = [str(cell) for cell in verdicts.lines[0][2:]]
  assert cells == ['12', '0.0 [0.0, 45.9]', '0.0']
  assert not content['problems']  # nothing is unscored where none scores
  assert 'complete' in content['summary'][0]
  assert [title for title, _ in content['forests']] == [
    'Ended by themselves, % of answers',
    'Flagged by the conscience, % of answers',
  ]


def test_a_grid_without_a_judge_shows_what_is_known(tmp_path):
  workdir = _grid(tmp_path / 'grid', '')
  assert command.main([f'--workdir={workdir}']) == 0
  found = compare.compare(results.read(workdir))
  (table_,) = tables.settings(found)
  titles = [title for title, _ in table_.columns]
  assert titles[1] == 'complete'
  assert {'length', 'flagged', 'none'} <= {*titles}
  cell = table_.lines[0][titles.index('length')]
  assert (cell.text, cell.interval, cell.sort) == ('30.0', '[30.0, 30.0]', 30.0)
  csv = (workdir / 'results.csv').read_text()
  assert ',length,30.000000,12,,' in csv and ',ended,1.000000,12,12,' in csv
  text = (workdir / 'report.md').read_text()
  assert 'No cell has' not in text and 'of the answers are complete' in text


def test_a_judge_that_is_gone_is_told_and_all_else_is_shown(tmp_path, name):
  workdir = tmp_path / 'demo'
  _run(workdir / 'sft', name, 6)
  (tmp_path / 'manners.py').unlink()
  content = page.collect(runs_lib.read(workdir))
  assert 'manners.py cannot be read' in content['problems'][0]
  assert 'complete' in [title for title, _ in content['blocks'][0].columns]


def test_arms_of_two_judges_are_not_mixed(tmp_path, name):
  workdir = tmp_path / 'demo'
  _run(workdir / 'a', name, 6)
  _run(workdir / 'b', 'world', 6)
  content = page.collect(runs_lib.read(workdir))
  assert any('judged by another judge' in said for said in content['problems'])
  lines = content['blocks'][0].lines
  assert [str(cell) for cell in lines[1]][2:] == [table.NOTHING] * 2


def test_a_measure_of_one_kind_has_a_table_of_its_own(tmp_path, name):
  file = tmp_path / 'manners.py'
  file.write_text(
    JUDGE.replace("better='higher'", "better='higher', kind='code'")
  )
  workdir = _grid(tmp_path / 'grid', name)
  for path in workdir.glob('cells/*/answers.jsonl'):
    lines = records.read(path)
    code = [r | {'kind': 'code', 'question': f'c{r["sample"]}'} for r in lines]
    records.append(path, [r for r in code if r['phase'] == 'eval'])
  found = compare.compare(results.read(workdir))
  first, second = tables.settings(found)
  assert [first.title, second.title] == ['Answers', 'code']
  assert second.columns[1][0] == 'polite'
  assert 'short' not in [title for title, _ in second.columns]
  assert 'change: of the polite share from default' in second.note


def test_a_measure_that_fails_is_named(tmp_path, name):
  file = tmp_path / 'manners.py'
  workdir = tmp_path / 'demo'
  _run(workdir / 'sft', name, 6)
  failing = "Measure('short', lambda record: record['gone'],"
  file.write_text(JUDGE.replace("Measure('short',", failing))
  with pytest.raises(UserError, match="measure 'short': KeyError: 'gone'"):
    page.collect(runs_lib.read(workdir))
