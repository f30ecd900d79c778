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
import itertools
import json
from collections.abc import Sequence

import jinja2
import transformers

from ealign.data import shield
from ealign.data.batch import Row
from ealign.data.columns import TEXT, Message
from ealign.data.sources import resolve
from ealign.runtime.errors import UserError

Tokenizer = transformers.PreTrainedTokenizerBase


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
  except Exception as error:  # `tokenizers` raises nothing narrower
    message = ' '.join(str(error).split())
    if isinstance(error, KeyError):
      message = f'tokenizer.json has no {message}'
    raise UserError(
      f'{folder}: no usable tokenizer: {message}; download or copy it again'
    ) from error
  if not tok.is_fast:
    raise UserError(f'{folder}: no fast tokenizer: it needs a tokenizer.json')
  if not tok.chat_template:
    raise UserError(f'{folder}: no chat template: add chat_template.jinja')
  return tok


def render_prompt(
  tok: Tokenizer, messages: Sequence[Message], **kw
) -> list[int]:
  """Ids of the chat up to where the assistant begins to write."""
  messages, kw, marks = shield.cover(tok, messages, kw)
  return shield.ids(tok, _render(tok, messages, kw, generate=True), marks)


def encode(tok: Tokenizer, messages: Sequence[Message], **kw) -> list[Row]:
  """Training rows of a chat: loss on its assistant turns and their end.

  A turn with `train: False` is context only. If every trained turn's rendering
  continues the one before, the chat is one row. Some templates rewrite earlier
  turns (Qwen3 strips their thinking): then each trained turn is a row of its
  own, with the context that the model would see when it writes that turn.
  Running text (`columns.TEXT`) is one row without a template.

  Raises:
    UserError: nothing to train on, or a turn that does not begin with its own
      generation prompt (the message shows both token strings).
  """
  if [message['role'] for message in messages] == [TEXT]:
    return [_text_row(tok, messages[0]['content'])]
  if all(message['role'] != 'assistant' for message in messages):
    raise UserError(
      'the chat has no assistant turn: there is nothing to learn; drop the row'
    )
  trained = [
    k
    for k, message in enumerate(messages)
    if message['role'] == 'assistant' and message.get('train', True)
  ]
  if not trained:
    raise UserError(
      'no supervised token: every assistant turn has train: False; drop the row'
    )
  messages, kw, marks = shield.cover(tok, messages, kw)
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
  tok: Tokenizer,
  chats: Sequence[Sequence[Message]],
  name: str,
  arguments: Sequence[dict] = (),
  **kw,
) -> list[Row]:
  """Rows of all chats of a file; errors and `Row.source` name file and row.

  arguments: those of each chat alone; they go before those of all.
  """
  rows = []
  each = itertools.zip_longest(chats, arguments, fillvalue={})
  for i, (messages, own) in enumerate(each, start=1):
    source = f'{name}: row {i}'
    try:
      made = encode(tok, messages, **(kw | own))
    except UserError as error:
      raise UserError(f'{source}: {error}') from error
    rows += [dataclasses.replace(row, source=source) for row in made]
  return rows


def turn_suffix(tok: Tokenizer, messages: Sequence[Message], **kw) -> list[int]:
  """The ids to append to a sampled answer so that the chat goes on.

  The answer is taken to have ended with its end-of-turn token; the ids run from
  there, over `messages`, through the next generation prompt. A stand-in answer
  in a rendered chat finds them, so sampled ids are never rendered again.
  """
  messages, kw, marks = shield.cover(tok, messages, kw)
  after = _after_answer(tok, messages, kw, avoid=marks, generate=True)
  ids = shield.ids(tok, after, marks, goes_on=True)
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
  text, _, marks = shield.cover(tok, text, {})
  return shield.ids(tok, text, marks)


def decode(tok: Tokenizer, ids: Sequence[int]) -> str:
  """The text of ids, without special tokens."""
  return tok.decode(list(ids), skip_special_tokens=True)


def _render(tok, messages, kw, *, generate):
  try:
    return tok.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=generate, **kw
    )
  except (jinja2.TemplateError, ValueError, TypeError) as error:
    raise UserError(f'the chat template refuses the chat: {error}') from error


def _turn(tok, messages, kw, marks):
  """Renderings of a chat that ends with a trained turn: (prompt, whole)."""
  try:
    prompt = _render(tok, messages[:-1], kw, generate=True)
    whole = _render(tok, messages, kw, generate=False)
  except UserError as error:
    last, remedy = len(messages) - 1, 'mend or drop the row'
    if not last:
      remedy = 'a chat begins with a user or system turn: drop this one'
    raise UserError(f'messages[{last}]: {error}; {remedy}') from error
  if whole.startswith(prompt):
    return prompt, whole
  prompt, whole = (
    tok.convert_ids_to_tokens(shield.ids(tok, text, marks))
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
  ids = shield.ids(tok, stages[0], marks)
  loss_mask = [0] * len(ids)
  stops = stop_ids(tok)
  for before, text in zip(stages, stages[1:], strict=False):
    new = shield.ids(tok, text[len(before) :], marks, goes_on=True)
    end = next((i + 1 for i, token in enumerate(new) if token in stops), None)
    if end is None:
      raise UserError('the chat template writes no end-of-turn token')
    ids += new
    loss_mask += [1] * end + [0] * (len(new) - end)
  return Row(tuple(ids), tuple(loss_mask))


def _text_row(tok, text):
  """Running text: loss on all but its first token, and on the end of text."""
  for token in tok.added_tokens_decoder.values():
    if token.special and token.content in text:
      raise UserError(
        f'the text holds {token.content!r}, which only a template may write: '
        'give the chat as messages'
      )
  start = [i for i in tok.encode('')[:1] if i == tok.bos_token_id]
  ids = [*start, *text_ids(tok, text), stop_ids(tok)[-1]]
  return Row(tuple(ids), (0,) + (1,) * (len(ids) - 1))


@functools.lru_cache(maxsize=8)
def _stop_ids(tok, template):
  del template  # Part of the cache key: it can be assigned.
  after = _after_answer(tok, [], {}, avoid=(), generate=False)
  after = shield.ids(tok, after, {}, goes_on=True)
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
    chr(c) for c in shield.PRIVATE if chr(c) not in avoid and chr(c) not in text
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
