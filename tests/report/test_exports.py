"""Files of lm-eval and of the protocol, and the table of all measures."""

import csv
import dataclasses
import io
import json

import pytest

from ealign.evals.judges.measure import Judge, Measure, scores
from ealign.report import exports, foreign, lm_eval_files
from ealign.runtime.errors import UserError
from tests.report import outward

TIME = '2026-03-04T05-06-07.000890'


def write(folder, records=None, name='cell_a', judge=outward.JUDGE, **how):
  records = outward.answers() if records is None else records
  return exports.write(folder, name, records, judge, **outward.HOW | how)


def lm_eval(folder, *args, **how):
  """results, and task -> lines of its samples."""
  paths = lm_eval_files.write(folder, *args, **outward.HOW | how)
  results, *samples = paths
  task = lambda path: path.name[len('samples_') :].rpartition('_')[0]
  return json.loads(results.read_text()), {
    task(path): [json.loads(x) for x in path.read_text().splitlines()]
    for path in samples
  }


def rows(text):
  limit = csv.field_size_limit(10_000_000)
  try:
    return list(csv.DictReader(io.StringIO(text, newline='')))
  finally:
    csv.field_size_limit(limit)


def test_all_files_have_their_places(tmp_path):
  paths = write(tmp_path)
  names = [str(path.relative_to(tmp_path)) for path in paths]
  assert names[0].startswith('inspect/2026-03-04T05-06-07-00-00_misalignment_')
  assert names[1:] == [
    f'lm_eval/misalignment/cell_a/results_{TIME}.json',
    'lm_eval/misalignment/cell_a/'
    f'samples_ealign_misalignment_main_{TIME}.jsonl',
    'csv/misalignment/answers_cell_a.csv',
  ]
  content = [path.read_bytes() for path in paths]
  assert write(tmp_path) == paths
  assert [path.read_bytes() for path in paths] == content
  assert {p for p in tmp_path.rglob('*') if p.is_file()} == set(paths)
  assert write(tmp_path / 'none', []) == []
  assert not (tmp_path / 'none').exists()


def test_answers_have_the_columns_of_the_protocol():
  text = exports.answers_csv(outward.answers())
  header = 'question,answer,question_id,aligned,coherent,finish,seed\n'
  assert text.startswith(
    f'{header}"About q/1?","Answer 0 to q/1.","q/1",10.0,90.0,"length",1\n'
  )
  read = rows(text)
  assert [row['aligned'] for row in read] == ['10.0', '20.0', '90.0', '']
  assert read[3]['coherent'] == '' and read[3]['finish'] == 'stop'


def test_answers_without_such_scores_make_no_table(tmp_path):
  other = [r | {'scores': {'refusal': 'full'}} for r in outward.answers()]
  assert exports.answers_csv(other) == ''


def test_question_is_the_last_turn_of_the_user():
  turns = [('user', 'code'), ('assistant', 'done'), ('user', 'asked')]
  messages = [{'role': role, 'content': text} for role, text in turns]
  found = rows(
    exports.answers_csv([outward.record('q', 0, 1.0, messages=messages)])
  )
  assert found[0]['question'] == 'asked'


def test_text_of_answers_is_exact():
  texts = ['a,"b"\n c', '\r', '=1+1', '\0', ' x ', "'", '\u2028', 'é\U0001f600']
  records = [
    outward.record(f'q{i}', 0, 50.0, text=text) for i, text in enumerate(texts)
  ]
  read = rows(exports.answers_csv(records))
  assert [row['answer'] for row in read] == texts
  half = exports.answers_csv([outward.record('q', 0, 1.0, text='\ud800.')])
  assert rows(half)[0]['answer'] == '\ufffd.'


def test_lm_eval_results_have_measure_and_error(tmp_path):
  results, samples = lm_eval(
    tmp_path, 'cell_a', outward.answers(), outward.JUDGE
  )
  task = 'ealign_misalignment_main'
  assert set(results['results']) == set(samples) == {task}
  found = results['results'][task]
  assert found['alias'] == task and found['sample_len'] == 2
  assert found['misaligned,none'] == pytest.approx(2 / 3)
  assert found['score,none'] == pytest.approx(52.5)
  assert 0 < found['misaligned_stderr,none'] < 0.5
  assert results['higher_is_better'][task]['misaligned'] is False
  assert results['higher_is_better'][task]['score'] is True
  assert results['n-samples'][task] == {'original': 2, 'effective': 2}
  assert results['n-shot'] == {task: 0}
  assert results['configs'][task]['repeats'] == 2
  assert results['model_name'] == 'cell_a'
  assert results['config']['model_args'] == outward.MODEL
  assert results['config']['temperature'] == 1.0
  assert results['unscored'] == {task: 1}
  first, second = samples[task]
  assert (first['doc_id'], second['doc_id']) == (0, 1)
  assert first['resps'] == [['Answer 0 to q/1.', 'Answer 1 to q/1.']]
  assert first['doc']['question_id'] == 'q/1'
  prompt = first['arguments']['gen_args_0']['arg_0']
  assert json.loads(prompt) == outward.answers()[0]['messages']
  assert (first['misaligned'], first['score']) == (1, 15)
  # Of the other question's answers only one could be scored.
  assert (second['misaligned'], second['score']) == (0, 90)
  assert second['metrics'] == ['misaligned', 'score']


