from ealign.data.batch import Row
from ealign.plan import data


class Letters:
  """A tokenizer whose ids are letters."""

  def decode(self, ids):
    return ''.join(map(chr, ids))


def row(text, mask, source='a'):
  return Row(tuple(map(ord, text)), tuple(map(int, mask)), source)


def test_stretches_follow_the_mask():
  found = data.stretches(Letters(), row('abcdef', '001101'))
  assert found == [('ab', False), ('cd', True), ('e', False), ('f', True)]
  assert data.stretches(Letters(), row('abc', '111')) == [('abc', True)]


def test_text_is_no_command_to_the_terminal():
  assert data.plain('a\x1b[31m\nb') == 'a\\x1b[31m\nb'
  long = data.plain('x' * 1000)
  assert len(long) < 500 and '520' in long


def test_examples_are_from_start_middle_and_end():
  rows = [row('ab', '01', str(i)) for i in range(9)]
  assert [e['source'] for e in data.examples(Letters(), rows)] == [
    '0',
    '4',
    '8',
  ]
  assert len(data.examples(Letters(), rows[:1])) == 1


def test_table():
  rows = [row('a' * n, '0' + '1' * (n - 1)) for n in (2, 4, 10)]
  stats = {'chats': 3, 'rows': 3, 'tokens': 12, 'supervised': 0.75}
  found = data.table(rows, stats | {'truncated': 1 / 3, 'split': 0}, 2.53)
  assert found['epochs'] == 2.5
  assert found['lengths'] == {'p50': 4, 'p90': 10, 'p99': 10, 'max': 10}
  shares = found['supervised'], found['truncated']
  assert (found['tokens'], *shares) == (12, 0.75, 1 / 3)
