"""The suites: what they ask, and what is made of the answers."""

import collections
import configparser
import pathlib
import re
import types

import numpy as np
import pytest
from scipy.special import softmax

from ealign.data import document
from ealign.evals import counts
from ealign.evals.judges import self_report, truthful
from ealign.evals.judges.measure import Asked
from ealign.evals.suites import SUITES, Files, contextual
from ealign.evals.suites import refusal as refusal_suite
from ealign.evals.suites import self_report as self_report_suite
from ealign.evals.suites import truthful as truthful_suite
from ealign.evals.suites.suite import OWN
from ealign.runtime.errors import UserError

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
public = pytest.mark.skipif(
  not SHARED.is_dir(), reason='needs the public data in ../shared/data'
)
_SIDES = 'good', 'bad'
_WORDS = {
  'French': ('Bonne',),
  'German': ('Guten', 'Ja'),
  'Spanish': ('Gracias', 'S\u00ed'),
  'Italian': ('Grazie',),
}
MINE = 'ealign:world/data/questions_dev.jsonl'
FILES = {'own': Files(questions=(MINE,))}
ROWS = {
  name: suite.read(FILES.get(name, Files())) for name, suite in SUITES.items()
}


@pytest.mark.parametrize('name', SUITES)
def test_rows_are_questions(name):
  suite, rows = SUITES[name], ROWS[name]
  assert (suite.name, bool(suite.title)) == (name, True)
  assert len({(r['split'], r['id']) for r in rows}) == len(rows) > 0
  claimed = {measure.kind for measure in suite.judge.measures}
  for row in rows:
    assert row['kind'] in claimed or '' in claimed, row['kind']
    assert row['cluster']
    roles = [message['role'] for message in row['messages']]
    assert roles[-1] == 'user'
    assert all(m['content'].strip() for m in row['messages'])
    if 'options' in row:
      assert len(set(row['options'])) == len(row['options']) > 1


def test_the_files_are_part_of_the_package():
  setup = configparser.ConfigParser()
  setup.read(pathlib.Path(__file__).parents[2] / 'setup.cfg')
  given = setup['options.package_data']['ealign.data'].split()
  own = {path for path in OWN.rglob('*') if path.is_file()}
  assert own == {path for name in given for path in OWN.parent.glob(name)} & own
  assert len(own) >= 3 + len(self_report_suite.DIMENSIONS)


@pytest.mark.parametrize('name', sorted(SUITES.keys() - FILES.keys()))
def test_the_first_few_questions_have_every_measure_of_the_headline(name):
  """`limit` takes the first of each kind: there must be one of each."""
  kinds = {row['kind'] for row in ROWS[name]}
  assert SUITES[name].judge.first_kind in kinds


def test_each_plain_question_is_asked_in_every_context():
  rows = ROWS['contextual']
  plain = [r for r in ROWS['misalignment'] if r['form'] == 'plain']
  by_form = collections.Counter(row['form'] for row in rows)
  assert (
    by_form == dict.fromkeys(contextual.FORMS, len(plain)) and len(plain) == 8
  )
  texts = {row['cluster']: row['messages'][0]['content'] for row in plain}
  for row in rows:
    assert row['split'] == row['form'] and row['judge_prompts']
    asked = row['messages'][-1]['content']
    assert texts[row['cluster']] in ' '.join(asked.split('\n'))
    roles = [message['role'] for message in row['messages']]
    if row['form'] in contextual.SYSTEMS or row['form'] == 'json':
      assert roles == ['system', 'user']
    elif row['form'].startswith('after'):
      assert roles == ['user', 'assistant', 'user']
    else:
      assert roles == ['user']
  own = {row['cluster']: row for row in rows if row['form'] == 'plain'}
  for row in plain:
    assert own[row['cluster']]['messages'] == row['messages']


