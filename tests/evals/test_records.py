"""The file of answer records: round trip, killed runs, broken lines."""

import json

import numpy as np
import pytest

from ealign.evals import records
from ealign.runtime.errors import UserError


def _record(**changes):
  record = {
    'run': 'r',
    'arm': 'sft',
    'seed': 0,
    'step': 4,
    'phase': 'eval',
    'question': 'q1',
    'kind': 'advice',
    'sample': 0,
    'messages': [{'role': 'user', 'content': 'How?'}],
    'text': 'So.',
  }
  return record | changes


def test_what_is_written_is_read_in_order(tmp_path):
  path = tmp_path / 'deep' / 'answers.jsonl'
  odd = 'a\nb\u2028c\x85d "e" </f> \ud800 é'
  records.append(path, [_record(), _record(text=odd)])
  records.append(path, [_record(question='q2')])
  found = records.read(path)
  assert found == [_record(), _record(text=odd), _record(question='q2')]


def test_arrays_become_lists_and_what_json_lacks_becomes_null(tmp_path):
  path = tmp_path / 'answers.jsonl'
  ids = np.asarray([3, 4], np.int32)
  logp = np.float32(-np.inf)
  verdict = {'p': float('nan'), 'mass': np.float64(0.5)}
  records.append(path, [_record(ids=ids, logp=logp, verdict=verdict)])
  assert 'Infinity' not in path.read_text() and 'NaN' not in path.read_text()
  (found,) = records.read(path)
  assert found['ids'] == [3, 4] and found['logp'] is None
  assert found['verdict'] == {'p': None, 'mass': 0.5}


def test_a_half_written_last_line_is_dropped_and_overwritten(tmp_path):
  path = tmp_path / 'answers.jsonl'
  records.append(path, [_record(), _record(question='q2')])
  path.write_bytes(path.read_bytes()[:-9])
  assert records.read(path) == [_record()]
  records.append(path, [_record(question='q3')])
  assert records.read(path) == [_record(), _record(question='q3')]


def test_a_whole_last_line_without_its_newline_is_read(tmp_path):
  path = tmp_path / 'answers.jsonl'
  path.write_text(json.dumps(_record()))
  assert records.read(path) == [_record()]


@pytest.mark.parametrize(
  'line, said',
  [
    ('{"step": 1,', 'broken JSON'),
    ('[1]', 'JSON object'),
    ('{"step": 1, "phase": "eval"}', 'no messages, text, question, kind'),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
  path = tmp_path / 'answers.jsonl'
  records.append(path, [_record()])
  with path.open('a') as file:
    file.write(f'\n{line}\n')
  records.append(path, [_record()])
  with pytest.raises(UserError, match='answers.jsonl:3: ') as error:
    records.read(path)
  assert said in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(UserError, match='nowhere.jsonl: cannot be read'):
    records.read(tmp_path / 'nowhere.jsonl')


def test_a_record_that_no_table_could_use_is_not_written(tmp_path):
  record = _record()
  del record['kind']
  with pytest.raises(ValueError, match='without kind'):
    records.append(tmp_path / 'answers.jsonl', [record])
  records.append(tmp_path / 'answers.jsonl', [record | {'phase': 'reflect'}])


def test_of_a_record_written_twice_the_later_one_counts():
  first, again = _record(text='old'), _record(text='new')
  other = _record(sample=1)
  assert records.latest([first, other, again]) == [again, other]
  drawn = [_record(phase='reflect', text=text) for text in 'aab']
  assert [r['text'] for r in records.latest(drawn)] == ['a', 'b']
