"""What a run is made of: model, data, pool and the static part of an update."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import optax

from ealign import align, conscience, fit, framing
from ealign.data import chat, mapping, sources
from ealign.data import loader as loader_lib
from ealign.evals import answers as answers_lib
from ealign.fields import Config
from ealign.models import lora, transformer
from ealign.models import weights as weights_lib
from ealign.prompts import Mind
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


def assemble(config: Config) -> Parts:
  """Reads model, tokenizer and data, and builds the update.

  Raises:
    UserError: any of them is broken, or they do not fit each other.
  """
  mesh = mesh_lib.data_mesh()
  model, tokenizer, base = _model(config)
  fit.sizes(config, model.max_positions, mesh.shape['data'])
  if _adapts(config):
    fit.targets(config, model)
  params, frozen = start_weights(config, model, base)
  mind = Mind(
    model=model,
    tokenizer=tokenizer,
    framing=read_framing(config.conscience.framing),
    settings=config.conscience,
    sample=config.sample,
    dpo=config.dpo,
    template=config.data.chat_template_kwargs,
    mesh=mesh,
  )
  chats = sources.load_chats(config.data.train) if config.data.train else []
  return Parts(
    mind=mind,
    update=make_update(config, model),
    params=params,
    frozen=frozen,
    loader=_loader(config, tokenizer, chats) if chats else None,
    pool=_pool(config, mind, chats) if config.dpo.lam > 0 else [],
    questions=_questions(config, mind),
  )


def _model(config):
  """The model's Config, its tokenizer and its weights."""
  folder = sources.resolve(config.model.path)
  dtype = config.model.dtype
  if dtype == 'auto':
    dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  runtime = {'dtype': dtype, 'remat': config.model.remat}
  model = weights_lib.read_config(folder, **runtime)
  tokenizer = chat.load_tokenizer(folder)
  if len(tokenizer) > model.vocab_size:
    raise UserError(
      f'{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding '
      f'{model.vocab_size} rows; use the tokenizer the model was saved with'
    )
  if config.model.init == 'random':
    key = jax.random.key(config.seed)
    return model, tokenizer, transformer.init(model, key=key)
  return model, tokenizer, weights_lib.load(folder, **runtime)[1]


def start_weights(config: Config, model, base):
  """(params, frozen) at step 0."""
  spec = config.model.lora
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  frozen, fresh = base, None
  if _adapts(config):
    fresh = lora.init(model, key=key, rank=spec.rank, targets=spec.targets)
  if config.model.frozen_adapter:
    frozen = lora.merge(
      lora_scale(config), _adapter(config, 'frozen_adapter', fresh), base
    )
  if config.model.train == 'full':
    # float32 masters: a step of lr 1e-5 is lost in bfloat16.
    master = lambda x: jnp.asarray(x, jnp.float32)
    return conscience.freeze(jax.tree.map(master, frozen)), frozen
  if config.model.adapter:
    return _adapter(config, 'adapter', fresh), frozen
  return fresh, frozen


def _adapts(config):
  return config.model.train == 'lora' or bool(config.model.frozen_adapter)


def make_update(config: Config, model) -> align.Update:
  """The static part; equal for all runs that differ in traced values only."""
  traced = {'lam': 0.0, 'beta': 0.0, 'label_smoothing': 0.0}
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
    variant=dpo.variant,
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


def _adapter(config, field, fresh):
  """The adapter a field names; it must fit the run's own settings."""
  name = getattr(config.model, field)
  adapter, scale = weights_lib.load_adapter(sources.resolve(name))
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


def _loader(config, tokenizer, chats):
  data = config.data
  if data.train_system is not None:
    chats = [with_system(c, data.train_system) for c in chats]
  kwargs = dict(data.chat_template_kwargs)
  return loader_lib.Loader(
    chat.encode_chats(tokenizer, chats, data.train, **kwargs),
    length=data.length,
    batch_size=data.batch_size,
    seed=config.seed,
    max_truncated=data.max_truncated,
  )


def _questions(config, mind):
  suite, e = answers_lib.suite(config.eval), config.eval
  fit.questions(mind, suite.final + suite.curve, e.max_new_tokens)
  fit.tokens(mind, e.tokens, suite.tokens)
  return suite


def _pool(config, mind, sft):
  pool = []
  for path, weight in zip(config.pool.paths, config.pool.weights, strict=True):
    chats = sft if path == 'sft' else sources.load_chats(path)
    chats = [list(itertools.takewhile(_not_assistant, c)) for c in chats]
    if config.pool.system is not None:
      chats = [with_system(c, config.pool.system) for c in chats]
    fit.pool(mind, config.data.train if path == 'sft' else path, chats)
    pool.append((weight, chats))
  return pool


def _not_assistant(message):
  return message['role'] != 'assistant'


def with_system(messages, system: str):
  """The chat with its system turn replaced ('' = removed)."""
  rest = [m for m in messages if m['role'] != 'system']
  return [{'role': 'system', 'content': system}, *rest] if system else rest
