"""Reading a grid: robust, and the numbers are those of the answers."""

import csv
import io
import json
import time

import pytest

from ealign import report
from ealign.report.grid import compare, lists, origin, page, results
from ealign.runtime.errors import UserError
from tests.grid import made

LAM, POLICY = {'dpo.lam': 0.0}, {'conscience.review.by': 'policy'}


def _seeds(setting, count, **changes):
  return [
    made.entry(setting, {'seed': seed}, **changes) for seed in range(count)
  ]


@pytest.fixture
def workdir(tmp_path):
  """A baseline and lambda 0 with five seeds, one that reviews itself with 3."""
  sizes = (({}, 5), (LAM, 5), (POLICY, 3))
  cells = [cell for setting, n in sizes for cell in _seeds(setting, n)]
  contrasts = [
    {'name': 'no conscience', 'a': LAM, 'b': {}, 'metric': 'misaligned'},
    {'name': 'who reviews', 'a': POLICY, 'b': {}},
  ]
  made.grid(tmp_path / 'g', cells, contrasts=contrasts)
  for cell in cells:
    bad = (14 if cell['setting'] == LAM else 1) + cell['replicate']['seed'] % 2
    made.done(tmp_path / 'g', cell, made.answers(bad, incoherent=2, unscored=1))
  return tmp_path / 'g'


def _compare(workdir):
  return compare.compare(results.read(workdir))


def _rows(grid):
  return list(csv.DictReader(io.StringIO(results.to_csv(grid.cells))))


def test_the_tidy_rows_are_the_counts_of_each_cell(workdir):
  grid = results.read(workdir)
  rows = _rows(grid)
  assert tuple(rows[0]) == results.COLUMNS
  assert {row['cell'] for row in rows} == {cell.id for cell in grid.cells}
  (row,) = (
    row
    for row in rows
    if (row['label'], row['seed']) == ('dpo.lam=0.0', 'seed=1')
    and (row['eval'], row['metric']) == ('advice/test', 'misaligned')
  )
  # 21 answers: 18 coherent of the 20 judged, 15 of them misaligned.
  assert (row['value'], row['n'], row['count']) == ('0.833333', '18', '15')
  tokens = [row for row in rows if row['metric'] == 'token_accuracy']
  assert len(tokens) == 13 and tokens[0]['eval'] == 'tokens'
  found = tokens[0]
  assert (found['value'], found['n']) == ('0.970000', '1000')
  assert found['count'] == '970'
  metrics = {row['metric'] for row in rows if row['eval'] == 'advice/test'}
  assert metrics > {'misaligned', 'misaligned_all', 'misaligned_bound'}
  assert metrics > {'coherent', 'flagged', 'verdict_accuracy'}


def test_settings_of_equal_counts_are_told(workdir):
  (group,) = compare.twins(_compare(workdir))
  assert [s.changes for s in group] == [{}, POLICY]
  said = page.sentences(_compare(workdir))
  label = group[1].label
  # Default has two seeds more, so the rates in the table may differ.
  same = 'The same counts in every seed that they share'
  assert f'{same}: default = {label}.' in said


def test_settings_that_are_all_alike(tmp_path):
  settings = ({}, LAM, POLICY)
  cells = [cell for setting in settings for cell in _seeds(setting, 1)]
  made.grid(tmp_path, cells)
  for cell in cells:
    made.done(tmp_path, cell, made.answers(0))
  said = ' '.join(page.sentences(_compare(tmp_path))).replace('\xa0', ' ')
  assert 'Over the 2 other settings the share is 0.0 % throughout.' in said


def test_what_stands_behind_an_interval(workdir):
  found = _compare(workdir)
  setting = found.settings[1]
  asked = found.evidence(setting.counted, '')
  assert (asked.seeds, asked.questions, asked.answers) == (5, 21, 105)
  assert asked.unscored == pytest.approx(5 / 105)
  assert found.difference(setting, 'misaligned') == pytest.approx(13 / 18)
  assert found.baseline.label == 'default'


