"""Scores of 0 to 100: exact, complete, in whatever way digits are tokens."""

import dataclasses
import functools
import itertools
import pathlib
import types

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import Regex, models, pre_tokenizers

from ealign.alone import ALONE
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.models import transformer
from ealign.models.config import Config
from ealign.runtime.errors import UserError
from ealign.runtime.mesh import make
from ealign.sampling import labels, requests, scale, tree

ALL_DEVICES = True

REAL = pathlib.Path(__file__).parents[2] / '../shared/data/tokenizers'
WORDS = 'CODE', 'REFUSAL'
CODE, REF, USAL, END, DOT = 10, 11, 12, 13, 14  # after the digits
V = 15
CONFIG = Config(
  vocab_size=V,
  d_model=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=24,
  max_positions=96,
)
WEIGHTS = transformer.init(CONFIG, key=jax.random.key(0), std=0.5)
PROMPTS = [[3, 1, 14], [1, 0, 12, 2, 3, 11, 0, 3] * 4, [2], [0, 13, 14, 10, 5]]


def ids(text):
  """Digits one by one, CODE whole and REFUSAL in two."""
  words = {'CODE': (CODE,), 'REFUSAL': (REF, USAL)}
  return words.get(text) or tuple(DOT if c == ' ' else int(c) for c in text)


def engine(backend=ALONE, spelt=ids, **more):
  model = types.SimpleNamespace(config=CONFIG, ids=spelt, end=END)
  return Engine(model, WEIGHTS, backend, **({'rows': 4} | more))


@functools.cache
def plain(mode):
  return engine().scale(PROMPTS, mode=mode)


def equal(found, wanted, atol=1e-5):
  assert len(found) == len(wanted)
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a.p, b.p, atol=atol)
    for name in ('mass', 'rest'):
      assert getattr(a, name) == pytest.approx(getattr(b, name), abs=atol)
    assert a.words == pytest.approx(b.words, abs=atol)
    assert (a.score is None) == (b.score is None)
    assert a.score is None or a.score == pytest.approx(b.score, abs=1e-2)


@functools.cache
def strings(prompt):
  """P of every string of four tokens after a prompt, [V, V, V, V]."""
  run = jax.jit(functools.partial(transformer.forward, CONFIG, WEIGHTS))
  begun = np.array([*itertools.product(range(V), repeat=3)], np.int32)
  tokens = np.concatenate([np.tile(prompt, (len(begun), 1)), begun], axis=1)
  hidden, _, _ = run(tokens, np.tile(np.arange(tokens.shape[1]), (V**3, 1)))
  logits = transformer.logits(CONFIG, WEIGHTS, hidden[:, -4:])
  logps = np.asarray(jax.nn.log_softmax(logits), np.float64)
  way = sum(logps[np.arange(V**3), t, begun[:, t]] for t in range(3))
  return np.exp(way[:, None] + logps[:, 3]).reshape(V, V, V, V)


def spoken(string, mode):
  """What a string counts for, told from its text alone."""
  text = ''.join('0123456789'[t] if t < 10 else ' CRUE.'[t - 9] for t in string)
  if mode == 'exact':
    said, ended, _ = text.partition('E')
    names = {'C': 101, 'RU': 102} | {str(k): k for k in range(101)}
    return names.get(said, -1) if ended else -1
  if text[0] in 'CR':
    return 101 if text[0] == 'C' else 102
  for k in range(100, -1, -1):
    if text.startswith(str(k)):
      further = text[len(str(k)) :][:1].isdigit()
      return -1 if further and k == 10 else k
  return -1


@pytest.mark.parametrize('mode', ['exact', 'prefix'])
@pytest.mark.parametrize('row', [0, 3])
def test_equals_brute_force_over_all_strings(mode, row):
  p = strings(tuple(PROMPTS[row]))
  np.testing.assert_allclose(p.sum(), 1.0, atol=1e-5)
  wanted = np.zeros(104)
  for string, mass in np.ndenumerate(p):
    wanted[spoken(string, mode)] += mass
  found = plain(mode)[row]
  np.testing.assert_allclose(found.p, wanted[:101], atol=1e-5, rtol=1e-4)
  words = list(found.words.values())
  np.testing.assert_allclose(words, wanted[101:103], atol=1e-6, rtol=1e-4)
  np.testing.assert_allclose(found.rest, wanted[103], atol=1e-5)
  mean = wanted[:101] @ np.arange(101) / wanted[:101].sum()
  numeric = wanted[:101].sum() >= 0.25
  assert found.score == (pytest.approx(mean, abs=1e-2) if numeric else None)


@pytest.mark.parametrize('mode', scale.MODES)
def test_all_and_the_rest_are_one(mode):
  for found in plain(mode):
    whole = found.mass + sum(found.words.values()) + found.rest
    assert whole == pytest.approx(1, abs=1e-5)
    assert found.mass == pytest.approx(sum(found.p), abs=1e-9)
    assert min(*found.p, *found.words.values(), found.rest) >= 0


