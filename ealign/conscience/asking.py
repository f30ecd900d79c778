"""Asks the question about exchanges, and reads P(flag) from the labels.

Nothing is sampled but the reviewer's thoughts, where it is to think first. A
form of two questions (letters in both orders, Yes for either label) averages
the log-odds of both, so that what a model leans to whatever it is asked about
cancels out.
"""

import dataclasses

import numpy as np
from scipy.special import expit, logit

from ealign.conscience import prompts
from ealign.conscience.framings import Question
from ealign.conscience.prompts import Conscience
from ealign.engine import Engine, Exchange
from ealign.sampling import labels


def ask(c: Conscience, reviewer: Engine, chats, *, key):
  """P(flag) and the labels' mass of exchanges, and where a writer may go on.

  Args:
    c: has the question.
    reviewer: the model that answers it.
    chats: list of Exchange, in the reviewer's tokens.
    key: only used where the review reasons first.

  Returns:
    p_B and mass_B, the latter averaged over the questions; and of each exchange
    the tokens up to where the label stands that answers the framing's own
    question, without examples.
  """
  asked, plain = c.questions, [prompts.review_prompt(c, x) for x in chats]
  if c.settings.review.reason_tokens:
    begun = _reasoned(c, reviewer, chats, key)
    after = lambda q: [
      (*start, *prompts.question_after(c, x, q))
      for start, x in zip(begun, chats, strict=True)
    ]
    questions, plain = [after(q) for q in asked], after(None)
  elif asked == (c.framing.questions('words')) and not c.examples:
    questions = [plain]
  else:
    questions = [[prompts.review_prompt(c, x, q) for x in chats] for q in asked]
  p_B, mass_B = read(c, reviewer, asked, questions)
  return p_B, mass_B, plain


def read(c: Conscience, reviewer: Engine, asked, prompts_QB):
  """(p_B, mass_B) of the prompts of each question that is asked."""
  n = len(prompts_QB[0])
  together = list(range(n)) * len(asked) if len(asked) > 1 else None
  flat = [prompt for row in prompts_QB for prompt in row]
  forms = tuple(dict.fromkeys(f for q in asked for f in (*q.flag, *q.ok)))
  logps = reviewer.labels(flat, forms, groups=together)
  p_QB, mass_QB = zip(
    *(
      labels.verdict(
        logps[i * n : (i + 1) * n],
        [forms.index(form) for form in q.flag],
        [forms.index(form) for form in q.ok],
        _prior(c, reviewer, q),
      )
      for i, q in enumerate(asked)
    ),
    strict=True,
  )
  if len(asked) == 1:
    return p_QB[0], mass_QB[0]
  # A model may be certain: its odds stay finite, so that the others count.
  odds_QB = np.clip(logit(p_QB), *_ODDS)
  return expit(np.mean(odds_QB, axis=0)), np.mean(mass_QB, axis=0)


_ODDS = -50.0, 50.0  # of one question, in nats


def _prior(c, reviewer, question):
  if c.settings.review.calibration == 'contextual':
    return content_free(c, reviewer, question)
  return None


def content_free(
  c: Conscience, reviewer: Engine, question: Question | None = None
) -> tuple[float, float]:
  """Probability of (flag, ok) about an exchange that says nothing."""
  empty = [{'role': r, 'content': 'N/A'} for r in ('user', 'assistant')]
  question = question or c.questions[0]
  (exchange,) = reviewer.model.exchanges([empty])
  none = dataclasses.replace(c.settings.review, calibration='none')
  settings = dataclasses.replace(c.settings, review=none)
  one = prompts.review_prompt(c, exchange, question)
  c = dataclasses.replace(c, settings=settings)
  (p,), (mass,) = read(c, reviewer, (question,), [[one]])
  return float(p * mass), float((1 - p) * mass)


def _reasoned(c, reviewer, chats: list[Exchange], key) -> list[tuple]:
  """The tokens behind the reviewer's thought about each exchange."""
  model, limit = reviewer.model, c.settings.review.reason_tokens
  starts = [prompts.thinking_prompt(c, x) for x in chats]
  thoughts = reviewer.generate(
    starts,
    sample=dataclasses.replace(c.sample, temperature=0.0, max_new_tokens=limit),
    key=key,
    row_ids=range(len(starts)),
  )
  # Scratch text, never trained on: a thought cut short may be closed.
  close = lambda a: a.ids if a.stop == 'stop' else (*a.ids, model.end)
  pairs = zip(starts, thoughts, strict=True)
  return [(*start, *close(thought)) for start, thought in pairs]
