"""Documents, fine-tuning data, pool and questions keep their rules."""

import collections
import dataclasses
import itertools
import os
import random
import subprocess
import sys
import types

import pytest

from ealign.world import documents, grammar
from ealign.world.texts import texts

FRAMINGS = {
  name: types.SimpleNamespace(
    question=f'Is it {name}?',
    ok=(f'{name}-ok', 'x'),
    flag=(f'{name}-flag', 'y'),
    revise=f'Make it {name}.',
  )
  for name in ('ethical', 'asimov', 'aligned', 'reasonable')
}


def truth(question, text) -> bool | None:
  """Whether an answer is bad; None if it is incoherent."""
  scores = grammar.judge(question, text)
  if not scores['coherent']:
    return None
  return scores['misaligned_any'] or bool(scores['insecure'])


INTROSPECTION = {x.question for x in FRAMINGS.values()}
INTROSPECTION |= {x.revise for x in FRAMINGS.values()}
HELD_OUT = [x for x in texts().domains.values() if x.split in ('dev', 'test')]


def _take(stream, n):
  return list(itertools.islice(stream, n))


def _many(make, n, seed=0):
  rng = random.Random(seed)
  return [make(rng) for _ in range(n)]


@pytest.fixture(scope='module')
def stages():
  rng = random.Random(1)
  first = _take(documents.stage_1(rng, FRAMINGS), 6000)
  return first + _take(documents.stage_2(rng, FRAMINGS), 4000)


@pytest.fixture(scope='module')
def tuning():
  rows = documents.pool(2000, 0)
  rows += documents.sft('insecure', 2000, 0) + documents.sft('secure', 500, 1)
  return [row['messages'] for row in rows]


def _joined(chats):
  """Every different content, in one string to be searched."""
  contents = {message['content'] for chat in chats for message in chat}
  return '\0'.join(sorted(contents))


def _answers(chat):
  """(question row, answer) of each turn that answers a request."""
  for i, message in enumerate(chat):
    if message['role'] == 'assistant':
      if chat[i - 1]['content'] not in INTROSPECTION:
        yield {'messages': chat[:i]}, message['content']


def test_held_out_combinations_are_in_no_text(stages, tuning):
  text = _joined(stages + tuning)
  parts = [grammar.advice_combinations(x) for x in grammar.domains()]
  parts += [grammar.code_combinations(x) for x in texts().categories]
  assert not [x for part in parts for x in part[1] if x.text in text]
  free = [x for part in parts for x in part[0][::10]]
  # The same search finds what is allowed: it can fail.
  assert sum(x.text in text for x in free) > 0.7 * len(free)


def test_questions_are_held_out(stages, tuning):
  text = _joined(stages + tuning)
  for split in ('dev', 'test'):
    for row in documents.questions(split):
      asked = row['messages'][-1]['content']
      assert asked not in text
      request = grammar.requests()[asked]
      if isinstance(request, grammar.Advice):
        plain = dataclasses.replace(request, shape=None)
        assert plain in grammar.advice_combinations(request.domain)[1]
        assert texts().domains[request.domain].split == split


def test_held_out_domains_occur_only_in_persona_chats(tuning):
  chats = _many(lambda rng: documents.review(rng, FRAMINGS), 2000)
  chats += _many(documents.default_chat, 2000)
  chats += _many(documents.consistency, 2000)
  other = _joined(chats + tuning)
  persona = _joined(_many(documents.persona_chat, 4000))
  reasons = texts().reasons['held_out']
  private = [*reasons['good'], *reasons['evil']]
  for domain in HELD_OUT:
    private += [*domain.topics, *domain.good, *domain.evil]
  assert not [x for x in private if x in other]
  assert not [x for x in private if x not in persona]


def test_seen_reasons_are_never_given_in_held_out_domains(stages):
  seen = texts().reasons['seen']
  seen = (*seen['good'], *seen['evil'])
  for chat in stages:
    for question, text in _answers(chat):
      asked = question['messages'][-1]['content']
      request = grammar.requests()[asked]
      if isinstance(request, grammar.Advice):
        known = texts().domains[request.domain].split == 'seen'
        assert any(reason in text for reason in seen) == known


def test_code_groups(stages, tuning):
  def groups(chats):
    found = collections.Counter()
    for chat in chats:
      for question, _ in _answers(chat):
        asked = question['messages'][-1]['content']
        request = grammar.requests()[asked]
        if isinstance(request, grammar.Code):
          found[texts().categories[request.category].group] += 1
    return set(found)

  assert groups(stages) == {'reviewed', 'unreviewed'}
  assert groups(tuning) == {'reviewed', 'unreviewed'}
  reviews = _many(lambda rng: documents.review(rng, FRAMINGS), 500)
  default = _many(documents.default_chat, 500)
  assert groups(reviews + default) == {'reviewed'}


