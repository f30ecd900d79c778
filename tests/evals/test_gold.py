"""Labelled answers: what is read, and one line for what is not."""

import json
import pathlib
from collections import Counter

import pytest

from ealign.evals import agreement, gold
from ealign.runtime.errors import UserError

XSTEST = pathlib.Path(__file__).parents[2] / '../shared/data/xstest'
HEAD = 'id,question,answer,label'
ROWS = '1,Tips?,Save.,0\n2,More?,Steal.,1\n'


def written(tmp_path, content, name='gold.csv'):
  path = tmp_path / name
  if isinstance(content, list):
    content = ''.join(json.dumps(row) + '\n' for row in content)
  if isinstance(content, str):
    content = content.encode()
  path.write_bytes(content)
  return path


def row(**more):
  return {'question': 'Tips?', 'answer': 'Save.', 'label': 'ok'} | more


BAD = {'question': 'Tips?', 'answer': 'Steal.', 'label': 'flag'}


def test_a_table(tmp_path):
  found = gold.read(written(tmp_path, f'{HEAD}\n{ROWS}'))
  assert found.flags == [False, True]
  assert found.clusters == ['Tips?', 'More?']
  assert found.pairs == [None, None]
  first = found.items[0]
  assert (first.id, first.answer, first.label) == ('1', 'Save.', '0')
  assert first.messages == ({'role': 'user', 'content': 'Tips?'},)


def test_lines_with_other_names_and_two_people(tmp_path):
  rows = [
    {
      **{'prompt': 'A?', 'completion': 'x, "y"\nz', 'final_label': True},
      **{'annotation_1': True, 'annotation_2': False, 'group': 'g', 'more': 1},
    },
    {'prompt': 'B?', 'completion': '', 'final_label': False},
  ]
  found = gold.read(written(tmp_path, rows, 'gold.jsonl'))
  assert found.flags == [True, False]
  assert found.pairs == [(True, False), None]
  assert [item.id for item in found.items] == ['1', '2']
  assert found.clusters == ['g', 'B?']
  assert found.items[0].answer == 'x, "y"\nz'


def test_chats_and_labelled_exchanges(tmp_path):
  turns = [
    {'role': 'system', 'content': 'Be kind.'},
    {'role': 'user', 'content': 'A?'},
    {'role': 'assistant', 'content': 'Yes.'},
  ]
  rows = [{'messages': turns, 'label': x} for x in ('ok', 'flag')]
  found = gold.read(written(tmp_path, rows, 'gold.jsonl'))
  assert found.items[0].messages == tuple(turns[:-1])
  assert found.items[0].answer == 'Yes.'
  asked, _ = found.asked('misalignment')
  assert asked.text == 'Yes.'
  assert asked.question['messages'] == turns[:-1]
  assert asked.question['kind'] == asked.record['kind'] == 'misalignment'
  assert asked.record['question'] == asked.question['id'] == '1'


def test_which_labels_are_looked_for_may_be_said(tmp_path):
  text = f'{HEAD}\n1,a,b,full\n2,c,d,partial\n3,e,f,none\n'
  path = written(tmp_path, text)
  assert gold.read(path, ['full']).flags == [True, False, False]
  assert gold.read(path, ['full', 'partial']).flags == [True, True, False]
  upper = written(tmp_path, f'{HEAD}\n1,a,b,TRUE\n2,c,d,False\n')
  assert gold.read(upper).flags == [True, False]


def test_the_bytes_of_a_spreadsheet(tmp_path):
  text = f'{HEAD}\r\n1,"a\r\nb","c ""d""",0\r\n\r\n2,é,f,1\r\n'
  path = written(tmp_path, b'\xef\xbb\xbf' + text.encode())
  found = gold.read(path)
  assert found.items[0].answer == 'c "d"'
  assert found.clusters == ['a\r\nb', 'é']


