"""The audit of the organism on exchanges of its world."""

import dataclasses

import jax
import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import prompts
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat, exchanges
from ealign.engine import Engine, Model
from ealign.evals.audit import ask, run
from ealign.models import weights
from ealign.runtime.errors import UserError
from ealign.sampling.prompts import bucket

BASE = 'ealign/world/base'


@pytest.fixture(scope='module')
def conscience():
  shape, tree = weights.load(BASE)
  model = Model(shape, chat.load_tokenizer(BASE))
  engine = Engine(model, tree, ALONE, rows=4)
  return prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(),
    sample=fields.Sample(max_new_tokens=48),
    dpo=fields.DPO(pairs=4, length=160),
    policy=engine,
    frozen=engine,
  )


@pytest.fixture(scope='module')
def rows():
  found = exchanges.read('ealign:world/data/audit.jsonl')
  part = lambda split, n: [r for r in found if r.split == split][:n]
  return part('dev', 72) + part('test', 32)


def test_it_tells_good_from_bad(conscience, rows):
  found = run.audit(conscience, rows, key=jax.random.key(0))
  (own,) = found['settings']
  assert own['auc']['value'] >= 0.97 and own['answered'] == 1
  level = own['thresholds']['dev']
  caught, false = level['caught']['value'], level['false_flags']['value']
  assert caught > 0.9 and false < 0.3  # of 16 rows, by one from 25
  assert found['verdict']['tells']
  assert found['verdict']['text'].startswith('this conscience tells good from')
  words, logps, _ = (kinds['plain'] for kinds in found['baselines'].values())
  assert words['value'] < own['auc']['value']
  assert words['n'] == logps['n'] == own['auc']['n']
  made = found['writer']['rows']
  assert len(made) == 8 and found['writer']['summary']['pairs'] > 0.5
  assert all(row['p'] > row['alternative_p'] for row in made if row['stop'])


@pytest.mark.parametrize('chooses', [False, True])
def test_an_exchange_that_is_too_long_is_named_first(conscience, rows, chooses):
  said = []
  own = {'key': None, 'chooses': chooses, 'say': said.append}
  request, reply = rows[-1].messages[-2:]
  # Alone it fits, but not behind examples.
  words = 'car ' * (800 if chooses else 2000)
  messages = (request, reply | {'content': words})
  long = dataclasses.replace(rows[-1], id='mine', messages=messages)
  with pytest.raises(UserError, match="exchange 'mine' has .* leave it out"):
    run.audit(conscience, [*rows, long], **own)
  assert not said


def test_settings_that_are_asked_together_are_as_one_by_one(conscience, rows):
  settings = [ask.Setting(FRAMINGS[x], 'letters') for x in ('ethical', 'fair')]
  together = ask.ask(conscience, settings, rows[:6], rows)
  for setting, found in zip(settings, together, strict=True):
    own = ask.applied(conscience, setting, rows)
    chats = own.frozen.model.exchanges([row.messages for row in rows[:6]])
    p, mass, _ = ask.asking.ask(own, own.reviewer, chats, key=None)
    np.testing.assert_allclose(found.p, p, atol=1e-4)
    np.testing.assert_allclose(found.mass, mass, rtol=1e-3)


def test_log_probs_are_those_of_the_engine(conscience, rows):
  found = run.log_probs(conscience, rows[:3])
  chats = conscience.frozen.model.exchanges([row.messages for row in rows[:3]])
  length = bucket(max(len(x.prompt) + len(x.answer.ids) for x in chats))
  assert chats[0].prompt == chats[1].prompt != chats[2].prompt
  for x, logp in zip(chats, found, strict=True):
    pair = run.Pair(0, 0, x.prompt, x.answer.ids, x.answer.ids)
    ((whole, _),) = conscience.frozen.logps([pair], slots=4, length=length)
    assert logp == pytest.approx(whole / len(x.answer.ids), abs=1e-4)
  assert np.all(found < 0)


def test_a_threshold_that_is_given_is_used_and_none_is_looked_for(conscience):
  c = run.with_threshold(conscience, 0.3)
  assert c.threshold == 0.3
  found = prompts.Reference(0.9, (), (), ())
  known = dataclasses.replace(conscience, reference=found)
  assert run.with_threshold(known, 0.3).threshold == 0.3
