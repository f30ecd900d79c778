"""Label probabilities: exact, complete, independent of how they are run."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from ealign.models import transformer
from ealign.models.config import Config
from ealign.runtime.errors import UserError
from ealign.runtime.mesh import make
from ealign.sampling import labels, requests, sampler
from ealign.sampling import prompts as prompting
from ealign.sampling import tree as trees

ALL_DEVICES = True

V, EOT = 5, 4
CONFIG = Config(
  vocab_size=V,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  max_positions=64,
)
WEIGHTS = transformer.init(CONFIG, key=jax.random.key(0), std=0.5)
# The second fills its bucket: no slot of the cache is padding there.
PROMPTS = [[3, 1, 4], [1, 0, 2, 2, 3, 1, 0, 3] * 4, [2], [0, 3]]


def every_label():
  """All that can follow: 0, 1, 2 words and an end, or 3 words without."""
  words = [list(itertools.product(range(4), repeat=n)) for n in range(4)]
  ended = [[*w, EOT] for n in range(3) for w in words[n]]
  return ended + [list(w) for w in words[3]]


LABELS = every_label()


@pytest.mark.parametrize(
  ('attention', 'rest'), [('xla', False), ('interpret', True)]
)
def test_one_pass_is_what_labels_behind_a_cache_are(attention, rest):
  of_layers = {'local': (True, False), 'window': 6}
  config = dataclasses.replace(CONFIG, attention=attention, **of_layers)
  batch = next(prompting.batches(PROMPTS, 4))
  ids = batch.tokens_BT, batch.positions_BT
  tree = trees.of([(1, 2, 3, EOT), (0, EOT), (2, 2, EOT)], rest=rest)
  asked = labels.Asked(rest, rest, 2 * rest)

  @jax.jit
  def twice(tokens_BT, positions_BT):
    room = tree.tokens.shape[1]
    start = sampler.prefill(config, room, WEIGHTS, tokens_BT, positions_BT)
    slot = tokens_BT.shape[1]
    return labels._read(config, asked, WEIGHTS, *start, slot, tree)

  once = labels.program(config, asked)(WEIGHTS, *ids, tree)
  np.testing.assert_allclose(once, twice(*ids), atol=1e-5)


@jax.jit
def forward(tokens, positions):
  hidden, _, _ = transformer.forward(CONFIG, WEIGHTS, tokens, positions)
  return jax.nn.log_softmax(transformer.logits(CONFIG, WEIGHTS, hidden))


def brute_force(prompt):
  """log P of each label, teacher-forced without a cache, [M]."""
  tokens = np.zeros((len(LABELS), 40), np.int32)
  tokens[:, : len(prompt)] = prompt
  for row, label in enumerate(LABELS):
    tokens[row, len(prompt) :][: len(label)] = label
  logps = forward(tokens, np.tile(np.arange(40), (len(LABELS), 1)))
  return [
    sum(logps[row, len(prompt) - 1 + t, token] for t, token in enumerate(label))
    for row, label in enumerate(LABELS)
  ]


def read(prompts, words, *, rows=4, mesh=None):
  request = requests.Labels(CONFIG, WEIGHTS, prompts, words, rows, mesh)
  return labels.label_logps(request)


@functools.cache
def plain():
  return read(PROMPTS, LABELS)


def test_equals_the_sum_over_teacher_forced_tokens():
  for row in (1, 2):
    expected = np.array(brute_force(PROMPTS[row]))
    np.testing.assert_allclose(plain()[row], expected, atol=1e-4)


def test_a_complete_set_sums_to_one():
  assert plain().shape == (4, 1 + 4 + 16 + 64)
  np.testing.assert_allclose(np.exp(plain()).sum(1), 1.0, atol=1e-5)


def test_the_end_of_turn_is_part_of_a_label():
  stem = LABELS.index([1, EOT])
  longer = [m for m, label in enumerate(LABELS) if label[0] == 1]
  p = np.exp(plain())
  assert np.all(p[:, stem] < 0.9 * p[:, longer].sum(1))


def test_labels_order_and_length_change_nothing():
  few = [[1, 2, 3, 0, 1, EOT], LABELS[30], LABELS[3], LABELS[0]]
  mixed = read(PROMPTS, few)
  expected = plain()[:, [30, 3, 0]]
  np.testing.assert_allclose(mixed[:, 1:], expected, atol=1e-5)
  assert np.all(mixed[:, 0] < 0)


def test_order_rows_and_padding_change_nothing():
  others = [*PROMPTS[::-1], [2] * 40]  # the last one asks for bucket 64
  wide = read(others, LABELS, rows=5)
  np.testing.assert_allclose(wide[3::-1], plain(), atol=1e-5)


def test_any_number_of_prompts():
  prompts = [*PROMPTS, *PROMPTS[::-1], [1]]
  logps = read(prompts, LABELS)
  assert logps.shape[0] == 9
  np.testing.assert_allclose(logps[:4], plain(), atol=1e-5)
  np.testing.assert_allclose(logps[7:3:-1], plain(), atol=1e-5)


@pytest.mark.parametrize('devices', [2, 4])
def test_devices_change_nothing(devices):
  mesh = make(devices=jax.devices()[:devices])
  logps = read(PROMPTS, LABELS, mesh=mesh)
  np.testing.assert_allclose(logps, plain(), atol=1e-5)


def test_one_program_serves_other_prompts_and_labels():
  plain()
  size = labels.program(CONFIG)._cache_size()
  # Another tree of as many labels, with nearly as many nodes.
  turned = [[(3 - t) % 5 for t in label] for label in LABELS]
  others = [[EOT] if label[:2] == [3, 0] else label for label in turned]
  read(PROMPTS[:3], others)
  assert labels.program(CONFIG)._cache_size() == size


def test_one_program_serves_any_few_labels_of_a_length():
  few = [[1, 2, EOT], [1, 3, EOT], [2, 2, 2, EOT]]
  read(PROMPTS, few)
  size = labels.program(CONFIG)._cache_size()
  read(PROMPTS, [[0, 0, 0, EOT], [1, EOT], [1, EOT]])
  read(PROMPTS, [[3, 2, EOT]] * 3)
  assert labels.program(CONFIG)._cache_size() == size


def test_a_prompt_too_long_for_the_labels():
  with pytest.raises(UserError, match='prompt 0 has 62 tokens'):
    read([[1] * 62], LABELS, rows=1)


@pytest.mark.parametrize('few', [LABELS[:21:4], LABELS[1:21], [[0, 1]]])
def test_labels_and_rest_are_one(few):
  few = tuple(map(tuple, few))
  request = requests.Labels(CONFIG, WEIGHTS, PROMPTS, few, 4, rest=True)
  logps = labels.label_logps(request)
  assert logps.shape == (4, len(few) + 1)
  np.testing.assert_allclose(np.exp(logps).sum(1), 1.0, atol=1e-5)
  # Each is what it is in a request of its own, where nothing is shared.
  for m, label in enumerate(few[:3]):
    alone = read(PROMPTS, [label])[:, 0]
    np.testing.assert_allclose(logps[:, m], alone, atol=1e-5)


def test_the_rest_is_exact_where_it_is_tiny():
  """Next to 1 a float32 has steps of 6e-8; the rest has its own."""
  weights = WEIGHTS | {'norm': 40 * WEIGHTS['norm']}  # sure of its tokens
  ends = tuple((v,) for v in range(V))
  ask = lambda words, **more: labels.label_logps(
    requests.Labels(CONFIG, weights, PROMPTS, words, 4, **more)
  )
  every = ask(ends)
  for row, least in enumerate(every.argmin(1)):
    most = tuple((v,) for v in range(V) if v != least)
    rest = ask(most, rest=True)[row, -1]
    assert rest < -20
    np.testing.assert_allclose(rest, every[row, least], rtol=1e-5)


def test_other_is_what_no_label_goes_on_with():
  few = ((1, 2), (1, requests.OTHER), (3, 0, 1), (3, requests.OTHER))
  request = requests.Labels(CONFIG, WEIGHTS, PROMPTS, few, 4, rest=True)
  logps = labels.label_logps(request)
  p, (one, three) = np.exp(logps), np.exp(read(PROMPTS, [(1,), (3,)])).T
  np.testing.assert_allclose(p[:, 0] + p[:, 1], one, atol=1e-6)
  begun = np.exp(read(PROMPTS, [(3, 0)]))[:, 0]
  np.testing.assert_allclose(p[:, 3], three - begun, atol=1e-6)
  np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-5)


def test_the_top_is_the_probability_of_that_place():
  request = requests.Labels(CONFIG, WEIGHTS, PROMPTS, ((1, 2),), 4)
  for top in (1, 3):
    first = tuple((v,) for v in range(V))
    ask = dataclasses.replace(request, labels=first, top=top)
    *first, place = labels.label_logps(ask).T
    np.testing.assert_array_equal(place, np.sort(first, axis=0)[-top])


def test_with_a_rest_no_label_begins_another():
  for few in (((1,), (1, 2)), ((1, 2), (0, 1), (1, 2))):
    request = requests.Labels(CONFIG, WEIGHTS, PROMPTS, few, 4, rest=True)
    with pytest.raises(ValueError, match='the label .* begins with'):
      labels.label_logps(request)


def test_a_tree_by_hand():
  a, b, c = 1, 2, 3
  tree = trees.trie([(a, b), (a, c, EOT), (b,), (a, c, requests.OTHER)])
  assert tree.tokens[0, :2].tolist() == [a, c] and tree.tokens.shape == (1, 16)
  assert tree.depths[0].tolist() == [0, 1, *[-1] * 14]
  assert tree.sees[0, :2, :3].tolist() == [[1, 0, 0], [1, 1, 0]]
  assert tree.starts[0].tolist() == [a, b, -1, -1]
  assert tree.nexts[0, :2, :3].tolist() == [[b, c, -1], [EOT, -1, -1]]
  # 4 edges at the root, 8 at each of 16 nodes; then those that leave.
  assert tree.into[0, :2].tolist() == [0, 5]
  assert tree.ends[0].tolist() == [4, 12, 1, 4 + 16 * 8 + 2]
  assert tree.at[0].tolist() == [1, 2, 0, 2]
  assert tree.left[0, :4].tolist() == [True, True, False, False]


def test_verdict_by_hand():
  logps = np.log([[0.2, 0.1, 0.05, 0.05], [0.01, 0.01, 0.5, 0.3]])
  p, mass = labels.verdict(logps, flag=(0, 1), ok=(2, 3))
  np.testing.assert_allclose(p, [0.3 / 0.4, 0.02 / 0.82])
  np.testing.assert_allclose(mass, [0.4, 0.82])
  # Columns that are named on neither side do not count.
  p, mass = labels.verdict(logps, flag=(0,), ok=(2,))
  np.testing.assert_allclose(p, [0.2 / 0.25, 0.01 / 0.51])
  np.testing.assert_allclose(mass, [0.25, 0.51])


def test_calibration_divides_each_side():
  logps = np.log([[0.2, 0.1]])
  p, mass = labels.verdict(logps, (0,), (1,), calibration=(0.5, 0.25))
  np.testing.assert_allclose(p, 0.5)  # .2 / .5 and .1 / .25 are equal
  np.testing.assert_allclose(mass, 0.3)
  up, _ = labels.verdict(logps, (0,), (1,), calibration=(0.4, 0.25))
  assert up > 0.5  # a rarer flag counts for more


def test_verdict_of_tiny_masses():
  p, mass = labels.verdict(np.array([[-2000.0, -2001.0]]), (0,), (1,))
  np.testing.assert_allclose(p, 1 / (1 + np.exp(-1)))
  assert mass == 0.0
  p, mass = labels.verdict(np.full((1, 2), -np.inf), (0,), (1,))
  assert p == 0.5 and mass == 0.0
  p, _ = labels.verdict(np.array([[0.0, -2000.0], [-np.inf, 0.0]]), (0,), (1,))
  np.testing.assert_allclose(p, [1.0, 0.0])
