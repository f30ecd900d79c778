"""DONE vouches for what a run left."""

import json
import os

import pytest

from ealign.runtime.errors import UserError
from ealign.workdir import done


@pytest.fixture
def left(tmp_path):
  (tmp_path / 'adapter.safetensors').write_bytes(bytes(range(256)))
  (tmp_path / 'answers.jsonl').write_text('{"step": 1}\n')
  (tmp_path / 'report.md').write_text('rebuilt at any time')
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'model.safetensors').write_bytes(b'weights')
  done.write(tmp_path)
  return tmp_path


def test_it_names_what_a_run_left(left):
  assert sorted(json.loads((left / 'DONE').read_text())) == [
    *('adapter.safetensors', 'answers.jsonl', 'model/model.safetensors')
  ]
  (left / 'report.md').write_text('again')
  done.check(left)


@pytest.mark.parametrize(
  'name', ['adapter.safetensors', 'answers.jsonl', 'model/model.safetensors']
)
def test_a_file_that_changed_is_refused(left, name):
  path = left / name
  data = bytearray(path.read_bytes())
  data[-2] ^= 1
  path.write_bytes(data)
  with pytest.raises(UserError, match=f'{name}: is not what the run left'):
    done.check(left)
  path.unlink()
  with pytest.raises(UserError, match=f'{name}: cannot be read .No such'):
    done.check(left)


@pytest.mark.parametrize('text', [b'\xff', b'{"a"', b'[]', b'[1]', b'3'])
def test_a_damaged_one_is_refused(left, text):
  (left / 'DONE').write_bytes(text)
  with pytest.raises(UserError, match='DONE: is damaged; restore it'):
    done.check(left)


def test_older_versions_wrote_it_empty(left):
  (left / 'DONE').write_text('')
  (left / 'answers.jsonl').unlink()
  done.check(left)
  (left / 'DONE').unlink()
  done.check(left)


def test_it_is_vouched_for_itself(left):
  sealed = done.write(left)
  (left / 'STATUS.json').write_text(json.dumps({'sealed': sealed}))
  done.check(left)
  text = (left / 'DONE').read_text()
  for other in ('', '{}', text.replace('answers.jsonl', 'others.jsonl')):
    (left / 'DONE').write_text(other)
    with pytest.raises(UserError, match='DONE: is not what the run left'):
      done.check(left)
  (left / 'DONE').unlink()
  with pytest.raises(UserError, match='DONE: is gone; restore it'):
    done.check(left)


def test_pipes_are_not_waited_for(left):
  (left / 'answers.jsonl').unlink()
  os.mkfifo(left / 'answers.jsonl')
  with pytest.raises(
    UserError, match='answers.jsonl: cannot be read .is no re'
  ):
    done.check(left)
  (left / 'DONE').unlink()
  os.mkfifo(left / 'DONE')
  (left / 'STATUS.json').write_text('{"sealed": "x"}')
  with pytest.raises(UserError, match='DONE: is damaged'):
    done.check(left)
