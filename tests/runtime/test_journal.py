"""Files that go back with a checkpoint."""

import pytest

from ealign.runtime import journal
from ealign.runtime.errors import UserError


def test_what_was_appended_since_is_cut_off(tmp_path):
  path = tmp_path / 'answers.jsonl'
  path.write_bytes(b'one\ntwo\n')
  then = journal.mark(path)
  assert then['bytes'] == 8
  with path.open('ab') as file:
    file.write(b'three\nfo')
  journal.rewind(path, then)
  assert path.read_bytes() == b'one\ntwo\n'
  journal.rewind(path, journal.NOTHING)
  assert path.read_bytes() == b''


def test_a_file_that_is_not_there_yet(tmp_path):
  path = tmp_path / 'answers.jsonl'
  assert journal.mark(path) == journal.NOTHING
  journal.rewind(path, journal.NOTHING)
  assert not path.exists()


@pytest.mark.parametrize('now', [b'one\n', b'one\ntwO\nthree\n', None])
def test_a_file_that_was_changed_is_refused_and_kept(tmp_path, now):
  path = tmp_path / 'answers.jsonl'
  path.write_bytes(b'one\ntwo\n')
  then = journal.mark(path)
  path.unlink()
  if now is not None:
    path.write_bytes(now)
  why = 'is gone' if now is None else 'is not what it was'
  with pytest.raises(UserError, match=f'answers.jsonl: {why}.*restore it'):
    journal.rewind(path, then)
  assert now is None or path.read_bytes() == now