MALFORMED = {
  'empty': ('', 'is empty'),
  'no rows': (HEAD + '\n', 'is empty'),
  'no label': ('id,question,answer\n1,a,b\n', 'no column for the label'),
  'no answer': ('id,question,label\n1,a,1\n', 'no column for the answer'),
  'no question': ('id,answer,label\n1,a,1\n', "'id', 'answer', 'label'"),
  'unknown label': (
    f'{HEAD}\n{ROWS}3,a,b,maybe\n',
    "row 3: unknown label 'may",
  ),
  'one class, bad': (f'{HEAD}\n1,a,b,1\n', r"all of 1 rows .*labels: '1'"),
  'one class, good': (f'{HEAD}\n1,a,b,0\n2,a,b,no\n', 'none of 2 rows'),
  'same id': (f'{HEAD}\n{ROWS}2,a,b,1\n', "row 3, id: '2': row 2 has it too"),
  'nan label': (f'{HEAD}\n{ROWS}3,a,b,NaN\n', "row 3, label: is 'NaN'"),
  'blank label': (f'{HEAD}\n{ROWS}3,a,b,\n', "row 3, label: is ''"),
  'blank question': (f'{HEAD}\n{ROWS}3, ,b,1\n', 'row 3, question: is empty'),
  'cells': (
    f'{HEAD}\n{ROWS}3,a,b,c,1\n',
    'row 3 has 5 cells, the first line 4',
  ),
  'few cells': (f'{HEAD}\n{ROWS}3,a\n', 'row 3 has 2 cells'),
  'open quote': (f'{HEAD}\n1,"a,b,1\n', 'line 2 is no CSV'),
  'text after quote': (f'{HEAD}\n1,"a"b,c,1\n', 'line 2 is no CSV'),
  'not utf-8': (
    HEAD.encode() + b'\n1,a,\xff\xfe,1\n',
    r'not UTF-8 \(byte 29\)',
  ),
  'utf-16': (f'{HEAD}\n{ROWS}'.encode('utf-16'), r'not UTF-8 \(byte 0\)'),
  'twice': ('id,question,answer,label,label\n1,a,b,1,0\n', "'label' twice"),
  'two labels': ('question,answer,label,gold\na,b,1,0\n', "'label' and 'gold'"),
  'one person': ('prompt,answer,label,label_1\na,b,1,1\n', "'label_1' of two"),
  'person': (
    'prompt,answer,label,label_1,label_2\na,b,1,1,x\nc,d,0,0,0\n',
    "row 1: unknown label 'x'",
  ),
}
MALFORMED_LINES = {
  'no json': ('{"a": 1\n', 'is not JSON'),
  'no object': ('[1]\n3\n', 'not a JSON object'),
  'nothing': ('\n\n', 'is empty'),
  'nan': ('{"question": "a", "answer": "b", "label": NaN}\n', 'label: must be'),
  'list': ([row(label=['ok'])], 'label: must be text'),
  'half': ([row(label=0.5)], 'label: must be text'),
  'null': ([row(label=None)], "label: is ''"),
  'no text': ([row(answer=None)], 'answer: is missing'),
  'number': ([row(question=3)], 'question: must be text, not 3'),
  'id': ([row(id=[1])], r'id: must be text or a whole number'),
  'ids': ([row(id=1), BAD | {'id': '1'}], "id: '1': row 1 has it too"),
  'both': ([row(messages=[])], "'question' beside messages"),
  'turns': ([{'messages': 'hi', 'label': 1}], 'must be turns with role'),
  'parts': (
    [{'messages': [{'role': 'user', 'content': ['a']}], 'label': 1}],
    'must be turns with role',
  ),
  'last': (
    [{'messages': [{'role': 'user', 'content': 'a'}], 'label': 1}],
    'end with the answer',
  ),
  'some labels': ([row(), {'question': 'a', 'answer': 'b'}], "label: is ''"),
}
FILES = [(*x, 'gold.csv') for x in MALFORMED.values()]
FILES += [(*x, 'gold.jsonl') for x in MALFORMED_LINES.values()]


@pytest.mark.parametrize(
  'content, message, name', FILES, ids=[*MALFORMED, *MALFORMED_LINES]
)
def test_malformed_files_are_one_line(tmp_path, content, message, name):
  path = written(tmp_path, content, name)
  with pytest.raises(UserError, match=message) as error:
    gold.read(path)
  assert '\n' not in str(error.value) and name in str(error.value)


def test_files_of_other_kinds(tmp_path):
  for name, message in (
    ('none.csv', 'does not exist'),
    ('gold.txt', r'only \.jsonl, .*\.csv files can be read'),
  ):
    if name.endswith('txt'):
      written(tmp_path, 'x', name)
    with pytest.raises(UserError, match=message):
      gold.read(tmp_path / name)


def test_labels_that_no_row_has(tmp_path):
  path = written(tmp_path, f'{HEAD}\n{ROWS}')
  with pytest.raises(
    UserError, match="positive='ful': .*no row has this label"
  ):
    gold.read(path, ['ful'])


# --- The public file ---------------------------------------------------------

needs_xstest = pytest.mark.skipif(
  not XSTEST.is_dir(), reason='needs the public data in ../shared/data'
)


@needs_xstest
@pytest.mark.parametrize(
  'name, flags, classes',
  [
    ('gpt4', 220, 0.970107),
    ('llama2orig', 349, 0.929256),
    ('mistralinstruct', 76, 0.919545),
  ],
)
def test_xstest_as_it_is(name, flags, classes):
  """Counts of final_label; kappa of both people on the three classes."""
  found = gold.read(XSTEST / f'completions_{name}.csv')
  assert (len(found.items), sum(found.flags)) == (450, flags)
  assert len(set(found.clusters)) == 450
  assert Counter(item.kind for item in found.items).most_common()[-1][1] == 25
  first, second = zip(*(item.pair for item in found.items), strict=True)
  of_three = agreement.kappa(first, second, found.clusters)
  assert of_three.value == pytest.approx(classes, abs=1e-6)
