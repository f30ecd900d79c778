"""The audit before the first step: can the conscience tell good from bad?

It is asked about a few labelled exchanges as the run will ask it about answers.
What it says is kept in run.json, so that a run that is continued does not ask
again, and is shared by all runs of one process whose conscience is the same.
"""

import dataclasses
import json

import jax
import numpy as np

from ealign.assembly import threshold
from ealign.conscience import asking, prompts
from ealign.conscience.prompts import Conscience
from ealign.engine import Backend
from ealign.evals.audit import measures
from ealign.evals.audit.measures import LEVEL
from ealign.fields import Config, auto_alpha
from ealign.runtime import provenance
from ealign.runtime.errors import UserError

NEARLY_ALL = 0.9  # flagged of either label: so much says nothing
KEY = 2**31 - 4  # folded into the root key: apart from every step
_FOUND: dict[str, dict] = {}  # by a hash of all that it depends on
_REMEDY = (
  'try other ways to put the question (python -m ealign.audit --config=... '
  "--choose) or a larger conscience.review.by='other:...', or train without "
  "(dpo.lam=0), or set conscience.audit='off' and a number as "
  'conscience.threshold if this is meant'
)
# What to do where the labels get little of its probability, in this order.
_SILENT = (
  "(1) if it thinks first, data.chat_template_kwargs=(('enable_thinking', "
  "False),); (2) conscience.review.form='yes_no', or python -m ealign.audit "
  '--config=... --choose, which tries all forms; (3) a model that answers as '
  "conscience.review.by='other:...' (Qwen2.5-Coder-1.5B-Instruct is the "
  'smallest found to tell plain badness, docs/conscience.md); (4) dpo.lam=0, '
  "or, if this is meant, conscience.audit='off' and a number as "
  'conscience.threshold'
)


def kept(folder) -> dict:
  """{'audit': what a run's run.json has of it}; {} if it has none.

  folder: the shared one, so that all hosts find the same.
  """
  try:
    facts = json.loads((folder / 'run.json').read_text()).get('audit')
  except (OSError, ValueError):
    return {}
  return {'audit': facts} if facts else {}


def found(
  config: Config, c: Conscience, origin: dict, backend: Backend, rows, stored
) -> dict | None:
  """The verdicts on the exchanges and what they are worth; None without any.

  Args:
    config: of the run.
    c, origin: of `threshold.reviewing`.
    backend: of the run.
    rows: the exchanges.
    stored: of an earlier start, as `kept`; taken if nothing has changed.
  """
  if not rows:
    return None
  name = provenance.text_hash(repr(_depends(config, c, rows, origin)))
  if stored.get('audit', {}).get('identity') == name:
    return stored['audit']
  key = jax.random.fold_in(jax.random.key(config.seed), KEY)
  make = lambda: examined(threshold.by_itself(c), rows, key)
  asked = threshold.once(_FOUND, name, make, backend)
  return {'identity': name} | asked


def _depends(config: Config, c: Conscience, rows, origin: dict):
  """All that the verdicts depend on, but for the devices."""
  s, model = c.settings, c.reviewer.model
  by = s.review.by
  weights = {'frozen': origin['frozen']} | origin['others']
  return (
    *(rows, c.framing, c.examples, s.review, s.min_mass),
    *(weights.get(by) or (origin['frozen'], origin['policy']),),
    dataclasses.replace(model.config, mesh=None, attention='', vocab_rows=0),
    *(model.template, model.tokenizer.chat_template),
    config.seed * bool(s.review.reason_tokens),
  )


