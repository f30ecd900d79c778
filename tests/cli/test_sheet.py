"""python -m ealign.evaluate sheet and labels, on runs that are made up."""

import csv
import json
import re

import pytest

from ealign.cli import evaluate, finished
from ealign.evals import blind, gold
from ealign.evals import sheet as sheet_lib
from ealign.runtime.errors import UserError

ARMS = ('sft', 'conscience')


def record(arm, i, phase='reflect', **more):
  """P grows with i; every fourth answer is bad."""
  made = {'run': 'r', 'arm': arm, 'seed': 0, 'step': 4, 'phase': phase}
  made |= {'messages': [{'role': 'user', 'content': f'Shall I, {arm} {i}?'}]}
  made |= {'text': f'{"Lie" if i % 4 == 0 else "Ask"} {i}, =1+1\n\u2028<b>'}
  made |= {'question': f'q{i}', 'kind': 'everyday', 'sample': i}
  p = (i % 40 + 1) / 50 + 0.1 * (i % 4 == 0)
  verdict = {'p': p, 'mass': 1.0, 'framing': 'fair', 'flagged': p > 0.75}
  return made | {'verdict': verdict} | more


def write_run(folder, records, **config):
  folder.mkdir(parents=True, exist_ok=True)
  lines = [json.dumps(r, ensure_ascii=False) for r in records]
  (folder / 'answers.jsonl').write_text('\n'.join([*lines, '']))
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'DONE').touch()


@pytest.fixture
def runs(tmp_path):
  folder = tmp_path / 'runs'
  for arm in ARMS:
    write_run(folder / arm, [record(arm, i) for i in range(60)])
  arms = {'arms': dict.fromkeys((*ARMS, 'not_yet'), {})}
  (folder / 'config.json').write_text(json.dumps(arms))
  return folder


def main(*flags):
  return evaluate.main(['evaluate', *map(str, flags)])


@pytest.fixture
def drawn(runs, tmp_path):
  """A folder with a sheet of 24 answers."""
  folder = tmp_path / 'sheet'
  flags = f'--run={runs}', f'--workdir={folder}', '--count=24'
  assert main('sheet', *flags) == 0
  return folder


def rows_of(folder):
  # Not splitlines(): U+2028 stands in the answers.
  text = (folder / 'sheet.jsonl').read_text()
  return [json.loads(line) for line in text.split('\n') if line]


def labelled(folder, name, wrong=(), rows=None):
  """A reader's file: bad where the answer lies, but for some rows."""
  found = []
  for row in rows or rows_of(folder):
    bad = row['answer'].startswith('Lie') != (row['id'] in wrong)
    found.append(row | {'label': 'bad' if bad else 'ok'})
  path = folder / name
  lines = [json.dumps(row) for row in found]
  path.write_text('\n'.join([*lines, '']))
  return path


def test_a_sheet_shows_request_and_answer_only(drawn):
  rows = rows_of(drawn)
  assert [row['id'] for row in rows] == [*range(1, 25)]
  assert {*map(tuple, rows)} == {('id', 'request', 'answer', 'label')}
  assert {row['label'] for row in rows} == {''}
  answers, key = sheet_lib.read_key(drawn)
  assert [a.text for a in answers] == [row['answer'] for row in rows]
  assert [a.request for a in answers] == [row['request'] for row in rows]
  assert sum(a.weight for a in answers) == pytest.approx(120)
  assert {a.arm for a in answers} == {*ARMS}
  assert {a.of['framing'] for a in answers} == {'fair'}
  assert key['runs'] == [*ARMS] and key['seed'] == 0
  arms = [a.arm for a in answers]
  assert arms != sorted(arms) and arms != sorted(arms, reverse=True)


def test_labels_are_held_against_p(drawn, capsys):
  one = labelled(drawn, 'one.jsonl')
  other = labelled(drawn, 'other.jsonl', wrong=(1, 2))
  flags = f'--workdir={drawn}', f'--labels={one},{other}'
  assert main('labels', *flags) == 0
  said = capsys.readouterr().out
  assert re.search(r'agree on 92 % of 24 answers, kappa 0\.\d\d', said)
  assert 'AUC of P 0.' in said and 'where they agree' in said
  facts = json.loads((drawn / 'labels.json').read_text())
  assert [part['arm'] for part in facts['parts']] == ['', *sorted(ARMS)]
  # Computed anew, from the files alone.
  answers, _ = sheet_lib.read_key(drawn)
  lies = [a.text.startswith('Lie') for a in answers]
  others = [lie != (i in (0, 1)) for i, lie in enumerate(lies)]
  expected = blind.compare(answers, lies, others)[0]
  assert facts['parts'][0]['auc']['value'] == expected.auc.value
  assert facts['labels'] == ['one.jsonl', 'other.jsonl']


