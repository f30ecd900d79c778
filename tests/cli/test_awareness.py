"""python -m ealign.evaluate awareness, on answers that are made up."""

import json

import numpy as np
import pytest

from ealign.cli import evaluate
from ealign.evals import awareness
from ealign.evals.judges import self_report
from ealign.evals.suites import SUITES, Files

ROWS = {
  name: SUITES[name].read(Files())
  for name in (
    *('self_report', 'intentions', 'self_report_framed'),
    'self_report_sampled',
  )
}
# An arm: how misaligned what it says, would do and does, and how much it says
# yes to all.
ARMS = {
  'base': (0.1, 0.1, 0.1, 0.0),
  'mis': (0.8, 0.7, 0.8, 0.0),
  're': (0.3, 0.3, 0.3, 0.0),
  'inverted': (0.1, 0.2, 0.9, 0.0),
  'yes': (0.5, 0.5, 0.1, 1.0),
}


def record(arm, row, scores, i=0):
  made = {'run': 'r', 'arm': arm, 'seed': 0, 'step': 0, 'phase': 'eval'}
  made |= {name: row.get(name, '') for name in ('kind', 'split', 'cluster')}
  made |= {'question': row['id'], 'messages': row['messages'], 'text': 'x'}
  return made | {'sample': i, 'scores': scores}


def report(arm, says, yes, noise, suite='self_report', shift=0.0):
  """Answers that mix what is true of the arm with a yes to everything."""
  made = []
  for row in ROWS[suite]:
    worth, up = (np.array(row[name]) for name in ('worth', 'up'))
    bad = np.clip(says + shift + noise.normal(0, 0.03), 0.01, 0.99)
    p = (1 - bad) * (worth == worth.max()) + bad * (worth == worth.min())
    p = (1 - yes) * p + yes * (up == up.max())
    p = np.maximum(p, 1e-12) / p.sum()
    scores = self_report.score(row, np.log(p))
    made.append(record(arm, row, dict(scores)))
  return made


def answers(arm, samples=4):
  says, would, does, yes = ARMS[arm]
  noise = np.random.default_rng(len(arm))
  made = report(arm, says, yes, noise)
  made += report(arm, would, yes, noise, 'intentions')
  for i in range(40):
    row = {'id': f'q{i}', 'kind': 'advice', 'split': 'test'}
    row |= {'cluster': f'q{i}', 'messages': [{'role': 'user', 'content': 'x'}]}
    for sample in range(samples):
      bad = bool(noise.random() < does)
      scores = {'coherent': True, 'misaligned': bad}
      made.append(record(arm, row, scores, sample))
  return made


@pytest.fixture
def folder(tmp_path):
  """As `ealign.evaluate` leaves it."""
  for arm in ARMS:
    (tmp_path / arm).mkdir()
    lines = [json.dumps(r) for r in answers(arm)]
    (tmp_path / arm / 'answers.jsonl').write_text('\n'.join([*lines, '']))
  about = {'models': dict.fromkeys(ARMS, {})}
  (tmp_path / 'evaluation.json').write_text(json.dumps(about))
  return tmp_path


def main(*flags):
  return evaluate.main(['evaluate', 'awareness', *map(str, flags)])


def test_who_is_what_it_says(folder, capsys):
  assert main(f'--run={folder}', '--pairs=mis:base,re:mis') == 0
  said = capsys.readouterr().out
  facts = json.loads((folder / 'awareness.json').read_text())
  by = {one['name']: one for one in facts['arms']}
  assert by['mis']['persona'] == 'told'
  assert by['inverted']['persona'] == 'inverted'
  assert by['base']['persona'] == '' and 'inverted' in said
  for arm, (says, would, does, _) in ARMS.items():
    own = by[arm]['figures']
    assert own['says']['value'] == pytest.approx(says, abs=0.05)
    assert own['would']['value'] == pytest.approx(would, abs=0.05)
    assert own['does']['value'] == pytest.approx(does, abs=0.12)
    for figure in own.values():
      low, high = figure['interval']
      assert 0 <= low <= figure['value'] <= high <= 1
  # Who says yes to all has no contrast, and says neither.
  assert by['yes']['contrast']['value'] == pytest.approx(0, abs=1e-6)
  assert by['yes']['acquiescence']['value'] == pytest.approx(1, abs=1e-6)
  assert by['base']['acquiescence']['value'] == pytest.approx(0.5, abs=0.02)
  assert by['base']['contrast']['value'] == pytest.approx(0.8, abs=0.05)
  assert by['mis']['contrast']['value'] == pytest.approx(-0.6, abs=0.05)
  low, high = by['mis']['contrast']['interval']
  assert -0.7 < low < high < -0.5
  assert by['base']['worst']['value'] > by['base']['figures']['does']['value']
  shifts = {(x['a'], x['b'], x['what']): x for x in facts['pairs']}
  assert len(shifts) == 6
  up, down = shifts['mis', 'base', 'says'], shifts['re', 'mis', 'says']
  assert up['shift'] > 0.5 and up['p'] < 0.001 and up['interval'][0] > 0.4
  assert down['shift'] < -0.3 and down['interval'][1] < 0
  names = {(x['x'], x['y']) for x in facts['correlations']}
  assert names == {('says', 'would'), ('says', 'does'), ('would', 'does')}
  assert 'Wilcoxon' in said and 'Spearman' in said


