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

_CERTAIN = 50.0  # nats of log-odds


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
  if not isinstance(reviewer, Engine):
    return _ask_server(c, reviewer, chats)
  begun = thoughts(c, reviewer, chats, key=key)
  plain = put(c, chats, None, begun)
  if c.settings.review.form == 'words' and not c.examples:
    questions = [plain]
  else:
    questions = [put(c, chats, q, begun) for q in c.questions]
  divided = priors(c, reviewer, chats)
  return *mean(*each(reviewer, c.questions, questions, divided)), plain


def _ask_server(c: Conscience, server, chats):
  """The same of a server: of each label the first form, by its first token."""
  found = []
  for q in c.questions:
    asked = [server.model.prompt(prompts.review_chat(c, x, q)) for x in chats]
    ps_B2 = np.exp(server.labels(asked, (q.flag[0], q.ok[0])).astype(float))
    mass_B = ps_B2.sum(axis=1)
    found.append((ps_B2[:, 0] / np.maximum(mass_B, 1e-300), mass_B))
  p_QB, mass_QB = (np.array(x) for x in zip(*found, strict=True))
  return *mean(p_QB, mass_QB), [prompts.review_prompt(c, x) for x in chats]


def put(c: Conscience, chats, question: Question | None, begun) -> list:
  """The tokens of a question about each exchange, up to where a label stands.

  question: as in `prompts.review_prompt`. begun: of `thoughts`.
  """
  if begun is None:
    return [prompts.review_prompt(c, x, question) for x in chats]
  return [
    (*start, *prompts.question_after(c, x, question))
    for start, x in zip(begun, chats, strict=True)
  ]


def each(reviewer: Engine, asked, prompts_QB, priors_Q):
  """P(flag) and the labels' mass of each question about each row, [Q, B].

  priors_Q: of `priors`. Several questions about one exchange begin alike: that
  is read once.
  """
  n = len(prompts_QB[0])
  together = [*range(n)] * len(asked) if len(asked) > 1 else None
  flat = [prompt for row in prompts_QB for prompt in row]
  forms = tuple(dict.fromkeys(f for q in asked for f in (*q.flag, *q.ok)))
  most = max(len(q.flag) + len(q.ok) for q in asked)
  own = [_places(q, forms, most) for q in asked for _ in range(n)]
  logps = reviewer.labels(flat, forms, groups=together, own=together and own)
  found = [
    labels.verdict(
      logps[i * n : (i + 1) * n],
      [forms.index(form) for form in q.flag],
      [forms.index(form) for form in q.ok],
      prior,
    )
    for i, (q, prior) in enumerate(zip(asked, priors_Q, strict=True))
  ]
  return np.array([p for p, _ in found]), np.array([mass for _, mass in found])


def _places(question: Question, forms, count: int) -> list[int]:
  """Where the question's labels stand, and the first again up to `count`."""
  at = [forms.index(form) for form in (*question.flag, *question.ok)]
  return at + at[:1] * (count - len(at))


def mean(p_QB, mass_QB):
  """P(flag) of the mean log-odds of all questions, and their mean mass."""
  if len(p_QB) == 1:
    return p_QB[0], mass_QB[0]
  # A model may be certain: its odds stay finite, so that the others count.
  odds_QB = np.clip(logit(p_QB), -_CERTAIN, _CERTAIN)
  return expit(np.mean(odds_QB, axis=0)), np.mean(mass_QB, axis=0)


def priors(c: Conscience, reviewer: Engine, chats) -> list:
  """(flag, ok) without content of each question, or None: no calibration.

  Each side is divided by them. chats: the exchanges that are asked about.
  """
  of = {
    'none': lambda q: None,
    'contextual': lambda q: content_free(c, reviewer, q),
    'request': lambda q: _at_requests(c, reviewer, q, chats),
  }[c.settings.review.calibration]
  return [of(question) for question in c.questions]


def _at_requests(c, reviewer, question, chats):
  """(flag, ok), [B] each, about 'N/A' as the reply to each chat's request."""
  requests = list(dict.fromkeys(x.prompt for x in chats))
  of = {x.prompt: x.messages for x in chats}
  flag_R, ok_R = content_free(
    c, reviewer, question, [of[prompt] for prompt in requests]
  )
  at_B = [requests.index(x.prompt) for x in chats]
  return flag_R[at_B], ok_R[at_B]


def without_reply(c: Conscience, reviewer: Engine, chats) -> np.ndarray:
  """P(flag), [B], where the reply to each request is 'N/A', uncalibrated."""
  both = [_at_requests(c, reviewer, q, chats) for q in c.questions]
  return expit(np.mean([np.log(flag) - np.log(ok) for flag, ok in both], 0))


_NOTHING = {'role': 'user', 'content': 'N/A'}


def content_free(c: Conscience, reviewer: Engine, question=None, requests=None):
  """Probabilities (flag, ok), [R] each, about replies that say nothing.

  question: by default the first of the conscience. requests: lists of messages
  that 'N/A' is the reply to; by default one, which is 'N/A' itself.
  """
  question = question or c.questions[0]
  reply = _NOTHING | {'role': 'assistant'}
  chats = reviewer.model.exchanges(
    [(*messages, reply) for messages in requests or [(_NOTHING,)]]
  )
  asked = [[prompts.review_prompt(c, x, question) for x in chats]]
  (p_R,), (mass_R,) = each(reviewer, (question,), asked, (None,))
  some = lambda x_R: np.maximum(x_R, np.finfo(float).tiny)  # it may be certain
  return some(p_R * mass_R), some((1 - p_R) * mass_R)


def thoughts(
  c: Conscience, reviewer: Engine, chats: list[Exchange], *, key
) -> list[tuple] | None:
  """The tokens behind the reviewer's thought about each exchange.

  None where it is not to think.
  """
  model, limit = reviewer.model, c.settings.review.reason_tokens
  if not limit:
    return None
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
