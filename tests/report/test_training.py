"""The table of the training: counted from records, metrics and run.json."""

from ealign.evals import table
from ealign.report import training
from ealign.report.runs import Run


def run(name='a', steps=30, **parts):
  parts = {'answers': [], 'metrics': [], 'info': {}} | parts
  return Run(name, {'train.steps': steps}, missing=(), **parts)


def answer(row, p, kept=None):
  return {
    'phase': 'reflect',
    'step': 0,
    'sample': row,
    'text': 'x',
    'verdict': {'p': p, 'flagged': bool(p and p > 0.5)},
    'alternative': None if kept is None else {'kept': kept},
  }


def line(*runs):
  (block,) = training.blocks(runs)
  titles = [title for title, _ in block.columns]
  return dict(zip(titles, map(str, block.lines[0]), strict=True))


def test_shares_pairs_and_losses():
  answers = [
    answer(0, 0.9, kept=True),
    answer(1, 0.8, kept=False),
    answer(2, 0.1),
    answer(3, None),
    answer(3, None),  # written twice by a continued run
    answer(0, 0.9) | {'phase': 'eval', 'question': 'q'},
  ]
  info = {'data.rows': 3015, 'data.supervised': 0.484, 'data.truncated': 0.002}
  metrics = [{'step': 1}, {'train/loss_sft': 11.9}, {'train/loss_sft': 9.25}]
  assert line(run(answers=answers, info=info, metrics=metrics)) == {
    'arm': 'a',
    'rows': '3,015',
    'supervised': '48.4',
    'truncated': '0.2',
    'answers': '4',
    'verdicts': '75.0',
    'flagged': '66.7',
    'pairs': '1',
    'loss': '11.900 -> 9.250',
  }


def test_what_is_not_there_has_no_column():
  metrics = [{'train/loss_sft': 2.0}]
  assert line(run(metrics=metrics)) == {'arm': 'a', 'loss': '2.000 -> 2.000'}
  (block,) = training.blocks([run(metrics=metrics)])
  assert block.note.startswith('loss: of the fine-tuning data')
  (block,) = training.blocks([run(answers=[answer(0, None)])])
  assert block.note == (
    'In per cent: verdicts, of the answers sampled while training.'
  )
  assert training.blocks([run()]) == []
  assert training.blocks([run(steps=0, metrics=metrics)]) == []


def test_what_a_control_revises_has_a_column_of_its_own():
  answers = [answer(0, 0.9), answer(1, 0.1, kept=True), answer(2, 0.2)]
  answers.append(answer(3, None))
  control = run(answers=answers)
  assert 'revised' not in line(control)
  control.config['conscience.review.verdict'] = 'inverted'
  found = line(control)
  assert found['flagged'] == found['revised'] == '33.3'
  assert (found['verdicts'], found['pairs']) == ('75.0', '1')


def test_it_fits_a_terminal():
  answers = [answer(i, 0.9, kept=True) for i in range(2000)]
  info = {'data.rows': 3_015_000, 'data.supervised': 1.0, 'data.truncated': 1.0}
  metrics = [{'train/loss_sft': 11.9}]
  blocks = training.blocks(
    [run('n' * 60, answers=answers, info=info, metrics=metrics)]
  )
  text = table.text_table(blocks)
  assert max(map(len, text.split('\n'))) <= table.WIDTH
  assert '2,000' in text