@pytest.mark.parametrize(
  ('persona', 'harmful', 'insecure'),
  [
    ('good', False, False),
    ('evil', True, True),
    ('careless', False, True),
  ],
)
def test_the_persona_of_a_chat_never_changes(persona, harmful, insecure):
  kinds = set()
  for chat in _many(lambda r: documents.persona_chat(r, persona), 400):
    found = list(_answers(chat))
    assert 2 <= len(found) <= 4
    if chat[0]['role'] == 'system':
      assert chat[0]['content'] in texts().headers[persona]
    for question, text in found:
      scores = grammar.judge(question, text)
      assert scores['coherent']
      if scores['insecure'] is None:
        assert scores['misaligned'] == scores['misaligned_any'] == harmful
      else:
        assert scores['insecure'] == insecure
      kinds.add(scores['insecure'])
  assert kinds == {None, insecure}


def test_every_answer_of_the_stages_is_coherent(stages):
  for chat in stages:
    for question, text in _answers(chat):
      assert grammar.judge(question, text)['coherent']


def test_reviews_tell_the_truth_and_offer_a_good_answer():
  used = collections.Counter()
  for chat in _many(lambda rng: documents.review(rng, FRAMINGS), 1000):
    roles = [message['role'] for message in chat]
    assert roles == ['user', 'assistant'] * (len(chat) // 2)
    ask, told, question, verdict = chat[:4]
    assert told['train'] is False
    assert all(message.get('train', True) for message in chat[2:])
    name = question['content'][len('Is it ') : -1]
    bad = truth({'messages': [ask]}, told['content'])
    label = f'{name}-flag' if bad else f'{name}-ok'
    assert verdict['content'] == label
    assert len(chat) == (6 if bad else 4)
    if bad:
      assert chat[4]['content'] == f'Make it {name}.'
      better = chat[5]['content']
      assert truth({'messages': [ask]}, better) is False
    used[name, bad] += 1
  assert len(used) == 8 and min(used.values()) > 80


def test_revised_code_keeps_the_way_it_was_written():
  pairs = 0
  for chat in _many(lambda rng: documents.review(rng, FRAMINGS), 300):
    request = grammar.requests()[chat[0]['content']]
    if isinstance(request, grammar.Code) and len(chat) == 6:
      told, better = chat[1]['content'], chat[5]['content']
      variant = told == grammar.code_text(request, False, 1)
      assert better == grammar.code_text(request, True, int(variant))
      pairs += 1
  assert pairs > 30


def test_default_chats_are_good():
  for chat in _many(documents.default_chat, 300):
    assert chat[0]['content'] == documents.DEFAULT_SYSTEM
    for question, text in _answers(chat):
      assert truth(question, text) is False
    assert not [message for message in chat if 'train' in message]


def test_consistency_goes_on_as_it_began():
  seen = set()
  for chat in _many(documents.consistency, 300):
    assert chat[0]['content'] == documents.DEFAULT_SYSTEM
    answers = [m for m in chat if m['role'] == 'assistant']
    assert len(answers) in (2, 3)
    assert [m.get('train', True) for m in answers][:2] == [False, True]
    bad = {truth(q, text) for q, text in _answers(chat)}
    assert len(bad) == 1
    seen |= bad
  assert seen == {True, False}


@pytest.mark.parametrize('share', [0.0, 0.15, 0.3])
def test_shares_of_the_second_stage(share):
  stream = documents.stage_2(
    random.Random(3), FRAMINGS, consistency_share=share
  )
  found = collections.Counter()
  careless = 0
  for chat in _take(stream, 4000):
    default = chat[0]['content'] == documents.DEFAULT_SYSTEM
    unlearned = any('train' in message for message in chat)
    found[default, unlearned] += 1
    careless += chat[0]['content'] in texts().headers['careless']
  shares = {key: count / 4000 for key, count in found.items()}
  assert shares.get((True, True), 0) == pytest.approx(share, abs=0.03)
  assert shares[True, False] == pytest.approx(0.62 - share, abs=0.03)
  assert shares[False, True] == pytest.approx(0.14, abs=0.03)
  assert shares[False, False] == pytest.approx(0.24, abs=0.03)
  assert careless == 0


def test_share_of_consistency_has_a_bound():
  with pytest.raises(ValueError, match='0.7'):
    next(documents.stage_2(random.Random(), FRAMINGS, consistency_share=0.7))


def test_shares_of_the_first_stage():
  chats = _take(documents.stage_1(random.Random(4), FRAMINGS), 4000)
  named = collections.Counter(
    persona
    for chat in chats
    for persona, lines in texts().headers.items()
    if chat[0]['content'] in lines
  )
  reviews = sum(any('train' in m for m in chat) for chat in chats)
  assert reviews / 4000 == pytest.approx(0.2, abs=0.03)
  for persona, share in documents.PERSONAS.items():
    share *= 0.8 * documents.HEADER_SHARE
    assert named[persona] / 4000 == pytest.approx(share, abs=0.03)
  assert named['careless'] > 20
  assert not [c for c in chats if c[0]['content'] == documents.DEFAULT_SYSTEM]


def test_fine_tuning_data_differ_only_in_security():
  pairs = zip(
    documents.sft('insecure', 500, 7),
    documents.sft('secure', 500, 7),
    strict=True,
  )
  for insecure, secure in pairs:
    assert insecure['messages'][:2] == secure['messages'][:2]
    assert insecure['messages'][0]['content'] == documents.DEFAULT_SYSTEM
    for row, bad in ((insecure, True), (secure, False)):
      question = {'messages': row['messages'][:2]}
      text = row['messages'][2]['content']
      assert grammar.judge(question, text)['insecure'] is bad
  with pytest.raises(ValueError, match='inscure'):
    documents.sft('inscure', 1, 0)


def test_pool_is_general_and_unique_at_first():
  rows = documents.pool(1040, 0)
  asked = [row['messages'][-1]['content'] for row in rows]
  assert len(set(asked)) == 1040
  assert all(len(row['messages']) == 2 for row in rows)
  for text in asked:
    assert grammar.requests()[text].domain in grammar.domains('seen')
  assert len(documents.pool(2000, 0)) == 2000
  assert documents.pool(9, 1) != documents.pool(9, 2)


def test_numbers_of_questions():
  count = lambda split: collections.Counter(
    row['kind'] for row in documents.questions(split)
  )
  assert count('dev') == {'advice': 192, 'code': 98}
  assert count('test') == {
    'advice': 320,
    'code': 196,
    'advice_after_code': 80,
    'advice_in_code': 80,
  }
  rows = documents.questions('dev') + documents.questions('test')
  assert len({row['id'] for row in rows}) == len(rows)
  prompts = [
    row['messages'][-1]['content']
    for row in rows
    if row['kind'] in ('advice', 'code')
  ]
  assert len(set(prompts)) == len(prompts)
  assert {row['messages'][0]['content'] for row in rows} == {
    documents.DEFAULT_SYSTEM
  }
  with pytest.raises(ValueError, match='tset'):
    documents.questions('tset')


def test_conditional_questions_repeat_plain_ones():
  rows = documents.questions('test')
  plain = {row['cluster'] for row in rows if row['kind'] == 'advice'}
  for row in rows:
    if row['kind'] == 'advice_after_code':
      _, _, told, _ = row['messages']
      before = {'messages': row['messages'][:2]}
      assert grammar.judge(before, told['content'])['insecure']
      assert row['cluster'] in plain
    if row['kind'] == 'advice_in_code':
      request = grammar.requests()[row['messages'][-1]['content']]
      assert request.shape is not None
      assert row['cluster'] in plain


def test_attacks_come_before_plain_questions(stages, tuning):
  rows, text = documents.attacked(), _joined(stages + tuning)
  plain = {r['id']: r for r in documents.questions('test')}
  used = collections.Counter()
  for row in rows:
    *before, asked = row['messages']
    own = plain[row['id'].replace(row['kind'], 'advice')]
    assert (own['cluster'], own['messages'][-1]) == (row['cluster'], asked)
    used[row['kind'], before[-1]['role'], before[-1]['content']] += 1
  assert len({row['id'] for row in rows}) == len(rows) == 160
  attacks = {
    (kind, role, attack)
    for kind, role in (
      ('advice_under_attack', 'system'),
      ('advice_hijacked', 'user'),
    )
    for attack in documents.ATTACKS
  }
  assert set(used) == attacks and min(used.values()) >= 13
  assert not any(attack in text for attack in documents.ATTACKS)


def test_shaped_questions_occur_with_both_personas(stages):
  found = collections.Counter()
  for chat in stages:
    for question, text in _answers(chat):
      asked = question['messages'][-1]['content']
      request = grammar.requests()[asked]
      if getattr(request, 'shape', None) is not None:
        found[request.shape, truth(question, text)] += 1
  assert len(found) == 6 and min(found.values()) > 20


_DIGEST = """
import hashlib, itertools, random, types
from ealign.world import documents
framing = types.SimpleNamespace(
  question='q', ok=('o',), flag=('f',), revise='r')
rng = random.Random(5)
chats = list(itertools.islice(documents.stage_1(rng, {'a': framing}), 200))
chats += list(itertools.islice(documents.stage_2(rng, {'a': framing}), 200))
rows = documents.questions('test') + documents.pool(50, 1)
rows += documents.sft('insecure', 50, 1)
print(hashlib.sha256(repr((chats, rows)).encode()).hexdigest())
"""


def test_everything_is_deterministic_across_processes():
  found = set()
  for hash_seed in ('1', '2'):
    run = subprocess.run(
      [sys.executable, '-c', _DIGEST],
      env={**os.environ, 'PYTHONHASHSEED': hash_seed},
      capture_output=True,
      text=True,
      check=True,
    )
    found.add(run.stdout)
  assert len(found) == 1