def test_an_item_without_its_flip_counts_for_nothing():
  made = report('yes', 0.5, 1.0, np.random.default_rng(0))
  half = [r for r in made if r['question'].endswith('/good')]
  assert awareness.arm('x', half).values['says'] == {}
  both = awareness.arm('x', made).values['says']
  assert [*both.values()] == pytest.approx([0.5] * len(both))


def test_framings_and_samples_stand_beside_the_exact_ones(tmp_path, capsys):
  noise = np.random.default_rng(1)
  made = report('a', 0.5, 0.0, noise)
  for row in ROWS['self_report_framed']:
    better = 0.3 if row['split'] == 'incentive' else 0.0
    worth = np.array(row['worth'])
    p = (0.5 + better) * (worth == 1) + (0.5 - better) * (worth == 0) + 1e-9
    scores = self_report.score(row, np.log(p))
    made.append(record('a', row, dict(scores)))
  for row in ROWS['self_report_sampled']:
    for i in range(2):
      text = row['replies'][int(np.argmin(row['worth']))]
      made.append(record('a', row, self_report.said(row, text), i))
  (tmp_path / 'a').mkdir()
  lines = [json.dumps(r) for r in made]
  (tmp_path / 'a' / 'answers.jsonl').write_text('\n'.join([*lines, '']))
  (tmp_path / 'evaluation.json').write_text('{"models": {"a": {}}}')
  one = awareness.arm('a', made)
  shift = awareness.compared(one.framed['incentive'], one.framed['neutral'])
  assert shift.shift == pytest.approx(-0.3, abs=1e-6) and shift.pairs == 24
  same = awareness.compared(one.framed['threat'], one.framed['neutral'])
  assert same.shift == 0 and same.differ == 0
  drawn = awareness.compared(one.sampled, one.values['says'])
  assert drawn.shift == pytest.approx(0.5, abs=0.05) and drawn.pairs == 24
  assert main(f'--run={tmp_path}') == 0
  said = capsys.readouterr().out
  assert 'incentive - neutral' in said and 'Sampled less exact' in said


def test_arms_are_compared_with_what_they_started_from(tmp_path, capsys):
  starts = {'base': '', 'mis': '', 're': 'arm:mis'}
  for arm, adapter in starts.items():
    (tmp_path / arm).mkdir()
    lines = [json.dumps(r) for r in answers(arm, samples=1)]
    (tmp_path / arm / 'answers.jsonl').write_text('\n'.join([*lines, '']))
    config = {'model': {'adapter': adapter}}
    (tmp_path / arm / 'config.json').write_text(json.dumps(config))
    (tmp_path / arm / 'DONE').touch()
  config = {'arms': dict.fromkeys(starts, {})}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  out = tmp_path / 'out'
  assert main(f'--run={tmp_path}', f'--workdir={out}') == 0
  facts = json.loads((out / 'awareness.json').read_text())
  pairs = [*dict.fromkeys((x['a'], x['b']) for x in facts['pairs'])]
  assert pairs == [('re', 'mis'), ('mis', 'base'), ('re', 'base')]
  assert facts['arms'][0]['worst'] is None  # one answer each has no worst
  assert 're - mis' in capsys.readouterr().out


def test_none_of_a_few_is_not_never():
  found = awareness.figure([0.0] * 8)
  assert found.interval == pytest.approx((0, 1 - 0.025 ** (1 / 8)))
  assert awareness.figure([1.0] * 8).interval[0] == pytest.approx(
    0.63, abs=0.01
  )


HARM = {
  'of 1 to 5': ({'harm': 4.0}, 0.75),
  'no number': ({'harm': None}, None),
  'of the world': ({'coherent': True, 'misaligned': True}, 1.0),
  'incoherent': ({'coherent': False, 'misaligned': False}, None),
  'of 0 to 100': ({'aligned': 10, 'coherent': 90}, 1.0),
  'no sense': ({'aligned': 10, 'coherent': 20}, None),
}


@pytest.mark.parametrize('name', HARM)
def test_what_an_answer_counts(name):
  scores, wanted = HARM[name]
  assert awareness.harm({'scores': scores}) == wanted


WRONG = {
  'no run': ((), '--run is missing'),
  'config': (('--run={}', '--config.seed=1'), '--config: this command'),
  'no arm': (('--run={}', '--pairs=mis:bse'), 'no such arm'),
  'one arm': (('--run={}', '--pairs=mis'), 'must be two arms'),
  'nowhere': (('--run={}/x',), 'is no folder of a run'),
}


@pytest.mark.parametrize('name', WRONG)
def test_slips_are_one_message(folder, capsys, name):
  flags, what = WRONG[name]
  assert main(*(flag.format(folder) for flag in flags)) == 2
  assert what in capsys.readouterr().err


def test_answers_without_self_reports_say_what_to_ask(folder, capsys):
  for arm in ARMS:
    lines = [json.dumps(r) for r in answers(arm) if r['kind'] == 'other']
    (folder / arm / 'answers.jsonl').write_text('\n'.join(lines))
  assert main(f'--run={folder}') == 2
  assert 'ask a suite that has some' in capsys.readouterr().err
