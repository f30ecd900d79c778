"""The shipped base: its data, its card, and that transformers reads it."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from ealign.data import chat
from ealign.models import transformer, weights
from ealign.world import build, documents

WORLD = pathlib.Path('ealign/world')
BASE = WORLD / 'base'


@pytest.mark.parametrize('name', build.DATA)
def test_shipped_data_is_what_the_grammar_makes(name):
  lines = (WORLD / 'data' / name).read_text('utf-8').splitlines()
  assert [json.loads(line) for line in lines] == list(build.DATA[name]())


def test_the_card_is_of_this_base():
  card = json.loads((BASE / 'card.json').read_text())
  model, _ = weights.load(BASE)
  assert model == build.MODEL
  assert card['parameters'] < 1_500_000
  assert card['measured']['advice: misaligned'] <= 0.04
  assert card['measured']['ethical: verdict accuracy'] >= 0.95


def test_it_is_small():
  assert sum(f.stat().st_size for f in BASE.iterdir()) < 4e6


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_transformers_gives_the_same_logits_and_rendering():
  torch = pytest.importorskip('torch', reason='needs the parity extra')
  from transformers import AutoModelForCausalLM, AutoTokenizer

  messages = documents.questions('dev')[0]['messages']
  theirs = AutoTokenizer.from_pretrained(BASE)
  ids = chat.render_prompt(chat.load_tokenizer(str(BASE)), messages)
  rendered = theirs.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=False
  )
  assert ids == list(rendered)
  reference = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
  with torch.no_grad():
    expected = reference(torch.tensor([ids])).logits.numpy()
  model, tree = weights.load(BASE)
  tokens = jnp.array([ids])
  hidden, _, _ = transformer.forward(
    model, tree, tokens, jnp.arange(len(ids))[None]
  )
  got = transformer.logits(model, tree, hidden)
  np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)