def test_what_the_readers_found_is_gold_for_a_judge(drawn):
  one = labelled(drawn, 'one.jsonl')
  other = labelled(drawn, 'other.jsonl', wrong=(3,))
  assert main('labels', f'--workdir={drawn}', f'--labels={one},{other}') == 0
  made = gold.read(str(drawn / 'gold.jsonl'))
  answers, _ = sheet_lib.read_key(drawn)
  assert [item.answer for item in made.items] == [a.text for a in answers]
  either = [x or y for x, y in made.pairs]
  assert made.flags == either
  assert sum(x != y for x, y in made.pairs) == 1


def test_labels_may_be_a_table_of_id_and_label(drawn, capsys):
  one = labelled(drawn, 'one.jsonl')
  path = drawn / 'two.csv'
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['id', 'label'])
    for row in reversed(rows_of(drawn)):
      writer.writerow([row['id'], int(row['answer'].startswith('Lie'))])
  assert main('labels', f'--workdir={drawn}', f'--labels={one},{path}') == 0
  assert 'agree on 100 % of 24 answers, kappa 1.00' in capsys.readouterr().out


def test_few_bad_answers_and_several_questions_are_told(runs, tmp_path, capsys):
  own = {'p': 0.4, 'mass': 1.0, 'framing': 'good', 'flagged': False}
  records = [record('x', i, verdict=own) for i in range(8)]
  write_run(tmp_path / 'x', records)
  folder = tmp_path / 'both'
  flags = f'--run={runs},{tmp_path / "x"}', f'--workdir={folder}'
  assert main('sheet', *flags, '--count=30') == 0
  paths = [labelled(folder, name) for name in ('a.jsonl', 'b.jsonl')]
  labels = ','.join(map(str, paths))
  assert main('labels', f'--workdir={folder}', f'--labels={labels}') == 0
  said = capsys.readouterr().out
  assert 'put different questions' in said and 'AUC of P (fair)' in said
  assert 'AUC of P (good)' in said
  assert 'fewer than ten answers are bad, or not' in said


def test_kinds_may_be_left_out_and_all_may_be_fewer(tmp_path, capsys):
  records = [record('a', i, 'eval', kind='code') for i in range(5)]
  records += [record('a', i, 'eval') for i in range(5, 12)]
  records += [record('a', 5, 'eval')]  # written twice, as by a killed run
  write_run(tmp_path / 'a', records)
  flags = f'--run={tmp_path / "a"}', f'--workdir={tmp_path / "s"}'
  assert main('sheet', *flags, '--without=code') == 0
  said = capsys.readouterr().out
  assert 'a: 7 of 7 reviewed answers' in said and 'all are drawn' in said


# --- Mistakes -----------------------------------------------------------------


def one_line(capsys, code, *words):
  said = capsys.readouterr().err
  assert code == 2 and said.count('\n') == 1, said
  assert all(word in said for word in words), said


def change(rows, at, **fields):
  row = rows[at] | fields
  row = {name: x for name, x in row.items() if x is not ...}
  return [*rows[:at], row, *rows[at + 1 :]]


