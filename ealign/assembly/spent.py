"""FLOPs that a model needs for what a run asks of it, counted as it asks.

Of the model alone, as `models.flops` counts: no padding, nothing computed
twice, and nothing saved where prompts begin alike.
"""

import dataclasses

from ealign.engine import Backend
from ealign.models import flops
from ealign.sampling import requests


class Spent:
  """FLOPs so far of the requests that a `counted` backend was asked."""

  def __init__(self):
    self.flops = 0.0


def counted(backend: Backend) -> tuple[Backend, Spent]:
  """The backend, and what the requests that it is asked from now on need."""
  spent = Spent()

  def adding(compute, needed):
    def computed(request):
      made = compute(request)
      spent.flops += needed(request, made)
      return made

    return computed

  counting = dataclasses.replace(
    backend,
    generate=adding(backend.generate, of_answers),
    label_logps=adding(backend.label_logps, of_labels),
    pair_logps=adding(backend.pair_logps, of_pairs),
  )
  return counting, spent


def of_answers(request: requests.Answers, answers) -> float:
  """To read each prompt and to sample each token of its answer."""
  return sum(
    flops.reading(request.config, len(prompt) + len(x.ids), len(x.ids))
    for prompt, x in zip(request.prompts, answers, strict=True)
  )


def of_labels(request: requests.Labels, logps) -> float:
  """To read each prompt, and the labels behind it."""
  del logps
  more = sum(map(len, request.labels))
  return sum(
    flops.reading(request.config, len(prompt) + more, 1 + more)
    for prompt in request.prompts
  )


def of_pairs(request: requests.Pairs, logps) -> float:
  """To read both sides of each pair, each behind its prompt."""
  del logps
  return sum(
    flops.reading(request.config, len(pair.prompt) + len(side), len(side))
    for pair in request.pairs
    for side in (pair.chosen, pair.rejected)
    if side
  )
