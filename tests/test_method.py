"""Methods: another objective and rows in the place of pairs, in the loop."""

import dataclasses
import json

import blocks
import pytest
import runs

from ealign import train
from ealign.methods import METHODS
from ealign.runtime.errors import UserError

FEW = {'train.steps': 2, 'eval.questions': ()}


# The example of the docs: the policy's own answers are rows, without a verdict.
PAGE = blocks.ROOT / 'docs' / 'methods.md'
(EXAMPLE,) = (b for b in blocks.blocks(PAGE) if b.kind == 'python')
NAMES = {}
exec(compile(EXAMPLE.text, str(PAGE), 'exec'), NAMES)
ROWS, imitate = NAMES['IMITATE'], NAMES['reflect']


def test_the_paper_is_the_first_and_the_default(tmp_path):
  name, first = next(iter(METHODS.items()))
  assert name == first.name == runs.small().method
  assert all(name == method.name for name, method in METHODS.items())


def test_a_method_may_make_rows(tmp_path):
  config = dataclasses.replace(runs.small(**FEW), method='imitate')
  result = train.run(config, tmp_path / 'rows', method=ROWS)
  first, second = runs.metrics(tmp_path / 'rows')[:2]
  assert first['conscience/answers'] == 4 and first['replay/size'] == 4
  assert (
    first['conscience/pairs_in_step'] == 0 and 'train/loss_dpo' not in first
  )
  still = dataclasses.replace(config.conscience, every=0)
  plain = dataclasses.replace(config, conscience=still)
  train.run(plain, tmp_path / 'plain', method=ROWS)
  without = runs.metrics(tmp_path / 'plain')[0]
  assert first['train/num_tokens'] > without['train/num_tokens']
  assert first['train/loss'] == first['train/loss_sft'] != without['train/loss']
  assert second['train/loss'] > 0 and result.metrics['num_tokens'] > 0


def counting(c, requests, *, memory, **how):
  """As `imitate`; it remembers the steps at which it was asked."""
  seen = {'steps': (*memory['steps'], how['step'])}
  return *imitate(c, requests, **how), seen


COUNTS = dataclasses.replace(
  ROWS,
  reflect=counting,
  metrics=lambda c, made, memory: {'conscience/asked': len(memory['steps'])},
  memory=lambda config: {'steps': [config.seed]},
)


def test_what_a_method_remembers_is_saved_and_continued(tmp_path):
  config = dataclasses.replace(runs.small(**FEW), method='imitate')
  train.run(config, tmp_path, method=COUNTS)
  path = tmp_path / 'imitate.json'
  assert json.loads(path.read_text()) == {'steps': [0, 0]}
  path.unlink()  # it is for readers: the checkpoint has it
  longer = dataclasses.replace(config.train, steps=3)
  longer = dataclasses.replace(config, train=longer)
  train.run(longer, tmp_path, method=COUNTS)
  assert json.loads(path.read_text()) == {'steps': [0, 0, 2]}
  assert [m.get('conscience/asked') for m in runs.metrics(tmp_path)] == [
    *(2, None, 3)
  ]


def test_a_method_that_is_not_given_is_refused(tmp_path):
  config = dataclasses.replace(runs.small(**FEW), method='imitate')
  with pytest.raises(UserError, match="METHODS\\['imitate'\\]"):
    train.run(config, tmp_path)
