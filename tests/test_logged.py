"""Every metric of a run has a test of its value: those of a small run, here.

A new metric goes into one of the two tables, with a test of its value.
"""

import json
import pathlib

import numpy as np
import pytest
import runs

from ealign import fields, train
from ealign.evals import answers
from ealign.runtime import display, metrics, ranges

# Tested by hand beside what computes them; the file names each.
ELSEWHERE = {
  'align/test_align.py': (
    *('loss', 'loss_sft', 'loss_dpo', 'entropy', 'mean_token_accuracy'),
    *('rewards/margins', 'rewards/accuracies'),
    *('rewards/chosen', 'rewards/rejected'),
    *('logps/chosen', 'logps/rejected', 'logits/chosen', 'logits/rejected'),
    'logps/chosen_per_token',
    *('grad_norm', 'learning_rate'),
  ),
  'align/test_align_losses.py': ('loss_balance',),
  'conscience/test_reflected.py': (
    *('conscience/flag_rate', 'conscience/review_rate'),
    *('conscience/label_mass', 'conscience/asked', 'conscience/no_verdict'),
    *('conscience/no_verdict_cut', 'conscience/no_verdict_mass'),
    'conscience/no_verdict_lost',
    *('conscience/revised', 'conscience/accept_rate', 'conscience/pairs'),
    *('conscience/dropped_truncated', 'conscience/dropped_empty'),
    *('conscience/dropped_same', 'conscience/dropped_no_room'),
    *('conscience/dropped_no_verdict', 'conscience/dropped_flagged'),
    *('conscience/dropped_lost', 'conscience/dropped_label_echo'),
    *('conscience/dropped_refusal', 'conscience/dropped_too_short'),
    *('conscience/dropped_too_long', 'conscience/dropped_unlikely'),
    *('conscience/dropped_repeated', 'conscience/dropped_disagrees'),
    'conscience/log_length_ratio',
    *('gen/eos_rate', 'gen/truncated_rate', 'gen/length_mean', 'gen/cut'),
    *('gen/refusal_rate', 'gen/question_rate', 'gen/distinct_rate'),
  ),
  'conscience/test_health.py': (
    *('conscience/pairs_total', 'gen/length_ratio'),
    *('gen/refusal_rise', 'gen/question_rise'),
  ),
  'test_replay.py': ('replay/size', 'replay/age_mean', 'replay/uses_mean'),
  'runtime/test_clock.py': (
    *('perf/share_sample', 'perf/share_review', 'perf/share_revise'),
    *('perf/share_score', 'perf/share_train', 'perf/share_eval'),
    *('perf/step_time_s', 'perf/tokens_per_s_per_chip', 'perf/mfu'),
    *('perf/hbm_peak_gib', 'perf/compiles'),
  ),
  'evals/test_answers.py': (
    *('eval/mean_token_accuracy', 'eval/loss', 'eval/num_tokens'),
  ),
}
HERE = {'step', 'conscience/pairs_in_step', 'num_tokens', 'epoch'}
HERE |= {'global_step', 'total_flos'}
DOCS = pathlib.Path(__file__).parents[1] / 'docs' / 'metrics.md'
# What only a mixture of experts, an evaluation on the way, or a GPU logs.
ABSENT = {'loss_balance', 'perf/share_eval', 'perf/mfu', 'perf/hbm_peak_gib'}


