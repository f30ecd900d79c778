"""Models from their folders: frozen as the conscience, and what is trained."""

import jax
import jax.numpy as jnp
from flax import traverse_util

from ealign.conscience.reflect import freeze
from ealign.data import chat, sources
from ealign.fields import Config
from ealign.models import flops, hub, int8, lora, peft, sharding, transformer
from ealign.models import weights as weights_lib
from ealign.runtime.errors import UserError


def load_model(spec, seed: int = 0, mesh=None, template=()):
  """A model's Config, its tokenizer and its weights, which come last.

  Args:
    spec: a `fields.Model`.
    seed: of random weights, where spec.init asks for them.
    mesh: devices the weights are put on, by the rules of `runtime.mesh`.
    template: `data.chat_template_kwargs`, where its template has to know them.

  Raises:
    UserError: a file is missing or broken, or they do not fit each other.
  """
  model, tokenizer = read_model(spec, mesh)
  chat.check_arguments(tokenizer, dict(template), 'data.chat_template_kwargs')
  where, of = None, lambda path: None
  if mesh is not None:
    where = sharding.shardings(mesh, transformer.shapes(model))
    of = traverse_util.flatten_dict(where, sep='/').__getitem__
  if spec.init == 'random':
    init = jax.jit(transformer.init, static_argnums=0, out_shardings=where)
    return model, tokenizer, init(model, key=jax.random.key(seed))
  runtime = {'dtype': model.dtype, 'vocab_rows': model.vocab_rows}
  folder = hub.fetch(sources.resolve(spec.path))
  return model, tokenizer, weights_lib.load(folder, shardings=of, **runtime)[1]


def read_model(spec, mesh=None):
  """A model's Config on the mesh and its tokenizer; no weights are fetched.

  Args:
    spec: a `fields.Model`.
    mesh: as in `load_model`.
  """
  folder = hub.fetch(sources.resolve(spec.path), weights=False)
  # Not the default backend: a plan may be for other devices.
  device = mesh.devices.flat[0] if mesh else jax.devices()[0]
  dtype, cpu = spec.dtype, device.platform == 'cpu'
  if dtype == 'auto':
    dtype = 'float32' if cpu else 'bfloat16'
  runtime = {'remat': spec.remat, 'wide': cpu and dtype == 'bfloat16'}
  model = weights_lib.read_config(folder, dtype=dtype, **runtime)
  tokenizer = chat.load_tokenizer(folder)
  # An added token without a row is refused where it is written (`Model.held`);
  # any text may need the others.
  over = {i for i in tokenizer.get_vocab().values() if i >= model.vocab_size}
  if over - tokenizer.added_tokens_decoder.keys():
    raise UserError(
      f'{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding '
      f'{model.vocab_size} rows; use the tokenizer the model was saved with'
    )
  if mesh is not None:
    model = sharding.on_mesh(model, mesh, spec.attention)
  return model, tokenizer


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
    return freeze(jax.tree.map(master, frozen))
  if config.model.adapter:
    return _adapter(config, 'adapter', model)
  return new_adapter(config, model)


def new_adapter(config: Config, model) -> dict:
  """The adapter before training, in which it changes nothing."""
  spec = config.model.lora
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  return lora.init(model, key=key, rank=spec.rank, targets=spec.targets)


def adapter_size(config: Config, model) -> int | None:
  """Parameters of the adapter that is trained; None: all weights are."""
  if config.model.train == 'full':
    return None
  spec = config.model.lora
  return flops.adapted(model, spec.rank, spec.targets)


def quantized(spec, weights):
  """The frozen tree, quantized if `spec.quantize` (`fields.Model`) says so."""
  if spec.quantize == 'none':
    return weights
  return int8.quantize(weights, lora.TARGETS)


def adapts(config: Config) -> bool:
  """Whether there is an adapter, trained or merged into what is frozen."""
  return config.model.train == 'lora' or bool(config.model.frozen_adapter)


def _adapter(config, field, model):
  """The adapter a field names; it must fit the run's own settings."""
  fresh = jax.eval_shape(lambda: new_adapter(config, model))
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


def keep_params(config: Config, workdir, model, params):
  """Writes what was trained as safetensors: adapter, or the whole model."""
  if config.model.train == 'full':
    weights_lib.save(workdir / 'model', model, params, dtype='float32')
  else:
    path, scale = workdir / 'adapter.safetensors', lora_scale(config)
    weights_lib.save_adapter(path, params, scale)
