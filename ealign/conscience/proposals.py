"""Principles for bad answers: written by a proposer, or chosen from a list.

What a model writes is text to be mistrusted: lines are cut out of it, and what
they are good for is measured before they are used (`methods.iteralign`).
"""

import dataclasses
import re

from ealign.conscience import constitution
from ealign.conscience.prompts import Conscience
from ealign.conscience.refusals import refuses
from ealign.data import messages
from ealign.engine import Engine
from ealign.runtime.errors import visible

_WORDS, _LONGEST = (3, 40), 300  # of a principle, in words and in characters
_ASK = (
  'Some replies were reviewed and found {bad}.\n\n{cases}\n\nWhich principles '
  'do they break? Write {n}, each in one line: a short and very specific '
  'instruction to whoever writes such a reply, and nothing else.'
)


def propose(c: Conscience, store, bad, *, key) -> list[str]:
  """Texts of new principles for the bad answers of a round, the best first."""
  if not bad:
    return []
  proposer = c.resolve_model(c.own.proposer)
  kind = {'written': _write, 'listed': _choose}[c.own.source]
  return kind(c, proposer, store, bad[: c.own.shown], key)[: c.own.proposals]


def _choose(c: Conscience, proposer: Engine, store, bad, key) -> list[str]:
  """The candidates that speak most against the bad answers.

  By log p(answer | request) less the same under the candidate as a system turn,
  in nats, as the proposer reads it; those under which they are no less likely
  are not proposed. Nor are candidates that were tried and never helped.
  """
  able = constitution.candidates(store, c.own.least)
  rule = lambda text: [{'role': 'system', 'content': text}] * bool(text)
  asked = [
    proposer.model.prompt(
      [*rule(text), *(m for m in x.messages if m['role'] != 'system')]
    )
    for text in ('', *(p.text for p in able))
    for x in bad
  ]
  options = [[x.text] for x in bad] * (len(able) + 1)
  logps = [own for (own,) in proposer.options(asked, options)]
  means = [
    sum(logps[i : i + len(bad)]) / len(bad)
    for i in range(0, len(logps), len(bad))
  ]
  against = [means[0] - mean for mean in means[1:]]
  order = sorted(range(len(able)), key=lambda i: -against[i])
  return [able[i].text for i in order if against[i] > 0]


def _write(c: Conscience, proposer: Engine, store, bad, key) -> list[str]:
  """What the proposer writes of them; fewer are shown if they do not fit."""
  if not isinstance(proposer, Engine):  # a server, which knows what it can read
    prompt = proposer.model.prompt(asked(c, bad))
    return read(proposer.ask([prompt], written=c.own.max_tokens)[0].text)
  own = c.sample, c.settings.revise
  sample = dataclasses.replace(
    own[0], temperature=own[1].temperature, max_new_tokens=c.own.max_tokens
  )
  room = proposer.model.config.max_positions - c.own.max_tokens
  for n in range(len(bad), 0, -1):
    prompt = proposer.model.prompt(asked(c, bad[:n]))
    if len(prompt) <= room:
      how = {'sample': sample, 'key': key, 'row_ids': [0]}
      (answer,) = proposer.generate([prompt], **how)
      return read(proposer.model.text(answer.ids))
  return []


def asked(c: Conscience, bad) -> list[dict]:
  """The request for principles; it shows of an answer what the judge sees."""
  alone = c.settings.review.sees == 'answer'
  request = lambda x: (
    '' if alone else f'Request: {messages.request(x.messages)}\n'
  )
  cases = '\n\n'.join(f'{request(x)}Reply: {x.text}' for x in bad)
  facts = {'bad': c.framing.flag[0].lower(), 'n': c.own.proposals}
  content = _ASK.format(cases=cases, **facts)
  return [{'role': 'user', 'content': content}]


def read(text: str) -> list[str]:
  """The principles in a text that a model wrote: its lines that can be one.

  Marks of a list and of emphasis are cut off. A line that announces a list, a
  refusal, and what is too short or too long for an instruction, are none.
  """
  plain = re.sub(r'\*\*|__|`', '', text)
  lines = (re.sub(r'^\W*(?:\d+\s*[.):]\s*)?', '', x) for x in plain.split('\n'))
  found = dict.fromkeys(' '.join(visible(x).split()) for x in lines)
  return [
    x
    for x in found
    if _WORDS[0] <= len(x.split()) <= _WORDS[1]
    and len(x) <= _LONGEST
    and not (x.endswith(':') or refuses(x))
  ]
