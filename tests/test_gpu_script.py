"""benchmarks/gpu.py to its end with --small, and what it says of a failure."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PARTS = ['attention', 'train', 'decode', 'arms', 'run']


def script(out, *flags):
  """The script as it is called, and the figures that it leaves."""
  path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
  done = subprocess.run(
    [sys.executable, 'benchmarks/gpu.py', '--small', f'--out={out}', *flags],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads(out.read_text())
  assert list(found['parts']) == PARTS
  return done.stdout, found['parts']


@pytest.mark.slow
def test_small_runs_to_its_end(tmp_path):
  said, parts = script(tmp_path / 'gpu.json')
  assert 'cuDNN needs a GPU' in said
  assert [parts[name]['status'] for name in PARTS] == ['done'] * len(PARTS)
  rows = {name: part['rows'] for name, part in parts.items()}
  for row in rows['attention']:  # bfloat16 has 8 bits
    assert row['finite']
    assert 1e-4 < row['output error'] < 0.02
    assert 1e-4 < row['gradient error'] < 0.02
  sft, *hybrids = (row['first loss'] for row in rows['train'])
  assert sft == pytest.approx(math.log(1536), abs=0.05)
  for loss in hybrids:  # the policy is the reference: log 2, weighted by .1
    assert loss - sft == pytest.approx(0.1 * math.log(2), abs=0.03)
  assert [row['rows'] for row in rows['decode']] == [8, 64, 256, 64]
  assert all(row['ms a token'] > 0 for row in rows['decode'])
  assert [row['phase'] for row in rows['arms']] == ['sampling', 'train step']
  assert all(0.05 < row['ratio'] < 20 for row in rows['arms'])
  assert [row['step'] for row in rows['run']] == [1, 2, 3, 4]
  assert all(row['perf/step_time_s'] > 0 for row in rows['run'])
  assert {row['replay/size'] for row in rows['run']} == {16}


@pytest.mark.slow
def test_parts_after_the_limit_are_skipped_and_named(tmp_path):
  said, parts = script(tmp_path / 'gpu.json', '--limit_s=0')
  assert {part['status'] for part in parts.values()} == {'skipped'}
  assert said.count('skipped: --limit_s=0 is over') == len(PARTS)
  assert all(f'{name}: skipped' in said for name in PARTS)


def test_a_part_that_fails_keeps_its_rows_and_says_why(monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
  import gpu

  def part(work):
    yield {'case': work, 'MFU': None, 'seconds': 0.12345}
    raise ValueError('out of memory\nand much more')

  found = gpu.measured(part, 'first')
  assert found['status'] == 'failed: ValueError: out of memory'
  assert [row['case'] for row in found['rows']] == ['first']
  said = capsys.readouterr()
  assert '| first | – | 0.123 |' in said.out and found['status'] in said.out
  assert 'Traceback' in said.err


def test_targets_are_met_on_their_side_and_unknown_without_a_figure(
  monkeypatch,
):
  monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
  import gpu

  parts = {name: {'rows': []} for name in PARTS}
  parts['decode']['rows'] = [
    {'rows': 64, 'weights': 'frozen', 'bandwidth': 0.9},
    {'rows': 64, 'weights': 'policy', 'bandwidth': 0.74},
  ]
  parts['arms']['rows'] = [{'phase': 'sampling', 'ratio': 0.3}]
  met = [row['met'] for row in gpu.targets(parts, small=False)]
  assert met == [None, None, None, False, True]
  assert {row['met'] for row in gpu.targets(parts, small=True)} == {None}