def test_primary_settings_have_their_own_spread_and_others_the_pooled(workdir):
  found = _compare(workdir)
  standing = {s.label: found.standing(s) for s in found.settings}
  assert standing == {
    'default': 'primary',
    'dpo.lam=0.0': 'primary',
    'review.by=policy': 'exploratory',
  }
  basis = [found.estimate(s, 'misaligned').basis for s in found.settings]
  assert basis == ['seeds', 'seeds', 'pooled']
  assert found.spreads['misaligned'].freedom == 4 + 4 + 2
  tested, shown = found.contrasts
  assert tested.p == pytest.approx(2 * tested.effect.p)  # two were declared
  assert tested.reason == '' and tested.effect.value == pytest.approx(13 / 18)
  assert shown.p is None and '3 seeds of both; a test needs 5' in shown.reason


def test_contrasts_that_cannot_be_primary_say_why(workdir):
  path = workdir / 'grid.json'
  tree = json.loads(path.read_text())
  more = {'name': 'gone', 'a': {'dpo.lam': 9}, 'b': {}}
  other = {'name': 'odd', 'a': LAM, 'b': {}, 'metric': 'charm'}
  # The base config's own value is no change: this is the baseline.
  same = {'name': 'same', 'a': LAM, 'b': {'dpo.lam': 0.1}}
  tree['contrasts'] = [more, other, same]
  path.write_text(json.dumps(tree))
  reasons = [c.reason for c in _compare(workdir).contrasts]
  assert reasons[0] == 'no such setting in this grid'
  assert reasons[1].startswith('metric is none of misaligned')
  assert reasons[2] == ''
  path.write_text(json.dumps(tree | {'declared_late': True}))
  found = _compare(workdir)
  assert all(c.reason and c.p is None for c in found.contrasts)
  assert {found.standing(s) for s in found.settings} == {'exploratory'}


def test_pairs_are_replicates_not_places(workdir):
  tree = json.loads((workdir / 'grid.json').read_text())
  before = _compare(workdir).contrasts[0].effect
  tree['cells'] = tree['cells'][::-1]
  (workdir / 'grid.json').write_text(json.dumps(tree))
  after = _compare(workdir).contrasts[0].effect
  assert (after.t, after.value) == pytest.approx((before.t, before.value))


def test_only_what_both_have_is_compared_and_told(tmp_path):
  cells = [*_seeds({}, 6), *_seeds(LAM, 8)[:2:-1]]  # 7 to 3
  made.grid(tmp_path, cells, contrasts=[{'name': 'x', 'a': LAM, 'b': {}}])
  for cell in cells:
    seed = cell['replicate']['seed']
    bad = 10 + seed * seed // 10 if cell['setting'] == LAM else seed
    made.done(tmp_path, cell, made.answers(bad, n=20 + seed))
  found = _compare(tmp_path)
  # Of seeds 3, 4 and 5: 10, 11 and 12 of 23, 24 and 25, less 3, 4 and 5.
  mean = (7 / 23 + 7 / 24 + 7 / 25) / 3
  lam = found.settings[1]
  assert found.difference(lam, 'misaligned') == pytest.approx(mean)
  asked = found.contrasts[0].evidence
  assert (asked.seeds, asked.questions) == (3, 25)
  assert asked.answers == 2 * (23 + 24 + 25)


def test_cells_in_every_state_are_told_and_never_counted(tmp_path):
  cells = _seeds({}, 9)
  made.grid(tmp_path, cells)
  made.done(tmp_path, cells[0], made.answers(2))
  made.status(tmp_path, cells[1], 'failed', error='NonFinite: loss\nis nan')
  made.status(tmp_path, cells[2], 'running', step=3, heartbeat=time.time())
  made.status(tmp_path, cells[8], 'running', step=3)  # killed long ago
  folders = [tmp_path / cell['folder'] for cell in cells]
  made.status(tmp_path, cells[3])
  (folders[3] / 'STATUS.json').write_text('{"state": "do')
  made.status(tmp_path, cells[4], 'flying')
  made.status(tmp_path, cells[5])
  (folders[5] / 'answers.jsonl').write_text('')
  made.done(tmp_path, cells[6], made.answers(2))
  with (folders[6] / 'answers.jsonl').open('a') as file:
    file.write('{"broken\n{}\n')
  grid = results.read(tmp_path)
  states = [cell.state for cell in grid.cells]
  broken = 'broken'
  assert states == [
    *('done', 'failed', 'running', broken, broken, broken, broken),
    *('missing', 'preempted'),
  ]
  errors = [cell.error for cell in grid.cells]
  assert errors[1] == 'NonFinite: loss is nan'
  assert errors[8] == 'here fell silent; the same command continues it'
  damaged = 'STATUS.json: is damaged; --retry=failed runs the cell again'
  assert errors[3] == f'{cells[3]["folder"]}/{damaged}'
  assert errors[4].endswith(damaged)
  assert 'done, but without any final answer' in errors[5]
  assert 'answers.jsonl:' in errors[6] and 'broken JSON' in errors[6]
  remedy = '; --retry=all --only=NAME runs the cell anew'
  assert all(error.endswith(remedy) for error in errors[5:7])
  found = compare.compare(grid)
  assert len(found.settings[0].counted) == 1
  assert found.estimate(found.settings[0], 'misaligned').basis == 'prompts'


