"""The programs of a run that trains: what is compiled, and for what."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Shape
from jax.sharding import NamedSharding, PartitionSpec

from ealign import align, alone
from ealign.align import accumulate
from ealign.assembly import parts
from ealign.assembly import weights as assembled
from ealign.data import batch as batch_lib
from ealign.fields import Config
from ealign.models import config as models
from ealign.models import flops, transformer
from ealign.plan import inference
from ealign.plan.inference import Program, gathered, placed
from ealign.sampling import tree as tree_lib
from ealign.stack import lanes
from ealign.stack import rows as rows_lib

LABELS = (6, 8)  # of the named framings: how many, and tokens at most


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Tokens of the longest prompts, padded: those sampled on, those reviewed."""

  prompt: int
  review: int


NAMES = {
  'sft': 'an update without pairs',
  'hybrid': 'an update with pairs',
  'prefill': 'reads the prompts it samples on',
  'decode': 'samples an answer to each, all tokens',
  'review': 'the verdict on each answer',
  'score': 'reference log-probabilities of pairs',
}


@dataclasses.dataclass(frozen=True)
class Shapes:
  """A run's resident trees as shapes on its mesh, and its update.

  policy: what samples; reviewer: what reviews, a second model or ours; each
  (model, mesh, weights), gathered as `sharding.gathered` does.
  of_policy, of_frozen: shapes of the same weights for a model that is laid out
    otherwise; the policy's with the adapters of all arms where `arms` says so.
  """

  config: Config
  model: models.Config
  mesh: jax.sharding.Mesh
  update: align.Update
  state: align.TrainState
  policy: tuple[models.Config, jax.sharding.Mesh, dict]
  reviewer: tuple[models.Config, jax.sharding.Mesh, dict]
  of_policy: Callable
  of_frozen: Callable
  resident: dict[str, Any]  # what stays on the devices while programs run
  arms: int = 1


def shapes(
  config: Config,
  model,
  mesh,
  other=None,
  *,
  judge=None,
  arms: int = 1,
  terms=None,
) -> Shapes:
  """The shapes of a run.

  Args:
    config: of the run.
    model: of `sharding.on_mesh`.
    mesh: the devices.
    other: the Config of a second model that reviews, if there is one.
    judge: that of one that judges.
    arms: runs that are one program (`stack`).
    terms: of the objective, by default those of the paper's method.
  """
  update = parts.make_update(config, model, terms)
  params = _trained(config, model)
  state = jax.eval_shape(
    functools.partial(align.init_state, update), params, align.hyper(config)
  )
  # All have as many arms, as in `lanes`; full fine-tuning has none.
  groups = 1 if config.model.train == 'full' else rows_lib.groups(mesh)
  arms = rows_lib.width(1, arms, arms, groups)
  state = _stacked(placed(mesh, state), arms, 'stack' if groups > 1 else None)
  frozen = functools.partial(_frozen, config)
  resident = {
    'params': state.params,
    'rest': state.replace(params=None),
    'frozen': placed(mesh, frozen(model)),
  }
  for name, second in (('other', other), ('judge', judge)):
    if second:
      resident[name] = placed(mesh, frozen(second))
  policy = functools.partial(_policy, config, update, params)
  every = functools.partial(policy, arms=arms)
  return Shapes(
    config=config,
    model=model,
    mesh=mesh,
    update=update,
    state=state,
    policy=gathered(
      *(model, mesh, every, _rows(config, arms)), config.sample.max_new_tokens
    ),
    reviewer=gathered(other or model, mesh, frozen, _rows(config, arms), 0),
    of_policy=policy,
    of_frozen=frozen,
    resident=resident,
    arms=arms,
  )


def _policy(config, update, params, model, arms=1):
  """Shapes of the weights that sample, of so many arms together."""
  weights = jax.eval_shape(update.bind, params, _frozen(config, model))
  if arms == 1:
    return weights
  add = lambda x: Shape((x.shape[0], arms, *x.shape[1:]), x.dtype)
  return weights | {'adapter': jax.tree.map(add, weights['adapter'])}


