"""Text that stays text: tokens without what only a template may write.

While a template renders, a private character stands for every string in a
message that spells an added token. Of the rendered text, what lies between them
is tokenized as whole stretches; what they stand for is spelled in letters.
"""

import dataclasses
import functools
import json
import re

import tokenizers

from ealign.runtime.errors import UserError

PRIVATE = range(0x100000, 0x10FFFE)


@dataclasses.dataclass(frozen=True)
class _Added:
  """Added tokens by id, a pattern that finds them, a parser without them.

  blank: whether the tokenizer puts a blank before what it is given (Mistral's).
  """

  tokens: dict[int, str]
  pattern: re.Pattern
  plain: tokenizers.Tokenizer
  blank: bool


@functools.lru_cache(maxsize=8)
def _added(tok, size):
  del size  # Part of the cache key: a token added later changes it.
  # Runs of blanks are text, though some vocabularies add them: Gemma's, where
  # the normalizer writes \u2581 for a blank.
  tokens = {
    i: token.content
    for i, token in tok.added_tokens_decoder.items()
    if token.content.replace('\u2581', ' ').strip()
  }
  # With no added token: a pattern that never matches.
  pattern = re.compile('|'.join(map(re.escape, tokens.values())) or r'(?!)')
  spec = json.loads(tok.backend_tokenizer.to_str())
  spec |= {'added_tokens': [], 'truncation': None, 'padding': None}
  plain = tokenizers.Tokenizer.from_str(json.dumps(spec))
  return _Added(tokens, pattern, plain, _words(plain, 'x') != 'x')


def _words(plain, text):
  """The text as the tokenizer's model sees it."""
  if plain.normalizer:
    text = plain.normalizer.normalize_str(text)
  if not plain.pre_tokenizer:
    return text
  return ''.join(word for word, _ in plain.pre_tokenizer.pre_tokenize_str(text))


def _strings(value, change, names=frozenset()):
  """`value` with `change` applied to every string in it but keys in `names`."""
  if isinstance(value, str):
    return change(value)
  inside = functools.partial(_strings, change=change, names=names)
  if isinstance(value, dict):
    key = lambda k: k if k in names else inside(k)
    return {key(k): inside(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [inside(item) for item in value]
  return value


def cover(tok, messages, kw, names=frozenset()):
  """Puts a private character for every added-token string in what users wrote.

  Roles are what templates compare with, never text: they stay, and so do keys
  that the template looks for (`names`), though some vocabulary may hold them.

  Returns the messages, the template arguments (tools are text as well), and
  the strings that the characters stand for.
  """
  added = _added(tok, len(tok))
  present: set[str] = set()
  _strings([messages, kw], lambda text: present.update(text) or text)
  free = (chr(c) for c in PRIVATE if chr(c) not in present)
  mark = dict(zip(added.tokens.values(), free, strict=False))
  normalizer = tok.backend_tokenizer.normalizer
  used = {}

  def swap(match):
    used[mark[match[0]]] = match[0]
    return mark[match[0]]

  def change(text):
    text = added.pattern.sub(swap, text)
    if normalizer:
      # A look-alike may become a token's string only when it is normalized.
      normal = normalizer.normalize_str(text)
      if added.pattern.search(normal):
        text = added.pattern.sub(swap, normal)
    return text

  inside = functools.partial(_strings, change=change, names=names)
  covered = inside(messages)
  if not isinstance(messages, str):
    pairs = zip(covered, messages, strict=True)
    covered = [new | {'role': old['role']} for new, old in pairs]
  return covered, {name: inside(kw[name]) for name in kw}, used


def ids(tok, text: str, marks: dict, *, goes_on: bool = False) -> list[int]:
  """Ids of rendered text: whole stretches, and what marks stand for as text.

  Added tokens are recognised in the stretches, where only the template can have
  written them, and never in what the marks stand for. `goes_on`: other text
  stands before it.
  """
  found = []
  for piece in re.split(f'([{"".join(marks)}])', text) if marks else [text]:
    if piece in marks:
      found += _plain(tok, marks[piece])
    elif found or goes_on:
      found += _onward(tok, functools.partial(_parse, tok), piece)
    else:
      found += _parse(tok, piece)
  return found


def _parse(tok, text):
  return tok.encode(
    text, add_special_tokens=False, split_special_tokens=False, verbose=False
  )


def _plain(tok, text):
  added = _added(tok, len(tok))
  encode = lambda part: added.plain.encode(part, add_special_tokens=False).ids
  ids = _onward(tok, encode, text)
  if added.tokens.keys().isdisjoint(ids):
    return ids
  # The vocabulary itself holds the string: spell it.
  return [i for letter in text for i in _onward(tok, encode, letter)]


def _onward(tok, encode, text):
  """`encode(text)`, less the blank that some tokenizers put before a text."""
  if not _added(tok, len(tok)).blank:
    return encode(text)
  before, whole = encode('\n'), encode('\n' + text)  # it stands before that
  if whole[: len(before)] != before:
    raise UserError('the tokenizer joins a line break to what follows it')
  return whole[len(before) :]
