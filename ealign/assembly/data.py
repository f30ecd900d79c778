"""What a run reads: SFT chats, the pool of requests, the framing."""

import itertools
import json

import numpy as np

from ealign.assembly import fit
from ealign.conscience import framings
from ealign.conscience.prompts import Conscience, Example
from ealign.data import chat, columns, exchanges, mapping, sources
from ealign.data import loader as loader_lib
from ealign.engine import Model
from ealign.fields import Config
from ealign.runtime.errors import UserError

AUDITED = 32  # exchanges, at most


def training_chats(config: Config):
  """The SFT chats, and the template arguments that each brings itself."""
  path = config.data.train
  if not path:
    return [], []
  rows = sources.read_rows(path, config.data.max_mib)
  own = columns.arguments(rows, path)
  reads = config.reflects or config.holds_out
  if any(own) and 'sft' in config.pool.paths and reads:
    message = 'rows of data.train have tools or chat_template_kwargs'
    raise UserError(f"pool.paths='sft': {message}; name another pool")
  return columns.chats(rows, path), own


def encoded(config: Config, model: Model, chats, own):
  """The SFT chats as rows of tokens; `own` as from `training_chats`."""
  data = config.data
  if data.train_system is not None:
    chats = [with_system(c, data.train_system) for c in chats]
  kwargs = dict(data.chat_template_kwargs)
  rows = chat.encode_chats(model.tokenizer, chats, data.train, own, **kwargs)
  fit.rows(model, rows)
  return rows


def loader(config: Config, rows) -> loader_lib.Loader:
  """The endless stream of packed batches of rows."""
  data = config.data
  return loader_lib.Loader(
    rows,
    length=data.length,
    batch_size=data.batch_size,
    seed=config.seed,
    max_truncated=data.max_truncated,
  )


def make_pool(config: Config, c: Conscience, sft):
  """[(weight, prompts)]: what the policy is sampled on, checked for length."""
  pool = []
  for path, weight in zip(config.pool.paths, config.pool.weights, strict=True):
    chats = sft
    if path != 'sft':
      chats = columns.load_chats(path, config.data.max_mib)
    name = config.data.train if path == 'sft' else path
    if config.mistakes.source == 'pool':
      _check_replies(name, chats)
    if config.pool.system is not None:
      chats = [with_system(c, config.pool.system) for c in chats]
    asked = [requested(chat) for chat in chats]
    fit.pool(c, name, asked)
    if config.mistakes.source == 'pool':  # with the first reply of each
      both = zip(chats, asked, strict=True)
      asked = [[*request, chat[len(request)]] for chat, request in both]
    pool.append((weight, asked))
  return pool


def requested(chat) -> list:
  """The turns of a chat before the first answer."""
  return list(itertools.takewhile(_not_assistant, chat))


def _check_replies(name: str, chats) -> None:
  """Raises a UserError if a row of a pool has no reply to be analysed."""
  for i, messages in enumerate(chats, start=1):
    first = next((m for m in messages if m['role'] == 'assistant'), {})
    if not str(first.get('content') or '').strip():
      raise UserError(
        f"{name}: row {i} has no reply, and mistakes.source='pool' takes those "
        "of the pool; drop the row, or use 'own'"
      )


def pools(config: Config, c: Conscience, sft):
  """The pool that is drawn from, and prompts held out of it: none if not used.

  A run that does not reflect reads them too if its last answers are reviewed.
  """
  if not (config.reflects or config.holds_out):
    return [], []
  pool = make_pool(config, c, sft)
  if not config.holds_out:
    return pool, []
  left, held = hold_out(config, pool)
  return left, [requested(chat) for chat in held]


