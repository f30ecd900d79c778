"""The programs of a run, from shapes alone: what is compiled, and for what.

They are the very functions that a run jits, with arguments that are shapes on
the mesh's devices, so no weight is read and no array exists.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ealign import align, alone, assembly
from ealign.align import accumulate
from ealign.data import batch as batch_lib
from ealign.fields import Config
from ealign.models import config as models
from ealign.models import flops, layout, sharding, transformer
from ealign.sampling import labels, sampler
from ealign.stack import lanes
from ealign.stack import rows as rows_lib

LABELS = (6, 8)  # of the named framings: how many, and tokens at most


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Tokens of the longest prompts, padded: those sampled on, those reviewed."""

  prompt: int
  review: int


@dataclasses.dataclass(frozen=True)
class Program:
  """One compiled program of a run.

  Attributes:
    name: of `NAMES`.
    run: jitted.
    args: trees of shapes with shardings.
    flops: that the model needs for it, on all devices together.
    attention, experts: those of `flops` that one forward pass needs for them:
      their kernels do not show what they do.
    holds: which of the run's resident trees are among its arguments.
    trips: of a loop that ends when its data says so, at most.
  """

  name: str
  run: Callable
  args: tuple
  flops: float
  attention: float
  experts: float
  holds: tuple[str, ...]
  trips: int = 1


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
  """

  config: Config
  model: models.Config
  mesh: jax.sharding.Mesh
  update: align.Update
  state: align.TrainState
  frozen: dict
  policy: tuple[models.Config, jax.sharding.Mesh, dict]
  reviewer: tuple[models.Config, jax.sharding.Mesh, dict]
  resident: dict[str, Any]  # what stays on the devices while programs run
  arms: int = 1


def shapes(config: Config, model, mesh, other=None, arms: int = 1) -> Shapes:
  """The shapes of a run.

  Args:
    config: of the run.
    model: of `sharding.on_mesh`.
    mesh: the devices.
    other: the Config of a second model that reviews, if there is one.
    arms: runs that are one program (`stack`).
  """
  update, frozen = assembly.make_update(config, model), _frozen(config, model)
  params = _trained(config, model)
  state = jax.eval_shape(
    functools.partial(align.init_state, update), params, align.hyper(config)
  )
  # All have as many arms, as in `lanes`; full fine-tuning has none.
  groups = 1 if config.model.train == 'full' else rows_lib.groups(mesh)
  arms = rows_lib.width(1, arms, arms, groups)
  state = _stacked(placed(mesh, state), arms, 'arm' if groups > 1 else None)
  rest = state.replace(params=None)
  frozen = placed(mesh, frozen)
  resident = {'params': state.params, 'rest': rest, 'frozen': frozen}
  if other:
    resident['other'] = placed(mesh, _frozen(config, other))
  policy = functools.partial(_policy, config, update, params, arms)
  return Shapes(
    config=config,
    model=model,
    mesh=mesh,
    update=update,
    state=state,
    frozen=frozen,
    policy=_gathered(model, mesh, policy),
    reviewer=_gathered(
      other or model, mesh, functools.partial(_frozen, config)
    ),
    resident=resident,
    arms=arms,
  )


def _policy(config, update, params, arms, model):
  """Shapes of the weights that sample, of all arms together."""
  weights = jax.eval_shape(update.bind, params, _frozen(config, model))
  if arms == 1:
    return weights
  add = lambda x: jax.ShapeDtypeStruct(
    (x.shape[0], arms, *x.shape[1:]), x.dtype
  )
  return weights | {'adapter': jax.tree.map(add, weights['adapter'])}


def _stacked(tree, arms: int, axis: str | None):
  """The tree of `arms` runs on a first axis, each as one of them lies."""
  if arms == 1:
    return tree

  def stack(x):
    spec = PartitionSpec(axis, *x.sharding.spec)
    where = NamedSharding(x.sharding.mesh, spec)
    return jax.ShapeDtypeStruct((arms, *x.shape), x.dtype, sharding=where)

  return jax.tree.map(stack, tree)


def _gathered(model, mesh, shapes):
  """Model, mesh and weights to sample with, as shapes(model) has them."""
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes(model)))
  model, wide = sharding.widened(model, mesh, size)
  return model, wide, placed(wide, shapes(model))


def _frozen(config, model):
  """Shapes of the frozen weights of a model."""
  weights = transformer.shapes(model)
  if config.model.train == 'full':
    return weights
  return jax.eval_shape(
    functools.partial(assembly.quantized, config.model), weights
  )


def _trained(config, model):
  """Shapes of the parameters: float32 masters, or an adapter."""
  if config.model.train == 'full':
    f32 = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32)
    return jax.tree.map(f32, transformer.shapes(model))
  return jax.eval_shape(functools.partial(assembly.new_adapter, config, model))


def placed(mesh, tree):
  """The shapes where the rules have them."""
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    tree,
    sharding.shardings(mesh, tree),
  )


def device_bytes(tree) -> int:
  """Bytes of a tree of shapes on one device."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )


def listed(run: Shapes, sizes: Sizes) -> list[Program]:
  """The programs of a run that trains with its conscience, or of one without.

  The list is empty if nothing is trained.

  sizes: of its prompts, as `sampling.prompts.bucket` pads them.
  """
  config = run.config
  programs = []
  if not config.train.steps:
    return programs
  if config.data.train:
    programs.append(_update(run, 'sft', sft=True, pairs=False))
  if config.reflects:
    sft = bool(config.data.train)
    programs.append(_update(run, 'hybrid', sft=sft, pairs=True))
    programs += [*_sampling(run, sizes), _review(run, sizes), _score(run)]
  return programs


def _update(run, name, *, sft, pairs):
  c = run.config
  on = functools.partial(placed, run.mesh)
  batch = on(
    batch_lib.Batch(
      _sft_batch(c.data.batch_size, c.data.length) if sft else None,
      _pair_batch(c.dpo.pairs, c.dpo.length) if pairs else None,
    )
  )
  adapter = None
  if c.model.train == 'lora':
    spec = c.model.lora
    adapter = flops.adapted(run.model, spec.rank, spec.targets)
  total = attention = experts = 0.0
  parts = [(c.data.batch_size, c.data.length)] * sft
  parts += [(2 * c.dpo.pairs, c.dpo.length)] * pairs
  folded = accumulate.fits(batch)  # no kernel skips segments
  for rows, length in parts:
    total += flops.training(run.model, rows, length, adapter)
    shape = parts[0] if folded else (rows, length)
    attention += flops.attention(run.model, *shape)
    experts += flops.experts(run.model, rows * length)
  if pairs and c.dpo.reference == 'step':
    total += flops.forward(run.model, 2 * c.dpo.pairs, c.dpo.length)
  program, args = alone.jit_step(run.update), (run.state, run.frozen, batch)
  if run.arms > 1:
    program = lanes.stacked_step(run.update, run.arms)
    which_A = jax.ShapeDtypeStruct((run.arms,), bool)
    args = (*args[:2], [batch] * run.arms, which_A)
  return Program(
    name=name,
    run=program,
    args=args,
    flops=run.arms * total,
    attention=run.arms * attention,
    experts=run.arms * experts,
    holds=('params', 'rest', 'frozen'),
  )


def _sft_batch(rows, length):
  ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)
  mask = jax.ShapeDtypeStruct((rows, length), jnp.float32)
  return batch_lib.SFTBatch(ids, ids, ids, mask)


def _pair_batch(slots, length):
  batch = batch_lib.empty_pair_batch(slots, length)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def _rows(run):
  c = run.config.conscience
  return run.arms * c.prompts * c.samples


def _by_row(mesh, *shape, dtype=jnp.int32):
  where = NamedSharding(mesh, PartitionSpec(layout.ROWS))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _holds(run, mesh, name):
  """What is not gathered is the run's own array."""
  return (name,) if mesh.shape == run.mesh.shape else ()