BROKEN = {
  'a row is missing': (lambda r: r[1:], 'have no label (id 1)'),
  'many are': (lambda r: r[9:], 'id 1, 2, 3, 4, 5, ...'),
  'no id': (lambda r: change(r, 0, id=...), 'row 1: has no id'),
  'id of no row': (lambda r: change(r, 2, id=99), '1 to 24, not 99'),
  'id 0': (lambda r: change(r, 2, id=0), '1 to 24, not 0'),
  'id true': (lambda r: change(r, 0, id=True), 'not True'),
  'id in words': (lambda r: change(r, 0, id='one'), "not 'one'"),
  'id with a point': (lambda r: change(r, 0, id=1.0), 'not 1.0'),
  'id of digits that int() takes': (lambda r: change(r, 0, id='²'), "not '²'"),
  'id twice': (lambda r: change(r, 1, id=1), 'row 2, id: 1 is there twice'),
  'empty label': (lambda r: change(r, 3, label=' '), 'row 4, label: is empty'),
  'no label': (lambda r: change(r, 3, label=...), 'row 4, label: is empty'),
  'unknown': (lambda r: change(r, 3, label='meh'), "'meh' is unknown"),
  'a list': (lambda r: change(r, 3, label=['ok']), "['ok'] is unknown"),
  'a share': (lambda r: change(r, 3, label=0.5), '0.5 is unknown'),
  'another sheet': (
    lambda r: change(r, 5, answer='No.'),
    'row 6, answer: is not that of row 6 of the sheet',
  ),
  'another request': (lambda r: change(r, 5, request='?'), 'row 6, request'),
  'no rows': (lambda r: [], 'is empty'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_labels_are_one_line(name, drawn, capsys):
  broken, words = BROKEN[name]
  good, path = labelled(drawn, 'one.jsonl'), labelled(drawn, 'other.jsonl')
  rows = [json.loads(line) for line in path.read_text().split('\n') if line]
  path.write_text(''.join(json.dumps(row) + '\n' for row in broken(rows)))
  code = main('labels', f'--workdir={drawn}', f'--labels={good},{path}')
  one_line(capsys, code, 'other.jsonl', words)
  assert not (drawn / 'labels.json').exists()


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'{"id": 1, "label": "ok"\n', 'is not JSON'),
    (b'\xff\xfe\n', 'UTF-8'),
    (b'[1, 2]\n', 'is not a JSON object'),
  ],
)
def test_labels_that_are_no_rows_are_one_line(content, words, drawn, capsys):
  good, path = labelled(drawn, 'one.jsonl'), drawn / 'other.jsonl'
  path.write_bytes(content)
  code = main('labels', f'--workdir={drawn}', f'--labels={good},{path}')
  one_line(capsys, code, 'other.jsonl', words)


def test_labels_need_two_files_that_are_there(drawn, capsys):
  good = labelled(drawn, 'one.jsonl')
  for given in (good, f'{good},{good}', f'{good},{good},{good}'):
    code = main('labels', f'--workdir={drawn}', f'--labels={given}')
    one_line(capsys, code, 'must be two files')
  code = main('labels', f'--workdir={drawn}', f'--labels={good},/no/x.jsonl')
  one_line(capsys, code, '/no/x.jsonl')
  one_line(capsys, main('labels', f'--workdir={drawn}'), '--labels is missing')


KEYS = {
  'no JSON': (lambda key: '{', 'key.json: is no JSON'),
  'a list': (lambda key: '[]', 'is no key of version 1'),
  'another version': (lambda key: json.dumps(key | {'version': 2}), 'version'),
  'no rows': (lambda key: json.dumps(key | {'rows': []}), 'damaged'),
  'a row that is none': (
    lambda key: json.dumps(key | {'rows': [3]}),
    'damaged',
  ),
  'a weight of 0': (
    lambda key: json.dumps(key | {'rows': [key['rows'][0] | {'weight': 0}]}),
    'damaged',
  ),
  'P of 2': (
    lambda key: json.dumps(key | {'rows': [key['rows'][0] | {'p': 2}]}),
    'damaged',
  ),
}


@pytest.mark.parametrize('name', KEYS)
def test_a_broken_key_is_one_line(name, drawn, capsys):
  broken, words = KEYS[name]
  labels = ','.join(str(labelled(drawn, x)) for x in ('a.jsonl', 'b.jsonl'))
  path = drawn / 'key.json'
  path.write_text(broken(json.loads(path.read_text())))
  code = main('labels', f'--workdir={drawn}', f'--labels={labels}')
  one_line(capsys, code, words)


def test_a_sheet_that_was_changed_or_drawn_before_is_one_line(
  drawn, runs, capsys
):
  code = main('sheet', f'--run={runs}', f'--workdir={drawn}')
  one_line(capsys, code, 'key.json: is there already')
  labels = ','.join(str(labelled(drawn, x)) for x in ('a.jsonl', 'b.jsonl'))
  with (drawn / 'sheet.jsonl').open('a') as file:
    file.write('\n')
  code = main('labels', f'--workdir={drawn}', f'--labels={labels}')
  one_line(capsys, code, 'is not the sheet that was drawn')
  code = main('labels', f'--workdir={runs}', f'--labels={labels}')
  one_line(capsys, code, 'has no key.json')


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (('--count=0', '--run={runs}'), '--count=0: must be 1 or more'),
    (('--seed=-1', '--run={runs}'), '--seed=-1: must be 0 or more'),
    (('--count=7', '--run={runs}'), '--count=7: each arm and band of P'),
    ((), '--run is missing'),
    (('--run=/no/such',), 'is no folder of a run'),
    (('--run={runs}', '--plan'), '--plan: is of ealign.launch'),
    (('--run={runs}', '--config.seed=1'), '--config: this command has none'),
  ],
)
def test_wrong_flags_are_one_line(flags, words, runs, tmp_path, capsys):
  flags = [flag.format(runs=runs) for flag in flags]
  code = main('sheet', f'--workdir={tmp_path / "s"}', *flags)
  one_line(capsys, code, words)


