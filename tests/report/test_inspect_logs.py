"""Logs of Inspect: their structure, and what its own client reads in them."""

import dataclasses
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile

import pytest

from ealign.evals.judges.measure import Measure
from ealign.report import foreign, inspect_logs
from tests.report import outward


def write(folder, records=None, name='cell a', judge=outward.JUDGE, **how):
  records = outward.answers() if records is None else records
  paths = inspect_logs.write(folder, name, records, judge, **outward.HOW | how)
  assert len(paths) == 1
  return paths[0]


def members(path):
  """name -> what it holds; strict JSON, each name once."""
  with zipfile.ZipFile(path) as archive:
    assert not archive.testzip()
    dates = {info.date_time for info in archive.infolist()}
    assert {date[:2] for date in dates} == {(2026, 3)}  # not that of today
    kinds = {info.compress_type for info in archive.infolist()}
    assert kinds == {zipfile.ZIP_DEFLATED}
    names = archive.namelist()
    assert len(set(names)) == len(names)
    return {name: strict(archive.read(name)) for name in names}


def strict(data):
  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  value = json.loads(data, parse_constant=refuse)
  json.dumps(value, ensure_ascii=False).encode()  # no half character
  return value


def test_log_holds_spec_results_and_samples(tmp_path):
  path = write(tmp_path)
  start, end = '2026-03-04T05-06-07-00-00_misalignment_', '.eval'
  assert path.name.startswith(start) and path.name.endswith(end)
  found = members(path)
  assert set(found) == {
    'header.json',
    'summaries.json',
    '_journal/start.json',
    *(f'samples/{q}_epoch_{n}.json' for q in ('q/1', 'q2') for n in (1, 2)),
  }
  header = found['header.json']
  spec = header['eval']
  assert (header['version'], header['status']) == (2, 'success')
  assert spec['task'] == spec['dataset']['name'] == 'misalignment'
  assert spec['dataset']['sample_ids'] == ['q/1', 'q2']
  assert (spec['model'], spec['config']) == ('cell a', {'epochs': 2})
  assert spec['model_args'] == outward.MODEL
  assert spec['model_generate_config'] == {
    'temperature': 1.0,
    'max_tokens': 600,
    'seed': 3,
  }
  assert spec['metadata'] == {'judge': 'scripted', 'settings': outward.SETTINGS}
  assert spec['created'] == '2026-03-04T05:06:07+00:00'
  assert header['results']['total_samples'] == 4
  sample = found['samples/q/1_epoch_1.json']
  assert (sample['id'], sample['epoch']) == ('q/1', 1)
  assert [m['role'] for m in sample['messages']] == [
    *('system', 'user', 'assistant'),
  ]
  assert sample['input'] == sample['messages'][:2]
  choice = sample['output']['choices'][0]
  assert choice['message']['content'] == 'Answer 0 to q/1.'
  assert choice['stop_reason'] == 'max_tokens'
  values = {name: score['value'] for name, score in sample['scores'].items()}
  assert values == {'aligned': 10.0, 'coherent': 90.0, 'code': 0.0}
  assert sample['scores']['aligned']['explanation'] == 'misaligned'
  assert sample['metadata']['scores'] == {'p': {'a': 0.5}}
  usage = {'input_tokens': 0, 'output_tokens': 3, 'total_tokens': 3}
  assert sample['output']['usage'] == usage
  assert sample['model_usage'] == {'cell a': usage}
  whole = header['stats']['model_usage']['cell a']
  assert whole['output_tokens'] == 12
  assert 'unscored' not in sample['metadata']
  last = found['samples/q2_epoch_2.json']
  assert last['scores'] == {} and last['metadata']['unscored']
  assert last['output']['choices'][0]['stop_reason'] == 'stop'
  assert [(s['id'], s['epoch']) for s in found['summaries.json']] == [
    *(('q/1', 1), ('q/1', 2), ('q2', 1), ('q2', 2)),
  ]


