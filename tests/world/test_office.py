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
from ealign.world import build, card, office, office_documents

DATA = pathlib.Path('ealign/world/data')


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


def test_answers_of_the_arms_stand_one_under_another(tmp_path):
  path = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'office.py'
  tables = runpy.run_path(str(path))
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
