"""Whether data, model and devices fit the sizes that a config asks for.

This is checked before the first step; otherwise a run would end at its first
reflection, or after hours at its last question.
"""

from collections.abc import Iterable

from ealign.conscience.prompts import Conscience, overhead
from ealign.data import chat
from ealign.engine import Model
from ealign.fields import Config
from ealign.models import config as models
from ealign.models import lora
from ealign.runtime.errors import UserError


def sizes(config: Config, positions: int, devices: int) -> None:
  """Raises a UserError of all lengths and batch sizes that cannot work.

  positions: those of the model; devices: those that a batch is spread over.
  """
  c, d, e = config.conscience, config.data, config.eval
  sft, pairs, parts = bool(d.train), config.reflects, config.train.microbatches
  lengths = {
    'data.length': d.length * sft,
    'dpo.length': config.dpo.length * pairs,
  }
  rows = {  # name: (rows, the parts that each device takes them in)
    'data.batch_size': (d.batch_size * sft, parts),
    'dpo.pairs': (config.dpo.pairs * pairs, parts),
    'conscience.prompts * samples': (c.prompts * c.samples * pairs, 1),
  }
  rows = rows if config.train.steps > 0 else {}
  asks = bool(e.questions or e.curve or e.tokens or e.suites)
  rows['eval.batch'] = e.batch * asks, 1
  problems = [
    f'{name}={length}: the model has {positions} positions; use at most that'
    for name, length in lengths.items()
    if length > positions
  ]
  for name, (count, parts) in rows.items():
    unit = devices * parts
    over = f'{devices} devices' + f' in {parts} microbatches' * (parts > 1)
    if count % unit:
      problems.append(
        f'{name}={count}: does not divide over {over}; use a multiple of '
        f'{unit}, such as {-(-count // unit) * unit}'
      )
  if problems:
    raise UserError(*problems)


def targets(config: Config, model: models.Config) -> None:
  """Raises a UserError if the adapter targets projections not in the model."""
  have = tuple(lora.widths(model))
  absent = [name for name in config.model.lora.targets if name not in have]
  if absent:
    raise UserError(
      f'model.lora.targets={",".join(absent)}: a model of type '
      f'{model.family!r} has no such projections, or has them in its experts, '
      f'which take no adapter; use model.lora.targets={",".join(have)}'
    )


def pool(c: Conscience, path: str, chats) -> None:
  """Raises a UserError if a request of a pool is too long to make a pair.

  It must also fit a second model that reviews or writes.
  """
  named = [(f'{path}: row {i}', x) for i, x in enumerate(chats, start=1)]
  pair = c.dpo.length - 2  # two answers must differ in a token and end
  for model in _models(c):
    room = model.config.max_positions - c.sample.max_new_tokens - c.limit
    room -= overhead(c, model)
    remedy = 'lower sample.max_new_tokens'
    if c.limit > c.sample.max_new_tokens:
      remedy = 'lower conscience.revise.max_new_tokens'
    if model is c.policy.model and room >= pair:
      room, remedy = pair, 'raise dpo.length'
    _prompts(model, named, room, remedy)
  _complete(c.policy.model, named)


def _models(c):
  return [c.policy.model, *(engine.model for engine in c.others.values())]


def questions(c: Conscience, rows: Iterable[dict], new: int) -> None:
  """Raises a UserError if a question leaves no room for `new` tokens."""
  named = [(f'question {row["id"]!r}', row['messages']) for row in rows]
  if not named:
    return  # not every template can go on behind an answer, nor needs to
  for model in _models(c):
    room = model.config.max_positions - new - overhead(c, model)
    _prompts(model, named, room, 'lower eval.max_new_tokens')
  _complete(c.policy.model, named)


def asked(model: Model, rows: Iterable[dict], new: int) -> None:
  """Raises a UserError if a suite's question leaves no room for its answer."""
  named = [(f'question {row["id"]!r}', row['messages']) for row in rows]
  room = model.config.max_positions - new
  _prompts(model, named, room, 'lower eval.suite_tokens')
  _complete(model, named)


def rows(model: Model, encoded) -> None:
  """Raises a UserError of a row with a token that the embedding lacks."""
  for row in encoded:
    try:
      model.held(row.ids)
    except UserError as error:
      raise UserError(f'{row.source}: {error}; drop the row') from error


def tokens(model: Model, path: str, chats) -> None:
  """Raises a UserError if a chat of eval.tokens exceeds the positions."""
  most, more = model.config.max_positions, dict(model.template)
  encoded = chat.encode_chats(model.tokenizer, chats, path, **more)
  rows(model, encoded)
  for row in encoded:
    if len(row.ids) > most:
      message = f'has {len(row.ids)} tokens, the model {most} positions'
      raise UserError(f'{row.source}: {message}; drop the row')


def _complete(model, named) -> None:
  """Raises a UserError if the template leaves out something of a request."""
  for name, messages in named:
    try:
      more = dict(model.template)
      chat.check_prompt(model.tokenizer, messages, **more)
    except UserError as error:
      raise UserError(f'{name}: {error}') from error


def _prompts(model, named, room: int, remedy: str) -> None:
  long, path = [], model.tokenizer.name_or_path
  if room < 1:
    raise UserError(
      f'{path}: the model has {model.config.max_positions} positions, too few '
      f'for any prompt with its answers and their review; {remedy} or use '
      'another model'
    )
  for name, messages in named:
    if not any(message['role'] == 'user' for message in messages):
      raise UserError(f'{name}: no user turn to answer; drop it')
    try:
      length = len(model.prompt(messages))
    except UserError as error:
      raise UserError(f'{name}: {error}; mend or drop it') from error
    if length > room:
      long.append((name, length))
  if long:
    (name, length), *more = long
    also = f' ({len(more)} more are too long)' if more else ''
    raise UserError(
      f'{name}: the prompt has {length} tokens but at most {room} fit the '
      f'model {path}: {remedy} or drop it{also}'
    )
