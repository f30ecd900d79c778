"""Messages to tokens and loss masks, by the tokenizer's own chat template.

Two rules hold everywhere. *Text never becomes structure*: a string in a message
that spells an added token (`<|im_end|>`, but also non-special ones such as
`<think>`) is tokenized as the letters it is made of; without such strings the
ids are exactly `apply_chat_template(tokenize=True)`. Reasoning therefore goes
into a message's `reasoning_content`, not between `<think>` tags in `content`.
*Masks come from prefixes*: an answer is what follows the generation prompt,
through its first end-of-turn token; never template pre-fill, never found by
looking for token ids in a finished chat.

`**kw` are the template's arguments (`enable_thinking=False`); training must
pass the same ones as sampling.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence

import jinja2
import tokenizers
import transformers

from ealign.data.batch import Row
from ealign.data.sources import Message, resolve
from ealign.runtime.errors import UserError

Tokenizer = transformers.PreTrainedTokenizerBase

# Private-use characters stand for added-token strings while a template renders
# and the text between them is tokenized.
_PRIVATE = range(0x100000, 0x10FFFE)


def load_tokenizer(folder: str) -> Tokenizer:
  """The fast tokenizer of a folder, with a chat template; no remote code."""
  path = resolve(folder)
  if not path.is_dir():
    raise UserError(f'{folder} is no folder: it should hold tokenizer.json')
  if not (path / 'tokenizer.json').exists():
    # Some classes would make an empty tokenizer without a word.
    raise UserError(f'{folder}: no usable tokenizer: tokenizer.json is missing')
  try:
    tok = transformers.AutoTokenizer.from_pretrained(
      str(path), trust_remote_code=False, local_files_only=True
    )
  except (OSError, ValueError, KeyError, ImportError) as error:
    said = str(error).strip().partition('\n')[0]
    if isinstance(error, KeyError):
      said = f'tokenizer.json has no {said}'
    raise UserError(f'{folder}: no usable tokenizer: {said}') from error
  if not tok.is_fast:
    raise UserError(f'{folder}: no fast tokenizer: it needs a tokenizer.json')
  if not tok.chat_template:
    raise UserError(f'{folder}: no chat template: add chat_template.jinja')
  return tok


def render_prompt(
  tok: Tokenizer, messages: Sequence[Message], **kw
) -> list[int]:
  """Ids of the chat up to where the assistant begins to write."""
  messages, kw, marks = _shield(tok, messages, kw)
  return _ids(tok, _render(tok, messages, kw, generate=True), marks)


def encode(tok: Tokenizer, messages: Sequence[Message], **kw) -> list[Row]:
  """Training rows of a chat: loss on its assistant turns and their end.

  A turn with `train: False` is context only. If every trained turn's rendering
  continues the one before, the chat is one row. Some templates rewrite earlier
  turns (Qwen3 strips their thinking): then each trained turn is a row of its
  own, with the context that the model would see when it writes that turn.

  Raises:
    UserError: nothing to train on, or a turn that does not begin with its own
      generation prompt (the message shows both token strings).
  """
  if all(message['role'] != 'assistant' for message in messages):
    raise UserError('the chat has no assistant turn: there is nothing to learn')
  trained = [
    k
    for k, message in enumerate(messages)
    if message['role'] == 'assistant' and message.get('train', True)
  ]
  if not trained:
    raise UserError(
      'no supervised token: every assistant turn has train: False'
    )
  messages, kw, marks = _shield(tok, messages, kw)
  turns = [_turn(tok, messages[: k + 1], kw, marks) for k in trained]
  continues = all(
    prompt.startswith(whole)
    for (_, whole), (prompt, _) in zip(turns, turns[1:], strict=False)
  )
  if continues:
    stages = [*(prompt for prompt, _ in turns), turns[-1][1]]
    return [_row(tok, stages, marks)]
  return [_row(tok, turn, marks) for turn in turns]


def encode_chats(
  tok: Tokenizer, chats: Sequence[Sequence[Message]], name: str, **kw
) -> list[Row]:
  """Rows of all chats of a file; errors and `Row.source` name file and row."""
  rows = []
  for i, messages in enumerate(chats, start=1):
    source = f'{name}: row {i}'
    try:
      made = encode(tok, messages, **kw)
    except UserError as error:
      raise UserError(f'{source}: {error}') from error
    rows += [dataclasses.replace(row, source=source) for row in made]
  return rows


def turn_suffix(tok: Tokenizer, messages: Sequence[Message], **kw) -> list[int]:
  """What to append to a sampled answer so that the chat goes on.

  The answer is taken to have ended with its end-of-turn token; the ids run from
  there, over `messages`, through the next generation prompt. A stand-in answer
  in a rendered chat finds them, so sampled ids are never rendered again.
  """
  messages, kw, marks = _shield(tok, messages, kw)
  after = _after_answer(tok, messages, kw, avoid=marks, generate=True)
  ids = _ids(tok, after, marks)
  if ids[:1] != [stop_ids(tok)[0]]:
    raise UserError('the chat template does not end an answer with one token')
  return ids[1:]


def stop_ids(tok: Tokenizer) -> tuple[int, ...]:
  """Ids that end an assistant turn: the template's own, then the tokenizer's.

  They differ for some families: Gemma's turns end with <end_of_turn>, while its
  `eos_token` is <eos>.
  """
  return _stop_ids(tok, tok.chat_template)


def text_ids(tok: Tokenizer, text: str) -> list[int]:
  """Ids of plain text, without any added token."""
  text, _, marks = _shield(tok, text, {})
  return _ids(tok, text, marks)


def decode(tok: Tokenizer, ids: Sequence[int]) -> str:
  """The text of ids, without special tokens."""
  return tok.decode(list(ids), skip_special_tokens=True)


# ---------------------------------------------------------------- shielding


@dataclasses.dataclass(frozen=True)
class _Added:
  """Added tokens by id, a pattern that finds them, a parser without them."""

  tokens: dict[int, str]
  pattern: re.Pattern
  plain: tokenizers.Tokenizer


@functools.lru_cache(maxsize=8)
def _added(tok, size):
  del size  # Part of the cache key: a token added later changes it.
  # Runs of blanks are text, though some vocabularies (Gemma's) add them.
  tokens = {
    i: token.content
    for i, token in tok.added_tokens_decoder.items()
    if token.content.strip()
  }
  # With no added token: a pattern that never matches.
  pattern = re.compile('|'.join(map(re.escape, tokens.values())) or r'(?!)')
  spec = json.loads(tok.backend_tokenizer.to_str())
  spec |= {'added_tokens': [], 'truncation': None, 'padding': None}
  plain = tokenizers.Tokenizer.from_str(json.dumps(spec))
  return _Added(tokens, pattern, plain)


def _strings(value, change):
  """`value` with `change` applied to every string in it."""
  if isinstance(value, str):
    return change(value)
  if isinstance(value, dict):
    return {_strings(k, change): _strings(v, change) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_strings(item, change) for item in value]
  return value


def _shield(tok, messages, kw):
  """Puts a private character for every added-token string in what users wrote.

  Returns the messages, the template arguments (tools are text as well), and
  the strings that the characters stand for.
  """
  added = _added(tok, len(tok))
  present: set[str] = set()
  _strings([messages, kw], lambda text: present.update(text) or text)
  free = (chr(c) for c in _PRIVATE if chr(c) not in present)
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

  return _strings(messages, change), _strings(kw, change), used


def _ids(tok, text, marks):
  """Ids of rendered text: whole stretches, and what marks stand for as text.

  Added tokens are recognised in the stretches, where only the template can have
  written them, and never in what the marks stand for.
  """
  if not marks:
    return _parse(tok, text)
  ids = []
  for piece in re.split(f'([{"".join(marks)}])', text):
    ids += _plain(tok, marks[piece]) if piece in marks else _parse(tok, piece)
  return ids


def _parse(tok, text):
  return tok.encode(
    text, add_special_tokens=False, split_special_tokens=False, verbose=False
  )


def _plain(tok, text):
  added = _added(tok, len(tok))
  ids = added.plain.encode(text, add_special_tokens=False).ids
  if added.tokens.keys().isdisjoint(ids):
    return ids
  # The vocabulary itself holds the string: spell it.
  return [
    i
    for letter in text
    for i in added.plain.encode(letter, add_special_tokens=False).ids
  ]


# ---------------------------------------------------------------- rendering


def _render(tok, messages, kw, *, generate):
  try:
    return tok.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=generate, **kw
    )
  except (jinja2.TemplateError, ValueError, TypeError) as error:
    raise UserError(f'the chat template refuses the chat: {error}') from error


def _turn(tok, messages, kw, marks):
  """Renderings of a chat that ends with a trained turn: (prompt, whole)."""
  prompt = _render(tok, messages[:-1], kw, generate=True)
  whole = _render(tok, messages, kw, generate=False)
  if whole.startswith(prompt):
    return prompt, whole
  prompt, whole = (
    tok.convert_ids_to_tokens(_ids(tok, text, marks))
    for text in (prompt, whole)
  )
  pairs = enumerate(zip(prompt, whole, strict=False))
  at = next((i for i, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
  raise UserError(
    f'the prompt of assistant turn {len(messages) - 1} is not a prefix of the '
    f'chat; from token {at} on the prompt has {prompt[at : at + 16]} but the '
    f'chat {whole[at : at + 16]}: use the template arguments that the answers '
    'were written with, or another template'
  )


def _row(tok, stages, marks):
  """One row from growing texts: a prompt, later prompts, the whole chat.

  Each addition is tokenized by itself, as in sampling, where the prompt's ids
  are fixed before the answer exists; it begins with the answer.
  """
  ids = _ids(tok, stages[0], marks)
  loss_mask = [0] * len(ids)
  stops = stop_ids(tok)
  for before, text in zip(stages, stages[1:], strict=False):
    new = _ids(tok, text[len(before) :], marks)
    end = next((i + 1 for i, token in enumerate(new) if token in stops), None)
    if end is None:
      raise UserError('the chat template writes no end-of-turn token')
    ids += new
    loss_mask += [1] * end + [0] * (len(new) - end)
  return Row(tuple(ids), tuple(loss_mask))


@functools.lru_cache(maxsize=8)
def _stop_ids(tok, template):
  del template  # Part of the cache key: it can be assigned.
  after = _parse(tok, _after_answer(tok, [], {}, avoid=(), generate=False))
  ends = [i for i in after[:1] if i in tok.added_tokens_decoder]
  if tok.eos_token_id is not None:
    ends.append(tok.eos_token_id)
  if not ends:
    raise UserError(
      'neither chat template nor tokenizer has an end-of-turn token'
    )
  return tuple(dict.fromkeys(ends))


def _after_answer(tok, messages, kw, *, avoid, generate):
  """The text that a template puts behind an answer when `messages` follow."""
  text = json.dumps(messages, ensure_ascii=False)
  answer = next(
    chr(c) for c in _PRIVATE if chr(c) not in avoid and chr(c) not in text
  )
  first = [
    {'role': 'user', 'content': 'x'},
    {'role': 'assistant', 'content': answer},
  ]
  rendered = _render(tok, [*first, *messages], kw, generate=generate)
  before, found, after = rendered.partition(answer)
  if not found:
    raise UserError('the chat template drops the assistant turn')
  return after
