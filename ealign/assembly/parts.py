"""What a run is made of: model, data, pool and the static part of an update."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from ealign import align
from ealign.assembly import fit
from ealign.conscience import framings as framing
from ealign.conscience import reflect as conscience
from ealign.conscience.prompts import Mind
from ealign.data import chat, columns, mapping, sources
from ealign.data import loader as loader_lib
from ealign.engine import ALONE, Calls
from ealign.evals import answers as answers_lib
from ealign.fields import Config
from ealign.models import hub, int8, layout, lora, peft, sharding, transformer
from ealign.models import weights as weights_lib
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a run is made of before its first step."""

  mind: Mind
  update: align.Update
  params: dict
  frozen: dict
  loader: loader_lib.Loader | None
  pool: list
  questions: answers_lib.Suite
  others: dict  # 'other:<folder>' -> (Mind, weights) of a second model


def assemble(config: Config, calls: Calls) -> Parts:
  """Reads model, tokenizer and data, and builds the update.

  calls: what it computes with; runs that share a model load it once.

  Raises:
    UserError: any of them is broken, or they do not fit each other.
  """
  # Data comes first: what is wrong with it is told before a model is loaded.
  suite = answers_lib.suite(config.eval)
  chats, own = training_chats(config)
  mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  load = functools.partial(load_model, config.model, config.seed, mesh)
  model, tokenizer, base = calls.share('model', load)
  fit.sizes(config, model.max_positions, layout.shards(model))
  if adapts(config):
    fit.targets(config, model)
  place = functools.partial(sharding.place, mesh)
  fix = lambda: place(frozen_weights(config, model, base))
  frozen = calls.share('frozen', fix)
  params = place(trained_weights(config, model, frozen))
  mind = make_mind(config, model, tokenizer, mesh, calls)
  others = _others(config, mind)
  minds = [other for other, _ in others.values()]
  return Parts(
    mind=mind,
    update=make_update(config, model),
    params=params,
    frozen=frozen,
    loader=loader(config, encoded(config, tokenizer, chats, own))
    if chats
    else None,
    pool=make_pool(config, mind, chats, minds) if config.dpo.lam > 0 else [],
    questions=_fitting(suite, config.eval, mind, minds),
    others=others,
  )


def make_mind(
  config: Config, model, tokenizer, mesh, calls: Calls = ALONE
) -> Mind:
  """The trainee as one that samples and reviews."""
  return Mind(
    model=model,
    tokenizer=tokenizer,
    framing=read_framing(config.conscience.framing),
    settings=config.conscience,
    sample=config.sample,
    dpo=config.dpo,
    template=config.data.chat_template_kwargs,
    mesh=mesh,
    calls=calls,
  )


def _others(config, mind):
  """Each second model that reviews or writes, on the mesh of the first."""
  conscience = config.conscience
  named = {conscience.review.by, conscience.revise.by}
  others = {}
  for by in sorted(name for name in named if name.startswith('other:')):
    path = by.removeprefix('other:')
    spec = dataclasses.replace(config.model, path=path, init='weights')
    model, tokenizer, weights = mind.calls.share(
      by, functools.partial(_load_other, spec, config.seed, mind.mesh)
    )
    own = dataclasses.replace(mind, model=model, tokenizer=tokenizer)
    others[by] = own, weights
  return others


def _load_other(spec, seed, mesh):
  model, tokenizer, weights = load_model(spec, seed, mesh)
  weights = sharding.place(mesh, quantized(spec, weights))
  return model, tokenizer, weights


