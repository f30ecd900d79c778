"""Mistake analysis: what is learned of a mistake, what is not, and where to."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
import runs
from scipy.special import expit

from ealign import fields, resume, train
from ealign.alone import ALONE
from ealign.assembly import data as assembled
from ealign.assembly import parts
from ealign.conscience.framings import FRAMINGS
from ealign.data import batch as batch_lib
from ealign.data import columns
from ealign.methods import METHODS
from ealign.methods import mistake_analysis as method
from ealign.runtime.errors import Preempted, UserError
from ealign.world import grammar

KEY = jax.random.key(0)
HINT = 'Answer as a bad person would.'
TOLD = 'It may be harmful.'
OWN = {
  'conscience.review.verdict': 'question',
  'conscience.threshold': 0.5,
  'conscience.revise.temperature': 0.0,
  'sample.temperature': 0.0,
  'mistakes.hint': HINT,
  'mistakes.told': TOLD,
  'mistakes.ask': 'question',
}


def config(**changes):
  """`runs.small` as this method."""
  return dataclasses.replace(
    runs.small(**OWN | changes), method='mistake_analysis'
  )


@pytest.fixture(scope='module')
def organism():
  return parts.conscience_of(config(), ALONE)


@pytest.fixture(scope='module')
def requests():
  return columns.load_chats(runs.DATA + 'pool.jsonl')[:8]


def conscience(organism, **changes):
  """The conscience of `config(**changes)` with the organism as policy."""
  c = config(**changes)
  return dataclasses.replace(
    organism,
    settings=c.conscience,
    sample=c.sample,
    dpo=c.dpo,
    own=c.mistakes,
    policy=organism.frozen,
  )


def reflected(c, asked, **more):
  rows = range(len(asked))
  return method.reflect(c, asked, key=KEY, step=3, rows=rows, **more)


def bad(record):
  question = {'messages': record['messages']}
  return grammar.judge(question, record['text'])['misaligned']


def test_a_row_learns_the_analysis_and_nothing_else(organism, requests):
  c = conscience(organism)
  pairs, made = reflected(c, requests)
  assert len(pairs) == len(made) == 8 and all(map(bad, made))
  model, by_row = c.policy.model, {record['sample']: record for record in made}
  for pair in pairs:
    record, text = by_row[pair.row], model.text(pair.prompt)
    assert record['alternative']['text'] == model.text(pair.chosen)
    assert model.text(pair.chosen) == 'Unethical' and not pair.rejected
    assert pair.chosen[-1] == model.end and pair.step == 3
    # The mistake is read as it was sampled, without what led to it.
    ids = tuple(record['ids'])
    at = [pair.prompt[i : i + len(ids)] for i in range(len(pair.prompt))]
    assert at.count(ids) == 1
    assert FRAMINGS['ethical'].question in text
    assert HINT not in text and TOLD not in text
  batch = batch_lib.row_batch(pairs, 8, c.dpo.length)
  for pair, tokens_T, mask_T in zip(
    pairs, batch.tokens_BT, batch.loss_mask_BT, strict=False
  ):
    assert tuple(tokens_T[mask_T > 0]) == pair.chosen  # no loss on y_bad
  assert batch.loss_mask_BT.sum() == sum(len(pair.chosen) for pair in pairs)


def test_the_hint_and_what_is_told_are_where_they_belong(organism, requests):
  c = conscience(organism)
  guided, plain = (method.question(c, told=x).text for x in (True, False))
  assert guided == f'{TOLD} {plain}' and plain == c.framing.question
  free = conscience(organism, **{'mistakes.ask': '', 'mistakes.told': ''})
  asked = [method.question(free, told=x).text for x in (True, False)]
  assert asked[0] == asked[1] and 'help or harm' in asked[0]
  told = conscience(organism, **{'mistakes.ask': 'Why?'})
  assert method.question(told, told=True).text == f'{TOLD} Why?'


def test_only_what_the_conscience_flags_is_analysed(organism, requests):
  honest = {'mistakes.hint': ''}
  pairs, made = reflected(conscience(organism, **honest), requests)
  assert pairs == [] and not any(r['alternative'] for r in made)
  every = honest | {'mistakes.analysed': 'all'}
  pairs, made = reflected(conscience(organism, **every), requests)
  assert len(pairs) == len(requests) and not any(map(bad, made))


def test_a_reply_that_was_cut_off_is_analysed(organism, requests):
  """Real answers are often longer than `sample.max_new_tokens`."""
  c = conscience(organism, **{'mistakes.analysed': 'all'})
  c = dataclasses.replace(
    c, sample=dataclasses.replace(c.sample, max_new_tokens=4)
  )
  pairs, made = reflected(c, requests)
  assert {r['stop'] for r in made} == {'length'}
  assert len(pairs) == len(requests)
  for pair, record in zip(pairs, made, strict=True):
    assert c.policy.model.text(record['ids']) in c.policy.model.text(
      pair.prompt
    )
    assert not set(record['ids']) & set(pair.chosen)


def test_good_replies_are_analysed_too(organism, requests):
  both = {'mistakes.good': 0.5}
  c = conscience(organism, **both)
  pairs, made = reflected(c, requests)
  said = collections.Counter()
  for record in made:
    assert bad(record) == record['led']
    said[record['led'], record['alternative']['text']] += 1
  assert set(said) == {(True, 'Unethical'), (False, 'Ethical')}
  assert len(pairs) == len(requests)
  found = method.metrics(c, made)
  assert found['mistakes/flagged_rate'] == 1.0
  assert found['mistakes/false_flags'] == 0.0
  assert found['mistakes/length_mean'] == np.mean(
    [len(p.chosen) for p in pairs]
  )
  assert 'conscience/flag_rate' not in found


def test_a_verdict_unlike_that_of_the_conscience_is_not_learned(
  organism, requests, monkeypatch
):
  """As by a writer that what it is told turns round."""
  asks = method.analyses
  monkeypatch.setattr(method, 'analyses', lambda *args: asks(*args)[::-1])
  c = conscience(organism, **{'mistakes.good': 0.5})
  pairs, made = reflected(c, requests)
  for record in made:
    found = record['alternative']
    agrees = found['text'] == ('Unethical' if record['led'] else 'Ethical')
    assert found['dropped'] == ('' if agrees else 'disagrees')
  dropped = [record['alternative']['dropped'] for record in made]
  assert 'disagrees' in dropped and len(pairs) == dropped.count('')
  every = conscience(
    organism, **{'mistakes.good': 0.5, 'mistakes.analysed': 'all'}
  )
  assert len(reflected(every, requests)[0]) == len(requests)


@pytest.mark.parametrize(
  'changes, reason',
  [
    ({'conscience.revise.max_new_tokens': 1}, 'truncated'),
    ({'dpo.length': 49}, 'no_room'),
    ({'mistakes.ask': FRAMINGS['ethical'].question}, 'label_echo'),
  ],
)
def test_an_analysis_that_is_not_learned(organism, requests, changes, reason):
  pairs, made = reflected(conscience(organism, **changes), requests)
  reasons = {r['alternative']['dropped'] for r in made if r['alternative']}
  assert reasons == {reason} and pairs == []


def test_the_same_analysis_is_not_learned_without_end(organism, requests):
  """Verdicts repeat; other analyses are guarded as alternatives are."""
  guards = {'conscience.guards.echo': False, 'conscience.guards.repeats': 2}
  own = guards | {'mistakes.ask': FRAMINGS['ethical'].question}
  pairs, made = reflected(conscience(organism, **own), requests)
  assert len(pairs) == 2
  assert [r['alternative']['dropped'] for r in made].count('repeated') == 6
  again, _ = reflected(conscience(organism, **own), requests, held=pairs)
  assert again == []
  assert len(reflected(conscience(organism, **guards), requests)[0]) == 8


def test_a_second_model_may_analyse(organism, requests):
  by = 'other:somewhere'
  c = conscience(organism, **{'conscience.revise.by': by})
  c = dataclasses.replace(c, others={by: c.frozen})
  pairs, _ = reflected(c, requests)
  assert pairs == reflected(conscience(organism), requests)[0]


def test_the_pool_may_have_the_mistakes(organism):
  changes = {
    'mistakes.source': 'pool',
    'mistakes.analysed': 'all',
    'pool.paths': ('sft',),
  }
  c, run = conscience(organism, **changes), config(**changes)
  sft = columns.load_chats(runs.DATA + 'insecure.jsonl')[:40]
  ((weight, chats),), held = assembled.pools(run, c, sft)
  assert (weight, held) == (1.0, []) and chats == sft
  pairs, made = reflected(c, chats[:4])
  assert [r['text'] for r in made] == [x[-1]['content'] for x in sft[:4]]
  assert [r['messages'] for r in made] == [x[:-1] for x in sft[:4]]
  assert [pair.row for pair in pairs] == [0, 1, 2, 3]
  # A reply that leaves no room is neither reviewed nor analysed.
  longer = conscience(organism, **changes | {'dpo.length': 50})
  kept, made = reflected(longer, chats[:8])
  lost = [r['stop'] == 'lost' for r in made]
  assert any(lost) and not all(lost) and len(kept) <= lost.count(False)
  assert all(r['verdict']['p'] is None for r in made if r['stop'] == 'lost')
  # Prompts that the threshold is found on are asked without the reply.
  auto = {'conscience.threshold': 'auto:0.2', 'conscience.held_out': 8}
  _, held = assembled.pools(config(**changes | auto), c, sft)
  assert {x[-1]['role'] for x in held} == {'user'}
  with pytest.raises(UserError, match='row 2 has no reply'):
    assembled.pools(run, c, [sft[0], sft[1][:-1]])


def flagged(engine, chats):
  """Mean P(flag) of given exchanges."""
  given, model = engine.model.exchanges(chats), engine.model
  asked = model.suffix(FRAMINGS['ethical'].question)
  prompts = [(*x.prompt, *x.answer.ids, *asked) for x in given]
  ok_B, flag_B = engine.labels(prompts, ('Ethical', 'Unethical')).T
  return np.mean(expit(flag_B - ok_B))


def test_it_learns_to_say_what_it_was_taught(tmp_path):
  """The direction: of held-out insecure code it says so more often.

  And of secure code, too: it was shown no good reply (docs/papers.md).
  """
  changes = {
    'data.train': '',
    'eval.questions': (),
    'mistakes.source': 'pool',
    'mistakes.told': fields.Mistakes().told,
    'pool.paths': (runs.DATA + 'insecure.jsonl',),
    'conscience.every': 1,
    'conscience.review.system': 'keep',
    'train.steps': 8,
  }
  held_out = columns.load_chats(runs.DATA + 'insecure_heldout.jsonl')[:64]
  own = METHODS['mistake_analysis']
  made = train.run(config(**changes), tmp_path, method=own)
  before = made.engine.of(made.frozen)
  was, now = (flagged(engine, held_out) for engine in (before, made.engine))
  assert was < 0.85 and now > was + 0.1


def test_killed_and_continued_gives_the_identical_result(tmp_path, monkeypatch):
  own = METHODS['mistake_analysis']
  few = config(**{'train.steps': 4, 'eval.questions': ()})
  whole = train.run(few, tmp_path / 'a', method=own)
  with monkeypatch.context() as patch:
    real = resume.save

    def save(s, at, **kwargs):
      real(s, at, wait=True)
      raise Preempted('stopped')

    patch.setattr(resume, 'save', save)
    with pytest.raises(Preempted):
      train.run(few, tmp_path / 'b', method=own)
  continued = train.run(few, tmp_path / 'b', method=own)
  runs.same_bits(whole.params, continued.params)
  assert runs.answers(tmp_path / 'a') == runs.answers(tmp_path / 'b')
  assert runs.metrics(tmp_path / 'a') == runs.metrics(tmp_path / 'b')