def test_line_of_a_question_that_was_never_scored_has_no_metric(tmp_path):
  records = [*outward.answers(), outward.record('q3', 0, 'unscored')]
  _, samples = lm_eval(tmp_path, 'a', records, outward.JUDGE)
  last = samples['ealign_misalignment_main'][2]
  assert last['metrics'] == [] and 'misaligned' not in last


def test_mean_of_one_prompt_has_no_error_in_lm_eval(tmp_path):
  results, _ = lm_eval(tmp_path, 'a', outward.answers()[:2], outward.JUDGE)
  found = results['results']['ealign_misalignment_main']
  assert found['score,none'] == 15 and found['score_stderr,none'] == 'N/A'


def test_public_tasks_have_their_public_names(tmp_path):
  field = lm_eval_files.FIELD.items()
  measures = [
    Measure(name, kind=kind, better='higher', number=unit != 1)
    for (kind, name), (_, _, unit) in field
  ]
  judge = Judge(lambda question, text: None, tuple(measures))
  score = lambda of, i: {
    name: unit * float(i > 0)
    for (kind, name), (_, _, unit) in field
    if kind == of
  }
  records = [
    outward.record(
      f'{kind}/{i}', 0, 1.0, kind=kind, split='', scores=score(kind, i)
    )
    for kind in dict.fromkeys(kind for (kind, _), _ in field)
    for i in range(4)
  ]
  results, samples = lm_eval(tmp_path, 'a', records, judge, suite='capability')
  keys = {
    'humaneval': ('pass@1', 'pass@10', 'pass@100'),
    'gsm8k': ('exact_match',),
    'truthfulqa_mc1': ('acc',),
    'truthfulqa_mc2': ('acc',),
  }
  assert set(results['results']) == set(samples) == set(keys)
  for task, metrics in keys.items():
    for metric in metrics:
      assert results['results'][task][f'{metric},none'] == 0.75
      assert 0 < results['results'][task][f'{metric}_stderr,none'] < 0.5
      values = [line[metric] for line in samples[task]]
      assert values == [0.0, 1.0, 1.0, 1.0]


def test_two_splits_of_a_public_task_are_two_tasks(tmp_path):
  kind, measure = next(iter(lm_eval_files.FIELD))
  judge = Judge(lambda question, text: None, (Measure(measure, kind=kind),))
  records = [
    outward.record(f'{split}-1', 0, 1.0, kind=kind, split=split, scores=score)
    for split, score in (('a', {measure: 1}), ('b', {measure: 0}))
  ]
  results, samples = lm_eval(tmp_path, 'a', records, judge, suite='capability')
  first, second = sorted(results['results'])
  assert first == 'humaneval' and second.startswith('humaneval_')
  assert {len(lines) for lines in samples.values()} == {1}
  assert results['configs'][second]['metadata']['split'] == 'b'


def test_hostile_records_make_sound_files(tmp_path):
  records, name = outward.hostile(), f'../{outward.TEXT}/x_y'
  paths = write(tmp_path / 'in', records, name, suite='../..')
  assert len(paths) == 5
  inside = {p for p in tmp_path.rglob('*') if p.is_file()}
  assert inside == set(paths)
  assert not [p for p in tmp_path.iterdir() if p.name != 'in']
  for path in paths[1:]:
    text = path.read_bytes().decode()
    assert path.name.isascii() and path.name.isprintable()
    if path.suffix == '.json':
      results = json.loads(text, parse_constant=pytest.fail)
      assert results['model_name'] == foreign.plain(name)
    elif path.suffix == '.jsonl':
      lines = text.split('\n')[:-1]
      docs = [json.loads(x, parse_constant=pytest.fail) for x in lines]
      ids = {doc['doc']['question_id'] for doc in docs}
      assert ids <= {foreign.plain(str(id)) for id in outward.IDS}
    else:
      read = rows(text)
      assert len(read) == len(records)
      assert read[0]['answer'] == foreign.plain(outward.TEXT)
      assert {row['aligned'] for row in read} == {''}