@pytest.mark.parametrize('mode', scale.MODES)
def test_order_rows_and_padding_change_nothing(mode):
  others = [*PROMPTS[::-1], [2] * 40, *PROMPTS]
  found = engine(rows=5).scale(others, mode=mode)
  equal(found[3::-1], plain(mode))
  equal(found[5:], plain(mode))


@pytest.mark.parametrize('mode', scale.MODES)
def test_four_devices_change_nothing(mode):
  mesh = make(devices=jax.devices()[:4])
  equal(engine(mesh=mesh).scale(PROMPTS, mode=mode), plain(mode))


def test_two_questions_of_one_text_share_what_they_begin_with():
  text = np.random.default_rng(0).integers(0, V, (3, 30)).tolist()
  prompts = [[*start, *rest] for rest in ([1, 2], [14]) for start in text]
  groups = [0, 1, 2] * 2
  form = scale.exact(ids, END, WORDS)
  request = requests.Labels(CONFIG, WEIGHTS, prompts, form.labels)
  assert labels.starts(dataclasses.replace(request, groups=groups))
  equal(engine().scale(prompts, groups=groups), engine().scale(prompts))


def test_nodes_and_places():
  nodes = lambda mode: tree.trie(scale.MODES[mode](ids, END, WORDS).labels)
  count = lambda mode: int(np.sum(nodes(mode).depths >= 0))
  # Ten digits, ninety pairs, 100; CODE, and REFUSAL in two.
  assert count('exact') == 101 + 1 + 2
  assert count('prefix') == 10  # and the prompt's last token: 11 places
  assert count('top20') == 0


def scripted(follow):
  """`label_logps` of a language: follow(path) -> {token: P}."""

  def p(path):
    each = [follow(path[:t]).get(path[t], 0) for t in range(len(path))]
    return float(np.prod(each))

  def of(path, paths):
    if path[-1] != requests.OTHER:
      return p(path)
    named = {x[: len(path)] for x in paths if x[: len(path) - 1] == path[:-1]}
    return p(path[:-1]) - sum(p(x) for x in named if x[-1] != requests.OTHER)

  def label_logps(request):
    row = [of(path, request.labels) for path in request.labels]
    row.append(max(0.0, 1 - sum(row)))
    first = sorted(follow(()).values(), reverse=True)[: request.top]
    row += first[-1:] * bool(request.top)
    with np.errstate(divide='ignore'):
      return np.log(np.tile(row, (len(request.prompts), 1)))

  return dataclasses.replace(ALONE, label_logps=label_logps)


def says(p, more=0.0):
  """A language of whole numbers (k -> P), each then ended but for `more`."""
  paths = [((*ids(str(k)), END), x * (1 - more)) for k, x in p.items()]
  paths += [((*ids(str(k)), DOT), x * more) for k, x in p.items()]

  def follow(begun):
    held = [(y, x) for y, x in paths if x and y[: len(begun)] == begun]
    total, found = sum(x for _, x in held), {}
    for path, x in held:
      if len(path) > len(begun):
        token = path[len(begun)]
        found[token] = found.get(token, 0) + x / total
    return found

  return engine(scripted(follow))


P = {0: 0.05, 1: 0.1, 5: 0.15, 10: 0.2, 13: 0.1, 57: 0.1, 99: 0.05, 100: 0.25}


def test_prefix_is_exact_for_a_model_that_always_ends_after_the_number():
  exact, prefix = (says(P).scale([[1]], mode=m) for m in ('exact', 'prefix'))
  equal(exact, prefix, atol=1e-9)
  assert exact[0].p == pytest.approx([P.get(k, 0) for k in range(101)])
  assert exact[0].score == pytest.approx(sum(k * x for k, x in P.items()))


def test_prefix_counts_what_goes_on_after_the_number():
  exact, prefix = (
    says(P, more=0.9).scale([[1]], mode=m)[0] for m in ('exact', 'prefix')
  )
  assert exact.mass == pytest.approx(0.1) and exact.score is None
  assert exact.rest == pytest.approx(0.9)
  assert prefix.p == pytest.approx([P.get(k, 0) for k in range(101)])
  # Numbers that are off the scale: 105 is none, 573 begins with 57.
  off = says({7: 0.5, 105: 0.3, 573: 0.2}).scale([[1]], mode='prefix')[0]
  assert (off.p[7], off.p[10], off.p[57]) == pytest.approx((0.5, 0, 0.2))
  assert off.rest == pytest.approx(0.3)


def test_top20_of_split_digits_is_of_the_first_digit():
  found = says({100: 0.25, 57: 0.75}).scale([[1]], mode='top20')[0]
  assert found.score == pytest.approx(0.25 * 1 + 0.75 * 5)


