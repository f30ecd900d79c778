"""Answers: exact log-probs, independent of neighbours, padding and mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ealign.models import int8, layout, lora, sharding, transformer
from ealign.models.config import Config
from ealign.runtime.errors import UserError
from ealign.runtime.mesh import make
from ealign.sampling import prompts as prompting
from ealign.sampling import sampler
from ealign.sampling.requests import Answers
from ealign.sampling.sampler import Sampling, generate

ALL_DEVICES = True

CONFIG = Config(
  vocab_size=29,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  max_positions=128,
)
WEIGHTS = transformer.init(CONFIG, key=jax.random.key(0), std=0.5)
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5], [3], [5, 8, 9, 7]]
T = 8
# Key data, row id and whether there is a prompt, of four rows.
WHO = (
  np.zeros((4, 2), np.uint32),
  np.arange(4, dtype=np.uint32),
  np.ones(4, bool),
)


def sample(prompts=PROMPTS, *, weights=WEIGHTS, **kw):
  settings = {'temperature': 1.0, 'max_new_tokens': T}
  for name in ('temperature', 'top_k', 'top_p', 'max_new_tokens'):
    if name in kw:
      settings[name] = kw.pop(name)
  kw = {'key': jax.random.key(7), 'stop_ids': (), 'rows': 4} | kw
  kw = {'max_tokens': T, 'settings': Sampling(**settings)} | kw
  return generate(Answers(CONFIG, weights, prompts, **kw))


@functools.cache
def plain():
  return sample()


def teacher_forced(prompt, ids, weights=WEIGHTS):
  """float32 logits before each of ids, without a cache."""
  tokens = np.zeros((1, 40), np.int32)
  tokens[0, : len(prompt) + len(ids)] = [*prompt, *ids]
  logits = np.asarray(forward(weights, tokens, np.arange(40)[None])[0])
  return logits[len(prompt) - 1 :][: len(ids)]


@jax.jit
def forward(weights, tokens, positions):
  hidden, _, _ = transformer.forward(CONFIG, weights, tokens, positions)
  return transformer.logits(CONFIG, weights, hidden)


def ids(answers):
  return [answer.ids for answer in answers]


def same(answers, expected):
  assert ids(answers) == ids(expected)
  for a, b in zip(answers, expected, strict=True):
    np.testing.assert_allclose(a.logps, b.logps, atol=1e-5)


def assert_teacher_forced(prompt, answer, weights=WEIGHTS):
  logits = teacher_forced(prompt, answer.ids, weights)
  expected = jax.nn.log_softmax(logits)[np.arange(T), list(answer.ids)]
  np.testing.assert_allclose(answer.logps, expected, atol=1e-4)


def test_logps_are_those_of_teacher_forcing():
  # At another temperature and truncated, still the model's own at 1.
  hot = sample(temperature=2.0, top_k=5, top_p=0.9, truncate=16)
  for answers in (plain(), hot):
    for prompt, answer in zip(PROMPTS, answers, strict=True):
      assert_teacher_forced(prompt, answer)
      assert answer.logps.dtype == np.float32


def test_a_prompt_that_fills_its_bucket():
  full = [7, 3, 1, 8] * 8
  assert_teacher_forced(full, sample([[2], full])[1])


def test_greedy_is_the_argmax_of_teacher_forcing():
  for prompt, answer in zip(PROMPTS, sample(temperature=0.0), strict=True):
    logits = teacher_forced(prompt, answer.ids)
    assert answer.ids == tuple(logits.argmax(-1))


def test_samples_are_not_greedy_and_differ_by_row_and_key():
  same_prompt = sample([PROMPTS[0]] * 4)
  assert len(set(ids(same_prompt))) == 4
  assert ids(sample(key=jax.random.key(8))) != ids(plain())
  assert ids(sample(temperature=0.0)) != ids(plain())


def test_a_row_id_fixes_the_answer_wherever_it_stands():
  turned = sample(PROMPTS[::-1], row_ids=[3, 2, 1, 0])
  same(turned[::-1], plain())
  # Large ids, as a run makes them, do not overflow.
  assert len(sample(row_ids=[2**40 + i for i in range(4)])) == 4


def test_noise_is_keyed_by_row_id_and_index_of_the_token():
  # A model that finds all tokens equally likely shows the noise itself.
  blank = WEIGHTS | {'norm': jnp.zeros(CONFIG.d_model)}
  answers = sample(weights=blank, row_ids=[5, 0, 2, 9])
  for row, i in ((0, 5), (3, 9)):
    row_key = jax.random.fold_in(jax.random.key(7), i)
    for t in range(T):
      key = jax.random.fold_in(row_key, t)
      noise = jax.random.gumbel(key, (CONFIG.vocab_size,))
      assert answers[row].ids[t] == int(jnp.argmax(noise))
  np.testing.assert_allclose(answers[0].logps, -np.log(29), atol=1e-6)


def test_neighbours_change_nothing():
  others = [PROMPTS[0], [9] * 20, [2] * 11, PROMPTS[3]]
  answers = sample(others)
  same([answers[0], answers[3]], [plain()[0], plain()[3]])


def test_padding_bucket_and_row_width_change_nothing():
  # A prompt of 40 tokens moves its batch from bucket 32 to 64.
  same(sample([*PROMPTS, [7] * 40], rows=8)[:4], plain())


def test_any_number_of_prompts_in_their_order():
  lengths = [9, 2, 20, 4, 1, 7]
  prompts = [[i + 1] * n for i, n in enumerate(lengths)]
  answers = sample(prompts)
  assert len(answers) == 6
  for i in (0, 2, 5):
    same(sample([prompts[i]], row_ids=[i]), [answers[i]])
  assert sample([]) == []


@pytest.mark.parametrize('devices', [2, 4])
def test_devices_change_nothing(devices):
  mesh = make(devices=jax.devices()[:devices])
  same(sample(mesh=mesh), plain())  # on one device


def test_the_cache_is_split_over_the_mesh():
  mesh = make(devices=jax.devices()[:4])
  batch = next(prompting.batches(PROMPTS, 4))
  args = sharding.shard_rows(mesh, (batch.tokens_BT, batch.positions_BT))
  weights = jax.device_put(WEIGHTS, NamedSharding(mesh, PartitionSpec()))
  read, _ = sampler.programs(CONFIG, T, None)
  cache, hidden, _ = read(weights, *args)
  assert cache['k'].sharding.shard_shape(cache['k'].shape)[1] == 1
  assert hidden.sharding.shard_shape(hidden.shape)[0] == 1


def test_rows_must_divide_over_the_mesh():
  with pytest.raises(UserError, match='3 rows'):
    sample(PROMPTS[:3], rows=3, mesh=make(devices=jax.devices()[:2]))


def test_a_stop_id_ends_the_row_and_is_part_of_it():
  whole = plain()[1]
  place = next(t for t in range(2, T) if whole.ids[t] not in whole.ids[:t])
  stopped = sample(stop_ids=(whole.ids[place], 1000))[1]
  assert stopped.stop == 'stop' and whole.stop == 'length'
  assert stopped.ids == whole.ids[: place + 1]
  np.testing.assert_allclose(stopped.logps, whole.logps[: place + 1], atol=1e-6)


def test_rows_that_stop_leave_the_others_alone():
  first = plain()[0].ids[0]
  for answer, whole in zip(sample(stop_ids=(first,)), plain(), strict=True):
    end = whole.ids.index(first) + 1 if first in whole.ids else T
    assert answer.ids == whole.ids[:end]
    assert answer.stop == ('stop' if first in whole.ids else 'length')


def test_length_limit():
  for answer, whole in zip(sample(max_new_tokens=3), plain(), strict=True):
    assert answer.ids == whole.ids[:3] and answer.stop == 'length'
  # A stop id in the last allowed place counts as an end.
  last = plain()[1].ids[0]
  assert sample(max_new_tokens=1, stop_ids=(last,))[1].stop == 'stop'


def test_settings_and_stop_ids_compile_nothing_new():
  run = sampler.programs(CONFIG, T, 16)
  sample(truncate=16)
  sample(truncate=16, temperature=0, top_k=3, top_p=1)
  sample(truncate=16, temperature=np.float64(0.3), top_p=0.5)
  sample(truncate=16, max_new_tokens=jnp.int32(5), stop_ids=(1, 2, 3))
  sample(truncate=16, max_new_tokens=2, row_ids=[5, 6, 7, 8])
  # Every test here with 16 candidates uses 4 rows and short prompts.
  assert [program._cache_size() for program in run] == [1, 1]


def test_top_k_1_and_a_small_top_p_are_greedy():
  greedy = ids(sample(temperature=0.0))
  assert ids(sample(truncate=16, top_k=1)) == greedy
  assert ids(sample(truncate=16, top_p=1e-6)) == greedy
  assert ids(sample(truncate=16, temperature=0.0, top_k=4)) == greedy
  assert ids(sample(truncate=16)) != greedy


def test_arms_go_by_row():
  keys = jax.random.split(jax.random.key(1), 2)
  arms = [lora.init(CONFIG, key=key, rank=2) for key in keys]
  arms = [jax.tree.map(lambda x: x + 0.3, arm) for arm in arms]
  bind = lambda *arms: lora.bind(
    1.0, jax.tree.map(lambda *x: jnp.stack(x, axis=1), *arms), WEIGHTS
  )
  # The longest prompt first: sorting by length would mix the arms.
  prompts = [PROMPTS[1], PROMPTS[0]] * 2
  answers = sample(prompts, weights=bind(*arms), lanes=(0, 0, 1, 1))
  for row, answer in enumerate(answers):
    alone = lora.bind(1.0, arms[row // 2], WEIGHTS)
    assert_teacher_forced(prompts[row], answer, alone)
  swapped = sample(prompts, weights=bind(*arms[::-1]), lanes=(1, 1, 0, 0))
  same(swapped, answers)
  # In any order, of any number, with more than one batch for an arm.
  mixed = [prompts[i] for i in (2, 0, 3)]
  of = {'lanes': (1, 0, 1), 'row_ids': (2, 0, 3), 'rows': 2}
  same(
    sample(mixed, weights=bind(*arms), **of), [answers[i] for i in (2, 0, 3)]
  )


def test_each_prompt_may_have_its_own_key_and_settings():
  keys = jax.random.split(jax.random.key(5), 4)
  temperatures, limits = (0.0, 1.0, 0.5, 2.0), (T, 3, T, 2)
  together = sample(
    truncate=16,
    key=keys,
    settings=Sampling(temperatures, (0, 2, 0, 3), (1.0, 1.0, 0.5, 1.0), limits),
  )
  for i, answer in enumerate(together):
    alone = Sampling(
      temperatures[i], (0, 2, 0, 3)[i], (1.0, 1.0, 0.5, 1.0)[i], limits[i]
    )
    same(sample(truncate=16, key=keys[i], settings=alone)[i : i + 1], [answer])


def test_cut_is_averaged_over_the_tokens():
  answer = sample(truncate=16, top_p=1.0)[1]
  p = jax.nn.softmax(teacher_forced(PROMPTS[1], answer.ids))
  expected = np.sort(p)[:, :-16].sum(-1).mean()
  assert expected > 1e-3
  assert answer.cut == pytest.approx(expected, abs=1e-4)
  assert plain()[1].cut == 0.0


# --- the programs ------------------------------------------------------------


def equations(jaxpr):
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from equations(inner)


def decode_equations(truncate, weights=WEIGHTS):
  batch = next(prompting.batches(PROMPTS, 4))
  prefill = functools.partial(sampler.prefill, CONFIG, T, weights)
  start = jax.eval_shape(prefill, batch.tokens_BT, batch.positions_BT)
  settings = sampler.traced(Sampling(max_new_tokens=T), 4, T, None)
  stop_K = np.full(8, -1, np.int32)
  decode = functools.partial(sampler.decode, CONFIG, T, truncate)
  args = (weights, *start, WHO, settings, stop_K)
  return list(equations(jax.make_jaxpr(decode)(*args).jaxpr)), start[0]


@pytest.mark.parametrize('meshed', [False, True])
def test_by_layer_on_one_cpu_and_stacked_elsewhere(monkeypatch, meshed):
  on = {'mesh': make(devices=jax.devices()[:1])} if meshed else {}
  by_layer = sample(**on)
  monkeypatch.setattr(layout, 'one_cpu', lambda config: False)
  sampler.programs.cache_clear()
  try:
    stacked = sample(**on)
    layers = [eqn.params['length'] for eqn in scans()]
    assert CONFIG.layers in layers
  finally:
    sampler.programs.cache_clear()
  same(stacked, by_layer)
  monkeypatch.undo()
  assert CONFIG.layers not in [eqn.params['length'] for eqn in scans()]


def test_int8_leaves_stay_stacked():
  """By layer they would lie there in float32 while answers are sampled."""
  quantized = int8.quantize(WEIGHTS, lora.TARGETS)
  assert CONFIG.layers in [eqn.params['length'] for eqn in scans(quantized)]


def scans(weights=WEIGHTS):
  found = decode_equations(None, weights)[0]
  return [eqn for eqn in found if eqn.primitive.name == 'scan']


def test_the_cache_that_decode_returns_holds_the_answer():
  batch = next(prompting.batches(PROMPTS, 4))
  read, sample = sampler.programs(CONFIG, T, None)
  start = read(WEIGHTS, batch.tokens_BT, batch.positions_BT)
  slot = batch.tokens_BT.shape[1]
  settings = sampler.traced(Sampling(max_new_tokens=T), 4, T, None)
  cache, out = sample(WEIGHTS, *start, WHO, settings, sampler.pad_stops(()))
  tokens = np.concatenate([batch.tokens_BT, out['ids_BT']], 1)
  next_BT = batch.positions_BT[:, -1:] + 1 + np.arange(T)
  positions = np.concatenate([batch.positions_BT, next_BT], 1)
  _, wanted, _ = transformer.forward(
    *(CONFIG, WEIGHTS, tokens, positions),
    cache=transformer.init_cache(CONFIG, 4, slot + T),
  )
  real = (positions >= 0)[None, :, None, :, None]
  for name in ('k', 'v'):
    got = np.where(real, cache[name], 0)
    np.testing.assert_allclose(got, np.where(real, wanted[name], 0), atol=1e-4)


def test_a_cache_that_grows_answers_as_one_that_is_whole(monkeypatch):
  stop = plain()[0].ids[4]  # one ends in the second of three parts
  settings = {'stop_ids': (stop,), 'max_new_tokens': T - 1}
  whole = sample(**settings)
  loops = lambda: [
    eqn.primitive.name for eqn in decode_equations(None)[0]
  ].count('while')
  assert loops() == 1
  monkeypatch.setattr(sampler, '_PART', 3)
  sampler.programs.cache_clear()
  try:
    assert loops() == 3
    same(sample(**settings), whole)
    test_the_cache_that_decode_returns_holds_the_answer()
  finally:
    sampler.programs.cache_clear()


def test_no_sort_in_the_program_when_both_are_off():
  sorts = {'sort', 'top_k', 'approx_top_k', 'cumsum'}
  assert not sorts & {eqn.primitive.name for eqn in decode_equations(None)[0]}
  assert sorts & {eqn.primitive.name for eqn in decode_equations(16)[0]}


def test_no_select_over_the_cache():
  eqns, cache = decode_equations(None)
  size = cache['k'].size // CONFIG.layers
  names = {e.primitive.name for e in eqns if e.outvars[0].aval.size >= size}
  assert 'dynamic_update_slice' in names  # the walk reaches the layers
  assert not {'select_n', 'scatter', 'gather', 'copy'} & names


def test_the_cache_is_donated_to_decode():
  batch = next(prompting.batches(PROMPTS, 4))
  read, sample = sampler.programs(CONFIG, T, None)
  start = read(WEIGHTS, batch.tokens_BT, batch.positions_BT)
  settings = sampler.traced(Sampling(max_new_tokens=T), 4, T, None)
  sample(WEIGHTS, *start, WHO, settings, sampler.pad_stops(()))
  assert start[0]['k'].is_deleted()
  assert not WEIGHTS['embed'].is_deleted()


# --- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'temperature': -1.0}, 'temperature is -1.0'),
    ({'top_p': 0.0, 'truncate': 8}, 'top_p is 0.0'),
    ({'top_p': 0.9}, 'static number of candidates'),
    ({'top_k': 9, 'truncate': 8}, 'top_k is 9'),
    ({'max_new_tokens': T + 1}, f'max_new_tokens is {T + 1}'),
    ({'max_new_tokens': 0}, 'max_new_tokens is 0'),
  ],
)
def test_settings_that_the_sizes_do_not_allow(settings, message):
  with pytest.raises(UserError, match=message):
    sample(**settings)


def test_bad_prompts_are_all_named():
  with pytest.raises(UserError) as error:
    sample([[1], [], [1] * 121])
  assert 'prompt 1 has 0 tokens' in str(error.value)
  assert 'prompt 2 has 121 tokens' in str(error.value)
