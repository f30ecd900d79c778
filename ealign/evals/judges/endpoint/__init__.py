"""A judge's grader behind an OpenAI-compatible endpoint.

It is asked as a local `Engine` is, by `scale` and `labels`, so that judges do
not know the difference, but its prompts are chats instead of token ids:

  replies   what a server replied, read with mistrust; pure
  retries   when it is asked again; pure
  cost      prices and tokens; pure
  kept      the file of replies
  pool      threads
  asking    all of these together
  client    the package `openai` (extra [openai])
"""

from ealign.evals.judges.endpoint.cost import Price, Spent
from ealign.evals.judges.endpoint.endpoint import (
  PREFIX,
  Chats,
  Endpoint,
  Scale,
  connect,
)
from ealign.evals.judges.endpoint.kept import Kept
