import gzip
import json

import pytest

from ealign.data import sources
from ealign.runtime.errors import UserError

ROWS = [{'messages': [{'role': 'user', 'content': 'é\u2028ü'}]}, {'a': 1}]


def write(path, content):
  path.write_bytes(content)
  return str(path)


def lines(rows):
  text = '\n'.join(json.dumps(row, ensure_ascii=False) for row in rows)
  return text.encode()


def test_reads_jsonl_gzip_bom_crlf_and_blank_lines(tmp_path):
  plain = write(tmp_path / 'a.jsonl', lines(ROWS))
  packed = write(tmp_path / 'a.jsonl.gz', gzip.compress(lines(ROWS)))
  windows = lines(ROWS).replace(b'\n', b'\r\n\r\n') + b'\r\n'
  bom = write(tmp_path / 'b.jsonl', b'\xef\xbb\xbf' + windows)
  for path in (plain, packed, bom):
    assert sources.read_rows(path) == ROWS


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'a.jsonl is empty'),
    (b'\n \n', 'a.jsonl is empty'),
    (b'{"a": 1}\n\n{"a": \n', r'a.jsonl:3 is not JSON'),
    (b'{"a": 1}\n[1]', r'a.jsonl:2 is not a JSON object but list'),
    (b'{"a": 1}\n{"a": "\xff"}', r'a.jsonl:2 is not UTF-8 \(byte 7'),
    (b'[' * 100_000, r'a.jsonl:1 is not JSON'),
  ],
)
def test_bad_content_names_file_and_line(tmp_path, content, message):
  path = write(tmp_path / 'a.jsonl', content)
  with pytest.raises(UserError, match=message):
    sources.read_rows(path)


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match='nowhere.jsonl does not exist'):
    sources.read_rows(str(tmp_path / 'nowhere.jsonl'))
  with pytest.raises(UserError, match='only .jsonl and .jsonl.gz'):
    sources.read_rows(write(tmp_path / 'a.csv', b'a,b'))
  (tmp_path / 'folder.jsonl').mkdir()
  with pytest.raises(UserError, match='folder.jsonl cannot be read'):
    sources.read_rows(str(tmp_path / 'folder.jsonl'))
  whole = gzip.compress(lines(ROWS) * 50)
  broken = whole[:10] + b'\xff' * 8
  for content in (whole[:-12], whole[:30], broken, b'{"a": 1}'):
    path = write(tmp_path / 'torn.jsonl.gz', content)
    with pytest.raises(UserError, match='torn.jsonl.gz cannot be read'):
      sources.read_rows(path)


def test_unreadable_file(tmp_path, monkeypatch):
  def refuse(path):
    raise PermissionError(13, 'Permission denied', str(path))

  path = write(tmp_path / 'a.jsonl', lines(ROWS))
  # A mode of 0 would not stop root, who runs tests in containers.
  monkeypatch.setattr(type(sources.resolve(path)), 'read_bytes', refuse)
  with pytest.raises(UserError, match='cannot be read: .*Permission denied'):
    sources.read_rows(path)


def test_resolve():
  inside = sources.resolve('ealign:data/sources.py')
  assert str(inside) == sources.__file__
  assert str(sources.resolve('/x/y.jsonl')) == '/x/y.jsonl'
  assert str(sources.resolve('gs://bucket/y.jsonl')) == 'gs://bucket/y.jsonl'


def user(content):
  return {'role': 'user', 'content': content}


def assistant(content):
  return {'role': 'assistant', 'content': content}


def test_columns():
  rows = [
    {'messages': [user('q'), assistant('a')], 'id': 5},
    {'prompt': 'q', 'completion': 'a'},
    {
      'prompt': [user('q'), assistant('a'), user('r')],
      'completion': [assistant('b')],
    },
  ]
  assert sources.chats(rows, 'f') == [
    [user('q'), assistant('a')],
    [user('q'), assistant('a')],
    [user('q'), assistant('a') | {'train': False}, user('r'), assistant('b')],
  ]
  assert 'train' not in rows[2]['prompt'][1]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'text': 'x', 'id': 1}, r"columns \['id', 'text'\]: it needs messages"),
    ({'prompt': 'x'}, r"columns \['prompt'\]"),
    ({'messages': []}, 'messages is not a list of messages'),
    ({'messages': 'hi'}, 'messages is not a list of messages'),
    ({'messages': [user('q'), {'from': 'gpt'}]}, r'messages\[1\] needs a role'),
    ({'messages': [{'role': 'bot', 'content': 'x'}]}, 'needs a role among'),
    ({'messages': [user(None)]}, r'messages\[0\] needs content .*: None'),
    (
      {'prompt': 'q', 'completion': [user(3)]},
      r'completion\[0\] needs content',
    ),
    ({'messages': [user('\ud800')]}, r'messages\[0\] is not valid Unicode'),
  ],
)
def test_bad_rows_are_named(row, message):
  good = {'prompt': 'q', 'completion': 'a'}
  with pytest.raises(UserError, match='data.jsonl: row 2.*' + message):
    sources.chats([good, row], 'data.jsonl')