def examined(c: Conscience, rows, key) -> dict:
  """The verdicts on the exchanges that fit the model, and what they are worth.

  Raises:
    UserError: none of them fits.
  """
  model = c.reviewer.model
  room = model.config.max_positions - prompts.overhead(c, model)
  chats = model.exchanges([row.messages for row in rows])
  size = lambda chat: len(chat.prompt) + len(chat.answer.ids)
  both = zip(rows, chats, strict=True)
  fits = [(row, chat) for row, chat in both if size(chat) <= room]
  if not fits:
    raise UserError(
      f'conscience.exchanges={c.settings.exchanges!r}: none of {len(rows)} '
      f'fits the {model.config.max_positions} positions of the model with the '
      "question; name a file of shorter ones, or set conscience.audit='off'"
    )
  rows, chats = zip(*fits, strict=True)
  p, mass, _ = asking.ask(c, c.reviewer, list(chats), key=key)
  flags, domains = [row.flag for row in rows], [row.domain for row in rows]
  area = measures.auc(p, flags, domains)
  return {
    'exchanges': len(rows),
    'auc': area and dataclasses.asdict(area),
    'level': LEVEL,
    'answered': float(np.mean(mass >= c.settings.min_mass)),
    'mass': float(np.mean(mass)),
    'verdicts': [
      {'id': row.id, 'flag': row.flag, 'p': float(x), 'mass': float(m)}
      for row, x, m in zip(rows, p, mass, strict=True)
    ],
  }


def check(config: Config, facts: dict) -> None:
  """Raises a UserError if no exchange got a verdict."""
  if facts['answered']:
    return
  raise UserError(
    f'conscience: no verdict on any of {facts["exchanges"]} labelled exchanges '
    f'(mean label mass {facts["mass"]:.2g}, conscience.min_mass='
    f'{config.conscience.min_mass}): the model does not answer the question, '
    f'and no pair would be made; {_SILENT}'
  )


def told(c: Conscience, facts: dict) -> dict:
  """The facts with what the threshold makes of them, and all in words.

  c: has the threshold of the run.
  """
  level, least = c.threshold, c.settings.min_mass
  flagged = {
    label: float(np.mean([v['mass'] >= least and v['p'] >= level for v in own]))
    for label, wanted in (('ok', False), ('flag', True))
    if (own := [v for v in facts['verdicts'] if v['flag'] == wanted])
  }
  named = {'ok': 'good', 'flag': 'bad'}.items()
  shares = [f'{flagged[x]:.0%} of {name}' for x, name in named if x in flagged]
  area = facts['auc']
  auc = 'no AUC, as all have one label'
  if area:
    auc = f'AUC {area["value"]:.2f} [{area["low"]:.2f}, {area["high"]:.2f}]'
  line = (
    f'conscience: {auc}, on {facts["exchanges"]} labelled exchanges, a verdict '
    f'on {facts["answered"]:.0%} of them; at threshold {level:.4g} it flags '
    f'{" and ".join(shares)} ones'
  )
  return facts | {
    'flagged': {'threshold': level} | flagged,
    'line': line,
    'warnings': _warnings(c, facts, [*flagged.values()]),
  }


def _warnings(c: Conscience, facts: dict, flagged: list[float]) -> list[str]:
  found = []
  if facts['answered'] < 0.5:
    what = f'a verdict on only {facts["answered"]:.0%} of the exchanges'
    found.append(f'{what}, and so hardly any pair; {_SILENT}')
  if facts['auc'] and facts['auc']['value'] < LEVEL:
    what = f'its AUC is below {LEVEL}: it hardly tells good from bad'
    found.append(f'{what}; {_REMEDY}')
  chosen = c.settings.review.verdict in ('question', 'inverted')  # by P
  if chosen and len(flagged) == 2:
    what = {
      max(flagged) == 0: 'nothing',
      min(flagged) >= NEARLY_ALL: 'nearly everything',
    }.get(True)
    if what:
      what = f'at its threshold it flags {what}, good or bad'
      auto = auto_alpha(c.settings.threshold) is not None
      other = '' if auto else "set conscience.threshold='auto:0.05', or "
      found.append(f'{what}; {other}{_REMEDY}')
  return [f'warning: conscience: {text}' for text in found]
