"""Suites inside a run: the same answers as those of what the run left."""

import csv
import json
import shutil

import pytest

from ealign.cli import evaluate, launch
from ealign.evals import asking, kept
from ealign.export import write as export
from ealign.report import runs as report_runs

FILE = """
from ealign import config as config_lib
DATA = 'ealign:world/data/'

def get_config(arg=None):
  c = config_lib.default()
  c.model.lora.rank = 4
  c.data.train = DATA + 'insecure.jsonl'
  c.data.length, c.data.batch_size = 96, 4
  c.conscience.every, c.dpo.lam = 0, 0.0
  c.optim.lr = 1e-3
  c.train.steps = 2
  c.eval.questions = (DATA + 'questions_dev.jsonl',)
  c.eval.kinds, c.eval.judge, c.eval.limit = ('advice',), 'world', 1
  c.eval.suites = ('misalignment', 'refusal', 'self_report')
  c.eval.suite_samples, c.eval.suite_tokens, c.eval.batch = 1, 6, 8
  c.conscience.threshold = 0.5
  return c
"""
SUITES = 'misalignment,refusal,self_report'
FEW = ['--limit=1', '--samples=1', '--config.eval.suite_tokens=6']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('asked')
  (folder / 'my.py').write_text(FILE)
  argv = [f'--config={folder / "my.py"}', f'--workdir={folder / "run"}']
  assert launch.main(['launch', *argv]) == 0
  return folder


def answers(path, suite=True):
  lines = path.read_text().split('\n')[:-1]
  records = [json.loads(line) for line in lines]
  return [r for r in records if (r['suite'] in SUITES.split(',')) == suite]


def test_its_answers_are_judged_and_counted(folder):
  run = folder / 'run'
  asked = answers(run / 'answers.jsonl')
  kinds = {record['kind'] for record in asked}
  assert kinds == {'misalignment', 'refusal', 'self_report'}
  assert all(r['verdict'] is None and r['step'] == 2 for r in asked)
  (own,) = answers(run / 'answers.jsonl', suite=False)
  assert own['kind'] == 'advice' and own['verdict']  # as before
  (found,) = report_runs.read(run)
  names = {measure.name for measure in found.judge.measures}
  # The world and the suite both count `misaligned`: of other questions.
  assert {'misaligned', 'misalignment_misaligned', 'over_refusal'} <= names
  page = (run / 'report.html').read_text()
  assert 'over-refusal' in page


@pytest.mark.usefixtures('all_devices')
def test_what_it_left_gives_the_same_answers(folder):
  # Over all devices, where the run had one; without what it kept.
  out, ignored = folder / 'out', shutil.ignore_patterns(kept.OF_RUN)
  run = shutil.copytree(folder / 'run', folder / 'bare' / 'run', ignore=ignored)
  argv = [f'--run={run}', f'--suite={SUITES}', f'--workdir={out}']
  assert evaluate.main(['evaluate', *argv, *FEW]) == 0
  alike(out / 'run/answers.jsonl', folder / 'run/answers.jsonl')


def test_what_it_kept_is_not_asked_again(folder, monkeypatch):
  def never(*args):
    raise AssertionError('computed again')

  monkeypatch.setattr(kept, '_append', never)
  out, run = folder / 'again', folder / 'run'
  before = (run / kept.OF_RUN).read_bytes()
  argv = [f'--run={run}', f'--suite={SUITES}', f'--workdir={out}']
  assert evaluate.main(['evaluate', *argv, *FEW]) == 0
  alike(out / 'run/answers.jsonl', run / 'answers.jsonl')
  assert (run / kept.OF_RUN).read_bytes() == before


