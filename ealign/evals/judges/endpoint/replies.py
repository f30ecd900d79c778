"""What a chat endpoint replied, read with mistrust.

A reply's first token and the (at most 20) likeliest tokens in its place, with
their log-probabilities, are all that a judge learns from an endpoint.
"""

import dataclasses
import json
import math
import re
import string
from collections.abc import Sequence
from typing import Any

from ealign.runtime.errors import visible

# Around a token's text: white space, as text or as vocabularies spell it.
BLANK = string.whitespace + '\u00a0\u2581\u0120\u010a'
_ROUNDING = 1e-3  # nats above 0 that a server's bfloat16 may leave
_OVER = 1.01  # of probabilities in sum; more are none
_SHARED = 0.01  # of a token that begins two labels; more is an error
_COUNTS = 2**31  # tokens from which on a count is none


class Malformed(Exception):
  """The reply is not what the protocol says; a server may do better again."""


class NoLogprobs(Exception):
  """The reply has no log-probabilities; asking again would not help."""


@dataclasses.dataclass(frozen=True)
class Reply:
  """One reply of a server.

  Attributes:
    top: the likeliest first tokens, (text, log-probability in nats), likeliest
      first, each text once; () where the reply is empty or was filtered.
    path: the tokens that were sampled.
    text: the same as text.
    cut: it was ended by the limit of tokens.
    usage: tokens (read, written), as the server counts; None: it did not say.
    served, fingerprint: the model and the system as the server names them.
    filtered: the server's content filter withheld the reply.
  """

  top: tuple[tuple[str, float], ...] = ()
  path: tuple[str, ...] = ()
  text: str = ''
  cut: bool = False
  usage: tuple[int, int] | None = None
  served: str = ''
  fingerprint: str = ''
  filtered: bool = False


def parse(body: bytes) -> Reply:
  """The reply in the body of a chat completion.

  Raises:
    Malformed: it is none; the message says what is wrong or missing.
    NoLogprobs: the server gives no log-probabilities.
  """
  try:
    data = json.loads(body)
  except (ValueError, RecursionError):
    raise Malformed(f'no JSON, but {shown(body)}') from None
  if isinstance(data, dict) and data.get('error'):
    raise Malformed(f'an error: {shown(body)}')
  choices = _member(data, 'choices', list)
  if not choices:
    raise Malformed('"choices" is empty')
  choice = choices[0]
  reason = choice.get('finish_reason') if isinstance(choice, dict) else None
  known = {
    'usage': _usage(data.get('usage')),
    'served': _text(data.get('model')),
    'fingerprint': _text(data.get('system_fingerprint')),
  }
  found = _member(choice, 'logprobs', dict | None)
  steps = _member(found, 'content', list | None) if found else None
  if not steps:
    if reason == 'content_filter':
      return Reply(filtered=True, **known)
    if steps is not None and reason == 'stop':  # its first token was the end
      return Reply(**known)
    raise NoLogprobs
  path = tuple(_member(step, 'token', str) for step in steps)
  message = choice.get('message')
  text = message.get('content') if isinstance(message, dict) else None
  text = text if isinstance(text, str) else ''.join(path)
  cut = reason == 'length'
  return Reply(top=_top(steps[0]), path=path, text=text, cut=cut, **known)


def _member(data: Any, name: str, kind) -> Any:
  if not isinstance(data, dict):
    raise Malformed(f'what should have {name!r} is no object')
  value = data.get(name)
  if not isinstance(value, kind):
    raise Malformed(f'{name!r} is {_what(value)}')
  return value


def _what(value) -> str:
  return 'missing' if value is None else f'of type {type(value).__name__}'


def _text(value) -> str:
  return value[:200] if isinstance(value, str) else ''


def _usage(usage) -> tuple[int, int] | None:
  if not isinstance(usage, dict):
    return None
  counts = usage.get('prompt_tokens'), usage.get('completion_tokens')
  sound = all(type(n) is int and 0 <= n < _COUNTS for n in counts)
  return counts if sound else None


