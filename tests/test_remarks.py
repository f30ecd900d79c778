"""A run without pairs says so everywhere; a collapsed one says so, or ends."""

import dataclasses
import json
import signal

import pytest
import runs

from ealign import train
from ealign.evals import table
from ealign.method import Method
from ealign.report import page
from ealign.report import runs as runs_lib
from ealign.runtime.errors import Collapsed, Preempted

FEW = {'eval.questions': (), 'conscience.prompts': 8}


def test_plain_sft_is_not_called_a_conscience(tmp_path, capsys):
  changes = {'conscience.threshold': 0.99999, 'sample.max_new_tokens': 12}
  changes |= {'conscience.review.verdict': 'question', 'train.steps': 3}
  config = runs.small(**changes, **FEW)
  train.run(config, tmp_path / 'a', name='a')
  said = capsys.readouterr().out.splitlines()
  (first,) = [x for x in said if 'conscience so far' in x]
  assert first.startswith('a  conscience so far: 8 answers, ')
  cut = sum(r['stop'] == 'length' for r in runs.answers(tmp_path / 'a'))
  assert 8 < cut <= 16
  assert said[-2].startswith(
    f'a  conscience: 16 answers, {16 - cut} judged ({cut} cut at '
    'sample.max_new_tokens=12); 0 flagged, 0 revised, 0 pairs'
  )
  assert said[-1].startswith('a  this was plain SFT: no pair was ever made; ')
  assert 'raise sample.max_new_tokens' in said[-1]
  logged = [x for x in runs.metrics(tmp_path / 'a') if 'gen/cut' in x]
  assert sum(x['conscience/no_verdict'] for x in logged) == cut
  assert sum(x['conscience/no_verdict_cut'] for x in logged) == cut
  (tmp_path / 'a' / 'config.json').write_text(
    json.dumps(dataclasses.asdict(config))
  )
  content = page.collect(runs_lib.read(tmp_path))
  text = table.text_table(content['blocks'])
  share = f'{100 * (16 - cut) / 16:.1f}'
  assert f'      16{share:>10}' in text
  assert any('this was plain SFT' in problem for problem in content['problems'])
  assert 'which made no pair' in content['arms'][0][2]
  assert content['work'][0][1].startswith(
    f'2 reflections: 16 answers, {16 - cut}'
  )


def shrinking(c, requests, *, step, **_):
  """Records of answers that from step 2 on are a word."""
  texts = [
    f'So it is, or not {i}.' if step < 2 else 'Ethical' for i in range(8)
  ]
  record = {'stop': 'stop', 'verdict': None, 'alternative': None}
  record |= {'messages': requests[0], 'kind': 'x'}
  ids = lambda text: [1] * len(text.split())
  return [], [record | {'text': t, 'ids': ids(t)} for t in texts]


METHOD = Method('conscience', shrinking, metrics=lambda c, made: {})


def collapsing(folder, **changes):
  config = runs.small(**changes, **FEW)
  return train.run(config, folder, method=METHOD, name='a')


def test_a_collapse_is_said_once_or_ends_the_run(tmp_path, capsys):
  collapsing(tmp_path / 'warn')
  said = capsys.readouterr().out
  assert said.count('the answers have collapsed: answers are 1.0 tokens') == 1
  assert said.count('gen/length_ratio 0.167! healthy') == 1
  with pytest.raises(Collapsed, match='step 3 and saved: .* 1.0 tokens') as e:
    collapsing(tmp_path / 'stop', **{'train.on_collapse': 'stop'})
  assert e.value.exit_code == 1 and "train.on_collapse='warn'" in str(e.value)
  assert (tmp_path / 'stop' / 'checkpoints' / '3').exists()
  # It stays stopped, and writes nothing more.
  before = runs.answers(tmp_path / 'stop')
  with pytest.raises(Collapsed, match='step 3'):
    collapsing(tmp_path / 'stop', **{'train.on_collapse': 'stop'})
  assert runs.answers(tmp_path / 'stop') == before


def test_a_continued_run_knows_how_it_began(tmp_path, monkeypatch):
  changes = {'train.on_collapse': 'stop', 'train.checkpoint_every': 1}

  def stopped(fn, state, *batch):
    if int(state.step) == 1:
      signal.raise_signal(signal.SIGTERM)
    return fn(state, *batch)

  runs.patch_step(monkeypatch, stopped)
  with pytest.raises(Preempted, match='step 2'):
    collapsing(tmp_path, **changes)
  monkeypatch.undo()
  with pytest.raises(Collapsed, match='step 3 .* 6.0 at first'):
    collapsing(tmp_path, **changes)
