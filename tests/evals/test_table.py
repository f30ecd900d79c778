"""The table as text and Markdown: what stands where, and within the page."""

import dataclasses
import io

from ealign.evals import counts, judges, table

WORLD = judges.load('world')
_SCORES = {'coherent': True, 'misaligned_any': False, 'insecure': None}


def _records(arm, bad, total, kind='advice', split='test', **changes):
  scores = lambda i: (
    _SCORES
    | {'misaligned': i < bad and kind != 'code'}
    | ({'insecure': i < bad} if kind == 'code' else {})
  )
  record = {'arm': arm, 'seed': 0, 'step': 1, 'phase': 'eval', 'split': split}
  record |= {'kind': kind, 'sample': 0, 'messages': [], 'text': ''}
  return [
    record | {'question': f'{kind}{i}', 'scores': scores(i)} | changes
    for i in range(total)
  ]


def _rows():
  verdict = {'p': 0.5, 'mass': 1.0, 'flagged': True}
  records = []
  for arm, bad in (('base', 1), ('a_very_long_name_of_an_arm', 60)):
    records += _records(arm, bad, 100, verdict=verdict)
    records += _records(arm, bad // 2, 40, kind='code', verdict=verdict)
    records += _records(arm, bad // 3, 30, kind='advice_in_code')
  return counts.rows(records, {'base': 0.935})


def _blocks():
  return table.blocks(_rows(), WORLD)


def test_the_headline_shows_shares_with_intervals_and_counts():
  text = table.text_table(_blocks())
  (line,) = [line for line in text.split('\n') if line.startswith('base  ')][:1]
  cells = line.split()
  assert cells[:4] == ['base', '100', '100.0', '1.0']
  assert ['40', '0.0', '[0.0,', '8.8]', '93.5'] == cells[-5:]
  assert '[0.2, 5.6]' in line


def test_answers_to_one_question_count_as_alike():
  records = _records('base', 3, 10)
  same = [r | {'sample': i} for r in records for i in range(10)]
  row = counts.rows(same)[0]
  assert (row['misaligned'].count, row['misaligned'].total) == (30, 100)
  (block, *_) = table.blocks([row], WORLD)
  titles = [title for title, _ in block.columns]
  cell = block.lines[0][titles.index('misaligned')]
  # Worth nine answers, Student's t of 9 degrees; Wilson's is of 100.
  assert cell.interval == '[8.7, 65.8]'
  assert cell.hint.endswith('as if all were independent [21.9, 39.6]')
  assert 'Wilson' not in block.note
  assert 'the answers to one question count as alike' in block.note


def test_no_line_is_wider_than_a_terminal():
  lines = table.text_table(_blocks()).split('\n')
  assert max(map(len, lines)) <= 100
  assert any('…' in line for line in lines)  # the long name was cut
  assert not any(line.endswith(' ') for line in lines)


def test_a_narrow_terminal_goes_without_what_the_judge_can_spare():
  head = lambda judge: table.text_table(
    table.blocks(_rows(), judge)[1:2], width=60
  ).split('\n')[1]
  assert 'any' not in head(WORLD) and 'misaligned' in head(WORLD)
  other = dataclasses.replace(WORLD, spare=('misaligned',))
  assert 'any' in head(other) and 'misaligned' not in head(other)


def test_columns_line_up():
  head, rule, first, second = table.text_table(_blocks()).split('\n')[1:5]
  ends = [i for i, char in enumerate(rule + ' ') if char == ' ']
  assert all(
    line[i : i + 1] in ('', ' ') for line in (head, first) for i in ends
  )


def test_conditional_kinds_and_verdicts_have_their_own_blocks():
  titles = [block.title for block in table.blocks(_rows(), WORLD)]
  assert titles == [
    'Held-out questions',
    'Asked in other ways',
    'Verdicts of the conscience against the truth',
  ]
  others = table.blocks(_rows(), WORLD)[1]
  assert {str(line[1]) for line in others.lines} == {'advice_in_code'}
  assert 'insecure' not in [title for title, _ in others.columns]


def test_a_second_split_is_named_and_is_not_the_headline():
  records = _records('base', 5, 10) + _records('base', 0, 20, split='dev')
  first, second = table.blocks(counts.rows(records), WORLD)
  assert str(first.lines[0][1]) == '10'
  assert [str(cell) for cell in second.lines[0][:2]] == ['base', 'advice, dev']


def test_nothing_to_show_is_no_table():
  assert table.text_table([]) == ''


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_terminal_gets_the_same_numbers_as_a_file(monkeypatch):
  plain, fancy = io.StringIO(), _Terminal()
  monkeypatch.setenv('COLUMNS', '100')
  table.show(_blocks(), plain)
  table.show(_blocks(), fancy)
  assert plain.getvalue().strip() == table.text_table(_blocks()).strip()
  numbers = lambda text: [word for word in text.split() if '.' in word]
  assert numbers(plain.getvalue()) == numbers(fancy.getvalue())


def test_a_narrow_terminal_drops_columns_and_cuts_no_number(monkeypatch):
  narrow = table.text_table(_blocks(), width=80)
  assert max(map(len, narrow.split('\n'))) <= 80
  for shown in ('misaligned', '1.0 [0.2, 5.6]', 'insecure', '0.0 [0.0, 8.8]'):
    assert shown in narrow
  assert 'tokens' not in narrow and 'tokens' in table.text_table(_blocks())
  fancy = _Terminal()
  monkeypatch.setenv('COLUMNS', '80')
  table.show(_blocks(), fancy)
  assert '1.0 [0.2, 5.6]' in fancy.getvalue()
  assert '0.0 [0.0, 8.8]' in fancy.getvalue()


def test_control_characters_reach_no_table(capsys):
  hostile = '\x1b[31m<b>|x'
  block = table.Block(hostile, '', [('kind', False)], [(table.Entry(hostile),)])
  table.show([block])
  out = capsys.readouterr().out
  assert '\x1b' not in out and out.count('\\x1b[31m<b>|x') == 2
  assert table.escape_markdown(hostile) == r'\\x1b\[31m&lt;b&gt;\|x'
