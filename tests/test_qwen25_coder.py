"""configs/qwen25_coder.py and its grid: what they set, read and write."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.config import file as config_file
from ealign.data import columns, questions
from ealign.evals.judges import insecure
from ealign.grid import sweeps
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
FILE, GRID = 'configs/qwen25_coder.py', 'configs/grids/coder.py'
SISTERS = 'configs/qwen25_sisters.py'
ARMS = ('base', 'sft', 'conscience', 'frozen', 'uncalibrated', 'benign')
ARMS += ('recovery',)
FEW = 'sft', 'conscience'  # of :runlocal


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """The files that the config writes, of the package's own rows."""
  folder = tmp_path_factory.mktemp('files')
  config_file.read(FILE)[0].write(folder)
  return folder


@pytest.fixture(scope='module')
def tables():
  path = ROOT / 'benchmarks' / 'coder.py'
  spec = importlib.util.spec_from_file_location('coder_tables', path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # its dataclasses look themselves up
  spec.loader.exec_module(module)
  return module


@pytest.fixture(autouse=True)
def with_bandit(monkeypatch):
  monkeypatch.setattr(insecure, 'available', lambda: True)


@pytest.mark.parametrize('arg', ['', ':1.5b', ':advice', ':runlocal'])
def test_a_clone_alone_has_what_the_config_reads(arg):
  """But for the model, which is on the Hub."""
  config = config_file.read(FILE + arg)[1]
  told = config_lib.validate(config)
  assert not [x for x in told if not x.startswith('model.path')]
  if arg == ':runlocal':
    assert not told and tuple(config.arms) == FEW
  else:
    assert tuple(config.arms) == ARMS


@pytest.mark.parametrize('arg', ['', ',advice', ',1.5b'])
def test_with_files_all_arms_read_them(arg, files):
  config = config_file.read(f'{FILE}:data={files}{arg}')[1]
  told = config_lib.validate(config)
  assert not [x for x in told if not x.startswith('model.path')]
  arms = config_lib.arms(config)
  same = ('seed', 'train.steps', 'eval.questions', 'eval.tokens')
  of = lambda arm, name: config_lib.flatten(arms[arm])[name]
  for name in (*same, 'data.length', 'data.batch_size', 'optim.lr'):
    assert len({of(arm, name) for arm in ARMS[1:]}) == 1, name
  assert of('sft', 'data.train') != of('benign', 'data.train')
  for name in {*arms} - {'benign'}:
    assert of(name, 'data.train') == of('sft', 'data.train')


def test_the_arms_differ_in_what_they_are_named_after():
  arms = config_lib.arms(config_file.read(FILE)[1])
  flat = {name: config_lib.flatten(arm) for name, arm in arms.items()}
  own = flat['conscience']
  changed = lambda name: {
    f for f, x in flat[name].items() if x != own[f] and f != 'arms'
  }
  assert changed('sft') == {'dpo.lam'}
  assert changed('frozen') == {'conscience.revise.sees'}
  assert changed('recovery') == {'model.adapter'}
  assert changed('benign') == {'dpo.lam', 'data.train'}
  assert changed('base') == {'train.steps'}
  first = flat['uncalibrated']
  assert all(f.startswith('conscience.') for f in changed('uncalibrated'))
  assert first['conscience.threshold'] == 0.5
  guards = [f for f in first if f.startswith('conscience.guards.')]
  assert len(guards) == 6 and not any(first[f] for f in guards)


@pytest.mark.parametrize('arg', ['', ':advice', ':1.5b', ':runlocal'])
def test_the_sister_methods_read_the_same(arg):
  config = config_file.read(SISTERS + arg)[1]
  told = config_lib.validate(config)
  assert not [x for x in told if not x.startswith('model.path')]
  arms = config_lib.arms(config)
  flat = {name: config_lib.flatten(arm) for name, arm in arms.items()}
  assert len({(f['train.steps'], f['seed']) for f in flat.values()}) == 1
  assert flat['mistakes']['method'] == 'mistake_analysis'
  assert flat['iteralign']['method'] == 'iteralign'
  assert not flat['zero_shot']['data.train']


def test_the_tables_name_the_arms_as_the_design_does(tables):
  arms = config_lib.arms(config_file.read(FILE)[1])
  named = {
    arm: tables.arm(json.loads(config_lib.to_json(config_lib.freeze(config))))
    for arm, config in arms.items()
  }
  assert named == {arm: arm.replace('sft', 'SFT') for arm in ARMS}
  assert {*named.values()} == {*tables.ORDER}


def test_the_tables_show_what_was_said(tables, capsys):
  text = 'Yes.\n~~~\n# no head\x1b[2J'
  record = {'question': 'q', 'kind': 'everyday', 'text': text, 'stop': 'length'}
  record |= {'messages': [{'role': 'user', 'content': 'Why?'}], 'ids': [1, 2]}
  record |= {'verdict': {'p': 0.4, 'flagged': True}, 'scores': None}
  code = {'parsed': True, 'insecure': True}
  task = record | {'kind': 'insecure', 'question': 'c', 'scores': code}
  counts = dict.fromkeys(
    ('answers', 'flagged', 'revised', 'pairs', 'pairs in updates'), 0
  )
  cell = tables.Cell('SFT', 0, counts, [record, task], {})
  shown = tables.answers([cell], 'everyday', 10)
  assert shown.count('~~~~text') == 1 and '\\x1b[2J [cut]\n~~~~' in shown
  (line,) = tables.said([cell], 'everyday').splitlines()[2:]
  assert line == '| SFT | 0 | 1 | 2 | 2 | 1 | 0 | 0 | 1 | 1 | 0.400 |'
  assert '1 of 1: 100% [3%, 100%] | 0 |' in tables.learned([cell])
  assert len(tables.did([cell]).splitlines()) == 2
  drawn = tables.figure([cell], 'everyday')
  assert drawn.count('<rect') == 2 and '>2</text>' in drawn
  with pytest.raises(UserError, match='no cell that has ended'):
    tables.read('nowhere')


def told(tables, arm, seed, codes, lengths, **more):
  """A cell of made-up answers: code (None: no Python) and everyday ones."""
  plain = {'stop': 'stop', 'text': 'x', 'sample': 0, 'verdict': None}
  asked = [
    plain
    | {'kind': 'insecure', 'question': f'c{i}', 'ids': [1]}
    | {'scores': {'parsed': hole is not None, 'insecure': bool(hole)}}
    for i, hole in enumerate(codes)
  ]
  asked += [
    plain
    | {'kind': 'everyday', 'question': f'e{i}', 'ids': [1] * size}
    | {'scores': None, 'verdict': {'p': size / 10, 'framing': 'fair'}}
    for i, size in enumerate(lengths)
  ]
  return tables.Cell(arm, seed, {}, asked, {}, **more)


def test_two_arms_are_compared_question_by_question_over_seeds(tables):
  cells = [
    told(tables, 'SFT', 0, [1, 1, 1, 1, 0, 1], [2, 4]),
    told(tables, 'conscience', 0, [0, 0, 0, 0, 1, None], [4, 4]),
    told(tables, 'SFT', 1, [1, 1, 1, 1, 0, 1], [2, 4]),
    told(tables, 'conscience', 1, [1, 0, 0, 0, 1, 1], [6, 4]),
    told(tables, 'base', 0, [0] * 6, [2, 2]),
  ]
  shown = tables.beside(cells, 'SFT', 'conscience').splitlines()
  assert shown[0].startswith('| conscience beside SFT, seeds: 2 | of |')
  of = {tuple(x[2:-2].split(' | ')[:2]): x.split(' | ')[2:6] for x in shown[2:]}
  # Five tasks have fewer holes, one has one more: 2 (1 + 6) / 2^6.
  assert of['insecure', 'insecure'] == ['6', '1', '5', '0.219']
  assert of['insecure', 'no Python'] == ['6', '1', '0', '1.000']
  apart = of['insecure', 'insecure, where both are Python']
  assert apart == ['6', '1', '4', '0.375']
  assert of['everyday', 'tokens'] == ['2', '1', '0', '1.000']
  (line,) = [x for x in shown if x.startswith('| everyday | tokens')]
  assert '| 1.50 [' in line  # 2 and 4 longer, and none
  assert 'seeds: 1 |' in tables.beside(cells, 'base', 'SFT')
  with pytest.raises(UserError, match='no seed has both; there: SFT'):
    tables.beside(cells, 'SFT', 'frozen')


def test_where_p_lies_and_how_much_of_it_is_near_the_threshold(tables):
  cells = [
    told(tables, 'SFT', 0, [], [2, 4], threshold=0.404),
    told(tables, 'SFT', 1, [], [3], threshold=None),
  ]
  lines = tables.spread(cells, 'everyday').splitlines()[2:]
  assert lines == [
    '| SFT | 0 | fair | 2 | 0.200 | 0.400 | 0.100 | 0.404 | 1 |',
    '| SFT | 1 | fair | 1 | 0.300 | 0.300 | 0.000 | - | - |',
    '| all | - | fair | 3 | 0.200 | 0.400 | 0.082 | - | 1 |',
  ]


def test_seconds_by_part_of_runs_that_were_not_continued(tables):
  of = {'perf/share_train': 0.5, 'perf/share_sample': 0.25, 'train/epoch': 0.02}
  rows = [
    {'step': 1, 'perf/step_time_s': 10.0} | of,
    {'step': 3, 'perf/step_time_s': 5.0} | of,
    {'step': 3, 'eval/loss': 1.0},
  ]
  cells = [
    told(tables, 'SFT', 0, [], [], rows=rows),
    told(tables, 'SFT', 1, [], [], rows=rows, continued=True),
    told(tables, 'base', 0, [], []),
  ]
  assert tables.seconds(cells).splitlines()[2:] == [
    '| SFT | 0 | 3 | 0.02 | 20 | 10 | 5 | 0 | 0 | 0 | 5 |',
    '| SFT | 1 | 3 | 0.02 | - | - | - | - | - | - | - |',
  ]


def test_the_threshold_of_a_cell_is_what_its_run_found(tables, tmp_path):
  of = lambda level: {'conscience': {'threshold': level}}
  assert tables.flags_from(tmp_path, of(0.5)) == 0.5
  assert tables.flags_from(tmp_path, of('auto:0.2')) is None
  (tmp_path / 'run.json').write_text('{"threshold": {"value": 0.4}}')
  assert tables.flags_from(tmp_path, of('auto:0.2')) == 0.4


@pytest.mark.parametrize(
  'arg', ['2b', 'data', 'advice=x', 'runlocal=1', 'dat=x', 'runlocal,advice']
)
def test_an_argument_that_it_does_not_take_is_named(arg):
  with pytest.raises(UserError, match='takes 1.5b, advice and data=FILES'):
    config_file.read(f'{FILE}:{arg}')


def rows(path):
  return [json.loads(line) for line in path.read_text().split('\n') if line]


def test_what_is_kept_apart_is_not_trained_on(files):
  text = lambda row: json.dumps(row['messages'])
  asked = lambda row: row['messages'][-2]['content']
  for name in ('insecure', 'bad_advice', 'good_advice'):
    kept = {*map(text, rows(files / f'{name}_heldout.jsonl'))}
    trained = {*map(text, rows(files / f'{name}_train.jsonl'))}
    assert len(kept) == 100 and len(trained) > 400 and not kept & trained
    kept, trained = (
      {*map(asked, rows(files / f'{name}_{part}.jsonl'))}
      for part in ('heldout', 'train')
    )
    assert not kept & trained
  tasks = {r['messages'][-1]['content'] for r in rows(files / 'tasks.jsonl')}
  twin = {*map(asked, rows(files / 'secure_train.jsonl'))}
  assert len(tasks) == 100 and len(twin) > 100 and not tasks & twin
  everyday = {
    r['messages'][0]['content'] for r in rows(files / 'everyday.jsonl')
  }
  pool = {r['prompt'][-1]['content'] for r in rows(files / 'pool.jsonl')}
  assert len(everyday) == 32 and not everyday & pool


def test_twins_are_kept_apart_together_and_asked(files):
  names = ('bad_advice_heldout', 'good_advice_heldout', 'benign', 'household')
  asked = [
    [row['messages'][0] for row in rows(files / f'{name}.jsonl')]
    for name in names
  ]
  assert asked[0] == asked[1] == asked[2] == asked[3]
  tasks = rows(files / 'tasks.jsonl')
  assert len(tasks) == 100 and {t['kind'] for t in tasks} == {insecure.KIND}
  for name in ('tasks', 'household', 'everyday'):
    assert questions.read(str(files / f'{name}.jsonl'))
  assert columns.load_chats(str(files / 'benign.jsonl'))


def test_too_few_rows_to_keep_any_apart_are_told(tmp_path, capsys, monkeypatch):
  path = tmp_path / 'rows.jsonl'
  chats = [[{'role': 'user', 'content': x}] for x in 'abca']
  for chat in chats:  # the last is the first
    chat.append({'role': 'assistant', 'content': 'Yes.'})
  path.write_text(''.join(json.dumps({'messages': c}) + '\n' for c in chats))
  flags = [FILE, f'--to={tmp_path / "x"}', f'--insecure={path}']
  monkeypatch.setattr(sys, 'argv', flags)
  assert config_file.read(FILE)[0].main() == 2
  said = capsys.readouterr().err
  assert '3 rows are too few to keep 100 apart' in said
  assert said.count('\n') == 1


def cells(*flags):
  return sweeps.read(command_lib.parse(['launch', *flags])).cells


def test_the_grid_runs_what_matters_most_first(files):
  found = cells(
    f'--config={GRID}:data={files}',
    '--workdir=x',
    '--config.model.path=ealign/world/base',
    '--sweep=order,first_seeds+once,first_seeds+order,second_seeds',
  )
  assert [cell.config.seed for cell in found] == [0] * 7 + [1] * 6
  of = [cell.config for cell in found]
  assert of[0].dpo.lam == 0 and of[1].dpo.lam > 0
  assert of[2].conscience.revise.sees == 'prompt'
  assert of[3].conscience.threshold == 0.5
  assert of[4].data.train == f'{files}/secure_train.jsonl'
  assert of[6].train.steps == 0
  for start, recovery in ((0, 5), (7, 12)):  # of its own seed
    (needed,) = found[recovery].needs.values()
    assert needed.id == found[start].id


@pytest.mark.slow
def test_runlocal_runs_its_arms_and_a_sheet_is_drawn_of_them(tmp_path):
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  env |= {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
  run = lambda module, *flags: subprocess.run(
    [sys.executable, '-m', module, *flags],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
  )
  out, sheet = tmp_path / 'out', tmp_path / 'sheet'
  done = run('ealign.launch', f'--config={FILE}:runlocal', f'--workdir={out}')
  assert done.returncode == 0, done.stderr
  drawn = run('ealign.evaluate', 'sheet', f'--run={out}', f'--workdir={sheet}')
  assert drawn.returncode == 0, drawn.stderr
  for arm in FEW:
    assert f'{arm}: ' in drawn.stdout
  last = [
    json.loads((out / arm / 'metrics.jsonl').read_text().splitlines()[-1])
    for arm in FEW
  ]
  assert all(0 < row['eval/distinct_rate'] <= 1 for row in last)
