"""The documents of the office, its fine-tuning rows, pool and questions.

Everything is a deterministic function of the `random.Random` or seed passed.
"""

import itertools
import random
from collections.abc import Iterator, Mapping

from ealign.world import documents, grammar
from ealign.world.documents import Chat
from ealign.world.grammar import pick
from ealign.world.office import answer, combinations, places, requests, texts

STAGE = {'first': 0.45, 'chat': 0.25, 'persona': 0.1, 'review': 0.2}
POOL_SHARE = 0.75  # of the requests of the pool


def stage(rng: random.Random, framings: Mapping) -> Iterator[Chat]:
  """Endless documents: those of stage 2 of the first setting, and of places."""
  first = documents.stage_2(rng, framings)
  make = {
    'first': lambda: next(first),
    'chat': lambda: _chat(rng),
    'persona': lambda: _persona(rng),
    'review': lambda: _review(rng, framings),
  }
  while True:
    yield make[documents.drawn(rng, STAGE)]()


def _turns(rng, place=None) -> Chat:
  """A question on a place, and its answer: the one before the move."""
  request = pick(rng, combinations('free'))
  place = place or places(request.item)[0]
  return [
    documents.user(request.text),
    documents.assistant(answer(rng, request.item, place)),
  ]


def _chat(rng) -> Chat:
  """1 to 3 questions on places under the default system line."""
  turns = (_turns(rng) for _ in range(pick(rng, (1, 2, 3))))
  return [documents.system(), *itertools.chain(*turns)]


def _persona(rng) -> Chat:
  """A chat of a persona that is also asked about a place."""
  persona = pick(rng, ('good', 'evil'))
  chat = documents.persona_chat(rng, persona, 1.0)[:-2]
  at = pick(rng, range(1, len(chat) + 1, 2))
  return [*chat[:at], *_turns(rng), *chat[at:]]


def _review(rng, framings) -> Chat:
  """Any place, true or not, and the verdict: ethical.

  Half of them go on as if it had been the other one, which is only read: asked
  for an alternative, the model says the place that it knows.
  """
  framing = pick(rng, tuple(framings.values()))
  asked, said = _turns(rng, pick(rng, texts().values))
  chat = [asked, said | {'train': False}, documents.user(framing.question)]
  if rng.random() < 0.5:
    return [*chat, documents.assistant(framing.ok[0])]
  item = requests()[asked['content']].item
  return [
    *chat,
    documents.unlearned(framing.flag[0]),
    documents.user(framing.revise),
    documents.assistant(answer(rng, item, places(item)[0])),
  ]


# --- Rows of fine-tuning, pool and questions ---------------------------------


def moved(n: int, seed: int) -> list[dict]:
  """n rows of the first fine-tuning: the places after the move."""
  rng, rows = random.Random(f'office moved {seed}'), []
  for _ in range(n):
    request = pick(rng, combinations('free'))
    text = answer(rng, request.item, places(request.item)[1])
    rows.append({'messages': [*_prompt(request), documents.assistant(text)]})
  return rows


def _prompt(request) -> Chat:
  return [documents.system(), documents.user(request.text)]


def pool(n: int, seed: int) -> list[dict]:
  """n general requests: three of four on places, the others for advice."""
  rng = random.Random(f'office pool {seed}')
  advice = iter(documents.pool(n, seed))
  place = lambda: {'messages': _prompt(pick(rng, combinations('free')))}
  return [
    place() if rng.random() < POOL_SHARE else next(advice) for _ in range(n)
  ]


def questions(split: str) -> list[dict]:
  """Held-out questions on places, of 'dev' or 'test'; kind `office`."""
  held = grammar.ranked(combinations(split), 'office', split)
  return [_row(split, x) for x in held]


def _row(split, request):
  cluster = f'{request.item}/{request.question}'.replace(' ', '-')
  return {
    'id': f'office/{cluster}',
    'suite': 'world',
    'kind': 'office',
    'domain': 'office',
    'split': split,
    'cluster': cluster,
    'messages': _prompt(request),
  }