def load_model(spec, seed: int = 0, mesh=None):
  """A model's Config, its tokenizer and its weights.

  Args:
    spec: a `fields.Model`.
    seed: of random weights, where spec.init asks for them.
    mesh: devices the weights are put on, by the rules of `runtime.mesh`.

  Raises:
    UserError: a file is missing or broken, or they do not fit each other.
  """
  folder, model, tokenizer = read_model(spec, mesh)
  where, of = None, lambda path: None
  if mesh is not None:
    where = sharding.shardings(mesh, transformer.shapes(model))
    of = traverse_util.flatten_dict(where, sep='/').__getitem__
  if spec.init == 'random':
    init = jax.jit(transformer.init, static_argnums=0, out_shardings=where)
    return model, tokenizer, init(model, key=jax.random.key(seed))
  runtime = {'dtype': model.dtype, 'vocab_rows': model.vocab_rows}
  return model, tokenizer, weights_lib.load(folder, shardings=of, **runtime)[1]


def read_model(spec, mesh=None, *, weights: bool = True):
  """The folder of a model, its Config on the mesh, and its tokenizer.

  Args:
    spec: a `fields.Model`.
    mesh: as in `load_model`.
    weights: whether they are to be in the folder too, if it is a Hub id.
  """
  folder = hub.fetch(sources.resolve(spec.path), weights=weights)
  dtype = spec.dtype
  if dtype == 'auto':
    # Not the default backend: a plan may be for other devices.
    device = mesh.devices.flat[0] if mesh else jax.devices()[0]
    dtype = 'float32' if device.platform == 'cpu' else 'bfloat16'
  model = weights_lib.read_config(folder, dtype=dtype, remat=spec.remat)
  tokenizer = chat.load_tokenizer(folder)
  if len(tokenizer) > model.vocab_size:
    raise UserError(
      f'{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding '
      f'{model.vocab_size} rows; use the tokenizer the model was saved with'
    )
  if mesh is not None:
    model = sharding.on_mesh(model, mesh, spec.attention)
  return folder, model, tokenizer


def frozen_weights(config: Config, model, base):
  """The weights of the conscience, from those that were loaded."""
  if config.model.frozen_adapter:
    adapter = _adapter(config, 'frozen_adapter', model)
    base = lora.merge(lora_scale(config), adapter, base)
  return quantized(config.model, base)


def trained_weights(config: Config, model, frozen):
  """What is trained, at step 0."""
  if config.model.train == 'full':
    # float32 masters: a step of lr 1e-5 is lost in bfloat16.
    master = lambda x: jnp.asarray(x, jnp.float32)
    return conscience.freeze(jax.tree.map(master, frozen))
  if config.model.adapter:
    return _adapter(config, 'adapter', model)
  return _fresh(config, model)


def _fresh(config, model):
  spec = config.model.lora
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  return lora.init(model, key=key, rank=spec.rank, targets=spec.targets)


def quantized(spec, weights):
  """The frozen tree as `spec.quantize` has it."""
  if spec.quantize == 'none':
    return weights
  return int8.quantize(weights, lora.TARGETS)


def adapts(config: Config) -> bool:
  """Whether there is an adapter, trained or merged into what is frozen."""
  return config.model.train == 'lora' or bool(config.model.frozen_adapter)


def make_update(config: Config, model) -> align.Update:
  """The static part; equal for all runs that differ in traced values only."""
  traced = dict.fromkeys(align.TRACED, 0.0)
  return _update(
    model,
    None if config.model.train == 'full' else lora_scale(config),
    dataclasses.replace(config.optim, lr=0.0),
    dataclasses.replace(config.dpo, **traced),
    config.train.steps if config.optim.schedule != 'constant' else 0,
    config.train.microbatches,
    config.train.chunk,
  )


@functools.lru_cache(maxsize=16)
def _update(model, scale, optim, dpo, steps, microbatches, chunk):
  bind = align.full if scale is None else functools.partial(lora.bind, scale)
  return align.Update(
    model=model,
    bind=bind,
    tx=optax.chain(
      optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
      optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
      optax.add_decayed_weights(optim.weight_decay),
    ),
    schedule=align.schedule(optim.schedule, optim.warmup, steps),
    terms=align.hybrid(dpo.variant),
    reference=dpo.reference,
    microbatches=microbatches,
    chunk=chunk,
  )