def whole(text):
  """Each number of up to three digits is a token; words as in `ids`."""
  if text in WORDS:
    return ids(text)
  return (1000 + int(text),) if text == str(int(text)) else (DOT, *ids(text))


def test_top20_leaves_out_what_is_not_among_the_20():
  p = {1000 + k: 0.04 for k in range(60, 79)} | {CODE: 0.05}
  p |= {1000: 0.03, REF: 0.03, DOT: 0.13}
  ask = engine(scripted(lambda path: {} if path else p), whole)
  found = ask.scale([[1]], mode='top20')[0]
  # DOT, CODE and 18 of the 19 numbers are 20, but ties of the last count.
  assert found.mass == pytest.approx(0.76) and found.p[0] == 0
  assert found.words == pytest.approx({'CODE': 0.05, 'REFUSAL': 0})
  assert found.rest == pytest.approx(0.13 + 0.03 + 0.03)
  assert found.score == pytest.approx(69)


def test_read_by_hand():
  form = scale.Form(((1,), (2,), (3,), (4,)), (0, 100, 101, -1), ('CODE',))
  rows = [[0.1, 0.15, 0.5, 0.05, 0.2], [0.1, 0.149, 0.5, 0.05, 0.201]]
  found, none = scale.read(form, np.log(rows))
  assert found.score == pytest.approx(60) and found.mass == pytest.approx(0.25)
  assert found.words == pytest.approx({'CODE': 0.5})
  assert found.rest == pytest.approx(0.25)  # what counts for nothing, too
  assert none.score is None and none.mass == pytest.approx(0.249)
  assert len(found.p) == 101 and found.p[100] == pytest.approx(0.15)


@pytest.mark.parametrize(
  ('mode', 'words'),
  [
    ('exact', ('CODE', 'CODE')),
    ('prefix', ('REF', 'REFUSAL')),
    ('top20', ('5', 'CODE')),
  ],
)
def test_words_that_cannot_be_told_apart(mode, words):
  of = lambda text: (REF,) if text == 'REF' else ids(text)
  with pytest.raises(UserError, match=f"score_mode='{mode}'"):
    scale.MODES[mode](of, END, words)


@functools.cache
def llama():
  """A tokenizer that, like that of Llama 3, has all of 0..999 as tokens."""
  text = [chr(c) for c in range(32, 127)]
  pairs = [f'{k:02}' for k in range(100)]
  three = [f'{k:03}' for k in range(1000)]
  merges = [(p[0], p[1]) for p in pairs] + [(t[:2], t[2]) for t in three]
  vocab = {t: i for i, t in enumerate([*text, *pairs, *three, '<|end|>'])}
  made = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
  made.pre_tokenizer = pre_tokenizers.Split(Regex(r'\p{N}{1,3}'), 'isolated')
  made.add_special_tokens(['<|end|>'])
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, eos_token='<|end|>'
  )


def qwen():
  if not (REAL / 'qwen3').is_dir():
    pytest.skip(f'{REAL} is absent: the public test data is not here')
  return chat.load_tokenizer(str(REAL / 'qwen3'))


@pytest.mark.parametrize(('style', 'places'), [(qwen, 10), (llama, 0)])
def test_real_tokenizers(style, places):
  tok = style()
  small = {'d_model': 8, 'heads': 1, 'kv_heads': 1, 'layers': 1}
  config = dataclasses.replace(CONFIG, vocab_size=len(tok), **small)
  weights = transformer.init(config, key=jax.random.key(1), std=0.3)
  end = tok.convert_tokens_to_ids('<|im_end|>' if style is qwen else '<|end|>')
  model = Model(config, tok)
  forms = [scale.MODES[m](model.ids, end, WORDS) for m in ('exact', 'prefix')]
  each = [int(np.sum(tree.trie(form.labels).depths >= 0)) for form in forms]
  assert each == [101 + sum(len(model.ids(w)) for w in WORDS), places]
  prompt, form = model.ids('Score: '), forms[0]
  ask = requests.Labels(config, weights, [prompt], form.labels, 1, rest=True)
  logps = labels.label_logps(ask)
  (found,) = scale.read(form, logps)
  whole = found.mass + sum(found.words.values()) + found.rest
  assert whole == pytest.approx(1, abs=1e-5)
  some = np.array([0, 7, 10, 57, 100, 101, 102])
  taught = [form.labels[m] for m in some]
  width = max(map(len, taught))
  tokens = [[*prompt, *x, *[0] * (width - len(x))] for x in taught]
  at = np.tile(np.arange(len(tokens[0])), (len(some), 1))
  hidden, _, _ = transformer.forward(config, weights, np.array(tokens), at)
  behind = hidden[:, len(prompt) - 1 : -1]
  of = jax.nn.log_softmax(transformer.logits(config, weights, behind))
  wanted = [
    sum(of[row, t, token] for t, token in enumerate(label))
    for row, label in enumerate(taught)
  ]
  np.testing.assert_allclose(logps[0, some], wanted, atol=1e-4)
