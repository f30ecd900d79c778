"""Asks a conscience about labelled exchanges, in one way or in many."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from ealign.conscience import asking, prompts
from ealign.conscience.framings import Framing
from ealign.conscience.prompts import Conscience, Example
from ealign.data import exchanges
from ealign.data.exchanges import Row
from ealign.engine import Engine
from ealign.runtime.errors import UserError
from ealign.sampling.prompts import bucket

ROWS = 32  # read at once: 1.14 times as fast as 16 (0.5B, two cores)


@dataclasses.dataclass(frozen=True)
class Setting:
  """One way to put the question: what of `conscience` makes it."""

  framing: Framing
  form: str = 'words'
  sees: str = 'chat'
  examples: int = 0
  calibration: str = 'none'

  def __str__(self):
    parts = [self.framing.name, self.form, self.sees]
    parts += [f'{self.examples} examples'] * bool(self.examples)
    parts += [self.calibration] * (self.calibration != 'none')
    return ', '.join(parts)

  @property
  def fields(self) -> dict:
    """The fields of a config that set it."""
    return {
      'conscience.framing': self.framing.name,
      'conscience.review.form': self.form,
      'conscience.review.sees': self.sees,
      'conscience.review.examples': self.examples,
      'conscience.review.calibration': self.calibration,
    }


def setting_of(c: Conscience) -> Setting:
  """The setting that a conscience has."""
  r = c.settings.review
  return Setting(c.framing, r.form, r.sees, r.examples, r.calibration)


def applied(c: Conscience, setting: Setting, rows: Sequence[Row]) -> Conscience:
  """The conscience with another setting; rows: those to take examples from."""
  review = dataclasses.replace(
    c.settings.review,
    form=setting.form,
    sees=setting.sees,
    examples=setting.examples,
    calibration=setting.calibration,
  )
  found = exchanges.shortest(list(rows), setting.examples)
  return dataclasses.replace(
    c,
    framing=setting.framing,
    settings=dataclasses.replace(c.settings, review=review),
    examples=tuple(Example(r.request, r.reply, r.flag) for r in found),
  )


@dataclasses.dataclass(frozen=True)
class Asked:
  """P(flag) and label mass of rows, [N]; and of each question alone, [Q, N]."""

  p: np.ndarray
  mass: np.ndarray
  each: np.ndarray

  def joined(self, more: 'Asked') -> 'Asked':
    """The answers about these rows and more."""
    both = (self.p, more.p), (self.mass, more.mass), (self.each, more.each)
    return Asked(*(np.concatenate(pair, axis=-1) for pair in both))

  def has_verdict(self, c: Conscience) -> np.ndarray:
    return self.mass >= c.settings.min_mass


def ask(
  c: Conscience, settings: Sequence[Setting], rows: Sequence[Row], examples
) -> list[Asked]:
  """The answers to each setting's question about the rows.

  Settings that see the same are asked together, so that each exchange is read
  once for all of them. examples: rows to take examples from.
  """
  reviewer = _wide(c.reviewer)
  chats = reviewer.model.exchanges([row.messages for row in rows])
  begun = asking.thoughts(c, reviewer, chats, key=jax.random.key(0))
  found: dict[Setting, Asked] = {}
  for some in _families(settings):
    asked, questions, priors, sizes = [], [], [], []
    for setting in some:
      own = applied(c, setting, examples)
      asked += own.questions
      sizes.append(len(own.questions))
      questions += [asking.put(own, chats, q, begun) for q in own.questions]
      priors += asking.priors(own, reviewer, chats)
    p_QN, mass_QN = asking.each(reviewer, asked, questions, priors)
    ends = np.cumsum(sizes)
    for setting, end, n in zip(some, ends, sizes, strict=True):
      part = p_QN[end - n : end], mass_QN[end - n : end]
      found[setting] = Asked(*asking.mean(*part), part[0])
  return [found[setting] for setting in settings]


def _wide(engine: Engine) -> Engine:
  """The engine with batches of at least `ROWS` rows, as devices split them."""
  times = -(-ROWS // engine.rows)
  return dataclasses.replace(engine, rows=times * engine.rows)


def _families(settings):
  """Settings that are asked together: their questions have one start."""
  key = lambda s: (s.calibration, s.sees)
  groups = itertools.groupby(sorted(settings, key=key), key)
  return [[*some] for _, some in groups]


def fits(c: Conscience, settings, rows: Sequence[Row]) -> None:
  """Checks that each exchange fits the model with each setting's question.

  Raises:
    UserError: one is too long.
  """
  model = c.reviewer.model
  if model.config is None:
    return
  more = max(prompts.overhead(applied(c, s, rows), model) for s in settings)
  room = model.config.max_positions - more - c.limit
  chats = model.exchanges([row.messages for row in rows])
  for row, x in zip(rows, chats, strict=True):
    size = len(x.prompt) + len(x.answer.ids)
    if size > room:
      raise UserError(
        f'exchange {row.id!r} has {size} tokens, and beside the question at '
        f'most {room} fit the {model.config.max_positions} positions of the '
        'model; leave it out of conscience.exchanges'
      )


def tokens(c: Conscience, settings, rows, examples) -> int:
  """About how many tokens `ask` reads, padding and sharing included."""
  chats = c.reviewer.model.exchanges([row.messages for row in rows[:8]])
  total = 0
  for some in _families(settings):
    lengths = []
    for setting in some:
      own = applied(c, setting, examples)
      lengths += [
        [len(prompts.review_prompt(own, x, q)) for x in chats]
        for q in own.questions
      ]
    start = [len(x.prompt) + len(x.answer.ids) for x in chats]
    if len(lengths) == 1:
      total += sum(map(bucket, lengths[0]))
    else:
      total += sum(map(bucket, start))
      total += sum(
        bucket(max(1, whole - begun))
        for own in lengths
        for whole, begun in zip(own, start, strict=True)
      )
  return round(total * len(rows) / max(len(chats), 1))