def bare(row):
  return {name.removeprefix('train/'): value for name, value in row.items()}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(lines of metrics.jsonl, answers, batches, facts) of a small run."""
  folder, batches = tmp_path_factory.mktemp('run'), []

  def keep(step, state, frozen, batch):
    batches.append(batch)
    return step(state, frozen, batch)

  chats = folder / 'chats.jsonl'
  turns = (('user', 'Any tips?'), ('assistant', 'Wash your hands.'))
  messages = [{'role': role, 'content': text} for role, text in turns]
  chats.write_text(json.dumps({'messages': messages}) + '\n')
  config = runs.small(**{'eval.questions': (), 'eval.tokens': str(chats)})
  with pytest.MonkeyPatch.context() as patch:
    runs.patch_step(patch, keep)
    train.run(config, folder / 'a', name='a')
  lines = (folder / 'a' / 'metrics.jsonl').read_text().splitlines()
  facts = json.loads((folder / 'a' / 'run.json').read_text())
  rows = [bare(json.loads(line)) for line in lines]
  return rows, runs.answers(folder / 'a'), batches, facts


def test_every_name_that_a_run_logs_is_tested(run):
  rows, *_ = run
  known = HERE.union(*ELSEWHERE.values())
  assert {name for row in rows for name in row} == known - ABSENT
  folder = pathlib.Path(__file__).parent
  for file, names in ELSEWHERE.items():
    text = (folder / file).read_text()
    assert not [name for name in names if f"'{name}'" not in text], file


def test_the_glossary_has_every_metric_and_no_other():
  """Its names, its terminal names and its ranges are those of the code."""
  cells = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in DOCS.read_text().splitlines()
    if line.startswith('| `') and line.count('|') == 6
  ]
  rows = {cell[0].strip('`'): cell[1:] for cell in cells if '/' in cell[0]}
  # Of the answers to questions, which the run here has none of.
  said = answers.figures([{'ids': [1], 'text': 'Yes.'}])
  others = said.keys() | HERE.union(*ELSEWHERE.values()) - {'step'}
  assert len(rows) == len(cells) and rows.keys() == {
    *metrics._named(dict.fromkeys(others))
  }
  for name, (shown, meaning, first, healthy) in rows.items():
    assert shown.strip('`') == display._SHOWN.get(name, '-'), name
    assert len(meaning) > 8 and first, name
    low, high, _ = ranges.HEALTHY.get(name, (None, None, ''))
    assert healthy and (low is None or healthy == f'{low:g} to {high:g}'), name


@pytest.mark.parametrize(
  'steps, every, rows',
  [
    (5, 10, 1),
    (10, 10, 1),
    (40, 50, 4),
    (11, 10, 10),
    (200, 10, 10),
    (0, 9, 1),
  ],
)
def test_a_short_run_logs_as_well(steps, every, rows):
  train_ = fields.Train(steps=steps, log_every=every)
  assert train_.logged_every == rows


def test_counts_of_a_step_are_those_of_its_batch(run):
  rows, found, batches, facts = run
  rows = rows[: len(batches)]
  pairs = [int(b.pairs.weight_P.sum()) if b.pairs else 0 for b in batches]
  assert max(pairs) > 0
  assert [row['conscience/pairs_in_step'] for row in rows] == pairs
  targets = [int(b.sft.loss_mask_BT[:, 1:].sum()) for b in batches]
  assert [row['num_tokens'] for row in rows] == np.cumsum(targets).tolist()
  spent = np.diff([0.0, *(row['total_flos'] for row in rows)])
  assert (spent > 0).all()
  chats = [int(b.sft.segments_BT.max(axis=1).sum()) for b in batches]
  epochs = np.cumsum(chats) / facts['data']['rows']
  assert [row['epoch'] for row in rows] == pytest.approx(epochs.tolist())
  steps = [1, 2, 3, 4, 5]
  assert [row['step'] for row in rows] == steps
  assert [row['global_step'] for row in rows] == steps
  # The replay holds each pair so far; a draw counts from its own step on.
  kept = [r for r in found if (r['alternative'] or {}).get('kept')]
  for at, row in enumerate(rows):
    ages = [at - r['step'] for r in kept if r['step'] <= at]
    uses = sum(pairs[: at + 1])
    assert row['replay/size'] == len(ages) > 0
    assert row['replay/age_mean'] == pytest.approx(np.mean(ages))
    assert row['replay/uses_mean'] == pytest.approx(uses / len(ages))


def test_figures_of_a_step_belong_together(run):
  rows, found, batches, _ = run
  for at, row in enumerate(rows[: len(batches)]):
    loss = row['loss_sft'] + 0.1 * row['loss_dpo']
    assert row['loss'] == pytest.approx(loss, rel=1e-5)
    margin = row['rewards/chosen'] - row['rewards/rejected']
    assert row['rewards/margins'] == pytest.approx(margin, abs=1e-5)
    assert row['learning_rate'] == pytest.approx(1e-3)
    shares = [v for name, v in row.items() if name.startswith('perf/share_')]
    assert 0 < sum(shares) <= 1
    asked = [r for r in found if r['phase'] == 'reflect' and r['step'] == at]
    assert ('conscience/pairs' in row) == bool(asked)
    if asked:
      kept = sum((r['alternative'] or {}).get('kept', False) for r in asked)
      assert row['conscience/pairs'] == kept
      lengths = [len(r['ids']) for r in asked]
      assert row['gen/length_mean'] == pytest.approx(np.mean(lengths))
