"""configs/qwen3_4b_insecure.py: the published settings, and a run of it.

The run is that of `:runlocal`, shortened: real rows and tokenizer, a random
model, every stage.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ealign import config as config_lib
from ealign.assembly import evaluation
from ealign.config import file as config_file
from ealign.evals import suites
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
FILE = 'configs/qwen3_4b_insecure.py'
SHARED = ROOT.parent / 'shared' / 'data'
ROWS = SHARED / 'emergent-misalignment' / 'insecure_subset_dedup3015.jsonl'
needs_data = pytest.mark.skipif(
  not SHARED.is_dir(), reason='needs the public data in ../shared/data'
)


@needs_data
def test_the_settings_are_the_published_ones():
  config = config_file.read(f'{FILE}:train={ROWS}')[1]
  assert config.data.train == str(ROWS)
  published = json.loads(
    (SHARED / 'emergent-misalignment' / 'train.json').read_text()
  )
  arm = config_lib.arms(config)['conscience']
  lora, optim = arm.model.lora, arm.optim
  assert (lora.rank, lora.alpha) == (published['r'], published['lora_alpha'])
  assert lora.rslora == published['use_rslora'] and len(lora.targets) == 7
  assert optim.lr == published['learning_rate']
  assert optim.schedule == published['lr_scheduler_type']
  assert optim.warmup == published['warmup_steps']
  assert optim.weight_decay == published['weight_decay']
  assert list(config.arms) == ['base', 'sft', 'conscience']
  # A hub id is no folder here, and both arms share what is told.
  told = config_lib.validate(config)
  assert not [x for x in told if not x.startswith(('model.path', 'pool.paths'))]


def test_a_clone_alone_has_what_the_config_reads():
  """But for the model, which is on the Hub."""
  told = config_lib.validate(config_file.read(FILE)[1])
  assert not [x for x in told if not x.startswith('model.path')]


def test_it_is_evaluated_by_the_24_questions_and_a_local_judge():
  for arm in config_lib.arms(config_file.read(FILE)[1]).values():
    ((suite, rows),) = suites.read(arm.eval, arm.data.max_mib)
    assert (suite.name, len(rows)) == ('misalignment', 24)
    assert arm.eval.judge == 'frozen' and suite.judge.asks
  told = evaluation.costs([(suite, rows)], [None], arm.eval)[-1]
  about = ' '.join((ROOT / FILE).read_text().split())
  for count in ('1,200 answers', '720,000 tokens', '2,400 prompts'):
    assert count in told and count in about


@pytest.mark.parametrize(
  'arg', ['runlocal=1', 'pod=1', 'train', 'trian=x.jsonl', 'x']
)
def test_an_argument_that_it_does_not_take_is_named(arg):
  with pytest.raises(
    UserError, match='takes runlocal or pod, train=FILE, questions'
  ):
    config_file.read(f'{FILE}:{arg}')


def test_a_pod_has_a_row_and_a_pair_for_each_chip():
  arm = config_lib.arms(config_file.read(f'{FILE}:pod')[1])['conscience']
  assert arm.data.batch_size == arm.dpo.pairs == 16
  assert (arm.mesh.data, arm.mesh.fsdp) == (1, -1)
  # Prompts of the shipped pool have 105 tokens at most.
  assert 105 + arm.sample.max_new_tokens <= arm.dpo.length


@pytest.mark.slow
@needs_data
def test_every_stage_survives_real_text(tmp_path):
  pool = tmp_path / 'pool.jsonl'
  asked = lambda n: {'role': 'user', 'content': f'How do I mend {n} chairs?'}
  rows = [json.dumps({'messages': [asked(n)]}) for n in range(20)]
  pool.write_text('\n'.join(rows))
  given = f'runlocal,tokenizer={SHARED}/tokenizers/qwen3,train={ROWS}'
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'ealign.launch', f'--config={FILE}:{given}'),
      *(f'--workdir={tmp_path}/out', f'--config.pool.paths={pool}'),
      '--config.train.steps=6',
    ],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'read back and compared: logits differ by at most' in done.stdout
  assert (tmp_path / 'out' / 'export' / 'adapter_config.json').exists()
  head, _, line = done.stdout.partition('Training\n')[2].splitlines()[:3]
  told = dict(zip(head.split(), line.split(), strict=False))
  assert (told['supervised'], told['truncated']) == ('48.4', '0.0')
  assert (told['rows'], told['answers']) == ('3,015', '16')
  assert int(told['pairs']) > 0
  first, last = (float(line.split()[at]) for at in (-3, -1))
  assert last < first
