"""A file appears whole, whoever else writes it."""

import os
from concurrent import futures

import pytest

from ealign.runtime import atomic


def test_many_may_write_one_file_at_once(tmp_path):
  path, texts = tmp_path / 'report.md', [str(i) * 100_000 for i in range(8)]
  write = lambda text: [atomic.write(path, text) for _ in range(20)]
  with futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(write, texts))  # raises what a thread raised
  assert path.read_text() in texts
  assert [p.name for p in tmp_path.iterdir()] == ['report.md']


def test_a_writer_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'new' / 'run.json'
  atomic.write(path, 'old')

  def replace(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', replace)
  with pytest.raises(OSError, match='No space'):
    atomic.write(path, 'new')
  assert path.read_text() == 'old'


def test_bytes_stay_as_they_are(tmp_path):
  atomic.write(tmp_path / 'x', 'é\udc80'.encode('utf-8', 'replace'))
  assert (tmp_path / 'x').read_bytes() == b'\xc3\xa9?'
