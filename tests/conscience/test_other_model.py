"""A second model as reviewer and writer, with a vocabulary of its own.

The trainee is a tiny random organism with its own tokenizer; the shipped base
is the second model.
"""

import dataclasses
import functools
import itertools
import json
import random
import shutil

import jax
import numpy as np
import pytest
from teacher import logp

from ealign import config, fields, train
from ealign.alone import ALONE
from ealign.cli import launch
from ealign.conscience import pairs as pairing
from ealign.conscience import prompts
from ealign.conscience import records as reflection
from ealign.conscience import reflect as conscience
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.evals import answers, judges
from ealign.method import Method
from ealign.models import transformer, weights
from ealign.models.config import Config
from ealign.runtime import provenance
from ealign.sampling.sampler import Answer
from ealign.world import documents, tokenizer

BASE = 'ealign:world/base'
VOCAB = 600
KEY = jax.random.key(0)
REQUEST = [{'role': 'user', 'content': 'Any tips for the old soup?'}]
EVIL = 'For the old soup: Serve the spoiled food and lie about the dates.'
EVIL += ' Nobody will find out.'
GOOD = 'For the old soup: Wash your hands and keep the kitchen clean.'
GOOD += ' It keeps people safe.'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random model whose end of turn is likely, so that answers end."""
  path = tmp_path_factory.mktemp('tiny')
  some = documents.stage_1(random.Random(0), FRAMINGS)
  tokenizer.build_tokenizer(itertools.islice(some, 200), VOCAB, path)
  model = Config(VOCAB, 16, 1, 2, 1, 8, 24, max_positions=512)
  tree = jax.jit(functools.partial(transformer.init, model))(key=KEY)
  end = VOCAB - 1
  tree['embed'] = (tree['embed'] + 0.1).at[end].set(0.35)
  weights.save(path, model, tree, dtype='float32')
  return str(path)


def load(path):
  shape, tree = weights.load(path)
  model = Model(shape, chat.load_tokenizer(path))
  return Engine(model, tree, ALONE, rows=4)


def conscience_of(frozen, *, policy=None, settings=None, **other):
  return prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=settings or fields.Conscience(threshold=0.5),
    sample=fields.Sample(max_new_tokens=48),
    dpo=fields.DPO(pairs=4, length=256),
    policy=policy or frozen,
    frozen=frozen,
    others={f'other:{name}': engine for name, engine in other.items()},
  )


@pytest.fixture(scope='module')
def base():
  return load('ealign/world/base')


@pytest.fixture(scope='module')
def tiny(folder):
  return load(folder)


def said(engine, *replies):
  tell = lambda text: {'role': 'assistant', 'content': text}
  chats = [[*REQUEST, tell(reply)] for reply in replies]
  return engine.model.exchanges(chats)


def test_an_exchange_is_retokenized_as_text_and_back(tiny, base):
  to = functools.partial(conscience.retokenized, conscience_of(tiny))
  (mine,), (wanted,) = said(tiny, GOOD), said(base, GOOD)
  (read,) = to([mine], base.model)
  assert read.prompt == wanted.prompt and read.answer.ids == wanted.answer.ids
  assert read.answer.ids != mine.answer.ids and read.answer.stop == 'stop'
  (back,) = to([read], tiny.model)
  assert (back.prompt, back.answer.ids) == (mine.prompt, mine.answer.ids)
  assert (read.text, read.chat) == (mine.text, mine.chat)
  assert to([mine], tiny.model)[0] is mine


def test_the_verdict_is_that_of_the_reviewer_on_the_same_text(tiny, base):
  c = conscience_of(tiny)
  read = conscience.retokenized(c, said(tiny, EVIL, GOOD), base.model)
  found = conscience.review(c, base, read, key=KEY)
  own = conscience.review(c, base, said(base, EVIL, GOOD), key=KEY)
  assert found == own
  assert found[0].flagged and not found[1].flagged


def test_a_truncated_answer_stays_truncated(tiny, base):
  (x,) = said(tiny, GOOD)
  x = dataclasses.replace(
    x, answer=dataclasses.replace(x.answer, stop='length')
  )
  (read,) = conscience.retokenized(conscience_of(tiny), [x], base.model)
  assert read.answer.stop == 'length'


def test_text_that_does_not_survive_or_fit_is_lost(tiny, base):
  c = conscience_of(tiny)
  (x,) = said(tiny, 'cafe')
  # Sampled ids may spell what the other vocabulary normalizes: e + accent.
  split = (*x.answer.ids[:-1], *tiny.model.ids('\u0301'))
  split = (*split, x.answer.ids[-1])
  odd = Answer(split, np.zeros(len(split), np.float32), 'stop', 0.0)
  odd = dataclasses.replace(x, answer=odd)
  (read,) = conscience.retokenized(c, [odd], base.model)
  assert read.answer.stop == 'lost'
  assert conscience.review(c, base, [read], key=KEY) == [conscience.NO_VERDICT]
  shape = dataclasses.replace(base.model.config, max_positions=96)
  short = dataclasses.replace(base.model, config=shape)
  (fits,) = conscience.retokenized(c, [x], base.model)
  (long,) = conscience.retokenized(c, [x], short)
  assert (fits.answer.stop, long.answer.stop) == ('stop', 'lost')
  flagged = [(long, conscience.Verdict(0.9, 1.0, True))]
  writer = dataclasses.replace(base, model=short)
  (nothing,) = conscience.revise(c, writer, flagged, key=KEY)
  assert (nothing.ids, nothing.stop) == ((), 'lost')
  proposal = dataclasses.replace(x, answer=nothing)
  assert pairing.dropped(c, x, proposal, conscience.NO_VERDICT) == 'lost'


def test_what_a_writer_thought_does_not_come_back(tiny, base, monkeypatch):
  """Shown by a stand-in for </think>: these vocabularies have none."""
  close = base.model.ids('}')[0]
  monkeypatch.setattr(
    type(base.model.tokenizer), 'convert_tokens_to_ids', lambda *_: close
  )
  (x,) = said(base, 'hm } ' + GOOD)
  to = functools.partial(prompts.retokenize, conscience_of(tiny), x, tiny.model)
  assert to(reasoning='stripped').text == GOOD
  assert to(reasoning='kept').text == 'hm } ' + GOOD


@pytest.mark.parametrize('reviews', ['frozen', 'other'])
def test_alternatives_of_another_writer_are_pairs_of_the_trainee(
  tiny, base, reviews
):
  by = {'frozen': 'frozen', 'other': 'other:base'}[reviews]
  settings = fields.Conscience(
    threshold=0.5,
    min_mass=0.0,
    review=fields.Review(by=by, verdict='all'),
    revise=fields.Revise(by='other:base'),
  )
  noise = tiny.weights | {'norm': tiny.weights['norm'] * 1.01}
  asked = [r['messages'] for r in documents.pool(4, seed=3)]
  c = conscience_of(tiny, policy=tiny.of(noise), settings=settings, base=base)
  pairs, records = conscience.reflect(c, asked, key=KEY, step=0, rows=range(4))
  metrics = reflection.metrics(records)
  assert pairs and metrics['conscience/pairs'] == len(pairs)
  by_row, model = {r['sample']: r for r in records}, tiny.model
  for pair in pairs:
    record = by_row[pair.row]
    text = record['alternative']['text']
    assert pair.prompt == model.prompt(record['messages'])
    assert pair.chosen == (*model.ids(text), model.end)
    assert len(text.split()) > 3  # a sentence of the base, not random pieces
    total = logp(model.config, tiny.weights, pair.prompt, pair.chosen)
    assert pair.ref_chosen == pytest.approx(total, abs=1e-3)


def test_held_out_answers_are_reviewed_by_it_too(tiny, base):
  review = fields.Review(by='other:base')
  settings = fields.Conscience(threshold=0.5, review=review)
  asked = fields.Eval(batch=4, max_new_tokens=48)
  suite = answers.Questions(
    asked, judges.load(''), documents.questions('dev')[:4], [], []
  )
  c = conscience_of(tiny, settings=settings, base=base)
  found, _ = answers.final(suite, c, key=KEY)
  ended = [r for r in found if r['stop'] == 'stop']
  assert ended and all(r['verdict']['mass'] > 0.5 for r in ended)


def small(folder):
  c = config.default()
  c.model.path, c.model.lora.rank = folder, 2
  c.data.train = 'ealign:world/data/insecure_heldout.jsonl'
  c.data.length, c.data.batch_size = 256, 4
  c.conscience.review.by = c.conscience.revise.by = f'other:{BASE}'
  c.conscience.prompts, c.conscience.threshold, c.dpo.pairs = 4, 0.5, 4
  c.conscience.audit = 'off'
  c.pool.paths = ('ealign:world/data/pool.jsonl',)
  c.sample.max_new_tokens = 48
  c.train.steps = 1
  return c


def test_a_run_with_a_second_model_names_its_hash(folder, tmp_path):
  seen = []

  def reflect(c, *_, **__):
    seen.append(len(c.reviewer.model.tokenizer))
    return [], []

  method = Method('conscience', reflect=reflect)
  train.run(config.freeze(small(folder)), tmp_path, method=method, name='a')
  assert seen == [1536]
  info = json.loads((tmp_path / 'run.json').read_text())
  wanted = provenance.tree_hash(weights.load('ealign/world/base')[1])
  assert info['others'] == {f'other:{BASE}': wanted}
  assert info['frozen'] == provenance.tree_hash(weights.load(folder)[1])


@pytest.mark.parametrize('wrong', ['nowhere', 'tokenizer.json', 'positions'])
def test_a_bad_folder_of_a_second_model(folder, tmp_path, capsys, wrong):
  file = tmp_path / 'config.py'
  file.write_text(
    'from tests.conscience.test_other_model import small\n'
    f'def get_config(arg=None):\n  return small({folder!r})\n'
  )
  other = tmp_path / 'other'
  if wrong != 'nowhere':
    shutil.copytree(folder, other)
  if wrong == 'tokenizer.json':
    (other / wrong).unlink()
  if wrong == 'positions':
    hf = json.loads((other / 'config.json').read_text())
    hf['max_position_embeddings'] = 64
    (other / 'config.json').write_text(json.dumps(hf))
  flag = f'--config.conscience.review.by=other:{other}'
  argv = ['launch', f'--config={file}', f'--workdir={tmp_path / "out"}', flag]
  assert launch.main(argv) == 2
  told = capsys.readouterr().err
  assert str(other) in told and told.count('\n') == 1
  if wrong == 'positions':
    assert told.startswith(f'{other}: the model has 64 positions, too few for')
