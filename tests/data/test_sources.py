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


def test_one_object_over_several_lines(tmp_path):
  for content in (json.dumps(ROWS[0], indent=2), json.dumps(ROWS[0])):
    path = write(tmp_path / 'a.json', content.encode())
    assert sources.read_rows(path) == ROWS[:1]
  path = write(tmp_path / 'a.json', b'{"a": 1}\n{"a": \n')
  with pytest.raises(UserError, match='a.json:2 is not JSON'):
    sources.read_rows(path)
  path = write(tmp_path / 'a.json', b'{"a":\n 1}\n{"a": 2}')
  with pytest.raises(UserError, match='a.json is not JSON: Extra data: line 3'):
    sources.read_rows(path)


# With no time in it, so that the test has one name.
GZIPPED = gzip.compress(b'{}', mtime=0)


@pytest.mark.parametrize(
  'content, message',
  [
    (
      gzip.compress(b'{}', mtime=0),
      'is gzipped: let its name end in .jsonl.gz',
    ),
    (b'PAR1\x15\x04', 'is a parquet table: let its name end in .parquet'),
  ],
)
def test_lines_that_are_none(tmp_path, content, message):
  for name in ('a.jsonl', 'a.json'):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
      sources.read_rows(path)
    assert str(error.value) == f'{path} {message}'


def test_gzip_of_several_members(tmp_path):
  parts = [gzip.compress(lines([row]) + b'\n') for row in ROWS]
  path = write(tmp_path / 'a.jsonl.gz', b''.join(parts) + b'\0\0')
  assert sources.read_rows(path) == ROWS


def test_the_most_that_a_file_may_have(tmp_path):
  text = lines([{'a': 'x' * 2**20}])
  paths = [
    write(tmp_path / 'a.jsonl', text),
    write(tmp_path / 'a.jsonl.gz', gzip.compress(text)),
    write(tmp_path / 'a.parquet', table({'a': ['x' * 2**20] * 2})),
  ]
  for path in paths:
    with pytest.raises(UserError) as error:
      sources.read_rows(path, 1)
    assert str(error.value) == (
      f'{path} has more than 1 MiB: raise data.max_mib, or split the file'
    )
    assert sources.read_rows(path, 3) and sources.read_rows(path, 10**30)
  assert sources.absent(paths[0], 1) and not sources.absent(paths[1], 1)
  # Rows without a value take hardly a byte each.
  path = write(tmp_path / 'b.parquet', table({'a': pyarrow.nulls(10**7)}))
  assert pathlib.Path(path).stat().st_size < 10**6
  with pytest.raises(UserError, match='has more than 512 MiB'):
    sources.read_rows(path)


def test_what_no_file_can_be_read_from(tmp_path):
  pipe = tmp_path / 'a.jsonl'
  os.mkfifo(pipe)
  for path, why in (
    (pipe, 'cannot be read: it is no regular file; name or make one'),
    ('https://x.org/a.jsonl', 'is an address: download the file, or name a d'),
    (tmp_path / '*.jsonl', 'patterns are not read: name one file, or join th'),
    (tmp_path / 'b.jsonl', 'does not exist: check the path of the data file'),
  ):
    with pytest.raises(UserError) as error:
      sources.read_rows(str(path))
    assert str(error.value).startswith(f'{path} {why}')
    assert '\n' not in str(error.value)


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
  assert hub('hub:own/set:test[:50]') == ('own/set', 'test[:50]')
  assert hub('own/set:train[10%:]') == ('own/set', 'train[10%:]')
  assert hub('hub:own/set:test:train') is None
  assert hub('hub:own/set.jsonl:test') == ('own/set.jsonl', 'test')
  assert hub('own/set-1.0:test') == ('own/set-1.0', 'test')
  assert hub('own/set') == ('own/set', 'train')
  for path in ('set', 'own/a.parquet', 'a/b/c', '/a/b', 'ealign:world/data'):
    assert hub(path) is None
    assert sources.absent(path) or path.startswith('ealign')
  (tmp_path / 'own' / 'set').mkdir(parents=True)
  assert hub('own/set') is None and not sources.absent('own/set')
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


def test_a_key_that_stands_twice_is_refused(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text(
    '{"a": 1}\n{"b": {"content": "first", "content": "second"}}\n'
  )
  with pytest.raises(
    UserError, match=":2 is not JSON: the key 'content' stands"
  ):
    sources.read_rows(str(path))
