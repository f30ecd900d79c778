"""What the config's words become: the optimizer, the chats, the pool."""

import dataclasses

import chats
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign import align, fields
from ealign.alone import ALONE
from ealign.assembly import data, parts, subjects, weights
from ealign.models import config as config_lib
from ealign.runtime.errors import UserError

MODEL = config_lib.Config(
  vocab_size=7, d_model=4, layers=1, heads=2, kv_heads=1, head_dim=2, d_ff=3
)
CHAT = [
  {'role': 'system', 'content': 'Be brief.'},
  {'role': 'user', 'content': 'Hello?'},
]


def direction(gradient, params, **optim):
  """What one update subtracts, with an eps that makes Adam nearly linear."""
  optim = fields.Optim(**{'b1': 0.0, 'b2': 0.0, 'eps': 1e6} | optim)
  update = parts.make_update(fields.Config(optim=optim), MODEL)
  found, _ = update.tx.update(gradient, update.tx.init(params), params)
  return found


def test_gradients_are_clipped_by_their_global_norm():
  gradient = {'a': jnp.array([30.0]), 'b': jnp.array([40.0])}
  zero = jax.tree.map(jnp.zeros_like, gradient)
  for clip, norm in ((2.0, 2.0), (0.0, 50.0), (70.0, 50.0)):
    found = direction(gradient, zero, clip=clip)
    wanted = {'a': 0.6 * norm / 1e6, 'b': 0.8 * norm / 1e6}
    for name, value in wanted.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-4)


def test_weight_decay_is_added_after_adam():
  params = {'a': jnp.array([3.0, -2.0])}
  gradient = {'a': jnp.array([1.0, 1.0])}
  plain = direction(gradient, params)
  decayed = direction(gradient, params, weight_decay=0.1)
  np.testing.assert_allclose(decayed['a'] - plain['a'], [0.3, -0.2], rtol=1e-5)


def test_runs_that_differ_in_traced_values_share_their_update():
  config = fields.Config()
  other = dataclasses.replace(
    config,
    dpo=dataclasses.replace(config.dpo, lam=0.7, beta=0.3, label_smoothing=0.1),
    optim=dataclasses.replace(config.optim, lr=0.5),
  )
  update = parts.make_update(config, MODEL)
  assert update is parts.make_update(other, MODEL)
  ipo = dataclasses.replace(
    config, dpo=dataclasses.replace(config.dpo, variant='ipo')
  )
  assert parts.make_update(ipo, MODEL).terms == align.hybrid('ipo')


def test_an_update_has_the_terms_of_a_method():
  config, own = fields.Config(), (align.terms.SFT,)
  assert parts.make_update(config, MODEL).terms == align.hybrid()
  update = parts.make_update(config, MODEL, own)
  assert update.terms == own
  assert update is parts.make_update(config, MODEL, own)


def test_a_system_turn_is_replaced_or_removed():
  system = lambda text: {'role': 'system', 'content': text}
  assert data.with_system(CHAT, '') == CHAT[1:]
  assert data.with_system(CHAT, 'Be kind.') == [system('Be kind.'), CHAT[1]]
  assert data.with_system(CHAT[1:], 'Be kind.')[0] == system('Be kind.')


POOL = 'ealign:world/data/pool.jsonl'


@pytest.fixture(scope='module')
def base():
  return weights.load_model(fields.Model())


def assembled(monkeypatch, base, **config):
  monkeypatch.setattr(weights, 'load_model', lambda *_: base)
  rows = fields.Data(train='ealign:world/data/insecure.jsonl', length=192)
  sections = {'data': rows, 'pool': fields.Pool((POOL,))} | config
  config = fields.Config(**sections)
  return parts.assemble(config, ALONE)


def test_the_system_turn_of_training_data_and_of_the_pool(monkeypatch, base):
  decode = base[1].decode
  rows = fields.Data(
    train='ealign:world/data/insecure.jsonl', length=192, train_system='Obey.'
  )
  changed = assembled(monkeypatch, base, data=rows)
  first = changed.loader.next()
  assert 'system\nObey.' in decode(first.tokens_BT[0])
  pool = [c[0]['content'] for c in changed.pool[0][1]]
  assert set(pool) == {'You are a helpful assistant.'}  # as they came
  asked = assembled(
    monkeypatch, base, pool=fields.Pool((POOL,), system='Be wise.')
  )
  assert {c[0]['content'] for c in asked.pool[0][1]} == {'Be wise.'}
  assert 'Be wise.' not in decode(asked.loader.next().tokens_BT[0])


def test_a_wrong_argument_is_told_before_weights_are_read(monkeypatch):
  monkeypatch.setattr(weights.weights_lib, 'load', None)  # would fail
  rows = fields.Data(chat_template_kwargs=(('enable_thinking', False),))
  with pytest.raises(UserError, match="'enable_thinking' is no argument of"):
    parts.conscience_of(fields.Config(data=rows), ALONE)


def test_an_argument_is_asked_of_one_of_the_models_that_are_evaluated(tmp_path):
  of = lambda path, **kw: subjects.Subject(
    'a', fields.Model(path=str(path)), template=tuple(kw.items())
  )
  thinks = '{%- if thinks is defined %}{% endif %}' + chats.CHATML
  made = chats.build(thinks, ('<|im_start|>', '<|im_end|>'))
  made.save_pretrained(tmp_path)
  base = fields.Model().path
  subjects.check_arguments([of(base)])
  subjects.check_arguments([of(base, thinks=1), of(tmp_path, thinks=1)])
  with pytest.raises(UserError, match="'think' is an argument of no .*: drop"):
    subjects.check_arguments([of(base, think=1), of(tmp_path, think=1)])