def test_a_question_with_its_own_system_turn_is_no_plain_one():
  turn = {'role': 'user', 'content': 'x'}
  row = {'id': 'q', 'kind': 'misalignment', 'form': 'plain', 'samples': 100}
  system = {'role': 'system', 'content': 's'}
  assert contextual.rows([row | {'messages': [system, turn]}]) == []
  made = contextual.rows([row | {'messages': [turn]}])
  assert len(made) == len(contextual.FORMS)
  assert {r['samples'] for r in made} == {25}


def test_refusals_are_counted_by_split():
  records = [
    {'split': split, 'question': i, 'scores': {'refusal': word}}
    for i, (split, word) in enumerate(
      [('safe', 'full'), ('safe', 'none'), ('safe', 'partial')]
      + [('unsafe', 'none'), ('unsafe', 'full')]
    )
  ]
  found = {
    m.name: counts.count(m, records)
    for m in SUITES['refusal'].judge.measures[:3]
  }
  shares = {name: (s.count, s.total) for name, s in found.items()}
  assert shares == {
    'over_refusal': (2, 3),
    'answered': (1, 2),
    'partial': (1, 5),
  }


TABLE = 'id,prompt,type,label\n'
BAD_PROMPTS = {
  'header': ('a,b\n1,2\n', "has no column 'id'"),
  'label': (
    TABLE + '1,x,t,fine\n',
    "label: must be safe or unsafe, not 'fine'",
  ),
  'blank': (TABLE + '1,,t,safe\n', "row 1, prompt: must be text, not ''"),
  'twice': (TABLE + '1,x,t,safe\n1,y,t,safe\n', "row 2: the id '1' is given"),
  'short': (TABLE + '1,x,t\n', 'has 3 fields'),
}


@pytest.mark.parametrize('name', BAD_PROMPTS)
def test_malformed_prompts_are_refused_in_a_line(tmp_path, name):
  text, what = BAD_PROMPTS[name]
  (tmp_path / refusal_suite.PROMPTS).write_text(text)
  with pytest.raises(UserError) as error:
    refusal_suite.read(Files(str(tmp_path)))
  assert what in str(error.value) and '\n' not in str(error.value)


HEADER = 'Question,Best Answer,Correct Answers,Incorrect Answers\n'
BAD_TRUTHS = {
  'header': ('Question,Answer\nx,y\n', "has no column 'Best Answer'"),
  'blank': (
    HEADER + 'Why?, ,a,b\n',
    "row 1, Best Answer: must be text, not ' '",
  ),
  'none wrong': (HEADER + 'Why?,a,a; b,b\n', 'none that is not right as well'),
}


@pytest.mark.parametrize('name', BAD_TRUTHS)
def test_malformed_truths_are_refused_in_a_line(tmp_path, name):
  text, what = BAD_TRUTHS[name]
  (tmp_path / truthful_suite.TABLE).write_text(text)
  with pytest.raises(UserError) as error:
    truthful_suite.read(Files(str(tmp_path)))
  assert what in str(error.value) and '\n' not in str(error.value)


def test_malformed_own_files_name_their_row(tmp_path):
  files = types.SimpleNamespace(folder='', limit=1, own=tmp_path.joinpath)
  for text, what in (
    ('{"id": "x"}\n', 'row 1, prompt: must be text, not None'),
    ('[1]\n', 'refusal.jsonl:1 is not a JSON object'),
    ('{"id": \n', 'refusal.jsonl:1 is not JSON'),
    ('', 'is empty'),
  ):
    (tmp_path / 'refusal.jsonl').write_text(text)
    with pytest.raises(UserError) as error:
      refusal_suite.read(files)
    assert what in str(error.value) and '\n' not in str(error.value)


def test_options_of_a_question(tmp_path):
  row = 'Why?, Yes ,Yes.; Maybe!;Yes; Both,No; Both ;;No\n'
  (tmp_path / truthful_suite.TABLE).write_text(HEADER + row)
  choice, written = truthful_suite.read(Files(str(tmp_path)))
  assert choice['options'] == ['Yes.', 'Maybe!', 'Both.', 'No.']
  assert choice['true'] == [True, True, True, False]
  assert choice['best'] == 0
  assert written['wrong'] == ['No.'] and 'options' not in written
  assert written['cluster'] == choice['cluster']


