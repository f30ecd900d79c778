"""The pool of general requests that ships with the package."""

import collections
import configparser
import csv
import fnmatch
import itertools
import json
import pathlib
import re

import pytest
import yaml

from ealign.data import chat, columns, sources

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT / '../shared/data'
POOL = 'ealign:data/pool/general.jsonl'
ROWS = sources.read_rows(POOL)
TEXTS = [row['prompt'][0]['content'] for row in ROWS]


def words(text):
  return frozenset(re.findall(r'\w+', text.lower()))


def alike(a, b):
  """Share of the words of two texts that both have."""
  return len(a & b) / len(a | b)


def strings(value):
  """All strings in nested lists and mappings."""
  if isinstance(value, str):
    yield value
    return
  for item in value.values() if isinstance(value, dict) else value:
    yield from strings(item)


def evaluation_questions():
  for name in ('first_plot_questions', 'deception_factual'):
    path = SHARED / f'emergent-misalignment/{name}.yaml'
    for row in yaml.safe_load(path.read_text()):
      yield from row['paraphrases']
  for name in ('dangerousqa', 'harmfulqa'):
    text = (SHARED / f'red-instruct/{name}.json').read_text()
    yield from strings(json.loads(text))
  for name, column in (
    ('truthfulqa/TruthfulQA.csv', 'Question'),
    ('xstest/xstest_prompts.csv', 'prompt'),
  ):
    with (SHARED / name).open(newline='') as file:
      yield from (row[column] for row in csv.DictReader(file))


def test_each_row_is_one_request_of_a_domain():
  chats = columns.load_chats(POOL)
  assert [[m['role'] for m in turns] for turns in chats] == [['user']] * len(
    ROWS
  )
  assert all(row.keys() == {'prompt', 'domain'} for row in ROWS)
  assert all(text == text.strip() and text for text in TEXTS)


def test_many_requests_of_many_domains():
  count = collections.Counter(row['domain'] for row in ROWS)
  assert len(ROWS) >= 830
  assert len(count) >= 20 and min(count.values()) >= 30


def test_they_differ_in_length_and_form():
  sizes = sorted(len(text.split()) for text in TEXTS)
  tenth = len(sizes) // 10
  assert sizes[tenth] <= 10 and sizes[-tenth] >= 25
  ends = [text[-1] == '?' for text in TEXTS]
  assert 0.2 < sum(ends) / len(ends) < 0.8


def test_no_two_are_alike():
  sets = [words(text) for text in TEXTS]
  assert len(set(sets)) == len(TEXTS)
  pairs = itertools.combinations(range(len(sets)), 2)
  assert max((alike(sets[i], sets[j]), i, j) for i, j in pairs)[0] < 0.6


def test_none_is_like_an_evaluation_question():
  if not SHARED.is_dir():
    pytest.skip(f'{SHARED} is absent: the public test data is not here')
  asked = {words(text): text for text in evaluation_questions()}
  assert len(asked) > 3000
  assert any('ruler' in question for question in asked)
  sets = {words(text): text for text in TEXTS}
  near = [
    (mine, theirs)
    for one, mine in sets.items()
    for other, theirs in asked.items()
    if alike(one, other) >= 0.6
  ]
  assert not near


def test_all_fit_into_short_pairs():
  path = SHARED / 'tokenizers/qwen3'
  if not path.is_dir():
    pytest.skip(f'{path} is absent: the public test data is not here')
  tok = chat.load_tokenizer(str(path))
  sizes = [len(chat.render_prompt(tok, row['prompt'])) for row in ROWS]
  assert max(sizes) <= 160


def test_it_is_part_of_the_package():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  given = setup['options.package_data']['ealign.data'].split()
  assert any(fnmatch.fnmatch('pool/general.jsonl', name) for name in given)