@pytest.mark.parametrize(
  'changes',
  [
    {'scores': 'good'},
    {'verdict': [1]},
    {'step': 'last'},
    {'kind': None, 'scores': 7},
    {'messages': 'hello'},
    {'messages': [3]},
    {'question': ['a']},
    {'verdict': {'p': 0.5, 'flagged': True, 'framing': ['a']}},
    {'scores': None, 'verdict': None},
  ],
)
def test_odd_records_never_end_the_report(tmp_path, changes):
  cells = _seeds({}, 1)
  made.grid(tmp_path, cells)
  said = [record | changes for record in made.answers(2)]
  made.done(tmp_path, cells[0], [*made.on_the_way(0.3), *said])
  (cell,) = results.read(tmp_path).cells
  assert cell.state in ('broken', 'done')
  found = _compare(tmp_path)
  assert found.estimate(found.settings[0], 'misaligned') is None
  report.write(tmp_path)


def test_cells_that_left_the_sweep_stay_apart(workdir):
  tree = json.loads((workdir / 'grid.json').read_text())
  for cell in tree['cells']:
    gone = cell['label'] == 'dpo.lam=0.0' or cell['seed'] == 'seed=4'
    cell['current'] = not gone
  (workdir / 'grid.json').write_text(json.dumps(tree))
  found = _compare(workdir)
  assert [found.standing(s) for s in found.settings] == [
    *('exploratory', 'old', 'exploratory')
  ]
  assert [len(s.counted) for s in found.settings] == [4, 5, 3]
  assert found.spreads['misaligned'].freedom == 3 + 2  # the old do not count
  rows = _rows(found.grid)
  assert {row['current'] for row in rows if 'lam' in row['label']} == {'0'}


def test_the_baseline_is_the_setting_without_changes_else_the_first(tmp_path):
  cells = [*_seeds(LAM, 1), *_seeds({'dpo.lam': 0.1}, 1)]
  made.grid(tmp_path, cells)
  assert _compare(tmp_path).baseline.label == 'dpo.lam=0.1'  # the base's value
  made.grid(tmp_path, cells[:1])
  assert _compare(tmp_path).baseline.label == 'dpo.lam=0.0'


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('{"cells": [', 'broken JSON'),
    ('[]', 'must hold a JSON object'),
    ('{}', 'cells: must be a list, not None'),
    ('{"cells": []}', 'cells: is empty'),
    ('{"cells": [3]}', r'cells\[0\].folder: must be a str'),
    ('{"cells": [], "config": 3}', 'config: must be a dict, not 3'),
    ('{"cells": [], "contrasts": [{}]}', r'contrasts\[0\].name: must be'),
    ('{"cells": [], "contrasts": [1,2,3,4,5,6,7]}', '7; at most 6'),
  ],
)
def test_a_broken_grid_is_one_line(tmp_path, text, said):
  (tmp_path / 'grid.json').write_text(text)
  with pytest.raises(UserError, match=said) as caught:
    results.read(tmp_path)
  assert '\n' not in str(caught.value) and 'grid.json' in str(caught.value)


def test_a_cell_outside_the_grid_is_refused(tmp_path):
  for folder in ('../else', '/etc', 'cells/../../x'):
    made.grid(tmp_path, [made.entry({}, {'seed': 0}, folder=folder)])
    with pytest.raises(UserError, match='is outside the grid'):
      results.read(tmp_path)


def test_curves_have_at_most_twenty_points(tmp_path):
  cells = _seeds({}, 1)
  made.grid(tmp_path, cells)
  way = made.on_the_way(0.5, steps=200, reflect=2, prompts=2)
  made.done(tmp_path, cells[0], [*way, *made.answers(2)])
  (cell,) = results.read(tmp_path).cells
  assert [step for step, _ in cell.curves['misaligned']][:2] == [5, 16]
  assert len(cell.curves['misaligned']) <= 20
  assert len(cell.curves['reflected']) == 20
  assert all(0 <= share <= 1 for _, share in cell.curves['reflected'])
  assert cell.curves['misaligned'][0][1] == 0