def test_measures_stand_with_value_error_and_interval(tmp_path):
  header = members(write(tmp_path))['header.json']
  first, second = header['results']['scores'][:2]
  # The primary one first; the suite's name is not repeated as a kind.
  assert first['name'] == 'misaligned.main' and second['name'] == 'score.main'
  assert (first['scored_samples'], first['unscored_samples']) == (3, 1)
  values = {k: m['value'] for k, m in first['metrics'].items()}
  assert values['mean'] == pytest.approx(2 / 3)
  assert 0 < values['low'] < 2 / 3 < values['high'] < 1
  width = values['high'] - values['low']
  assert values['stderr'] == pytest.approx(width / 3.919928, rel=1e-6)
  # The mean of the means of two questions, 15 and 90: t(1) is 12.7062, and
  # the standard error 37.5; it is cut off at 0.
  values = {k: m['value'] for k, m in second['metrics'].items()}
  assert values['mean'] == pytest.approx(52.5)
  assert values['high'] == pytest.approx(52.5 + 12.7062 * 37.5, abs=1e-2)
  assert values['low'] == 0
  assert values['stderr'] == pytest.approx(12.7062 * 37.5 / 1.959964, abs=1e-2)


def test_mean_of_one_prompt_has_no_error(tmp_path):
  header = members(write(tmp_path, outward.answers()[:2]))['header.json']
  score = header['results']['scores'][1]
  assert set(score['metrics']) == {'mean'}
  assert score['metrics']['mean']['value'] == 15


def test_kind_that_is_not_the_suite_is_named(tmp_path):
  judge = dataclasses.replace(
    outward.JUDGE, measures=(Measure('right', kind='sums'),), primary=''
  )
  records = [
    outward.record('1', 0, 1.0, kind='sums', split='', scores={'right': True})
  ]
  header = members(write(tmp_path, records, judge=judge))['header.json']
  assert header['results']['scores'][0]['name'] == 'right.sums'


def test_same_evaluation_is_the_same_file(tmp_path):
  path = write(tmp_path)
  content = path.read_bytes()
  assert write(tmp_path) == path and path.read_bytes() == content
  later = outward.CREATED + datetime.timedelta(days=1)
  newer = write(tmp_path, created=later)
  assert [*tmp_path.iterdir()] == [newer] != [path]
  others = [
    write(tmp_path, name='cell b'),
    write(tmp_path, settings=outward.SETTINGS | {'limit': 4}),
    write(tmp_path, judge=dataclasses.replace(outward.JUDGE, name='x')),
    write(tmp_path, suite='self_report'),
  ]
  assert {*tmp_path.iterdir()} == {newer, *others}
  assert '_self-report_' in others[-1].name  # '_' parts the file's name


def test_time_is_that_of_utc(tmp_path):
  there = datetime.timezone(datetime.timedelta(hours=-9))
  path = write(tmp_path)
  assert write(tmp_path, created=outward.CREATED.astimezone(there)) == path


def test_final_answers_of_one_run_are_written_once(tmp_path):
  more = [
    outward.record('q2', 0, 1.0, step=10),
    outward.record('q9', 0, 1.0, phase='curve'),
    *outward.answers(),
    outward.record('q2', 0, 33.0),
  ]
  found = members(write(tmp_path, more))
  assert len(found) == 7
  sample = found['samples/q2_epoch_1.json']
  assert sample['scores']['aligned']['value'] == 33
  other = outward.record('q2', 0, 1.0, seed=2)
  with pytest.raises(ValueError, match='answers of 2 runs'):
    write(tmp_path, [*more, other])
  of = tmp_path / 'none', 'a', [], outward.JUDGE
  assert inspect_logs.write(*of, **outward.HOW) == []
  assert not of[0].exists()


def test_hostile_records_make_a_sound_archive(tmp_path):
  path = write(tmp_path / 'logs', outward.hostile(), name=outward.TEXT)
  found = members(path)
  samples = {n: s for n, s in found.items() if n.startswith('samples/')}
  assert len(samples) == len(outward.IDS) + 2
  for name, sample in samples.items():
    assert name == f'samples/{sample["id"]}_epoch_{sample["epoch"]}.json'
    assert name.isascii() and name.isprintable() and len(name) < 150
    assert not set(name) & set('\\:*?"<>|%')
    parts = name.split('/')
    assert not any(part.startswith('.') or not part for part in parts)
    assert set(sample['scores']) == {foreign.plain(outward.TEXT)}
    assert (
      'logp' not in sample['metadata'] or sample['metadata']['logp'] is None
    )
  questions = {s['metadata']['question'] for s in samples.values()}
  assert questions == {foreign.plain(id) for id in outward.IDS}
  plain = {'a b', 'a_epoch_1', 'a_epoch_1.json', '7', 'True'}
  assert plain <= {sample['id'] for sample in samples.values()}
  text = '</script><script>x</script>\0\ufffd \ufffd\U0001f600\u2028\r\n'
  reply = samples['samples/7_epoch_1.json']['messages'][-1]['content']
  assert reply == text + '"\'=1+1,;\x1b[2J'
  roles = [m['role'] for m in samples['samples/7_epoch_1.json']['messages']]
  assert roles == ['user', 'user', 'assistant']
  assert len(json.dumps(found['summaries.json'])) < 300_000
  with zipfile.ZipFile(path) as archive:
    archive.extractall(tmp_path / 'out')
  inside = [p for p in tmp_path.rglob('*.json')]
  assert len(inside) == len(found)


