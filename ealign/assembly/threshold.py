"""The threshold of a run where the config says 'auto:ALPHA': found once.

Checkpoints keep what it was found on, so that a run that is continued has the
same number. Runs of one process whose answers and verdicts would be the same
share it, also those of a stack, where it is found while nothing else computes.
"""

import dataclasses
from collections.abc import Callable

import jax

from ealign.alone import ALONE
from ealign.assembly.parts import Parts
from ealign.conscience import calibration
from ealign.conscience.prompts import Conscience, Reference
from ealign.engine import Backend
from ealign.fields import Config, auto_alpha
from ealign.runtime import display, provenance

_KEY = 2**31 - 3  # folded into the root key: apart from every step
_FOUND: dict[str, Reference] = {}  # by a hash of all that it depends on


def found(
  config: Config,
  c: Conscience,
  origin: dict,
  backend: Backend,
  held,
  stored,
  say,
) -> Reference | None:
  """What the threshold is found on; None if it is a number, or never used.

  Args:
    config: of the run.
    c, origin: of `reviewing`.
    backend: of the run.
    held: the prompts that are held out.
    stored: the same of a checkpoint, as a dict; empty: there is none.
    say: shows a line before answers are sampled, which can take minutes.
  """
  if not config.calibrates:
    return None
  if stored:
    lists = {k: tuple(x) for k, x in stored.items() if isinstance(x, list)}
    return Reference(**(stored | lists))
  name = provenance.text_hash(repr(_depends(config, c, held, origin)))
  key = jax.random.fold_in(jax.random.key(config.seed), _KEY)
  needed = config.reflects and config.train.steps > 0

  def make():
    say(f'conscience.threshold: asks for {len(held)} plain answers')
    own, what = by_itself(c), f'{len(held)} plain answers'
    with display.waiting(f'conscience.threshold: {what}', say):
      return calibration.reference(own, held, key=key, needed=needed)

  reference = once(_FOUND, name, make, backend)
  if needed and reference.threshold == calibration.NONE:
    make()  # an arm that needs none was first; this one says what is missing
  return reference


def once(found: dict, name: str, make: Callable, backend: Backend):
  """What was found by this name in the process, or is made now.

  Nothing else computes meanwhile, so that runs of a stack share it.
  """

  def find():
    if name not in found:
      found[name] = make()
    return found[name]

  return backend.apart(find)


def reviewing(config: Config, parts: Parts, params, origin: dict):
  """The conscience with weights to review with, and the hashes of all.

  params: those that the run starts from: a reviewer `policy` is the policy
  before its first step. origin: hashes of the frozen weights and second models.
  """
  if config.conscience.review.by != 'policy':
    return parts.conscience, origin
  own = {'policy': provenance.tree_hash(params)}
  return parts.with_policy(params), origin | own


def _depends(config: Config, c: Conscience, held, origin: dict):
  """All that the answers, their verdicts and the threshold depend on."""
  s, engines = c.settings, (c.frozen, c.reviewer)
  others = origin['others'].get(s.review.by)
  return (
    *(config.seed, held, config.sample, c.framing, c.examples),
    *(s.threshold, s.review, s.min_mass, s.prompts * s.samples),
    *(origin['frozen'], others, origin.get('policy')),
    [(e.model.config, e.model.template, e.mesh) for e in engines],
    [e.model.tokenizer.name_or_path for e in engines],
    [e.model.tokenizer.chat_template for e in engines],
  )


def by_itself(c: Conscience) -> Conscience:
  """The conscience with engines that wait for no other run.

  Their batches divide over all devices, whatever the run's own do.
  """

  def own(engine):
    size = engine.mesh.size
    rows = -(-engine.rows // size) * size
    return dataclasses.replace(engine, backend=ALONE, rows=rows)

  others = {by: own(engine) for by, engine in c.others.items()}
  engines = {'policy': own(c.policy), 'frozen': own(c.frozen)}
  return dataclasses.replace(c, others=others, **engines)


def told(config: Config, parts: Parts) -> tuple[dict, str]:
  """The threshold for run.json, and in a line."""
  reference, written = parts.conscience.reference, config.conscience.threshold
  none, n = reference.p.count(None), len(reference.p)
  left = sum(len(chats) for _, chats in parts.pool)
  facts = {
    'value': reference.threshold,
    'alpha': auto_alpha(written),
    'verdicts': n - none,
    'without_verdict': none,
    'prompts_left': left,
  }
  if reference.threshold == calibration.NONE:
    return facts, (
      f'conscience.threshold={written!r}: no threshold was found, as {none} of '
      f'{n} answers of the frozen model got no verdict; nothing is flagged'
    )
  return facts, (
    f'conscience.threshold={written!r}: an answer is flagged from P = '
    f'{reference.threshold:.4g} on, found on {n} answers of the frozen model '
    f'({none} of them without a verdict); {left} prompts of the pool remain'
  )