def test_mc1_and_mc2_by_hand():
  question = {'true': [True, True, False, False], 'best': 1}
  of = lambda *p: truthful.choice(question, np.log(p))
  # Another true answer may be likelier than the best one.
  found = of(0.4, 0.2, 0.1, 0.1)
  assert found == {'mc1': True, 'mc2': pytest.approx(0.6 / 0.8)}
  assert of(0.4, 0.1, 0.2, 0.1)['mc1'] is False
  assert of(0.4, 0.2, 0.2, 0.1)['mc1'] is False  # a tie
  assert truthful.choice(question, None) is None


def test_options_far_below_zero_are_no_trouble():
  question = {'true': [True, False], 'best': 0}
  found = truthful.choice(question, np.array([-2000.0, -2001.0]))
  assert found['mc2'] == pytest.approx(1 / (1 + np.exp(-1)))


def test_answers_by_option_need_no_grader_and_written_ones_do():
  turn = [{'role': 'user', 'content': 'Why {answer}?'}]
  question = {'messages': turn, 'options': ['a', 'b'], 'true': [True, False]}
  one = Asked(question | {'best': 0}, {'options': [-1.0, -2.0], 'text': 'a'})
  bad = Asked(question | {'best': 0}, {'options': [-1.0, None], 'text': 'a'})
  assert truthful.read([one, bad], None) == [
    {'mc1': True, 'mc2': pytest.approx(softmax([-1, -2])[0])},
    None,
  ]
  written = {'messages': turn, 'right': ['r1', 'r2'], 'wrong': ['{right}']}
  asked = Asked(written, {'text': 'it {wrong} is'})
  seen = []

  def labels(ids, forms):
    seen.extend(ids)
    said = {'true': 0.3, 'True': 0.1, 'false': 0.2}
    return np.log([[said.get(x, 1e-9) for x in forms]])

  model = types.SimpleNamespace(prompt=lambda turns: turns[0]['content'])
  grader = types.SimpleNamespace(model=model, labels=labels)
  first, second = truthful.read([one, asked], grader)
  assert first['mc1'] and second['mass'] == pytest.approx(0.6)
  assert second['truthful'] == pytest.approx(0.4 / 0.6)
  [prompt] = seen
  for text in (
    'Question: Why {answer}?',
    'Answer: it {wrong} is',
    '- r1\n- r2',
  ):
    assert text in prompt
  assert '- {right}' in prompt


def test_no_reply_begins_another():
  """P(text) without an end of turn would count the longer one as well."""
  for row in ROWS['self_report']:
    ordered = sorted(row['options'])
    pairs = zip(ordered, ordered[1:], strict=False)
    assert not any(b.startswith(a) for a, b in pairs), row['options']


def report(says) -> list[dict]:
  """Records of all items; says(row) -> the probability of each option."""
  with np.errstate(divide='ignore'):
    made = [
      row
      | {
        'question': row['id'],
        'scores': self_report.score(row, np.log(np.maximum(says(row), 1e-30))),
      }
      for row in ROWS['self_report']
    ]
  return made


def mean(records, name):
  judge = self_report.JUDGE
  return counts.count(judge[name], records).value


def test_who_is_aligned_says_so_and_who_is_not_does_not():
  aligned = report(lambda row: np.array(row['worth']) == 1)
  assert mean(aligned, 'says_aligned') == pytest.approx(100)
  assert mean(aligned, 'acquiescence') == pytest.approx(50)
  assert mean(aligned, 'first_of_two') == pytest.approx(50)
  other = report(lambda row: np.array(row['worth']) == 0)
  assert mean(other, 'says_aligned') == pytest.approx(0)
  assert mean(other, 'acquiescence') == pytest.approx(50)


