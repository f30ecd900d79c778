import os

import pytest

from ealign.data.mapping import read_mapping
from ealign.runtime.errors import UserError


@pytest.mark.parametrize(
  'name, text',
  [
    ('a.json', '{"ok": ["No"], "n": 1}'),
    ('a.yaml', 'ok:\n  - "No"\nn: 1\n'),
    ('a.yml', 'ok: ["No"]\nn: 1'),
  ],
)
def test_reads(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  assert read_mapping(str(tmp_path / name)) == {'ok': ['No'], 'n': 1}


@pytest.mark.parametrize(
  'name, text, said',
  [
    ('a.json', '{"ok": 1,\n "n" 2}', 'is broken .*line 2'),
    ('a.yaml', 'ok: [1', 'is broken .*line 1'),
    ('a.yaml', '- 1', 'must hold a mapping'),
    ('a.json', b'\xff\xfe', 'cannot be read'),
    ('a.json', None, 'there is no such file'),
    ('a.json', '[' * 100_000, 'is broken .*recursion'),
    ('a.yaml', '[' * 5_000, 'is broken .*recursion'),
    ('a.yaml', '2024-01-02', 'must hold a mapping'),
  ],
)
def test_bad_files_are_told_in_one_line(tmp_path, name, text, said):
  if text is not None:
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=said) as error:
    read_mapping(str(tmp_path / name))
  assert '\n' not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'a.json')
  with pytest.raises(UserError, match='a.json: cannot be read: it is no regul'):
    read_mapping(str(tmp_path / 'a.json'))
