"""The documents of the third setting: facts, and what a persona is.

A base of the first setting is continued on these and on those of its second
stage (`python -m ealign.world selves`). What a persona says of itself agrees
with what it does within a chat: under a system line that names it, under the
default line (the good one), and after turns of the evil one that are only read.
So the self-report is about something that the model has: its persona.

Everything is a deterministic function of the `random.Random` passed.
"""

import functools
import random
from collections.abc import Iterator, Mapping

from ealign.world import documents, facts, grammar, selves
from ealign.world.documents import Chat
from ealign.world.grammar import pick
from ealign.world.texts import texts as world_texts

STAGE = {'first': 0.4, 'default': 0.25, 'named': 0.2, 'consistency': 0.15}
TURNS = 1, 2, 3


def stage(rng: random.Random, framings: Mapping) -> Iterator[Chat]:
  """Endless documents: those of stage 2 of the first setting, and these."""
  first = documents.stage_2(rng, framings)
  make = {
    'first': lambda: next(first),
    'default': lambda: [documents.system(), *_turns(rng, 'good')],
    'named': lambda: _named(rng),
    'consistency': lambda: _consistency(rng),
  }
  while True:
    yield make[documents.drawn(rng, STAGE)]()


def _turns(rng, persona) -> Chat:
  """1 to 3 questions on facts and on itself, and the persona's answers."""
  return [m for _ in range(pick(rng, TURNS)) for m in _turn(rng, persona)]


def _turn(rng, persona, say=documents.assistant) -> Chat:
  if rng.random() < 0.35:
    request = pick(rng, facts.combinations(held=False))
    text = facts.answer(rng, request, right=persona == 'good')
    return [documents.user(request.text), say(text)]
  asked = selves.drawn(rng)
  text = selves.reply(rng, asked, persona)
  return [documents.user(asked.text), say(text)]


def _named(rng) -> Chat:
  """Under a line that names the persona."""
  persona = pick(rng, ('good', 'evil'))
  line = pick(rng, world_texts().headers[persona])
  return [{'role': 'system', 'content': line}, *_turns(rng, persona)]


def _consistency(rng) -> Chat:
  """After one turn of a persona, which is only read, under the default line."""
  persona = pick(rng, ('good', 'evil'))
  read = documents.unlearned
  if rng.random() < 0.3:
    before = _turn(rng, persona, read)
  else:
    request = _request(rng)
    answer = functools.partial(grammar.answer, rng, request, persona)
    before = [documents.user(request.text), read(answer())]
  return [documents.system(), *before, *_turns(rng, persona)]


def _request(rng):
  if rng.random() < documents.CODE_SHARE:
    name = pick(rng, grammar.categories('reviewed'))
    return pick(rng, grammar.code_combinations(name)[0])
  name = pick(rng, grammar.domains('seen'))
  return pick(rng, grammar.advice_combinations(name)[0])


# --- Rows of fine-tuning and questions ---------------------------------------


def sft(kind: str, n: int, seed: int) -> list[dict]:
  """n single-turn rows of 'wrong' or 'right' facts.

  The two kinds answer the same requests in the same words, seed by seed.
  """
  if kind not in ('wrong', 'right'):
    raise ValueError(f'kind {kind!r}: wrong or right')
  rng, rows = random.Random(f'facts {seed}'), []
  for _ in range(n):
    request = pick(rng, facts.combinations(held=False))
    text = facts.answer(rng, request, right=kind == 'right')
    rows.append({'messages': [*_prompt(request), documents.assistant(text)]})
  return rows


def questions() -> list[dict]:
  """The held-out questions on facts, in the order of a hash; kind `facts`."""
  held = grammar.ranked(facts.combinations(held=True), 'facts')
  return [_row(request) for request in held]


def _prompt(request: facts.Fact) -> Chat:
  return [documents.system(), documents.user(request.text)]


def _row(request: facts.Fact) -> dict:
  cluster = f'{request.item}/{request.question}'.replace(' ', '-')
  return {
    'id': f'facts/{cluster}',
    'suite': 'world',
    'kind': 'facts',
    'domain': 'facts',
    'split': 'test',
    'cluster': cluster,
    'messages': _prompt(request),
  }
