"""How a template ends an assistant turn: the token, and what stands behind it.

A stand-in answer in a rendered chat shows what follows a plain answer. What a
turn of a row ends with is read from the turn itself.
"""

import functools
import json

from ealign.data import shield, template
from ealign.runtime.errors import UserError


def stop_ids(tok, kw: dict) -> tuple[int, ...]:
  """Ids that end a plain answer under the template's arguments, then `eos`.

  Raises:
    UserError: neither template nor tokenizer has one.
  """
  key = json.dumps(kw, sort_keys=True, default=str)
  return _stop_ids(tok, template.of(tok, kw.get('tools')), key)


def of_turn(tok, ids, stops) -> int:
  """How many ids of a turn are trained: through the token that ends it.

  That is the first that ends plain answers too and behind which the turn says
  nothing more; else, as after a call, the last special token that it writes.

  Args:
    tok: the tokenizer. ids: of the turn, from its generation prompt on. stops:
      those of `stop_ids`.
  """
  blank = lambda ids: not tok.decode(ids, skip_special_tokens=True).strip()
  for i, token in enumerate(ids, start=1):
    if token in stops and blank(ids[i:]):
      return i
  special = _special(tok, len(tok))
  end = max((i + 1 for i, x in enumerate(ids) if x in special), default=0)
  if not end or not blank(ids[end:]):
    raise UserError('the chat template writes no end-of-turn token')
  return end


def after_answer(tok, messages, kw, *, avoid, generate) -> str:
  """The text that a template puts behind an answer when `messages` follow.

  avoid: private characters that already stand for something.
  """
  text = json.dumps(messages, ensure_ascii=False)
  answer = next(
    chr(c) for c in shield.PRIVATE if chr(c) not in avoid and chr(c) not in text
  )
  first = [
    {'role': 'user', 'content': 'x'},
    {'role': 'assistant', 'content': answer},
  ]
  rendered = template.render(tok, [*first, *messages], kw, generate=generate)
  _, found, after = rendered.partition(answer)
  if not found:
    raise UserError('the chat template drops the assistant turn')
  return after


@functools.lru_cache(maxsize=64)
def _stop_ids(tok, of, key):
  del of  # Part of the cache key: the template can be assigned.
  after = after_answer(tok, [], json.loads(key), avoid=(), generate=False)
  after = shield.ids(tok, after, {}, goes_on=True)
  found = [i for i in after[:1] if i in tok.added_tokens_decoder]
  if tok.eos_token_id is not None:
    found.append(tok.eos_token_id)
  if not found:
    raise UserError(
      'neither chat template nor tokenizer has an end-of-turn token'
    )
  return tuple(dict.fromkeys(found))


@functools.lru_cache(maxsize=8)
def _special(tok, size):
  del size  # Part of the cache key: a token added later changes it.
  return {i for i, t in tok.added_tokens_decoder.items() if t.special}