def _stacked(tree, arms: int, axis: str | None):
  """The tree of `arms` runs on a first axis, each as one of them lies."""
  if arms == 1:
    return tree

  def stack(x):
    spec = PartitionSpec(axis, *x.sharding.spec)
    where = NamedSharding(x.sharding.mesh, spec)
    return Shape((arms, *x.shape), x.dtype, sharding=where)

  return jax.tree.map(stack, tree)


def _frozen(config, model):
  """Shapes of the frozen weights of a model."""
  quantized = functools.partial(assembled.quantized, config.model)
  return jax.eval_shape(quantized, transformer.shapes(model))


def _trained(config, model):
  """Shapes of the parameters: float32 masters, or an adapter."""
  if config.model.train == 'full':
    f32 = lambda x: Shape(x.shape, jnp.float32)
    return jax.tree.map(f32, transformer.shapes(model))
  return jax.eval_shape(functools.partial(assembled.new_adapter, config, model))


def listed(run: Shapes, sizes: Sizes) -> list[Program]:
  """The programs of a run that trains with its conscience, or of one without.

  The list is empty if nothing is trained.

  sizes: of its prompts, as `sampling.prompts.bucket` pads them.
  """
  config, programs = run.config, []
  if not config.train.steps:
    return programs
  if config.data.train:
    programs.append(_update(run, 'sft', pairs=False))
  if config.reflects:
    programs.append(_update(run, 'hybrid', pairs=True))
    programs += [*_sampling(run, sizes), _review(run, sizes), _score(run)]
  return programs


def _update(run, name, *, pairs: bool):
  c, model, batch = run.config, run.model, batch_lib.Batch()
  if c.data.train:
    shape = c.data.batch_size, c.data.length
    ids_BT, mask_BT = Shape(shape, jnp.int32), Shape(shape, jnp.float32)
    sft = batch_lib.SFTBatch(ids_BT, ids_BT, ids_BT, mask_BT)
    batch = batch.replace(sft=sft)
  if pairs:
    empty = batch_lib.empty_pair_batch(c.dpo.pairs, c.dpo.length)
    batch = batch.replace(pairs=empty)
  batch = placed(run.mesh, batch)
  read = [part.tokens_BT.shape for part in batch.parts.values()]
  # No kernel skips segments: folded answers cost what the SFT rows do.
  attended = read[:1] * len(read) if accumulate.fits(batch) else read
  adapter = assembled.adapter_size(c, model)
  total = sum(flops.training(model, *shape, adapter) for shape in read)
  if pairs and c.dpo.reference == 'step':
    total += flops.forward(model, *read[-1])
  attention = sum(flops.attention(model, *shape) for shape in attended)
  experts = sum(flops.experts(model, math.prod(shape)) for shape in read)
  trees, batches = (run.state, run.resident['frozen']), [batch]
  program = alone.jit_step(run.update)
  if run.arms > 1:
    program = lanes.stacked_step(run.update, run.arms)
    batches = [batch] * run.arms, Shape((run.arms,), bool)
  return Program(
    *(name, program, (*trees, *batches)),
    flops=run.arms * total,
    attention=run.arms * attention,
    experts=run.arms * experts,
    holds=('params', 'rest', 'frozen'),
  )


def _rows(config, arms: int) -> int:
  c = config.conscience
  return arms * c.prompts * c.samples


def _sampling(run, sizes):
  """The two programs of `sampler`: they have the same weights and rows."""
  rows, prompt = _rows(run.config, run.arms), sizes.prompt
  return inference.sampled(run, run.policy, run.config.sample, rows, prompt)


def _review(run, sizes):
  rows, (count, tokens) = _rows(run.config, run.arms), LABELS
  tree = tree_lib.of([(0,) * tokens] * count)  # of any labels as many
  holds = 'other' if 'other' in run.resident else 'frozen'
  shape = rows, sizes.review
  return inference.scoring(run, 'review', run.reviewer, shape, tree, holds)


def _score(run):
  c, weights = run.config.dpo, run.resident['frozen']
  of = run, 'score', run.model, weights, ('frozen',)
  return inference.pairs(*of, run.arms * c.pairs, c.length)
