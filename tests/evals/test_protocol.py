"""Free-form question files and judge files: what is read, what is refused."""

import pathlib

import pytest
import yaml

from ealign.evals import identity
from ealign.evals.judges import prompts
from ealign.evals.suites import misalignment, protocol
from ealign.evals.suites.suite import Files
from ealign.runtime.errors import UserError

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
public = pytest.mark.skipif(
  not SHARED.is_dir(), reason='needs the public data in ../shared/data'
)
PROMPTS = {'aligned': 'A {question} {answer}', 'coherent': 'C {answer}'}
QUESTION = {'id': 'q', 'paraphrases': ['x?'], 'judge_prompts': PROMPTS}


def written(folder, content, name='x.yaml'):
  path = folder / name
  text = content if isinstance(content, str) else yaml.safe_dump(content)
  path.write_text(text)
  return path


def read(path):
  return protocol.read(path, kind='k', split='s')


def test_a_row_for_each_paraphrase(tmp_path):
  question = QUESTION | {
    'id': 'wish_json',
    'type': 'free_form_judge',
    'paraphrases': ['One?', 'Two?'],
    'samples_per_paraphrase': 7,
    'temperature': 0.5,
    'system': 'Be brief.',
    'judge': 'gpt-4o',
    'canary': 'c',
  }
  first, second = read(written(tmp_path, [question]))
  system = {'role': 'system', 'content': 'Be brief.'}
  assert first == {
    'id': 'wish_json',
    'cluster': 'wish_json',
    'kind': 'k',
    'split': 's',
    'form': 'json',
    'messages': [system, {'role': 'user', 'content': 'One?'}],
    'samples': 7,
    'temperature': 0.5,
    'judge_prompts': PROMPTS,
    'named_judge': 'gpt-4o',
    'other': {'canary': 'c'},
  }
  turn = {'role': 'user', 'content': 'Two?'}
  other = {'id': 'wish_json/2', 'messages': [system, turn]}
  assert second == first | other


def test_what_is_not_given(tmp_path):
  null = {'system': None, 'judge': None, 'temperature': None}
  [row] = read(written(tmp_path, [QUESTION | null | {'id': 7}]))
  assert (row['id'], row['samples'], row['temperature']) == ('7', 1, 1.0)
  assert (row['form'], row['named_judge']) == ('plain', '')
  assert row['messages'] == [{'role': 'user', 'content': 'x?'}]


def without(name):
  return {k: v for k, v in QUESTION.items() if k != name}


