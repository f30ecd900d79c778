"""CSV of others: what is read, and what is refused in one line."""

import csv

import pytest

from ealign.data import csvs
from ealign.runtime.errors import UserError


@pytest.mark.parametrize(
  ('content', 'what'),
  [
    (b'', "has no column 'a', but none"),
    (b'x,y\n1,2\n', "has no column 'a', but x, y"),
    (b'a,b\n', 'a header and no rows'),
    (b'a,b,a\n1,2,3\n', 'a column twice'),
    (b'a,b\n1\n', ':2 has 1 fields, but the header 2'),
    (b'a,b\n1,2\n1,2,3\n', ':3 has 3 fields'),
    (b'a,b\n"1,2\n', 'is no CSV'),
    (b'a,b\n"1"x,2\n', 'is no CSV'),
    (b'a,b\n\xff,2\n', 'is not UTF-8 (byte 4)'),
    (b'a,b\n' + b'x' * 200_000 + b',2\n', 'is no CSV (field larger'),
  ],
)
def test_what_is_broken_is_refused_in_a_line(tmp_path, content, what):
  path = tmp_path / 'x.csv'
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    csvs.read(path, ('a', 'b'))
  assert what in str(error.value)
  assert '\n' not in str(error.value)


def test_fields_with_lines_commas_and_quotes_survive(tmp_path):
  rows = [{'a': 'x,\n"y"', 'b': ''}, {'a': '\u00e9', 'b': 'z'}]
  path = tmp_path / 'x.csv'
  with path.open('w', encoding='utf-8-sig', newline='') as file:
    writer = csv.DictWriter(file, ('a', 'b'))
    writer.writeheader()
    writer.writerows(rows)
  assert csvs.read(path, ('a',)) == rows
