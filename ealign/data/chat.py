"""Messages to tokens and loss masks, by the tokenizer's own chat template.

Two rules hold everywhere. *Text never becomes structure*: a string in a message
that spells an added token (`<|im_end|>`, but also non-special ones such as
`<think>`) is tokenized as the letters it is made of; without such strings the
ids are exactly `apply_chat_template(tokenize=True)`. Reasoning therefore goes
into a message's `reasoning_content`, not between `<think>` tags in `content`.
*Masks come from prefixes*: an answer is what follows the generation prompt in
the rendering of its own turn, through the end-of-turn token that stands there;
never template pre-fill, never found by looking for token ids in a finished
chat. *What goes in comes out*: a template that leaves out something of a chat
is an error (`traces`).

`**kw` are the template's arguments (`enable_thinking=False`), whose names may
be any; training must pass the same ones as sampling.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence

import tokenizers

from ealign.data import ends, shield, template, traces
from ealign.data import messages as messages_lib
from ealign.data.batch import Row
from ealign.data.messages import TEXT, Message
from ealign.data.sources import resolve
from ealign.runtime import advice
from ealign.runtime.errors import UserError

with advice.unsaid():
  import transformers

Tokenizer = transformers.PreTrainedTokenizerBase
# Blanks, breaks, digits, marks and letters: what may be read otherwise. None is
# decomposed: transformers' class of Qwen composes letters (NFC) where a
# tokenizer.json that was made of a GGUF file leaves that out.
_PROBES = (
  'I am fine, thank you',
  'And  you?\tYes;\n\n  def f(x):\n    return x != 12345',
  ' Été naïve 日本語 тест 😀 ',
)


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
    if tok.is_fast:
      _check_as_stored(tok, path / 'tokenizer.json', folder)
  except UserError:
    raise
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
  try:
    template.of(tok)
  except UserError as error:
    raise UserError(f'{folder}: {error}') from error
  return tok


def render_prompt(
  tok: Tokenizer, messages: Sequence[Message], /, **kw
) -> list[int]:
  """Ids of the chat up to where the assistant begins to write."""
  messages, kw, marks = _covered(tok, messages, kw)
  text = template.render(tok, messages, kw, generate=True)
  return shield.ids(tok, text, marks)


def check_prompt(tok: Tokenizer, messages: Sequence[Message], /, **kw) -> None:
  """Raises a UserError if the template leaves out something of a request."""
  _check_fields(tok, messages, kw)
  messages, kw, marks = _covered(tok, messages, kw)
  whole = template.render(tok, messages, kw, generate=False)
  traces.check(tok, messages, kw, whole, (), marks)


def check_arguments(tok: Tokenizer, kw: dict, where: str) -> None:
  """Raises a UserError if arguments are not the template's own.

  A row that could give others might replace the chat, or the template itself.
  """
  own = template.of(tok, kw.get('tools')).variables
  others = sorted(kw.keys() - own - {'tools'}, key=str)
  if others:
    raise UserError(
      f'{where}: {others[0]!r:.60} is no argument of the chat template, whose '
      f'own are {", ".join(sorted(own)) or "none"}: drop it'
    )


def encode(tok: Tokenizer, messages: Sequence[Message], /, **kw) -> list[Row]:
  """Training rows of a chat: loss on its assistant turns and their end.

  A turn with `train: False` is context only. If every trained turn's rendering
  continues the one before, the chat is one row. Some templates rewrite earlier
  turns (Qwen3 strips their thinking): then each trained turn is a row of its
  own, with the context that the model would see when it writes that turn.
  Running text (`messages.TEXT`) is one row without a template.

  Raises:
    UserError: nothing to train on, something that the template leaves out, or
      a turn that does not begin with its own generation prompt (the message
      shows both token strings).
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
  _check_fields(tok, messages, kw)
  return _rows(tok, messages, trained, kw)