def _top(step) -> tuple[tuple[str, float], ...]:
  entries = _member(step, 'top_logprobs', list | None)
  if not entries:
    raise NoLogprobs
  best: dict[str, float] = {}
  for entry in entries:
    token = _member(entry, 'token', str)
    logp = entry.get('logprob')
    if logp is None or logp == -math.inf:  # impossible, in two spellings
      continue
    if type(logp) not in (int, float) or not logp <= _ROUNDING:  # nan too
      raise Malformed(f'a log-probability is {str(logp)[:20]}')
    # Some servers list the sampled token once more.
    best[token] = max(best.get(token, -math.inf), min(float(logp), 0.0))
  total = sum(map(math.exp, best.values()))
  if not best or total > _OVER:
    raise Malformed(f'the probabilities of its tokens add up to {total:.4g}')
  return tuple(sorted(best.items(), key=lambda pair: -pair[1]))


def shown(body: bytes, limit: int = 200) -> str:
  """What a server said in a body that is no reply, in less than a line."""
  text = body[:100_000].decode('utf-8', 'replace').strip()
  title = re.search('<title[^>]*>([^<]*)', text, re.IGNORECASE)
  if text[:1] == '<':
    name = ' '.join(title[1].split()) if title else ''
    return visible(f'an HTML page {name[:limit]!r}')
  try:
    data = json.loads(body)
  except (ValueError, RecursionError):
    data = None
  for name in ('error', 'message', 'detail'):
    if isinstance(data, dict) and data.get(name):
      data = data[name]
  text = data if isinstance(data, str) else text
  return visible(text.strip().partition('\n')[0][:limit]) or 'nothing'


def error_code(body: bytes) -> str:
  """The word by which a server names an error; '' for none."""
  try:
    data = json.loads(body)
  except (ValueError, RecursionError):
    return ''
  error = data.get('error') if isinstance(data, dict) else None
  error = error if isinstance(error, dict) else {}
  return _text(error.get('code')) or _text(error.get('type'))


def number(token: str) -> int | None:
  """The number 0..100 that a token is, whatever white space is around it."""
  text = token.strip(BLANK)
  found = re.fullmatch('[0-9]{1,3}', text) and int(text)
  return found if found is not None and found <= 100 else None


def numbers(reply: Reply) -> dict[int, float]:
  """Number -> its probability as the first token."""
  found: dict[int, float] = {}
  for token, logp in reply.top:
    if (value := number(token)) is not None:
      found[value] = found.get(value, 0.0) + math.exp(logp)
  return found


def label_ps(reply: Reply, labels: Sequence[str]) -> list[float]:
  """The probability of each label by the first token it begins with.

  A token counts for the label that it is, else for the one that it begins. So
  this is at least the label's probability, and equal where nothing else begins
  like it, as with labels of one token. The sampled token counts only if its
  text goes on as the label does.

  Raises:
    ValueError: two labels share their first token: a likely one begins both,
      or one that is a label was sampled and went on as another label.
  """
  ps = [0.0] * len(labels)
  for token, logp in reply.top:
    text = token.strip(BLANK)
    of = [i for i, label in enumerate(labels) if text and _begins(label, text)]
    if not of:
      continue
    longer = [i for i in of if labels[i] != text]
    if reply.path and token == reply.path[0]:
      more = len(reply.text.strip(BLANK)) > len(text)
      known = more and len(longer) < len(of)
      if known and any(_said(reply, labels[i]) for i in longer):
        raise ValueError(_shared(labels, of, text))
      if not any(_said(reply, labels[i]) for i in of):
        continue
    if len(of) > len(longer):
      of = [i for i in of if labels[i] == text]
    elif len(of) > 1 and math.exp(logp) > _SHARED:
      raise ValueError(_shared(labels, of, text))
    if len(of) == 1:
      ps[of[0]] += math.exp(logp)
  return ps


def _begins(label: str, text: str) -> bool:
  return label[: len(text)] == text


def _said(reply: Reply, label: str) -> bool:
  """Whether the reply is the label, as far as it goes."""
  text = reply.text.strip(BLANK)
  if reply.cut and len(text) < len(label):
    return _begins(label, text)
  return _begins(text, label) and not text[len(label) :][:1].isalnum()


def _shared(labels, of, text: str) -> str:
  names = ' and '.join(repr(labels[i]) for i in of[:2])
  return f'{names} both begin with its token {text!r}'


def split(reply: Reply) -> bool | None:
  """Whether a number in the reply has its digits in several tokens.

  None: the reply holds no number of two digits or more.
  """
  digits = []
  for token in reply.path:
    text = token.strip(BLANK)
    if not re.fullmatch('[0-9]+', text):
      break
    digits.append(text)
  return len(digits) > 1 if len(''.join(digits)) > 1 else None