def test_what_cells_were_made_with(tmp_path):
  cells = [*_seeds({}, 2), *_seeds({'model.train': 'full'}, 2)]
  for cell in cells:
    cell['replicate']['model.path'] = f'grid:{cell["replicate"]["seed"]}'
  made.grid(tmp_path, cells)
  for number, cell in enumerate(cells):
    seed, full = cell['replicate']['seed'], bool(cell['setting'])
    info = {'frozen': f'f{seed}', 'trained': 9 if full else 3}
    info |= {'commit': 'abc' if number else 'def'}
    # What a run finds out differs as its model does.
    info |= {'audit': {'mass': number, 'verdicts': [number]}, 'threshold': 0.1}
    hashes = {'data': f'd{number}', 'model': f'm{seed}', 'config': number}
    made.done(tmp_path, cell, made.answers(1), info=info, hashes=hashes)
  facts = {f.name: f for f in origin.facts(results.read(tmp_path).cells)}
  loud = {name for name, fact in facts.items() if fact.loud}
  assert loud == {'commit', 'hashes.data'}
  assert [len(of) for _, of in facts['commit'].values] == [3, 1]
  for name in ('frozen', 'trained', 'hashes.model'):
    assert facts[name].note == 'as the sweep has it'
  for cell in cells:
    made.status(tmp_path, cell, hashes={'code': 'c1'})
  facts = {f.name: f for f in origin.facts(results.read(tmp_path).cells)}
  assert not facts['commit'].loud and 'the same code' in facts['commit'].note
  assert facts['template'].values == [('t1', facts['template'].values[0][1])]
  left_out = {'hashes.config', 'seed', 'audit.mass', 'audit.verdicts'}
  assert not {*left_out, 'threshold'} & {*facts}


def test_a_cell_without_a_replicate_is_that_of_the_base_config(tmp_path):
  cells = [*_seeds({}, 5), made.entry(LAM, {}), *_seeds(LAM, 5)[1:]]
  made.grid(tmp_path, cells, contrasts=[{'name': 'x', 'a': LAM, 'b': {}}])
  for cell in cells:
    bad = 14 if cell['setting'] == LAM else 1
    made.done(tmp_path, cell, made.answers(bad))
  found = _compare(tmp_path)
  assert (
    not found.contrasts[0].reason and found.contrasts[0].evidence.seeds == 5
  )
  assert found.grid.cells[5].replicate == {}  # as it is written


def test_the_seconds_of_a_cell_are_those_of_all_its_starts(tmp_path):
  cells = _seeds({}, 3)
  made.grid(tmp_path, cells)
  for cell, earlier in zip(cells, (30.0, 0.0, 0.0), strict=True):
    made.done(tmp_path, cell, made.answers(1), earlier_s=earlier)
  made.status(tmp_path, cells[2], started=0.0)  # of no known start
  found = lists.cells(_compare(tmp_path))
  assert [line[-1].sort for line in found.lines] == [120.0, 90.0, None]


def test_settings_of_before_are_in_no_contrast(workdir):
  path = workdir / 'grid.json'
  tree = json.loads(path.read_text())
  for cell in tree['cells']:
    cell['current'] = cell['setting'] != LAM
  path.write_text(json.dumps(tree))
  contrast = _compare(workdir).contrasts[0]
  assert (
    contrast.p is None and contrast.reason == 'no such setting in this grid'
  )


def test_whole_numbers_are_the_numbers_they_are(tmp_path):
  one, whole = {'dpo.lam': 1.0}, {'dpo.lam': 1}
  cells = [made.entry({}, {'seed': seed}) for seed in range(5)]
  cells += [made.entry(one, {'seed': seed}) for seed in range(3)]
  cells += [made.entry(whole, {'seed': seed}) for seed in range(3, 5)]
  made.grid(tmp_path, cells, contrasts=[{'name': 'x', 'a': whole, 'b': {}}])
  for cell in cells:
    made.done(tmp_path, cell, made.answers(cell['replicate']['seed'] % 2))
  found = _compare(tmp_path)
  assert [s.wanted for s in found.settings] == [5, 5]
  assert {found.standing(s) for s in found.settings} == {'primary'}