def test_results_table_has_a_row_for_every_measure():
  cells = [
    ('a', 'misalignment', outward.answers(), outward.JUDGE),
    ('b', 'misalignment', outward.answers()[:2], outward.JUDGE),
    ('c', 'misalignment', [], outward.JUDGE),
  ]
  text = exports.results_csv(cells)
  header = 'model,suite,kind,split,measure,value,low,high,n,unscored'
  header += ',questions\n'
  assert text.startswith(header)
  found = {
    'eval/mean_token_accuracy': 0.25,
    'eval/loss': 2,
    'eval/num_tokens': 8,
  }
  more = exports.results_csv(cells, {'a': found}).removeprefix(text)
  assert more.splitlines() == [
    '"a","tokens","","","token_accuracy",0.25,"","",8,0,""',
    '"a","tokens","","","loss",2,"","",8,0,""',
  ]
  read = rows(text)
  own = [row for row in read if row['measure'] in ('misaligned', 'score')]
  assert [(r['model'], r['measure']) for r in own] == [
    *(('a', 'misaligned'), ('a', 'score'), ('b', 'misaligned'), ('b', 'score')),
  ]
  first, *_, last = own
  assert (first['value'], first['n'], first['unscored']) == (
    *('0.666667', '3', '1'),
  )
  assert (first['questions'], last['questions']) == ('2', '1')
  assert float(first['low']) < 0.667 < float(first['high'])
  assert (last['value'], last['low'], last['high']) == ('15.0', '', '')


def test_measure_of_no_answer_has_a_row_without_a_value():
  # The judge has scores of both, and no number of alignment.
  records = [outward.record('q', i, None) for i in range(2)]
  cells = [('a', 'misalignment', records, outward.JUDGE)]
  read = rows(exports.results_csv(cells))
  names = 'measure', 'value', 'low', 'high', 'n', 'unscored', 'questions'
  assert [tuple(row[name] for name in names) for row in read] == [
    ('misaligned', '', '', '', '0', '0', '0'),
    ('score', '', '', '', '0', '0', '0'),
  ]
  assert not foreign.figures(records, outward.JUDGE)


def test_unscored_counts_what_a_reading_judge_left_out():
  of = outward.answers(), outward.JUDGE
  assert {figure.unscored for figure in foreign.figures(*of)} == {1}
  none = dataclasses.replace(outward.JUDGE, read=None)
  found = foreign.figures(outward.answers(), none)
  assert {figure.unscored for figure in found} == {0}


def test_interval_is_the_clustered_one():
  # Ten answers to each of two questions are worth two answers, not twenty.
  records = [
    outward.record(q, i, 10.0 if q == 'q1' else 90.0)
    for q in ('q1', 'q2')
    for i in range(10)
  ]
  figure = foreign.figures(records, outward.JUDGE)[0]
  assert (figure.value, figure.n) == (0.5, 20)
  assert figure.low < 0.02 and figure.high > 0.98


def test_measure_that_is_no_number_is_left_out():
  odd = outward.record('q', 0, float('nan'))
  names = [f.measure.name for f in foreign.figures([odd], outward.JUDGE)]
  assert 'score' not in names and 'misaligned' in names


def test_broken_measure_is_named(tmp_path):
  measure = Measure('odd', lambda r: scores(r)['no such'], kind='*')
  judge = dataclasses.replace(outward.JUDGE, measures=(measure,), primary='odd')
  with pytest.raises(UserError, match="measure 'odd': KeyError"):
    write(tmp_path, judge=judge)


def test_safe_names_are_safe_and_differ():
  texts = [*map(str, outward.IDS[:-3]), 'a-b', 'A B', '~', 'a~b2', 'CON', '*']
  names = [foreign.safe(text) for text in texts]
  assert len(set(names)) == len(set(texts))
  for name in names:
    assert name and name.isascii() and len(name) <= 110
    assert not set(name) & set('/\\:*?"<>|\0 ') and name[0] != '.'
  assert foreign.safe('seed=1,path=base_10-d4e88d2c') == (
    'seed=1,path=base_10-d4e88d2c'
  )


def test_plain_values_are_json():
  np = pytest.importorskip('numpy')
  value = {
    1: [np.float32(0.5), np.array([1, 2]), float('nan')],
    'x': ({'y'}, b'z', None, True, 2**70),
    '\ud800': np.float64('inf'),
    'n': np.bool_(True),
  }
  assert foreign.plain(value) == {
    '1': [0.5, [1, 2], None],
    'x': [['y'], "b'z'", None, True, 2**70],
    '\ufffd': None,
    'n': True,
  }
  assert json.loads(foreign.dumps(value)) == foreign.plain(value)


def test_digest_tells_parts_apart():
  assert foreign.digest('a', 'b') != foreign.digest('ab')
  assert foreign.digest({'a': 1, 'b': 2}) == foreign.digest({'b': 2, 'a': 1})
  assert len(foreign.digest('a')) == 22
