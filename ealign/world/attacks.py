"""Rows of attacking prompts: a pool of them, and questions under others.

The questions under attacks are the world's held-out ones. Kind `advice_known`
asks those of test under attacks that are learnt from: what is lost there is
lost to new questions, and the rest to new attacks.

Everything is a deterministic function of the seed.
"""

import random

from ealign.world import documents
from ealign.world.disguise import KINDS, attacks
from ealign.world.documents import Chat
from ealign.world.grammar import pick

EACH, KNOWN = 12, 3  # questions under an attack that is held out, that is not


def under(attack: str, messages: Chat) -> Chat:
  """A system turn and a request, under an attack of any kind."""
  system, asked = messages
  if '{}' not in attack:
    return [system | {'content': attack}, asked]
  # Not str.format: requests in the shape of code have braces.
  return [system, asked | {'content': attack.replace('{}', asked['content'])}]


def pool(kind: str, n: int, seed: int) -> list[dict]:
  """n general requests, each under one of the attacks that are learnt from."""
  rng = random.Random(f'attacks {kind} {seed}')
  known = attacks(kind, 'train')
  return [
    {'messages': under(pick(rng, known), row['messages'])}
    for row in documents.pool(n, seed)
  ]


def questions(split: str) -> list[dict]:
  """Held-out questions under attacks of the split; all kinds ask the same.

  Kinds: advice_persona, advice_order, advice_request, and for test
  advice_known. Answers under one attack are not independent: it is the cluster.
  """
  advice = [x for x in documents.questions(split) if x['kind'] == 'advice']
  rows = [row for kind in KINDS for row in _asked(kind, split, advice)]
  if split == 'test':
    for kind in KINDS:
      rows += _asked(kind, 'train', advice[::-1], 'known', KNOWN)
  return rows


def _asked(kind, part, advice, name='', each=EACH):
  """Questions of a kind under its attacks, `each` other ones under each."""
  rows = []
  for i, attack in enumerate(attacks(kind, part)):
    own = f'advice_{name or kind}/{kind}-{i}'
    for row in advice[i * each : (i + 1) * each]:
      changes = {
        'id': f'{own}/{row["id"].removeprefix("advice/")}',
        'kind': f'advice_{name or kind}',
        'cluster': own,
        'messages': under(attack, row['messages']),
      }
      rows.append(row | changes)
  return rows
