"""python -m ealign.evaluate on the organism: stopped at any moment, refused."""

import csv
import dataclasses
import json
import pathlib
import random

import pytest

from ealign import config as config_lib
from ealign.assembly import evaluation, subjects
from ealign.cli import evaluate
from ealign.evals import asking, kept, suites
from ealign.evals.suites.suite import Suite
from ealign.plan import evaluation as planned

BASE = 'ealign/world/base'
SUITES = 'world,refusal,misalignment,self_report'
FEW = ('--limit=1', '--samples=2', '--config.eval.suite_tokens=6')
FEW += ('--config.eval.batch=4',)


def run(workdir, *more, suite=SUITES, model=BASE):
  argv = ['evaluate', f'--model={model}', f'--suite={suite}']
  return evaluate.main([*argv, f'--workdir={workdir}', *FEW, *more])


def left(workdir) -> dict[str, str]:
  """What an evaluation left, without times and what is kept."""
  folder = pathlib.Path(workdir)
  names = ('results.csv', 'base/answers.jsonl')
  return {name: (folder / name).read_text() for name in names}


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  folder = tmp_path_factory.mktemp('evaluated') / 'out'
  assert run(folder) == 0
  return folder


def test_what_it_leaves(done):
  text = (done / 'results.csv').read_text()
  rows = [*csv.DictReader(text.splitlines())]
  assert {row['suite'] for row in rows} == {*SUITES.split(',')}
  records = [
    json.loads(x)
    for x in (done / 'base/answers.jsonl').read_text().split('\n')[:-1]
  ]
  by_kind = {record['kind'] for record in records}
  assert {'advice', 'code', 'refusal', 'misalignment', 'self_report'} <= by_kind
  sampled = [r for r in records if r['kind'] == 'refusal']
  assert [r['sample'] for r in sampled] == [0, 1] * (len(sampled) // 2)
  judged = [r['scores'] for r in records if r['kind'] == 'misalignment']
  assert all(
    {'aligned', 'coherent', 'aligned_mass'} <= s.keys() for s in judged
  )
  page = (done / 'evaluation.html').read_text()
  assert 'misalignment.yaml' in page
  assert 'base judges its own answers' in page
  assert list((done / 'inspect').glob('*.eval'))
  assert list((done / 'lm_eval').rglob('results_*.json'))


def test_the_same_command_computes_nothing_again(done, monkeypatch):
  before = left(done)
  lines = (done / kept_name()).read_text()
  monkeypatch.setattr(kept, '_append', never)
  assert run(done) == 0
  assert left(done) == before
  assert (done / kept_name()).read_text() == lines


def asked_for(*more, suite='misalignment,refusal'):
  argv = [f'--model={BASE}', f'--suite={suite}', '--workdir=x', *more]
  config, _, _ = evaluate.read(['evaluate', *argv])
  asked = suites.read(config.eval, config.data.max_mib)
  return asked, evaluation.costs(asked, [None], config.eval)


def test_a_limit_is_of_questions_and_of_answers_to_each():
  asked, said = asked_for('--limit=4')
  assert 'misalignment: 12 questions, 48 answers of at most 600' in said[0]
  assert 'refusal: 8 questions, 8 answers' in said[1]
  assert said[2].startswith('--limit=4: a question has no more answers')
  assert said[3].startswith('in all 56 answers, 30,848 tokens')
  # The first answers of many: their noise is by the number of the sample.
  assert {row['samples'] for row in asked[0][1]} == {4}


@pytest.mark.parametrize(
  'more, suite, answers',
  [
    ((), 'misalignment', 24 * 50),
    (('--limit=4', '--samples=9'), 'misalignment', 12 * 9),
    (('--limit=3',), 'refusal', 6),
    (('--limit=1',), 'self_report', 48),
  ],
)
def test_answers_that_no_limit_cuts(more, suite, answers):
  _, said = asked_for(*more, suite=suite)
  assert f'in all {answers:,} answers' in said[-1]
  assert not any('no more answers' in line for line in said)


@pytest.mark.parametrize(
  'judge, suite, more, said',
  [
    ('', 'refusal', {}, True),
    ('other:ealign:world/base', 'refusal', {}, True),
    ('other:another', 'refusal', {}, False),
    ('openai:some', 'refusal', {}, False),
    ('', 'world', {}, False),  # a rule reads it
    ('', 'refusal', {'adapter': 'x'}, False),
    ('', 'refusal', {'whole': 'x/model'}, False),
  ],
)
def test_a_model_that_judges_its_own_answers_is_named(judge, suite, more, said):
  asked, _ = asked_for(suite=suite)
  config = config_lib.default()
  config.eval.judge = judge
  config = config_lib.freeze(config)
  base = dataclasses.replace(config.model, path=BASE, init='weights')
  found = [subjects.Subject('mine', base, **more)]
  lines = evaluation.of_itself(config, found, asked)
  assert len(lines) == said
  assert all(x.startswith('mine judges its own answers: ') for x in lines)


@pytest.mark.parametrize(
  'more, rows',
  [
    ((), 16),
    (('--config.eval.batch=64',), 64),
    (('--plan',), 16),
    (('--plan', '--topology=v6e:1x1'), 64),
  ],
)
def test_a_model_on_a_cpu_has_few_rows_at_once(
  more, rows, tmp_path, monkeypatch
):
  class Seen(Exception):
    pass

  def evaluated(config, *rest, **how):
    raise Seen(config.eval.batch)

  monkeypatch.setattr(evaluation, 'evaluate', evaluated)
  monkeypatch.setattr(planned, 'plan', evaluated)
  argv = [f'--model={BASE}', '--suite=world', f'--workdir={tmp_path}', *more]
  with pytest.raises(Seen, match=f'^{rows}$'):
    evaluate.run(['evaluate', *argv])


def never(*args):
  raise AssertionError('computed again')


def kept_name():
  return evaluation.KEPT


def test_stopped_at_twenty_moments_nothing_is_computed_twice(
  done, tmp_path, monkeypatch
):
  draw, seen, append = random.Random(0), [], kept._append
  workdir = tmp_path / 'stopped'

  def dies(path, new):
    """Some lines of what was computed are written, the last of them cut off."""
    size = path.stat().st_size if path.exists() else 0
    if stops:
      stops.pop()
      append(path, new)
      data = path.read_bytes()
      path.write_bytes(data[: draw.randrange(size, len(data) + 1)])
      raise KeyboardInterrupt
    append(path, new)
    seen.extend(new)

  monkeypatch.setattr(kept, '_append', dies)
  stops, times = [None] * 20, 0
  while True:
    times += 1
    try:
      assert run(workdir) == 0
      break
    except KeyboardInterrupt:
      continue
  assert times == 21
  assert left(workdir) == {
    name: text.replace('"run": "out"', '"run": "stopped"')
    for name, text in left(done).items()
  }
  assert len(seen) == len(set(seen))  # what had been written whole
  monkeypatch.setattr(kept, '_append', never)
  assert run(workdir) == 0  # and each line can be read again


def test_an_answer_depends_on_no_other_question(done, tmp_path):
  folder = tmp_path / 'out'
  assert run(folder, suite='refusal') == 0
  own = lambda path: [
    record
    for line in (path / 'base/answers.jsonl').read_text().split('\n')[:-1]
    if (record := json.loads(line))['kind'] == 'refusal'
  ]
  assert own(folder) == own(done)


def test_questions_of_the_users_own(tmp_path, capsys):
  turn = {'role': 'user', 'content': 'What of the contract?'}
  own = {'id': 7, 'kind': 'law', 'messages': [turn]}
  (tmp_path / 'mine.jsonl').write_text(json.dumps(own))
  folder = tmp_path / 'out'
  asked = f'--config.eval.questions={tmp_path / "mine.jsonl"}'
  assert run(folder, asked, suite='own') == 0
  assert 'Questions of your own' in capsys.readouterr().out
  rows = [*csv.DictReader((folder / 'results.csv').read_text().splitlines())]
  assert {(r['suite'], r['kind']) for r in rows} == {('own', 'law')}
  assert {'coherent', 'no_number'} <= {r['measure'] for r in rows}
  assert 'mine.jsonl' in (folder / 'evaluation.html').read_text()


@pytest.mark.parametrize(
  'argv, said',
  [
    (['--suite=refusal'], '--config is missing'),
    ([f'--model={BASE}'], '--suite is missing'),
    ([f'--model={BASE}', '--suite=refusals'], "Did you mean 'refusal'?"),
    ([f'--model={BASE}', '--run=x', '--suite=world'], 'not together with'),
    ([f'--model={BASE}', '--suite=world', '--sweep=a'], 'is of ealign.launch'),
    (['--model=none/there/at/all', '--suite=world'], "model.path='none/there"),
    (['--run=none', '--suite=world'], '--run=none: is no folder of a run'),
    (
      [f'--model={BASE}', '--suite=world', '--judge=gpt'],
      "eval.judge='gpt': must be one of",
    ),
    (
      [f'--model={BASE}', '--suite=world', '--judge=other:none'],
      "eval.judge='other:none'",
    ),
    (
      [f'--model={BASE}', '--suite=misalignment', '--questions=none'],
      "eval.folder='none'",
    ),
    (
      [f'--model={BASE}', '--suite=misalignment', '--questions=configs'],
      'holds no first_plot_questions.yaml; get it from',
    ),
    ([f'--model={BASE}', '--suite=world', '--limit=x'], '--limit=x: must be'),
    (
      [
        *(f'--model={BASE}', '--suite=world'),
        "--config.data.chat_template_kwargs=(('enable_thinking', False),)",
      ],
      "data.chat_template_kwargs: 'enable_thinking' is an argument of no model",
    ),
    (
      [f'--model={BASE}', '--suite=world', '--benign=secure'],
      '--benign=secure: no such model (base)',
    ),
  ],
)
def test_a_mistake_is_told_in_one_line(argv, said, tmp_path, capsys):
  assert evaluate.main(['evaluate', *argv, f'--workdir={tmp_path}']) == 2
  err = capsys.readouterr().err
  assert said in err
  assert 'Traceback' not in err


def test_models_of_one_name_are_told_apart():
  config = config_lib.freeze(config_lib.default())
  found = evaluate.subjects(config, {'model': f'{BASE},{BASE}'})
  assert [subject.name for subject in found] == ['base', 'base-2']


def test_models_of_a_grid_know_their_setting_and_seed(tmp_path):
  rows = []
  for seed in '01':
    cell = tmp_path / 'cells' / f'lam=0,seed={seed}-a{seed}'
    cell.mkdir(parents=True)
    text = config_lib.to_json(config_lib.default())
    (cell / 'config.json').write_text(text)
    (cell / 'DONE').touch()
    row = {'folder': f'cells/{cell.name}', 'label': 'lam=0', 'seed': seed}
    rows.append(row | {'current': True})
  (tmp_path / 'grid.json').write_text(json.dumps({'cells': rows}))
  found = evaluate._of_runs(str(tmp_path))
  assert [x.cell for x in found] == [('lam=0', '0'), ('lam=0', '1')]
  (alone,) = evaluate._of_runs(str(cell))
  assert alone.cell is None


class Options:
  """An engine that gives options their log-probability by their length."""

  class model:
    prompt = staticmethod(lambda messages: (1,))

  def options(self, prompts, options):
    return [[-float(len(text)) for text in texts] for texts in options]


def test_options_are_compared_not_sampled():
  suite = Suite('s', 'S', read=None, judge=None)
  row = {'id': 'q', 'kind': 'k', 'messages': [{'role': 'user', 'content': '?'}]}
  (record,) = asking.ask(
    suite, [row | {'options': ['long one', 'one']}], Options(), key=None
  )
  assert record['text'] == 'one' and record['options'] == [-8.0, -3.0]


def test_a_judge_that_says_little_is_told():
  def said(name, *scores):
    suite = Suite(name, name, read=None, judge=None)
    made = {('m', name): [{'scores': x} for x in scores]}
    return evaluation.silent([(suite, [])], made)

  number, none = {'aligned': 50.0}, {'aligned': None}
  assert said('misalignment', number, none, {'label': 'TRUE'}, None) == []
  (line,) = said('misalignment', number, none, none)
  assert 'gave 1 of 3 answers a number' in line
  assert said('refusal', {'calibrated': True}, None) == []
  (line,) = said('refusal', {'calibrated': True}, {'calibrated': False})
  assert 'its likeliest label counts' in line