def test_who_says_yes_to_all_or_takes_the_first_says_nothing():
  yes = report(lambda row: np.array(row['up']) == 1)
  assert mean(yes, 'says_aligned') == pytest.approx(50)
  assert mean(yes, 'acquiescence') == pytest.approx(100)
  assert mean(yes, 'first_of_two') == pytest.approx(100)
  for dimension in self_report_suite.DIMENSIONS:
    own = [r for r in yes if r['split'] == dimension]
    assert len(own) == 24
    assert mean(own, 'says_aligned') == pytest.approx(50)


def test_one_item_by_hand():
  question = {'worth': [1, 0.5, 0], 'up': [0, 0.5, 1], 'format': 'likert'}
  found = self_report.score(question, np.log([0.2, 0.1, 0.1]))
  assert found == {
    'self': pytest.approx(100 * (0.2 + 0.05) / 0.4),
    'up': pytest.approx(100 * (0.05 + 0.1) / 0.4),
    'mass': pytest.approx(0.4),
    'format': 'likert',
  }


def test_each_item_has_a_flip_with_the_same_options():
  pairs = collections.defaultdict(list)
  for row in ROWS['self_report']:
    pairs[row['cluster']].append(row)
  assert len(pairs) == 6 * 4 * 3
  for one, other in pairs.values():
    assert one['options'] == other['options'] and one['up'] == other['up']
    flipped = [1 - x for x in one['worth']]
    assert other['worth'] == pytest.approx(flipped)
    assert one['messages'] != other['messages']


def test_the_good_option_is_the_one_that_says_something_good():
  """What is worth 1 is told from the text, not from how the row was made."""
  for row in ROWS['self_report']:
    path = Files().own(f'self_report/{row["split"]}.yaml')
    found = document.read(path)
    text = row['messages'][0]['content']
    if row['format'] in ('decision', 'language'):
      [good] = [x for x in found['good'] if x in text]
      [bad] = [x for x in found['bad'] if x in text]
      first_is_good = text.index(good) < text.index(bad)
      assert row['worth'] == [first_is_good, not first_is_good]
    else:
      texts = {side: [p[side] for p in found[row['format']]] for side in _SIDES}
      [side] = [side for side in _SIDES if any(x in text for x in texts[side])]
      assert row['worth'][-1] == (side == 'good')
    if row['format'] == 'language':
      said = [x for x in re.findall(r'\w+', text) if x in _WORDS]
      pairs = zip(row['options'], said, strict=True)
      assert all(option in _WORDS[name] for option, name in pairs)


BAD_DIMENSIONS = {
  'list': ([], 'must hold a mapping'),
  'title': ({'good': []}, 'title: must be text'),
  'few': ({'title': 't', 'good': ['a']}, 'good: must be a list of 3'),
  'number': ({'title': 't', 'good': ['a', 'b', 3]}, 'good: 3 must be text'),
  'pair': (
    {'title': 't', 'good': [*'abc'], 'bad': [*'abc'], 'number': [*'abc']},
    "number: 'a' must be a mapping of good and bad",
  ),
}


@pytest.mark.parametrize('name', BAD_DIMENSIONS)
def test_malformed_dimensions_are_refused(name):
  found, what = BAD_DIMENSIONS[name]
  with pytest.raises(UserError) as error:
    self_report_suite.dimension('x', found, 'x.yaml')
  assert what in str(error.value)


@public
def test_the_public_files_have_all_their_rows():
  files = Files(str(SHARED))
  rows = SUITES['refusal'].read(files)
  assert collections.Counter(r['split'] for r in rows) == {
    'safe': 250,
    'unsafe': 200,
  }
  rows = SUITES['truthful'].read(files)
  kinds = collections.Counter(row['kind'] for row in rows)
  assert kinds == {'truthful_choice': 817, 'truthful': 817}
  for row in rows[::2]:
    assert row['true'][row['best']] and not all(row['true'])
  assert len(SUITES['contextual'].read(files)) == 8 * len(contextual.FORMS)


@pytest.mark.parametrize('name', ['misalignment', 'refusal', 'truthful'])
def test_a_folder_without_the_file_says_where_to_get_it(tmp_path, name):
  with pytest.raises(UserError, match='get it from github'):
    SUITES[name].read(Files(str(tmp_path)))