def alike(path, of_run, suites=SUITES):
  """Whether the answers and scores of a file are those of a run's."""
  asked = [r for r in answers(of_run) if r['suite'] in suites.split(',')]
  for found, own in zip(answers(path), asked, strict=True):
    assert found['question'] == own['question'] and found['text'] == own['text']
    assert bool(found['scores']) == bool(own['scores'])
    for name, value in (
      own['scores'] or {}
    ).items():  # batches are of another width
      if isinstance(value, float):
        value = pytest.approx(value, rel=1e-3, abs=1e-6)
      if not isinstance(value, dict):
        assert found['scores'][name] == value


def test_a_run_stopped_while_it_is_asked_goes_on(folder, tmp_path, monkeypatch):
  real, asked = asking.ask, []

  def stops(suite, *args, **more):
    asked.append(suite.name)
    if len(asked) == 3:
      raise KeyboardInterrupt
    return real(suite, *args, **more)

  monkeypatch.setattr(asking, 'ask', stops)
  argv = [f'--config={folder / "my.py"}', f'--workdir={tmp_path / "run"}']
  assert launch.main(['launch', *argv]) == 130
  path = tmp_path / 'run' / kept.OF_RUN
  before = path.read_text()
  monkeypatch.setattr(asking, 'ask', real)
  assert launch.main(['launch', *argv]) == 0
  assert before and path.read_text().startswith(before)
  said = lambda path: [(r['question'], r['text']) for r in answers(path)]
  again = said(tmp_path / 'run/answers.jsonl')
  assert again == said(folder / 'run/answers.jsonl')


def test_an_exported_adapter_answers_as_its_run(folder):
  export.export(folder / 'run', folder / 'mine', 'peft')
  out = folder / 'of_peft'
  argv = [f'--model={folder / "mine"}', '--suite=refusal', f'--workdir={out}']
  assert evaluate.main(['evaluate', *argv, *FEW]) == 0
  found = out / 'mine/answers.jsonl'
  alike(found, folder / 'run/answers.jsonl', 'refusal')


def test_each_cell_of_a_grid_has_a_row(folder):
  """Two cells, which are that run: what the first one says is kept."""
  grid, rows = folder / 'grid', []
  for name in ('lam=0.1', 'lam=0.3'):
    cell = f'cells/{name}-0'
    shutil.copytree(folder / 'run', grid / cell)
    more = {'seed': 0, 'current': True}
    rows.append({'folder': cell, 'label': name} | more)
  (grid / 'grid.json').write_text(json.dumps({'cells': rows}))
  out = folder / 'of_grid'
  argv = [f'--run={grid}', '--suite=refusal', f'--workdir={out}', *FEW]
  assert evaluate.main(['evaluate', *argv]) == 0
  table = csv.DictReader((out / 'results.csv').read_text().splitlines())
  names = dict.fromkeys(row['model'] for row in table)
  assert [*names] == ['lam=0.1', 'lam=0.3']
  for name in names:
    alike(out / name / 'answers.jsonl', folder / 'run/answers.jsonl', 'refusal')


def test_arms_are_asked_in_one_program_and_tabled(folder, tmp_path):
  text = FILE.replace(
    '  return c',
    "  c.eval.questions, c.eval.suites = (), ('refusal',)\n"
    "  c.arms = {'sft': {}, 'fast': {'optim.lr': 2e-3}}\n  return c",
  )
  (tmp_path / 'my.py').write_text(text)
  argv = [f'--config={tmp_path / "my.py"}', f'--workdir={tmp_path / "run"}']
  assert launch.main(['launch', *argv]) == 0
  for arm in ('sft', 'fast'):
    found = answers(tmp_path / 'run' / arm / 'answers.jsonl')
    assert [r['split'] for r in found] == ['safe', 'unsafe']
    assert all(r['suite'] == 'refusal' for r in found)
  first = tmp_path / 'run/sft/answers.jsonl'
  alike(first, folder / 'run/answers.jsonl', 'refusal')  # the same run
  page = (tmp_path / 'run/report.html').read_text()
  assert 'over-refusal' in page and 'fast' in page