def test_two_answers_of_one_number_are_refused(tmp_path):
  twice = [outward.record('q', 0, 1.0), outward.record('q', '0', 1.0)]
  with pytest.raises(ValueError, match='q_epoch_1.json: of two answers'):
    write(tmp_path, twice)
  assert not [*tmp_path.iterdir()]


def client():
  reason = 'inspect_ai is not installed: extra inspect'
  return pytest.importorskip('inspect_ai.log', reason=reason)


@pytest.mark.filterwarnings('ignore')  # those of another program
def test_client_reads_what_was_written(tmp_path):
  log = client()
  write(tmp_path)
  (info,) = log.list_eval_logs(str(tmp_path))
  assert info.task == 'misalignment'
  read = log.read_eval_log(info)
  assert (read.status, read.eval.task_id) == ('success', info.task_id)
  assert read.eval.model == 'cell a' and read.eval.config.epochs == 2
  score = read.results.scores[0]
  assert score.name == 'misaligned.main'
  assert score.metrics['mean'].value == pytest.approx(2 / 3)
  assert {(s.id, s.epoch) for s in read.samples} == {
    *(('q/1', 1), ('q/1', 2), ('q2', 1), ('q2', 2)),
  }
  sample = log.read_eval_log_sample(info, id='q/1', epoch=2)
  assert sample.output.completion == 'Answer 1 to q/1.'
  assert sample.output.stop_reason == 'stop'
  assert sample.scores['aligned'].as_float() == 20
  summaries = log.read_eval_log_sample_summaries(info)
  assert len(summaries) == 4 and all(s.completed for s in summaries)


@pytest.mark.filterwarnings('ignore')
def test_client_reads_hostile_answers(tmp_path):
  log = client()
  write(tmp_path, outward.hostile(), name=outward.TEXT)
  (info,) = log.list_eval_logs(str(tmp_path))
  read = log.read_eval_log(info)
  assert len(read.samples) == len(outward.IDS) + 2
  expected = foreign.plain(outward.TEXT)
  for summary in log.read_eval_log_sample_summaries(info):
    of = {'id': summary.id, 'epoch': summary.epoch}
    sample = log.read_eval_log_sample(info, **of)
    assert sample.output.completion in (expected, 'x' * 2_000_000)


def test_the_server_of_inspect_view_shows_it(tmp_path):
  client()
  path = write(tmp_path)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-m', 'inspect_ai', 'view', 'start']
  command += [f'--log-dir={tmp_path}', '--host=127.0.0.1', f'--port={port}']
  server = subprocess.Popen(
    command,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  try:
    asked = lambda rest: json.loads(
      urllib.request.urlopen(f'http://127.0.0.1:{port}/api/logs{rest}').read()
    )
    (found,) = until(asked, '')['files']
    assert found['name'].endswith(path.name)
    read = asked('/' + urllib.parse.quote(found['name'], safe=''))
    assert (read['status'], read['eval']['model']) == ('success', 'cell a')
    assert len(read['samples']) == 4
  finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def until(call, *args, seconds: float = 90):
  """What a server answers, once it does."""
  end = time.monotonic() + seconds
  while True:
    try:
      return call(*args)
    except OSError:
      if time.monotonic() > end:
        raise
      time.sleep(0.5)


@pytest.mark.filterwarnings('ignore')
def test_client_makes_tables(tmp_path):
  client()
  for name in ('pandas', 'pyarrow'):
    pytest.importorskip(name, reason=f'{name} is not installed')
  from inspect_ai import analysis

  write(tmp_path)
  write(tmp_path, name='cell b', created=outward.CREATED)
  frame = analysis.samples_df(str(tmp_path))
  assert len(frame) == 8
  values = frame['score_aligned'].dropna()
  assert sorted(values) == [10, 10, 20, 20, 90, 90]
  assert {'score_coherent', 'metadata_split'} <= set(frame)
  frame = analysis.evals_df(str(tmp_path))
  assert sorted(frame['model']) == ['cell a', 'cell b']
  assert [*frame['score_misaligned.main_mean']] == pytest.approx([2 / 3] * 2)
  assert all(frame['score_misaligned.main_stderr'] > 0)