def encode_chats(
  tok: Tokenizer,
  chats: Sequence[Sequence[Message]],
  name: str,
  arguments: Sequence[dict] = (),
  /,
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
      check_arguments(tok, own, 'chat_template_kwargs')
      if own and messages[0]['role'] == TEXT:
        raise UserError(f'text has no template for {", ".join(own)}: drop that')
      made = encode(tok, messages, **(kw | own))
    except UserError as error:
      raise UserError(f'{source}: {error}') from error
    rows += [dataclasses.replace(row, source=source) for row in made]
  return rows


def turn_suffix(
  tok: Tokenizer, messages: Sequence[Message], /, **kw
) -> list[int]:
  """The ids to append to a sampled answer so that the chat goes on.

  The answer is taken to have ended with its end-of-turn token; the ids run from
  there, over `messages`, through the next generation prompt. A stand-in answer
  in a rendered chat finds them, so sampled ids are never rendered again.
  """
  end = stop_ids(tok, **kw)[0]
  messages, kw, marks = _covered(tok, messages, kw)
  after = ends.after_answer(tok, messages, kw, avoid=marks, generate=True)
  ids = shield.ids(tok, after, marks, goes_on=True)
  # A blank before the end, as Llama 2 has it, is the answer's own.
  at = ids.index(end) if end in ids else len(ids)
  if at == len(ids) or decode(tok, ids[:at]).strip():
    raise UserError('the chat template does not end an answer with one token')
  return ids[at + 1 :]


def stop_ids(tok: Tokenizer, /, **kw) -> tuple[int, ...]:
  """Ids that end an assistant turn: the template's own, then the tokenizer's.

  They differ for some families: Gemma's turns end with <end_of_turn>, while its
  `eos_token` is <eos>.
  """
  return ends.stop_ids(tok, kw)


def text_ids(tok: Tokenizer, text: str) -> list[int]:
  """Ids of plain text, without any added token."""
  text, _, marks = shield.cover(tok, text, {})
  return shield.ids(tok, text, marks)


def decode(tok: Tokenizer, ids: Sequence[int]) -> str:
  """The text of ids, without special tokens."""
  return tok.decode(list(ids), skip_special_tokens=True)


def _check_as_stored(tok, path, folder) -> None:
  """Raises a UserError if transformers reads a tokenizer.json otherwise."""
  stored = tokenizers.Tokenizer.from_file(str(path))
  stored.no_padding()
  stored.no_truncation()
  for text in _PROBES:
    ids = tok.encode(text, add_special_tokens=False)
    expected = stored.encode(text, add_special_tokens=False).ids
    if ids != expected:
      spell = lambda ids: stored.decode(ids, skip_special_tokens=False)
      raise UserError(
        f'{folder}: transformers {transformers.__version__} does not read this '
        f'tokenizer.json as it is: {spell(expected)!r} becomes {spell(ids)!r}; '
        'install another release of transformers, or name its class '
        'PreTrainedTokenizerFast in tokenizer_config.json'
      )


def _covered(tok, messages, kw):
  """`shield.cover`, for what the template of the chat looks for."""
  names = template.of(tok, kw.get('tools')).reads
  return shield.cover(tok, messages, kw, names)


def _check_fields(tok, messages, kw) -> None:
  """Raises a UserError if a message has what nothing reads."""
  known = template.of(tok, kw.get('tools')).reads | messages_lib.FIELDS.keys()
  for i, message in enumerate(messages):
    if others := sorted(message.keys() - known):
      raise UserError(
        f'messages[{i}] has {others[0]!r:.60}, which the chat template does '
        'not read: drop that field'
      )


def _rows(tok, messages, trained, kw) -> list[Row]:
  """Rows of a chat of which the turns at the places `trained` are trained."""
  try:
    stops = stop_ids(tok, **kw)
  except UserError:
    stops = ()  # the template takes no chat but the row's own
  messages, kw, marks = _covered(tok, messages, kw)
  turns = [_turn(tok, messages[: k + 1], kw, marks) for k in trained]
  continues = all(
    prompt.startswith(whole)
    for (_, whole), (prompt, _) in zip(turns, turns[1:], strict=False)
  )
  groups = [trained] if continues else [[k] for k in trained]
  wholes = dict(zip(trained, turns, strict=True))
  rows = []
  for group in groups:
    said, (_, whole) = messages[: group[-1] + 1], wholes[group[-1]]
    traces.check(tok, said, kw, whole, group, marks)
    empty = sum(_is_empty(messages[k]) for k in group)
    row = _row(tok, [wholes[k] for k in group], marks, stops)
    rows.append(dataclasses.replace(row, empty=empty))
  return rows


def _is_empty(message) -> bool:
  parts = ('content', 'tool_calls', *messages_lib.THOUGHTS)
  return not any(message.get(name) for name in parts)


def _turn(tok, messages, kw, marks):
  """Renderings of a chat that ends with a trained turn: (prompt, whole)."""
  last = len(messages) - 1
  try:
    if not last:
      said = 'the chat template refuses the chat'
      raise UserError(f'{said}: no turn stands before this one')
    prompt = template.render(tok, messages[:-1], kw, generate=True)
    whole = template.render(tok, messages, kw, generate=False)
  except UserError as error:
    remedy = 'mend or drop the row'
    if not last:
      remedy = 'a chat begins with a user or system turn: drop this one'
    raise UserError(f'messages[{last}]: {error}; {remedy}') from error
  if whole.startswith(prompt):
    return prompt, whole
  raise UserError(_no_prefix(tok, prompt, whole, marks, last))


def _no_prefix(tok, prompt, whole, marks, last) -> str:
  """What to say of a turn that does not begin with its generation prompt."""
  same = len(os.path.commonprefix((prompt, whole)))
  remedy = 'use the template arguments that the answers were written with, or'
  remedy += ' another template'
  if '<think>' in prompt[same:] or prompt[:same].rstrip().endswith('<think>'):
    remedy = (
      'the template has the model think first: give the thoughts as '
      'reasoning_content, or turn thinking off (data.chat_template_kwargs), or '
      'use another template'
    )
  prompt, whole = (
    tok.convert_ids_to_tokens(shield.ids(tok, text, marks))
    for text in (prompt, whole)
  )
  pairs = enumerate(zip(prompt, whole, strict=False))
  at = next((i for i, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
  return (
    f'the prompt of assistant turn {last} is not a prefix of the '
    f'chat; from token {at} on the prompt has {prompt[at : at + 16]} but the '
    f'chat {whole[at : at + 16]}: {remedy}'
  )


def _row(tok, turns, marks, stops):
  """One row from turns (prompt, whole), each of which continues the last.

  Each addition is tokenized by itself, as in sampling, where the prompt's ids
  are fixed before the answer exists; it begins with the answer. Its end is
  sought in the turn's own rendering, not in what stands before the next.
  """
  ids = shield.ids(tok, turns[0][0], marks)
  loss_mask = [0] * len(ids)
  following = [prompt for prompt, _ in turns[1:]] + [turns[-1][1]]
  for (prompt, whole), text in zip(turns, following, strict=True):
    piece = lambda text: shield.ids(tok, text, marks, goes_on=True)
    new = own = piece(whole[len(prompt) :])
    end = ends.of_turn(tok, own, stops)
    if text != whole:
      new = piece(text[len(prompt) :])
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
  end = tok.eos_token_id
  if end is None:
    end = stop_ids(tok)[-1]
  start = [i for i in tok.encode('')[:1] if i == tok.bos_token_id]
  ids = [*start, *text_ids(tok, text), end]
  return Row(tuple(ids), (0,) + (1,) * (len(ids) - 1))
