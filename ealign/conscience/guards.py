"""Guards: alternatives that teach nonsense, whatever their verdict says.

A writer that fails answers with the label, the question, the request, a refusal
or without an end, and a conscience finds nothing wrong with that. `reasons` are
read from the texts and the frozen model's plain answer to the same request;
`late` needs the log-probs of the pairs and the pairs there are already.
"""

import collections
import difflib

import numpy as np

from ealign.conscience.prompts import Conscience
from ealign.conscience.refusals import refuses, words
from ealign.data import messages
from ealign.data.batch import Pair
from ealign.engine import Exchange

# Fewer samples than these say nothing of a percentile.
MIN_LOGPS = 20

# What a verdict is put in words with; no answer by itself, no echo either.
_FRAME = frozenset(
  'a an the it its this that these is are was be would seems my your our reply '
  'replies response answer alternative version above label verdict one word i '
  'think say and or not very more sure yes no here more both considered '
  'completely fully'.split()
)
_WHOLE = 0.8  # share of a text from which on it counts as the text


def echoes(framing, request: str, text: str) -> bool:
  """Whether the text only says what the conscience or the user said to it.

  That is: label words in any form, also as adverbs ("Ethically"), alone or
  among words of a verdict, of the question and of `revise` ("It is ethical.",
  "It is fair to the people it affects."); two words or more of `revise` ("An
  ethical alternative"), three of the question; or the request itself. A text
  without words is no echo.
  """
  said = words(text)
  labels = {w for form in (*framing.ok, *framing.flag) for w in words(form)}
  labels |= {f'{word}ly' for word in labels}
  asked, revise = words(framing.question), words(framing.revise)
  told = labels.union(_FRAME, asked, revise)
  return bool(
    (labels & set(said) and told >= set(said))
    or _run(said, revise, least=2)
    or _run(said, asked, least=3)
    or _run(said, words(request), least=3, whole=True)
  )


def _run(said, source, *, least: int, whole: bool = False) -> bool:
  """Whether most of `said` is one run of words of the source.

  least: words of the run. whole: it must be most of the source too, as a part
  of the request can be the right answer to it.
  """
  match = difflib.SequenceMatcher(None, said, source, autojunk=False)
  size = match.find_longest_match().size
  of = max(len(said), len(source)) if whole else len(said)
  return size >= max(least, _WHOLE * of)


def too_long(new, plain, times: float) -> bool:
  """Whether the answer has more than `times` the plain answer's tokens.

  An answer that was cut has at least the tokens it has: it can be too long, but
  not beside a plain one that was cut itself.
  """
  known = times > 0 and plain.stop == 'stop'
  return known and len(new.ids) > times * len(plain.ids)


def reasons(
  c: Conscience, proposal: Exchange, chosen: tuple[int, ...], plain
) -> dict[str, bool]:
  """Reasons by name against an alternative, and whether each holds.

  chosen: the ids of it that would be trained: where either answer was cut, they
  are no more than the flagged one has, and may be a word or two. plain: the
  frozen model's answer to the same request, or None.
  """
  s, text = c.settings.guards, proposal.text
  request, measured = messages.request(proposal.messages), plain is not None
  echo = lambda said: s.echo and echoes(c.framing, request, said)
  return {
    'label_echo': echo(text) or echo(proposal.model.text(chosen)),
    'refusal': s.refusal and refuses(text),
    'too_short': measured and len(chosen) < s.shortest * len(plain.ids),
    'too_long': measured and too_long(proposal.answer, plain, s.longest),
  }


def floor(logps, share: float) -> float | None:
  """The log-prob per token below which an alternative is unlikely.

  At most `share` of the logps, those of answers that the frozen model sampled,
  lie below it. None, no floor, where share is 0 or there are fewer than
  `MIN_LOGPS`.
  """
  if not share or len(logps) < MIN_LOGPS:
    return None
  return float(np.quantile(logps, share, method='lower'))


def late(c: Conscience, pairs, logps, held) -> dict[int, str]:
  """Why scored pairs are dropped all the same ('' if not), by their row.

  logps: the frozen model's mean log-probs of its own answers. held: the pairs
  of the replay buffer; with these and the pairs before it, an alternative (the
  same tokens, but for their end) is chosen at most `guards.repeats` times.
  """
  s, stops = c.settings.guards, c.policy.model.stops
  bare = lambda p: p.chosen[:-1] if p.chosen[-1] in stops else p.chosen
  chosen = collections.Counter(bare(pair) for pair in held)
  least, found = floor(logps, s.unlikely), {}
  for pair in pairs:
    found[pair.row] = ''
    if least is not None and per_token(pair) < least:
      found[pair.row] = 'unlikely'
    elif s.repeats and chosen[bare(pair)] >= s.repeats:
      found[pair.row] = 'repeated'
    else:
      chosen[bare(pair)] += 1
  return found


def per_token(pair: Pair) -> float:
  """The frozen model's log-prob of the chosen answer, in nats a token."""
  return pair.ref_chosen / len(pair.chosen)