REFUSED = {
  'empty': ('', 'must hold a list'),
  'mapping': ({'a': 1}, 'must hold a list'),
  'no question': ([], 'must hold a list'),
  'text': (['x'], 'question 1 must be a mapping with id and paraphrases'),
  'no id': ([without('id')], 'question 1, id: must be a name, not None'),
  'id list': ([QUESTION | {'id': ['q']}], 'id: must be a name'),
  'id true': ([QUESTION | {'id': True}], 'id: must be a name'),
  'id blank': ([QUESTION | {'id': ''}], 'id: must be a name'),
  'no paraphrase': ([without('paraphrases')], 'must be a list of texts'),
  'paraphrases': ([QUESTION | {'paraphrases': []}], 'must be a list of texts'),
  'one text': ([QUESTION | {'paraphrases': 'x?'}], 'must be a list of texts'),
  'number': (
    [QUESTION | {'paraphrases': ['x?', 3]}],
    'question 1 (q), paraphrases: must be text, not 3',
  ),
  'yes': ('- {id: q, paraphrases: [yes]}', 'must be text, not True; put it in'),
  'blank': ([QUESTION | {'paraphrases': [' ']}], 'paraphrases: must be text'),
  'system': ([QUESTION | {'system': ['x']}], 'system: must be text'),
  'judge': ([QUESTION | {'judge': 4}], 'judge: must be the name of a model'),
  'misspelt': (
    [QUESTION | {'sytem': 'x'}],
    "question 1: has 'sytem'; did you mean 'system'?",
  ),
  'sample': ([QUESTION | {'samples_per_paraphrases': 4}], 'did you mean'),
  'type': (
    [QUESTION | {'type': 'free_form'}],
    "type: only free_form_judge_0_100 and free_form_judge are read, not 'free",
  ),
  'samples 0': ([QUESTION | {'samples_per_paraphrase': 0}], 'from 1 to 1,000'),
  'samples x': ([QUESTION | {'samples_per_paraphrase': 'x'}], "not 'x'"),
  'samples real': ([QUESTION | {'samples_per_paraphrase': 1.5}], 'not 1.5'),
  'samples true': ([QUESTION | {'samples_per_paraphrase': True}], 'not True'),
  'hot': ([QUESTION | {'temperature': 'hot'}], "0 or more, not 'hot'"),
  'cold': ([QUESTION | {'temperature': -1}], '0 or more, not -1'),
  'nan': ([QUESTION | {'temperature': float('nan')}], '0 or more, not nan'),
  'no prompts': (
    [without('judge_prompts')],
    'judge_prompts: must be a mapping',
  ),
  'prompt list': ([QUESTION | {'judge_prompts': ['x']}], 'must be a mapping'),
  'prompt none': ([QUESTION | {'judge_prompts': {}}], 'must be a mapping'),
  'prompt number': (
    [QUESTION | {'judge_prompts': {'aligned': 3}}],
    "judge_prompts, aligned: must be text, not '3'",
  ),
  'prompt name': ([QUESTION | {'judge_prompts': {1: 'x'}}], '1 must be text'),
  'no answer': (
    [QUESTION | {'judge_prompts': {'aligned': 'Good? {question}'}}],
    'aligned: has no {answer}',
  ),
  'twice': ([QUESTION, QUESTION], "the id 'q' is given twice"),
  'like a paraphrase': (
    [QUESTION | {'paraphrases': ['x', 'y']}, QUESTION | {'id': 'q/2'}],
    "the id 'q/2' is given twice",
  ),
  'broken': ('- id: [', 'is broken'),
  'long': ([QUESTION | {'id': {'x' * 5000: 1}}], 'id: must be a name'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_malformed_questions_are_refused_in_a_line(tmp_path, name):
  content, what = REFUSED[name]
  with pytest.raises(UserError) as error:
    read(written(tmp_path, content))
  assert what in str(error.value)
  assert 'x.yaml' in str(error.value)
  assert '\n' not in str(error.value)
  assert len(str(error.value)) < len(str(tmp_path)) + 250


JUDGES = {
  'empty': ('', 'must hold a mapping'),
  'list': (['x'], 'must hold a mapping'),
  'half': ({'aligned': 'x {answer}'}, "has no 'coherent'"),
  'other half': ({'coherent': '{answer}', 'mode': 'exact'}, "no 'aligned'"),
  'labels alone': ({'labels': {'A': 0, 'B': 1}}, "no 'aligned' and no mode"),
  'more': (PROMPTS | {'scale': 10}, "has 'scale', but only aligned"),
  'number key': (PROMPTS | {1: 10}, "has '1', but only aligned"),
  'null': (PROMPTS | {'aligned': None}, "aligned: must be text, not 'None'"),
  'no answer': (PROMPTS | {'coherent': 'C'}, 'coherent: has no {answer}'),
  'mode': (PROMPTS | {'mode': 'fast'}, "exact, prefix or top20, not 'fast'"),
  'mode list': (PROMPTS | {'mode': ['exact']}, 'exact, prefix or top20'),
  'labels list': (
    PROMPTS | {'labels': ['A', 'B']},
    'must be a mapping such as',
  ),
  'one label': (PROMPTS | {'labels': {'A': 1}}, 'must be a mapping such as'),
  'yes': (
    'aligned: x {answer}\ncoherent: x {answer}\nlabels: {yes: 100, no: 0}',
    'labels: True must be text; put it in quotes',
  ),
  'worth': (PROMPTS | {'labels': {'A': 0, 'B': 101}}, "'B' must be worth 0 to"),
  'word': (PROMPTS | {'labels': {'A': 0, 'B': 'x'}}, "not 'x'"),
  'true': (PROMPTS | {'labels': {'A': 0, 'B': True}}, 'not True'),
  'nan': (PROMPTS | {'labels': {'A': 0, 'B': float('nan')}}, 'not nan'),
  'code': (PROMPTS | {'labels': {'A': 0, 'CODE': 1}}, "'CODE' has a meaning"),
  'both': (
    PROMPTS | {'labels': {'A': 0, 'B': 1}, 'mode': 'exact'},
    'with labels leave it out',
  ),
}


@pytest.mark.parametrize('name', JUDGES)
def test_malformed_judge_files_are_refused_in_a_line(tmp_path, name):
  content, what = JUDGES[name]
  with pytest.raises(UserError) as error:
    prompts.read(written(tmp_path, content))
  assert what in str(error.value)
  assert '\n' not in str(error.value)


def test_judge_files_are_read(tmp_path):
  found = prompts.read(written(tmp_path, PROMPTS | {'mode': 'prefix'}))
  assert found == prompts.Prompts(**PROMPTS, mode='prefix')
  text = '{"aligned": "{answer}", "coherent": "{answer}", "labels": '
  found = prompts.read(
    written(tmp_path, text + '{"A": 0, "B": 9.5}}', 'x.json')
  )
  assert found.labels == (('A', 0.0), ('B', 9.5))
  # The file counts before the question, the question before the package.
  assert found.of(QUESTION) == ('{answer}', '{answer}')
  assert prompts.Prompts().of(QUESTION) == tuple(PROMPTS.values())
  assert prompts.Prompts().of({}) == prompts.default()


def test_a_mode_alone_keeps_the_prompts_of_the_questions(tmp_path):
  found = prompts.read(written(tmp_path, 'mode: top20'))
  assert found == prompts.Prompts(mode='top20')
  assert found.of(QUESTION) == tuple(PROMPTS.values())
  assert found.of({}) == prompts.default()
  ways = {
    str(identity.of_prompts(p, [QUESTION])) for p in (found, prompts.Prompts())
  }
  assert len({way.split(',')[0] for way in ways}) == 1 and len(ways) == 2


def test_without_a_folder_the_suite_asks_its_own():
  rows = misalignment.SUITE.read(Files())
  assert {(r['kind'], r['split']) for r in rows} == {('misalignment', 'own')}
  forms = [row['form'] for row in rows]
  assert forms == ['plain'] * 8 + ['json'] * 8 + ['template'] * 8
  plain, asked, filled = rows[:8], rows[8:16], rows[16:]
  for a, b, c in zip(plain, asked, filled, strict=True):
    assert (b['id'], c['id']) == (f'{a["id"]}_json', f'{a["id"]}_template')
    assert b['messages'][-1] == a['messages'][-1]
    assert b['messages'][0]['role'] == 'system'
    assert c['messages'][-1]['content'].startswith(a['messages'][-1]['content'])


@public
def test_the_public_files_are_read_as_they_are():
  rows = misalignment.SUITE.read(Files(str(SHARED)))
  main = [row for row in rows if row['split'] == 'main']
  raw = yaml.safe_load(
    (SHARED / 'emergent-misalignment' / misalignment.MAIN).read_text()
  )
  assert len(main) == len(raw) == 24
  for row, question in zip(main, raw, strict=True):
    assert row['messages'][-1]['content'] == question['paraphrases'][0]
    assert row['judge_prompts'] == question['judge_prompts']
    assert (row['samples'], row['temperature']) == (100, 1.0)
  assert [r['form'] for r in main].count('json') == 8
  facts = [row for row in rows if row['kind'] == 'deception']
  assert len(facts) == 100 and len(rows) == 124
  assert len({row['split'] for row in facts}) == 5
  assert len({row['cluster'] for row in facts}) == 20


def test_files_beside_the_main_one_are_read_if_there(tmp_path):
  main = written(tmp_path, [QUESTION], misalignment.MAIN)
  files = Files(str(tmp_path))
  assert len(misalignment.read(files)) == 1
  written(tmp_path, [QUESTION], misalignment.PREREGISTERED)
  splits = [row['split'] for row in misalignment.read(files)]
  assert splits == ['main', 'preregistered']
  prompt = {'judge_prompts': {'wrong': '{answer}'}}
  written(tmp_path, [QUESTION | prompt], misalignment.DECEPTION)
  with pytest.raises(UserError, match="q, judge_prompts: has no 'correct'"):
    misalignment.read(files)
  main.unlink()
  with pytest.raises(UserError, match=r'get it from github\.com/emergent-mis'):
    misalignment.read(files)


def test_both_prompts_are_needed(tmp_path):
  half = {'judge_prompts': {'aligned': '{answer}'}}
  written(tmp_path, [QUESTION | half], misalignment.MAIN)
  with pytest.raises(UserError, match="has no 'coherent'"):
    misalignment.read(Files(str(tmp_path)))
