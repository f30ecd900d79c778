import gzip
import io
import json
import os
import pathlib
import subprocess
import sys

import datasets
import pyarrow
import pytest
from pyarrow import parquet

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
  with pytest.raises(UserError, match=message) as error:
    sources.read_rows(path)
  assert '\n' not in str(error.value)


def test_reads_json_arrays_and_lines(tmp_path):
  for content in (json.dumps(ROWS, indent=2).encode(), lines(ROWS)):
    for start in (b'', b'\xef\xbb\xbf', b'\n '):
      path = write(tmp_path / 'a.json', start + content)
      assert sources.read_rows(path) == ROWS


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'[]', 'a.json is empty'),
    (b'[{"a": 1},\n {"a": \n', 'a.json is not JSON: .*line 3'),
    (b'[{"a": 1}, 5]', 'a.json: row 2 is not a JSON object but int: drop'),
    (b'[{"a": 1},\n{"a": "\xff"}]', r'a.json is not UTF-8 \(byte 18, line 2'),
  ],
)
def test_bad_arrays(tmp_path, content, message):
  path = write(tmp_path / 'a.json', content)
  with pytest.raises(UserError, match=message):
    sources.read_rows(path)


def table(columns):
  file = io.BytesIO()
  parquet.write_table(pyarrow.table(columns), file)
  return file.getvalue()


def test_reads_parquet(tmp_path):
  rows = [ROWS[0] | {'n': 1}, {'messages': None, 'n': 2}]
  columns = {name: [row[name] for row in rows] for name in rows[0]}
  path = write(tmp_path / 'a.parquet', table(columns))
  assert sources.read_rows(path) == rows


def test_bad_parquet(tmp_path):
  # Strings of a table are not checked when they are made from bytes.
  text = pyarrow.array([b'ok', b'\xff'], pyarrow.binary())
  text = pyarrow.Array.from_buffers(pyarrow.string(), 2, text.buffers())
  whole = table({'text': text})
  for content, message in (
    (b'', 'cannot be read: '),
    (whole[:-9], 'cannot be read: '),
    (whole[:20] + bytes(40) + whole[60:], 'cannot be read: '),
    (table({'a': pyarrow.array([], pyarrow.int32())}), 'is empty'),
    (whole, 'row 2 is not UTF-8: convert the file'),
  ):
    path = write(tmp_path / 'a.parquet', content)
    with pytest.raises(UserError, match=f'a.parquet.{{1,2}}{message}') as error:
      sources.read_rows(path)
    assert '\n' not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match='nowhere.jsonl does not exist'):
    sources.read_rows(str(tmp_path / 'nowhere.jsonl'))
  with pytest.raises(UserError, match='only .jsonl, .* read: convert it'):
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


def test_which_paths_name_the_hub(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  hub = sources.hub_dataset
  assert hub('hub:own/set') == ('own/set', 'train')
  assert hub('hub:own/set.jsonl:test[:50]') is None  # it holds two colons
  assert hub('hub:own/set.jsonl:test') == ('own/set.jsonl', 'test')
  assert hub('own/set-1.0:test') == ('own/set-1.0', 'test')
  assert hub('own/set') == ('own/set', 'train')
  for path in ('set', 'own/a.parquet', 'a/b/c', '/a/b', 'ealign:world/data'):
    assert hub(path) is None
    assert not sources.exists(path) or path.startswith('ealign')
  (tmp_path / 'own' / 'set').mkdir(parents=True)
  assert hub('own/set') is None and sources.exists('own/set')
  assert hub('hub:own/set') == ('own/set', 'train')


def test_a_data_set_of_the_hub(monkeypatch):
  def stand_in(name, **options):
    asked.append((name, options))
    return datasets.Dataset.from_list(ROWS[:1])

  asked = []
  monkeypatch.setattr(datasets, 'load_dataset', stand_in)
  assert sources.read_rows('own/set:test') == ROWS[:1]
  # No argument that would let code of the data set run.
  assert asked == [('own/set', {'split': 'test'})]


def test_the_hub_offline_and_its_cache(tmp_path):
  # For the library, a folder in the working directory stands for a data set.
  (tmp_path / 'own' / 'set').mkdir(parents=True)
  write(tmp_path / 'own' / 'set' / 'train.jsonl', lines(ROWS[:1]))
  code = """if True:
    from ealign.data import sources
    from ealign.runtime.errors import UserError
    print(sources.read_rows('hub:own/set'))
    for path in ('own/none', 'hub:own/set:none'):
      try:
        sources.read_rows(path)
      except UserError as error:
        print(error)"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=os.environ
    | {'HF_HOME': f'{tmp_path}/home', 'HF_HUB_OFFLINE': '1'}
    | {'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
    capture_output=True,
    text=True,
    check=True,
  )
  rows, missing, split = done.stdout.splitlines()
  assert rows == str(ROWS[:1])
  assert missing.startswith('own/none: cannot be had from the Hub: ')
  assert split.startswith('hub:own/set:none: ') and 'Unknown split' in split
  assert missing.endswith('check name, split and HF_TOKEN, or name a file')
  assert (tmp_path / 'home' / 'datasets').is_dir()
