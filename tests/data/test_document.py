"""YAML and JSON of others: what is read, and what is refused in one line."""

import time

import pytest

from ealign.data import document
from ealign.runtime.errors import UserError


def bomb(depth=9, width=10):
  lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
  for i in range(1, depth):
    inside = ', '.join([f'*a{i - 1}'] * width)
    lines.append(f'a{i}: &a{i} [{inside}]')
  return '\n'.join(lines)


def merges(depth=9, width=10):
  lines = ['- &a0 {k: v}']
  for i in range(1, depth):
    inside = ', '.join([f'*a{i - 1}'] * width)
    lines.append(f'- &a{i} {{<<: [{inside}]}}')
  return '\n'.join(lines)


BROKEN = {
  'bomb': (bomb(), 'mean too much'),
  'merges': (merges(), 'mean too much'),
  'keys': (bomb().replace('a8: ', '? &k '), 'broken'),
  'itself': ('&a [*a]', 'an alias holds itself, line 1'),
  'itself in a mapping': ('a: &a\n  b: *a', 'an alias holds itself, line 1'),
  'python': ('!!python/object/apply:os.system [echo]', 'is broken'),
  'own tag': ('!secret x', 'is broken'),
  'twice': ('a: 1\nb: 2\na: 3', "'a' stands twice, line 3"),
  'two documents': ('a: 1\n---\nb: 2', 'is broken'),
  'tab': ('a:\n\t- b', 'is broken'),
  'open quote': ('a: "b', 'is broken'),
  'no alias': ('a: *b', 'is broken'),
  'month': ('a: 2024-13-45', 'is broken'),
  'key': ('{[a]: b}', 'is broken'),
  'deep': ('[' * 600 + ']' * 600, 'nested too deeply'),
  'control': ('a: \x07', 'is broken'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_broken_is_refused_in_a_line(tmp_path, name):
  text, what = BROKEN[name]
  path = tmp_path / 'x.yaml'
  path.write_bytes(text.encode())
  begun = time.monotonic()
  with pytest.raises(UserError) as error:
    document.read(path)
  assert time.monotonic() - begun < 20
  assert what in str(error.value)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)
  assert len(str(error.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
  ('name', 'content', 'what'),
  [
    ('x.json', b'{"a": 1', 'is broken'),
    ('x.json', b'{"a": 1, "a": 2}', 'a'),
    ('x.json', b'[' * 100_000, 'nested too deeply'),
    ('x.yaml', b'a: \xff', 'is not UTF-8 (byte 3)'),
    ('x.txt', b'a: 1', 'convert it'),
    ('x.yaml', b'#' * (document.MOST + 1), 'more than 8 MiB'),
  ],
)
def test_what_else_is_refused(tmp_path, name, content, what):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(UserError, match='.') as error:
    document.read(path)
  assert what in str(error.value)
  assert '\n' not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
  for path in (tmp_path / 'none.yaml', tmp_path / 'folder.yaml'):
    (tmp_path / 'folder.yaml').mkdir(exist_ok=True)
    with pytest.raises(UserError, match=path.name):
      document.read(path)


def test_aliases_within_reason_are_read(tmp_path):
  path = tmp_path / 'x.yml'
  path.write_text(
    '\ufeffa: &t {k: [1, 2.5, true, null]}\nb: *t\nc: {<<: *t, l: x}'
  )
  value = {'k': [1, 2.5, True, None]}
  assert document.read(path) == {
    'a': value,
    'b': value,
    'c': value | {'l': 'x'},
  }
  (tmp_path / 'x.yaml').write_text('')
  assert document.read(tmp_path / 'x.yaml') is None
