"""Answers beside each other."""

import random

import pytest

from ealign.cli import columns


def test_a_text_that_goes_on_changes_its_last_row_only():
  rng = random.Random(0)
  for _ in range(2000):
    letters = (rng.choice('ab c \n漢\u0301\t') for _ in range(60))
    text, cells = ''.join(letters), rng.choice((3, 5, 8))
    rows = columns.wrapped(text, cells)
    assert all(columns.size(row) <= cells for row in rows)
    before = columns.wrapped(text[: rng.randrange(60)], cells)
    assert rows[: len(before) - 1] == before[:-1]


@pytest.mark.parametrize(
  'text, rows',
  [
    ('', ['']),
    ('a b', ['a b']),
    ('one two three', ['one two', 'three']),
    ('  indented code', ['  indented'[:8], 'ed code']),
    ('a\n\nb', ['a', '', 'b']),
    ('漢漢漢漢漢', ['漢漢漢漢', '漢']),
    ('x\tfour', ['x   four']),
  ],
)
def test_rows(text, rows):
  assert columns.wrapped(text, 8) == rows


def test_rows_are_written_when_they_are_whole():
  written = []
  first = iter(['one two ', 'three ', 'four'])

  def second():
    yield 'a'
    assert not written  # its only row may change yet
    yield '\nb'
    assert written == ['  one two     a\n']

  columns.beside([first, second()], 10, written.append)
  assert written[1:] == ['  three       b\n', '  four\n']


def test_columns_need_room():
  assert columns.fit(2, 80) == 39 and columns.fit(3, 120) == 38
  assert columns.fit(1, 200) == columns.fit(3, 100) == 0


def test_heads_of_other_lengths():
  written = []
  columns.heads(['-- flagged', '-- no verdict: cut'], 12, written.append)
  assert written == ['-- flagged    -- no\n', '              verdict: cut\n']