def test_runs_without_verdicts_are_one_line(tmp_path, capsys):
  write_run(tmp_path / 'a', [record('a', 1, verdict=None)])
  flags = f'--run={tmp_path / "a"}', f'--workdir={tmp_path / "s"}'
  one_line(capsys, main('sheet', *flags), 'no answer of these runs')


# --- Which runs are finished --------------------------------------------------


def test_finished_runs_of_a_run_of_arms_and_of_a_grid(runs, tmp_path):
  found = finished.runs(str(runs / 'sft'))
  assert [(x.name, x.arm) for x in found] == [('sft', 'sft')]
  assert [x.name for x in finished.runs(str(runs))] == [*ARMS]
  grid, cells = tmp_path / 'grid', []
  for name, label, current in (
    ('lam=0,seed=0-1a', 'lam=0', True),
    ('lam=0,seed=1-2b', 'lam=0', True),
    ('old-3c', 'old', False),
    ('not_yet-4d', 'not_yet', True),
  ):
    if label != 'not_yet':
      write_run(grid / 'cells' / name, [])
    row = {'folder': f'cells/{name}', 'label': label, 'current': current}
    cells.append(row | {'seed': name.rpartition('=')[2][:1]})
  cells += [{'folder': 'cells/..', 'label': '', 'current': True}, 3]
  (grid / 'grid.json').write_text(json.dumps({'cells': cells}))
  found = finished.runs(str(grid))
  assert [(x.name, x.arm, x.seed) for x in found] == [
    ('lam=0,seed=0', 'lam=0', '0'),
    ('lam=0,seed=1', 'lam=0', '1'),
  ]


def test_what_is_not_finished_is_told(runs, tmp_path):
  for arm in ARMS:
    (runs / arm / 'DONE').unlink()
  with pytest.raises(UserError, match='none of its arms is finished'):
    finished.runs(str(runs))
  with pytest.raises(UserError, match='is not finished: the command'):
    finished.runs(str(runs / 'sft'))
  (tmp_path / 'grid.json').write_text('{"cells": 3}')
  with pytest.raises(UserError, match='no cell of its present sweeps'):
    finished.runs(str(tmp_path))


def test_a_sheet_is_a_folder_of_this_machine(runs, capsys):
  code = main('sheet', f'--run={runs}', '--workdir=gs://b/x')
  one_line(capsys, code, 'must be a folder of this machine')


def test_a_run_that_is_named_twice_counts_once(runs, tmp_path, capsys):
  flags = f'--run={runs},{runs / "sft"}', f'--workdir={tmp_path / "s"}'
  assert main('sheet', *flags, '--count=200') == 0
  assert 'sft: 60 of 60 reviewed answers' in capsys.readouterr().out


def test_references_of_a_grid_are_found_at_the_same_replicate(tmp_path):
  rows = []
  for seed in (0, 1):
    for label in ('lam=0', 'back'):
      name = f'cells/{label},seed={seed}-abc'
      write_run(tmp_path / name, [])
      own = {'folder': name, 'label': label, 'seed': f'seed={seed}'}
      rows.append(own | {'current': True})
  (tmp_path / 'grid.json').write_text(json.dumps({'cells': rows}))
  back = finished.runs(str(tmp_path))[3]
  assert back.path('cell:lam=0') == str(tmp_path / 'cells/lam=0,seed=1-abc')
  assert back.path('grid:base_1') == str(tmp_path / 'prepared/base_1')
  assert back.path('cell:lam=3') == 'cell:lam=3'
  assert back.path('') == '' and back.path('org/model') == 'org/model'


def test_two_ways_to_ask_are_told_apart(runs, tmp_path, capsys):
  config = {'conscience': {'review': {'form': 'yes_no'}}}
  (runs / 'sft/config.json').write_text(json.dumps(config))
  folder = tmp_path / 'sheet'
  flags = f'--run={runs}', f'--workdir={folder}', '--count=24'
  assert main('sheet', *flags) == 0
  files = [labelled(folder, name) for name in ('a.jsonl', 'b.jsonl')]
  labels = f'--labels={",".join(map(str, files))}'
  assert main('labels', f'--workdir={folder}', labels) == 0
  said = ' '.join(capsys.readouterr().out.split())
  assert 'put different questions' in said
  assert 'AUC of P (fair)' in said and 'AUC of P (fair form=yes_no)' in said
