"""Whether data, model and devices fit the sizes that a config asks for.

Asked before the first step: else a run would end at its first reflection, or
after hours at its last question.
"""

from collections.abc import Iterable

from ealign.conscience import prompts
from ealign.conscience.prompts import Mind
from ealign.data import chat
from ealign.fields import Config
from ealign.models import config as models
from ealign.models import lora
from ealign.runtime.errors import UserError


def sizes(config: Config, positions: int, devices: int) -> None:
  """Raises UserError: sequences or batches that cannot be, all at once.

  positions: those of the model; devices: those that a batch is spread over.
  """
  c, e, parts = config.conscience, config.eval, config.train.microbatches
  trains, pairs = config.train.steps > 0, config.dpo.lam > 0
  lengths = {
    'data.length': config.data.length if config.data.train else 0,
    'dpo.length': config.dpo.length if pairs else 0,
  }
  rows = {  # name: (rows, the parts that each device takes them in)
    'data.batch_size': (
      config.data.batch_size * bool(config.data.train),
      parts,
    ),
    'dpo.pairs': (config.dpo.pairs * pairs, parts),
    'conscience.prompts * samples': (c.prompts * c.samples * pairs, 1),
  }
  rows = rows if trains else {}
  asks = bool(e.questions or e.curve or e.tokens)
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
  """Raises UserError: an adapter on projections that the model has not."""
  have = tuple(lora.widths(model))
  absent = [name for name in config.model.lora.targets if name not in have]
  if absent:
    raise UserError(
      f'model.lora.targets={absent}: not in a model of type {model.family!r}, '
      f'whose experts are not adapted; use {",".join(have)}'
    )


def pool(mind: Mind, path: str, chats, others=()) -> None:
  """Raises UserError: a request of a pool that no pair could be made of.

  others: a second model that reviews or writes; a request must fit it too.
  """
  room = mind.dpo.length - 2  # two answers must differ in a token and end
  remedy = 'raise dpo.length'
  if _spare(mind) < room:
    room, remedy = _spare(mind), 'lower sample.max_new_tokens'
  named = [(f'{path}: row {i}', c) for i, c in enumerate(chats, start=1)]
  _prompts(mind, named, room, remedy)
  for other in others:
    _prompts(other, named, _spare(other), 'lower sample.max_new_tokens')


def _spare(mind):
  answers = 2 * mind.sample.max_new_tokens
  return mind.model.max_positions - answers - prompts.overhead(mind)


def questions(mind: Mind, rows: Iterable[dict], new: int) -> None:
  """Raises UserError: a question whose answer of `new` tokens has no room."""
  room = mind.model.max_positions - new - prompts.overhead(mind)
  named = ((f'question {row["id"]!r}', row['messages']) for row in rows)
  _prompts(mind, named, room, 'lower eval.max_new_tokens')


def tokens(mind: Mind, path: str, chats) -> None:
  """Raises UserError: a chat of eval.tokens that cannot be predicted."""
  for row in chat.encode_chats(
    mind.tokenizer, chats, path, **dict(mind.template)
  ):
    if len(row.ids) > mind.model.max_positions:
      said = f'has {len(row.ids)} tokens, the model {mind.model.max_positions}'
      raise UserError(f'{row.source}: {said} positions; drop the row')


def _prompts(mind, named, room: int, remedy: str) -> None:
  long, path = [], mind.tokenizer.name_or_path
  if room < 1:
    said = f'the model has {mind.model.max_positions} positions'
    said += ', too few for any prompt with its answers and their review'
    raise UserError(f'{path}: {said}; {remedy} or use another model')
  for name, messages in named:
    if not any(message['role'] == 'user' for message in messages):
      raise UserError(f'{name}: no user turn to answer; drop it')
    try:
      ids = chat.render_prompt(mind.tokenizer, messages, **dict(mind.template))
    except UserError as error:
      raise UserError(f'{name}: {error}; mend or drop it') from error
    if len(ids) > room:
      long.append((name, len(ids)))
  if long:
    (name, length), *more = long
    also = f' ({len(more)} more are too long)' if more else ''
    said = f'the prompt has {length} tokens but at most {room} fit'
    said += f' the model {path}: {remedy} or drop it{also}'
    raise UserError(f'{name}: {said}')
