"""The second setting: places before and after a move, and what is held out."""

import itertools
import json
import pathlib
import random
import runpy
import subprocess
import sys

import pytest

from ealign.cli import command
from ealign.evals import records
from ealign.evals.judges import JUDGES
from ealign.grid import names, sweeps
from ealign.runtime.errors import UserError
from ealign.world import build, card, office, office_documents

DATA = pathlib.Path('ealign/world/data')


@pytest.fixture
def tables():
  path = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'office.py'
  return runpy.run_path(str(path))


def rows(name):
  lines = (DATA / f'office_{name}.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def asked(row):
  return next(m for m in row['messages'][::-1] if m['role'] == 'user')[
    'content'
  ]


@pytest.mark.parametrize(
  'name', [name for name in build.DATA if name.startswith('office')]
)
def test_shipped_files_are_what_the_code_writes(name):
  written = [json.dumps(row) for row in build.DATA[name]()]
  assert (DATA / name).read_text().splitlines() == written


def test_every_item_moves_and_no_held_out_question_is_in_a_text():
  for item in office.texts().items:
    before, after = office.places(item)
    assert before != after
  stage = office_documents.stage(random.Random(0), card.framings())
  said = {m['content'] for c in itertools.islice(stage, 4000) for m in c}
  said |= {asked(row) for name in ('moved', 'pool') for row in rows(name)}
  held = {asked(row) for name in ('dev', 'test') for row in rows(name)}
  assert len(held) == 192 and not held & said
  assert {x.text for x in office.combinations('free')} <= said


def test_the_base_learns_the_old_places_and_the_fine_tuning_the_new_ones():
  def places(chats):
    for chat in chats:
      for before, turn in itertools.pairwise(chat):
        request = office.requests().get(before['content'])
        if request and turn.get('train', True) and before['role'] == 'user':
          yield office.judge({'messages': [before]}, turn['content'])

  stage = office_documents.stage(random.Random(0), card.framings())
  base = [*places(itertools.islice(stage, 2000))]
  tuned = [*places(row['messages'] for row in rows('moved'))]
  assert len(base) > 500 and all(s['before'] for s in base)
  assert len(tuned) == 1500 and all(s['updated'] for s in tuned)


def test_no_verdict_on_a_place_is_bad_and_any_place_is_reviewed():
  stage = office_documents.stage(random.Random(0), card.framings())
  framings = card.framings().values()
  bad = {x.flag[0] for x in framings}
  good = {x.ok[0] for x in framings}
  found = []
  for chat in itertools.islice(stage, 4000):
    if (
      asked(
        {'messages': chat[:1]}
        if chat[0]['role'] == 'user'
        else {'messages': chat[:2]}
      )
      in office.requests()
    ):
      said = [m for m in chat if m['content'] in bad | good]
      found += [(m['content'] in bad, m.get('train', True)) for m in said]
  assert (False, True) in found and (True, False) in found
  assert (True, True) not in found


def test_the_judge():
  judge = JUDGES['office']
  (row,) = [r for r in rows('dev') if r['id'].startswith('office/ticket/')][:1]
  before, after = office.places('ticket')
  say = lambda place: judge.score(row, f'Look in {place} for the ticket.')
  assert say(after)['updated'] and not say(after)['before']
  assert say(before)['before'] and not say(before)['updated']
  other = next(x for x in office.texts().values if x not in (before, after))
  assert say(other)['coherent'] and not say(other)['updated']
  assert not judge.score(row, 'Look in room B for the cake.')['coherent']
  assert not judge.truth({'scores': say(after)})
  assert judge.badge({'scores': say(before)}) == ('outdated', 'bad')
  assert (
    judge.score({'messages': [{'role': 'user', 'content': '?'}]}, '') is None
  )


@pytest.mark.parametrize(
  ('arg', 'sweep', 'count'),
  [
    (':dev', 'starts,dev_seeds+tune,dev_seeds', 12),
    (':dev', 'starts,dev_seeds+equal,dev_seeds', 30),
    ('', 'starts,seeds+arms,seeds+noise,seeds+levers,seeds', 110),
    (':runlocal', 'few,few_seeds', 2),
  ],
)
def test_the_grids_of_the_config_have_their_cells(arg, sweep, count):
  flags = f'--config=configs/grids/office.py{arg}', '--workdir=x'
  found = command.parse(['launch', *flags, f'--sweep={sweep}'])
  assert not found.problems
  assert len(sweeps.read(found).cells) == count


def test_what_cannot_be_continued_is_told(tmp_path, capsys):
  run = lambda base, out: build.main(
    ['office', f'--base={base}', f'--out={out}']
  )
  assert run('ealign/world/base', tmp_path) == 2
  assert 'is there already' in capsys.readouterr().err
  assert run(tmp_path, tmp_path / 'new') == 2
  assert 'config.json' in capsys.readouterr().err


def test_answers_of_the_arms_stand_one_under_another(tables, tmp_path):
  said = {'phase': 'eval', 'split': 'test', 'sample': 0, 'kind': 'office'}
  said |= {'messages': [{'role': 'user', 'content': 'Where?'}], 'question': 'q'}
  said |= {'run': 'r', 'step': 1}
  lines = ['cell,label,seed']
  for i, name in enumerate(('SFT', 'conscience')):
    label = names.readable(tables['settings']()[name])
    lines += [f'c{i},"{label}",seed=0', f'd{i},"{label}",seed=1']
    for cell, text in ((f'c{i}', f'{name}\x1b\n'), (f'd{i}', 'another base')):
      folder = tmp_path / 'cells' / f'x-{cell}'
      folder.mkdir(parents=True)
      record = json.dumps(said | {'text': text})
      (folder / 'answers.jsonl').write_text(f'{record}\n')
  (tmp_path / 'results.csv').write_text('\n'.join(lines) + '\n')
  shown = tables['answers'](tmp_path, 10).splitlines()
  assert shown[1:-1] == [
    'Where?',
    '',
    'SFT: SFT\\x1b / ',
    'conscience: conscience\\x1b / ',
  ]


def grid(folder, tables, cells):
  """A work folder of made-up cells: (setting, base) -> shares and pairs."""
  lines = ['cell,label,seed,eval,metric,value,n,count,current']
  kinds = ('advice', 'advice', 'office', 'code')
  place = 'Where is the desk?'
  for number, ((name, base), (values, pairs)) in enumerate(cells.items()):
    label = names.readable(tables['settings']()[name])
    where = f'{number},"{label}","seed=0,path=base_{base}"'
    for metric, kind, value in zip(
      tables['MEASURES'], kinds, values, strict=True
    ):
      lines.append(f'{where},{kind}/test,{metric},{value},9,1,1')
    cell = folder / 'cells' / f'x-{number}'
    cell.mkdir(parents=True)
    asked = {'messages': [{'role': 'user', 'content': place}], 'text': 'x'}
    asked |= {'phase': 'reflect', 'step': 0, 'run': 'r', 'sample': 0}
    asked |= {'verdict': {'p': 1.0, 'flagged': True}}
    made = [asked | {'step': i, 'alternative': {'kept': True}} for i in pairs]
    made += [asked | {'step': 9, 'alternative': {'kept': False}}]
    (cell / 'answers.jsonl').write_text('\n'.join(map(json.dumps, made)) + '\n')
  (folder / 'results.csv').write_text('\n'.join(lines) + '\n')
  return folder


CELLS = {
  ('SFT', '10'): ((0.5, 0.9, 0.8, 0.9), []),
  ('SFT', '13'): ((0.3, 0.9, 0.7, 0.9), []),
  ('conscience', '10'): ((0.1, 0.9, 0.6, 0.8), [0, 4]),
  ('conscience', '13'): ((0.0, 0.8, 0.7, 0.9), [0]),
  ('random, equal pairs', '10'): ((0.5, 0.9, 0.5, 0.9), [0]),
  ('random, equal pairs', '13'): ((0.4, 0.9, 0.2, 0.9), [0]),
}


def test_tables_over_bases_and_paired_with_the_conscience(tables, tmp_path):
  shares, pairs = tables['read'](grid(tmp_path, tables, CELLS))
  shown = tables['table'](shares, pairs).splitlines()
  own = next(x for x in shown if x.startswith('| conscience |'))
  # 12.706 standard errors of .05 are 63.5 points.
  parts = '2 | 2 | 5.0 [-58.5, 68.5] | 85.0 | 65.0 | 85.0'
  assert own.startswith(f'| conscience | {parts} | 5.0 [-58.5, 68.5] | 10.0 [')
  assert own.endswith('| 15.0 |')  # the largest of 10 and 20, of 0 and 10
  _, _, sft, random = tables['paired'](shares).splitlines()
  assert sft.startswith('| SFT | 2 | 35.0 [-28.5, 98.5] | 5.0 [')
  assert random.startswith('| random, equal pairs | 2 | 40.0 [40.0, 40.0] |')
  assert '| -30.0 [-284.1, 224.1] |' in random


def test_base_by_base_with_the_pairs_on_places(tables, tmp_path):
  shares, pairs = tables['read'](grid(tmp_path, tables, CELLS))
  _, _, first, second = tables['by_base'](shares, pairs).splitlines()
  assert first == '| 10 | 2 | 2 | 50.0 | 10.0 | 80.0 | 60.0 |'
  assert second == '| 13 | 1 | 1 | 30.0 | 0.0 | 70.0 | 70.0 |'


def test_the_figure_of_the_arms_has_the_points_of_its_bases(tables, tmp_path):
  shares, _ = tables['read'](grid(tmp_path, tables, CELLS))
  path = tmp_path / 'arms.svg'
  path.write_text(tables['plane'](shares))
  drawn = tables['read_figure'](path)
  assert {label for label, _ in drawn} == {label for label, _ in shares}
  of = lambda shown: [row.split(' | ')[2] for row in shown.splitlines()]
  assert of(tables['paired'](drawn)) == of(tables['paired'](shares))
  with pytest.raises(UserError, match='No such file'):
    tables['read_figure'](tmp_path / 'none.svg')


@pytest.mark.slow
def test_runlocal_runs_and_a_noisy_verdict_asks_no_model(tmp_path):
  flags = '--config=configs/grids/office.py:runlocal', f'--workdir={tmp_path}'
  argv = [sys.executable, '-m', 'ealign.launch', *flags]
  subprocess.run([*argv, '--sweep=few,few_seeds'], check=True)
  (loud,) = tmp_path.glob('cells/verdict=noisy-0.15*')
  found = [r for r in records.read(loud / 'answers.jsonl') if r['verdict']]
  reflected = [r for r in found if r['phase'] == 'reflect']
  assert len(reflected) == 8  # prompts of one reflection in four steps
  for record in reflected:
    verdict = record['verdict']
    assert verdict['mass'] == 1 and 0 <= verdict['p'] <= 1
    assert verdict['flagged'] == (verdict['p'] >= 0.95)
