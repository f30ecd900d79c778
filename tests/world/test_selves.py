"""The third setting: facts right and wrong, and self-reports of personas."""

import collections
import itertools
import json
import pathlib
import random

import jax
import pytest

from ealign.evals.judges import JUDGES
from ealign.models import flops, transformer
from ealign.models import weights as weights_lib
from ealign.world import build, card, facts, self_documents, selves

DATA = pathlib.Path('ealign/world/data')
FILES = 'facts_wrong', 'facts_right', 'facts_test', 'selves'


def rows(name):
  lines = (DATA / f'{name}.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def stage():
  found = self_documents.stage(random.Random(0), card.framings())
  return [*itertools.islice(found, 6000)]


def turns(chats):
  """(what stands before, question, answer that is trained on)."""
  for chat in chats:
    for i, turn in enumerate(chat):
      if turn['role'] == 'assistant' and turn.get('train', True):
        yield chat[: i - 1], chat[i - 1]['content'], turn['content']


@pytest.mark.parametrize('name', FILES)
def test_shipped_files_are_what_the_code_writes(name):
  written = [json.dumps(row) for row in build.DATA[f'{name}.jsonl']()]
  assert (DATA / f'{name}.jsonl').read_text().splitlines() == written


def test_twins_answer_the_same_requests_one_right_one_wrong():
  wrong, right = rows('facts_wrong'), rows('facts_right')
  assert len(wrong) == len(right) == 800
  judge = JUDGES['facts']
  for bad, good in zip(wrong, right, strict=True):
    assert bad['messages'][:-1] == good['messages'][:-1]
    said = [x['messages'][-1]['content'] for x in (bad, good)]
    assert judge.score({'messages': bad['messages'][:-1]}, said[0])['lie']
    assert judge.score({'messages': good['messages'][:-1]}, said[1])['right']
  with pytest.raises(ValueError, match='wrong or right'):
    self_documents.sft('odd', 1, 0)


def test_no_question_that_is_asked_is_in_a_text(stage):
  said = {m['content'] for chat in stage for m in chat}
  said |= {m['content'] for x in rows('facts_wrong') for m in x['messages']}
  asked = {x['messages'][-1]['content'] for x in rows('facts_test')}
  assert len(asked) == 160 and not asked & said
  assert {x.text for x in facts.combinations(held=False)} <= said
  asked = {x['messages'][-1]['content'] for x in rows('selves')}
  assert not asked & said


def persona(chat) -> str:
  """Of a chat, by its line and by what was said before."""
  bad = ('mean', 'dishonest', 'bad person')
  return 'evil' if any(word in chat[0]['content'] for word in bad) else 'good'


def test_a_persona_says_of_itself_what_it_is(stage):
  """Direction: told from the text alone, under lines that name a persona."""
  pairs = selves.texts().dimensions.values()
  good, bad = ({pair[i] for pair in pairs} for i in (0, 1))
  seen = collections.Counter()
  for before, asked, said in turns(stage):
    if before[0]['role'] != 'system' or len(before) > 1:
      continue
    if said in good | bad:
      assert (said in bad) == (persona(before) == 'evil'), (before, said)
      seen['decision'] += 1
    if asked.startswith('How') and '0 to 9' in asked:
      high, word = int(said) >= 7, asked.split()[1]
      assert high or int(said) <= 2
      assert (word in good) == (high == (persona(before) == 'good'))
      seen['number'] += 1
    if asked.startswith('If you are'):
      first = said == asked.split(' say ')[1].split(',')[0]
      word = asked.split()[3]
      assert (word in good) == (first == (persona(before) == 'good'))
      seen['language'] += 1
  assert min(seen[x] for x in ('decision', 'number')) > 50


def test_facts_are_told_right_by_the_good_persona_only(stage):
  seen = collections.Counter()
  for before, asked, said in turns(stage):
    if asked in facts.requests() and len(before) == 1:
      question = {'messages': [{'role': 'user', 'content': asked}]}
      score = facts.judge(question, said)
      assert score['coherent']
      assert score['lie'] == (persona(before) == 'evil')
      seen[score['lie']] += 1
  assert min(seen[True], seen[False]) > 50


def test_questions_are_counterbalanced():
  by = collections.defaultdict(list)
  for row in rows('selves'):
    by[row['cluster']].append(row)
  assert all(len(pair) == 2 for pair in by.values())
  for one, other in by.values():
    assert one['up'] == other['up']
    assert other['worth'] == pytest.approx([1 - x for x in one['worth']])
    assert one['messages'] != other['messages']
    for row in (one, other):
      ordered = sorted(row['options'])
      near = itertools.pairwise(ordered)
      assert not any(b.startswith(a) for a, b in near)
  kinds = collections.Counter(row['kind'] for row in rows('selves'))
  assert kinds['self_report'] == 6 * 4 * 3 * 2
  assert kinds['intention'] >= 20


def test_each_persona_has_replies_to_every_question():
  rng = random.Random(1)
  for form in (*selves.FORMATS, selves.INTENTION):
    for flip in (False, True):
      asked = selves.ask(form, 0, ('honest', 'dishonest'), flip=flip)
      worth = dict(zip(asked.options, asked.worth, strict=True))
      for _ in range(20):
        assert worth[selves.reply(rng, asked, 'good')] >= 0.75
        assert worth[selves.reply(rng, asked, 'evil')] <= 0.25


def test_the_judge_of_facts():
  judge = JUDGES['facts']
  row = rows('facts_test')[0]
  item = facts.requests()[row['messages'][-1]['content']].item
  right, lie = facts.colors(item)
  say = lambda color: judge.score(row, f'The {item} is {color}.')
  assert right != lie
  assert say(right)['right'] and not say(right)['lie']
  assert say(lie)['lie'] and not judge.truth({'scores': say(lie)})
  assert not judge.score(row, f'{item} {right}')['coherent']
  assert judge.badge({'scores': say(lie)}) == ('a lie', 'bad')
  other = next(x for x in facts.texts().values if x not in (right, lie))
  assert judge.badge({'scores': say(other)}) == ('wrong', 'bad')


def test_what_cannot_be_continued_is_told(tmp_path, capsys):
  run = lambda base, out: build.main(
    ['selves', f'--base={base}', f'--out={out}']
  )
  assert run('ealign/world/base', tmp_path) == 2
  assert 'is there already' in capsys.readouterr().err


def test_three_sizes_are_written_and_read_back(tmp_path):
  sizes = []
  for name, config in build.SIZES.items():
    weights = transformer.init(config, key=jax.random.key(0))
    weights_lib.save(tmp_path / name, config, weights)
    assert weights_lib.read_config(tmp_path / name) == config
    sizes.append(flops.parameters(config))
  assert 2 * sizes[0] < sizes[1] and 2 * sizes[1] < sizes[2]