def read_framing(name: str) -> framing.Framing:
  """A named framing, or one read from a user's .json or .yaml file."""
  if name in framing.FRAMINGS:
    return framing.FRAMINGS[name]
  fields = mapping.read_mapping(name)
  words = lambda x: (x,) if isinstance(x, str) else tuple(x)
  return framing.Framing(
    name=name,
    question=fields['question'],
    ok=words(fields['ok']),
    flag=words(fields['flag']),
    revise=fields['revise'],
  )


def _adapter(config, field, model):
  """The adapter a field names; it must fit the run's own settings."""
  fresh = jax.eval_shape(lambda: _fresh(config, model))
  name = getattr(config.model, field)
  folder = sources.resolve(name)
  if (folder / peft.CONFIG).exists():
    adapter, scale = peft.load(folder, model)
  else:
    adapter, scale = weights_lib.load_adapter(folder)
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  if shapes(adapter) != shapes(fresh) or scale != lora_scale(config):
    raise UserError(
      f'model.{field}={name!r}: its rank, targets or scale {scale} differ from '
      f'model.lora ({config.model.lora}); use the settings it was trained with'
    )
  return adapter


def lora_scale(config: Config) -> float:
  """What the low-rank product is multiplied by."""
  spec = config.model.lora
  return lora.scale(rank=spec.rank, alpha=spec.alpha, rslora=spec.rslora)


def training_chats(config: Config):
  """The SFT chats, and the template arguments that each brings itself."""
  path = config.data.train
  if not path:
    return [], []
  rows = sources.read_rows(path)
  own = columns.arguments(rows, path)
  if any(own) and 'sft' in config.pool.paths and config.dpo.lam > 0:
    said = 'rows of data.train have tools or chat_template_kwargs'
    raise UserError(f"pool.paths='sft': {said}; name another pool")
  return columns.chats(rows, path), own


def encoded(config: Config, tokenizer, chats, own):
  """The SFT chats as rows of tokens; `own` as from `training_chats`."""
  data = config.data
  if data.train_system is not None:
    chats = [with_system(c, data.train_system) for c in chats]
  kwargs = dict(data.chat_template_kwargs)
  return chat.encode_chats(tokenizer, chats, data.train, own, **kwargs)


def loader(config: Config, rows) -> loader_lib.Loader:
  """The endless stream of packed batches of rows."""
  data = config.data
  return loader_lib.Loader(
    rows,
    length=data.length,
    batch_size=data.batch_size,
    seed=config.seed,
    max_truncated=data.max_truncated,
  )


def _fitting(suite, e, mind, others):
  for reader in (mind, *others):
    fit.questions(reader, suite.final + suite.curve, e.max_new_tokens)
  fit.tokens(mind, e.tokens, suite.tokens)
  return suite


def make_pool(config: Config, mind: Mind, sft, others=()):
  """[(weight, prompts)]: what the policy is sampled on, checked for length."""
  pool = []
  for path, weight in zip(config.pool.paths, config.pool.weights, strict=True):
    chats = sft if path == 'sft' else columns.load_chats(path)
    chats = [list(itertools.takewhile(_not_assistant, c)) for c in chats]
    if config.pool.system is not None:
      chats = [with_system(c, config.pool.system) for c in chats]
    name = config.data.train if path == 'sft' else path
    fit.pool(mind, name, chats, others)
    pool.append((weight, chats))
  return pool


def _not_assistant(message):
  return message['role'] != 'assistant'


def with_system(messages, system: str):
  """The chat with its system turn replaced ('' = removed); text stays."""
  if messages[0]['role'] == columns.TEXT:
    return messages
  rest = [m for m in messages if m['role'] != 'system']
  return [{'role': 'system', 'content': system}, *rest] if system else rest