def hold_out(config: Config, pool):
  """The pool without the prompts that are held out of it, and these.

  They differ from each other, and as many are of each source as the weights
  make likely. Wherever else such a prompt stands in the pool, it is left out.

  Raises:
    UserError: too few prompts would remain to be drawn.
  """
  n = config.conscience.held_out
  rng = np.random.default_rng(np.random.SeedSequence((config.seed, 0, 3)))
  shares = np.asarray([w for w, _ in pool], float)
  counts, held = rng.multinomial(n, shares / shares.sum()), {}
  for (_, chats), count in zip(pool, counts, strict=True):
    new = {}
    for i in rng.permutation(len(chats)):
      if len(new) < count and _text(chats[i]) not in held:
        new[_text(chats[i])] = chats[i]
    held |= new
  left = [(w, [x for x in chats if _text(x) not in held]) for w, chats in pool]
  _enough(config, pool, left, len(held))
  return left, list(held.values())


def _enough(config, pool, left, held: int) -> None:
  """Raises a UserError if the pool is too small for what is held out."""
  c, whole = config.conscience, sum(len(chats) for w, chats in pool if w)
  remain = sum(len(chats) for w, chats in left if w)
  named = zip(config.pool.paths, left, strict=True)
  gone = [path for path, (w, chats) in named if w and not chats]
  if held < c.held_out or remain < c.prompts or gone:
    of = f'{", ".join(gone)}: none' if gone else f'{remain} of {whole} prompts'
    raise UserError(
      f'conscience.held_out={c.held_out}: {of} would remain to be drawn; lower '
      f'it (conscience.prompts={c.prompts} must remain, and some of each '
      'source), add prompts to pool.paths, or write a number as '
      'conscience.threshold'
    )


def _text(messages) -> str:
  return json.dumps(messages, sort_keys=True)


def _not_assistant(message):
  return message['role'] != 'assistant'


def with_system(messages, system: str):
  """The chat with its system turn replaced ('' = removed); text stays."""
  if messages[0]['role'] == columns.TEXT:
    return messages
  rest = [m for m in messages if m['role'] != 'system']
  return [{'role': 'system', 'content': system}, *rest] if system else rest


def read_framing(name: str) -> framings.Framing:
  """A named framing, or one read from a user's .json or .yaml file."""
  if name in framings.FRAMINGS:
    return framings.FRAMINGS[name]
  fields = mapping.read_mapping(name)
  words = lambda x: (x,) if isinstance(x, str) else tuple(x)
  fields |= {label: words(fields[label]) for label in ('ok', 'flag')}
  return framings.Framing(name=name, **fields)


def read_examples(config: Config) -> tuple[Example, ...]:
  """The judged exchanges that the question is asked with.

  Ok and flag in turn, or flag alone: the shortest plain ones of split dev, each
  of another twin and, where there are enough, of another domain.
  """
  n, path = config.conscience.review.examples, config.conscience.exchanges
  if not n:
    return ()
  rows = exchanges.read(path, config.data.max_mib)
  bad = config.conscience.review.examples_of == 'flag'
  found = exchanges.examples(rows, n, path, bad=bad)
  return tuple(Example(r.request, r.reply, r.flag) for r in found)


def read_audited(config: Config) -> list[exchanges.Row]:
  """The exchanges that its conscience is asked about before it begins.

  Plain ones of split test, or what else there is.
  """
  if not (config.audits or config.begins):
    return []
  rows = exchanges.read(config.conscience.exchanges, config.data.max_mib)
  rows = [row for row in rows if row.split == 'test'] or rows
  rows = [row for row in rows if row.kind == 'plain'] or rows
  return exchanges.in_turn(rows, AUDITED)


def draw_requests(config: Config, pool, step: int):
  """The requests of one reflection and their row ids.

  pool: list of (weight, chats). Drawn with a generator keyed by seed and
  step alone, so a run resumes, and spreads over hosts, with the same draws.
  """
  c = config.conscience
  rng = np.random.default_rng(np.random.SeedSequence((config.seed, step, 2)))
  shares = np.asarray([w for w, _ in pool], float)
  requests = []
  for source in rng.choice(len(pool), c.prompts, p=shares / shares.sum()):
    chats = pool[source][1]
    requests += [chats[rng.integers(len(chats))]] * c.samples
  first = step * c.prompts * c.samples
  return requests, list(range(first, first + len(requests)))