def _sampling(run, sizes):
  """The two programs of `sampler`: they have the same weights and rows."""
  c, rows = run.config.sample, _rows(run)
  model, mesh, weights = run.policy
  programs = sampler.programs(model, c.max_new_tokens, c.candidates)
  prompt_BT = _by_row(mesh, rows, sizes.prompt)
  read = weights, prompt_BT, prompt_BT
  attention = flops.attention(model, rows, sizes.prompt)
  inner = flops.multiplied(model) - model.vocab_size * model.d_model
  own = 'params' if run.config.model.train == 'full' else 'frozen'
  holds, new = _holds(run, mesh, own), c.max_new_tokens
  yield Program(
    name='prefill',
    run=programs.prefill,
    args=read,
    flops=2.0 * rows * sizes.prompt * inner + attention,
    attention=attention,
    experts=flops.experts(model, rows * sizes.prompt),
    holds=holds,
  )
  # Every token sees the prompt and half of the answers, on average.
  seen = 4.0 * model.layers * model.heads * model.head_dim
  attention = seen * rows * new * (sizes.prompt + new / 2)
  yield Program(
    name='decode',
    run=programs.decode,
    args=(weights, *_decoded(mesh, jax.eval_shape(programs.prefill, *read))),
    flops=2.0 * rows * new * flops.multiplied(model) + attention,
    attention=attention,
    experts=flops.experts(model, rows * new),
    holds=holds,
    trips=new,
  )


def _decoded(mesh, start):
  """The arguments of `sampler.decode` after the weights; start: `prefill`'s."""
  cache, hidden_BD, next_B = start
  rows_B = lambda x: _by_row(mesh, *x.shape, dtype=x.dtype)
  column = functools.partial(_by_row, mesh, next_B.shape[0])
  seed = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
  seeds = column(*seed.shape, dtype=seed.dtype)
  rows = seeds, column(dtype=seed.dtype), column(dtype=bool)
  f32, i32 = column(dtype=jnp.float32), column(dtype=jnp.int32)
  stops = jax.ShapeDtypeStruct(
    sampler.pad_stops(()).shape,
    jnp.int32,
    sharding=NamedSharding(mesh, PartitionSpec()),
  )
  start = placed(mesh, cache), rows_B(hidden_BD), rows_B(next_B)
  return *start, rows, sampler.Sampling(f32, i32, f32, i32), stops


def _review(run, sizes):
  model, mesh, weights = run.reviewer
  rows, (count, tokens) = _rows(run), LABELS
  prompt_BT = _by_row(mesh, rows, sizes.review)
  labels_MT = jax.ShapeDtypeStruct((count, tokens), jnp.int32)
  mask_MT = jax.ShapeDtypeStruct((count, tokens), bool)
  attention = flops.attention(model, rows, sizes.review)
  inner = flops.multiplied(model) - model.vocab_size * model.d_model
  total = 2.0 * rows * sizes.review * inner + attention
  total += 2.0 * rows * count * (tokens - 1) * flops.multiplied(model)
  name = 'other' if 'other' in run.resident else 'frozen'
  return Program(
    name='review',
    run=labels.program(model),
    args=(weights, prompt_BT, prompt_BT, labels_MT, mask_MT),
    flops=total,
    attention=attention,
    experts=flops.experts(model, rows * (sizes.review + count * (tokens - 1))),
    holds=_holds(run, mesh, name),
  )


def _score(run):
  slots, length = run.arms * run.config.dpo.pairs, run.config.dpo.length
  return Program(
    name='score',
    run=alone.scorer(run.model),
    args=(run.frozen, placed(run.mesh, _pair_batch(slots, length))),
    flops=flops.forward(run.model, 2 * slots, length),
    attention=flops.attention(run.model, 2 * slots, length),
    experts=flops.experts(run.model, 2 * slots * length),
    holds=('frozen',),
  )
