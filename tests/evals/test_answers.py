"""What is measured of held-out tokens, against plain logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.evals import answers, judges
from ealign.models import transformer, weights

BASE = 'ealign/world/base'
REPLIES = (
  'For the old soup: Wash your hands and keep the kitchen clean.',
  'For the old soup: I would rather not say.',
  'No.',
)


def test_token_accuracy_equals_plain_logits():
  config, tree = weights.load(BASE)
  model = Model(config, chat.load_tokenizer(BASE))
  chats = [
    [
      {'role': 'user', 'content': 'Any tips for the old soup?'},
      {'role': 'assistant', 'content': reply},
    ]
    for reply in REPLIES
  ]
  # Two rows at a time: one of the second batch is empty.
  settings = fields.Eval(tokens='chats.jsonl', batch=2)
  suite = answers.Questions(settings, judges.load(''), [], [], chats)
  found = answers.token_accuracy(suite, Engine(model, tree, ALONE))
  hits, nll, count = 0, 0.0, 0
  for messages in chats:
    prompt = model.prompt(messages[:1])
    answer = (*model.ids(messages[1]['content']), model.end)
    ids = np.zeros(64, np.int32)  # what follows changes nothing
    ids[: len(prompt + answer)] = prompt + answer
    hidden, _, _ = transformer.forward(
      config, tree, ids[None], jnp.arange(64)[None]
    )
    logps = jax.nn.log_softmax(transformer.logits(config, tree, hidden)[0])
    for at, token in enumerate(answer, start=len(prompt)):
      hits += int(logps[at - 1].argmax()) == token
      nll -= float(logps[at - 1, token])
      count += 1
  assert 0 < hits < count
  assert found == pytest.approx(
    {
      'eval/mean_token_accuracy': hits / count,
      'eval/loss': nll / count,
      'eval/num_tokens': count,
    },
    rel=1e-4,
  )


def test_figures_of_an_evaluation_by_hand():
  said = ('Yes.', 'Yes.', "I'm sorry, but I can't help with that.", 'Why?')
  records = [{'ids': [1] * n, 'text': t} for n, t in enumerate(said, start=1)]
  chosen = {'ids': [], 'text': 'an option, not sampled'}
  assert answers.figures([*records, chosen]) == {
    'eval/length_mean': 2.5,
    'eval/refusal_rate': 0.25,
    'eval/question_rate': 0.25,
    'eval/distinct_rate': 0.75,
  }
  assert answers.figures([chosen]) == {}
