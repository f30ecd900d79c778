"""Models that are evaluated: folders, adapters, and what runs left."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence

import jax

from ealign import fields
from ealign.assembly import weights as weights_lib
from ealign.data import chat, sources
from ealign.data import template as template_lib
from ealign.engine import Backend, Engine, Model
from ealign.models import hub, lora, peft, sharding, transformer
from ealign.models import weights as files_lib
from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Subject:
  """A model to evaluate.

  Attributes:
    name: of its folder of results.
    base: the model that it was before it was trained, in files.
    adapter: a PEFT folder or that of a run, put on it; '' is none.
    frozen_adapter: the folder of a run whose adapter is merged into the base.
    whole: where all weights were trained, the folder of what came out.
    template: arguments of the chat template.
    seed: of random weights, where the base has such.
    run: the folder of the run that left it.
    cell: of a grid, (setting, seed): models of one setting are one arm.
  """

  name: str
  base: fields.Model
  adapter: str = ''
  frozen_adapter: str = ''
  whole: str = ''
  template: tuple = ()
  seed: int = 0
  run: str = ''
  cell: tuple[str, str] | None = None


def of_folder(path: str, model: fields.Model, template=()) -> Subject:
  """A folder as --model names it: a model, or a PEFT adapter.

  model: the section of a config, whose other fields hold for it.

  Raises:
    UserError: an adapter does not say whose it is.
  """
  folder = hub.fetch(sources.resolve(path), weights=False)
  name = pathlib.Path(path.rstrip('/')).name or path
  model = dataclasses.replace(model, init='weights')
  config = folder / peft.CONFIG
  if not config.is_file():
    base = dataclasses.replace(model, path=path)
    return Subject(name, base, template=template)
  try:
    base = json.loads(config.read_text())['base_model_name_or_path']
  except (OSError, ValueError, KeyError, TypeError):
    base = None
  if not base or not isinstance(base, str):
    raise UserError(
      f'{config}: has no base_model_name_or_path, a text; name the base there'
    )
  base = dataclasses.replace(model, path=base)
  return Subject(name, base, path, template=template)


def of_run(name: str, config: fields.Config, folder: pathlib.Path) -> Subject:
  """What a finished run left in its folder."""
  under = config.model.frozen_adapter
  if under.startswith('arm:'):
    under = str(folder.parent / under[4:])
  plain = {'adapter': '', 'frozen_adapter': ''}
  full = config.model.train == 'full'
  return Subject(
    name,
    dataclasses.replace(config.model, **plain),
    adapter='' if full else str(folder),
    frozen_adapter=under,
    whole=str(folder / 'model') if full else '',
    template=config.data.chat_template_kwargs,
    seed=config.seed,
    run=str(folder),
  )


def check(subject: Subject) -> None:
  """Raises a UserError if one of its folders is not there."""
  found = subject.base.path, subject.adapter, subject.frozen_adapter
  for path in filter(None, (*found, subject.whole)):
    why = '' if hub.is_id(path) else sources.absent_model(path)
    if why:
      raise UserError(f'{subject.name}: {path!r} {why}')


def check_arguments(found: Sequence[Subject]) -> None:
  """Raises a UserError if no model's chat template knows an argument.

  One that only some of them know is left to these.
  """
  given = sorted({name for subject in found for name, _ in subject.template})
  known = set()
  for path in {subject.base.path for subject in found if given}:
    folder = hub.fetch(sources.resolve(path), weights=False)
    known |= template_lib.of(chat.load_tokenizer(folder)).variables
  if others := [name for name in given if name not in known]:
    raise UserError(
      f'data.chat_template_kwargs: {others[0]!r:.60} is an argument of no '
      f"model's chat template, whose own are "
      f'{", ".join(sorted(known)) or "none"}: drop it'
    )


def check_rows(mesh, rows: int) -> None:
  """Raises a UserError if rows of a batch do not divide over the devices."""
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if rows % parts:
    raise UserError(
      f'eval.batch={rows}: does not divide over {parts} devices; use a '
      f'multiple of {parts}, such as {-(-rows // parts) * parts}'
    )


def outlined(subject: Subject, mesh) -> tuple[Model, Callable]:
  """A subject's Model, and a function from its Config to shapes of weights.

  No weights are read but those of an adapter, which has its shapes nowhere
  else. The Config may be the model's on another mesh.

  Raises:
    UserError: a file is missing or broken, or they do not fit each other.
  """
  spec, bind = subject.base, lambda weights: weights
  if subject.whole:
    spec = _trained(subject)
  model, tokenizer = weights_lib.read_model(spec, mesh)
  if subject.adapter:
    adapter, scale = _adapter(subject.adapter, model)
    bind = functools.partial(lora.bind, scale, adapter)

  def weights(model):
    quantized = functools.partial(weights_lib.quantized, spec)
    shapes = transformer.shapes(model)
    return jax.eval_shape(lambda whole: bind(quantized(whole)), shapes)

  return Model(model, tokenizer, subject.template), weights


def _trained(subject: Subject) -> fields.Model:
  own = {'path': subject.whole, 'init': 'weights'}
  return dataclasses.replace(subject.base, **own)


class Loader:
  """Loads subjects; the model that was loaded last is kept.

  Raises:
    UserError: rows of a batch do not divide over the devices of the mesh.
  """

  def __init__(self, mesh, backend: Backend, rows: int):
    check_rows(mesh, rows)
    self._how = mesh, backend, rows
    self._last = None, None

  def base(self, subject: Subject) -> Engine:
    """The engine of what it was before it was trained."""
    under, template = subject.frozen_adapter, subject.template
    return self._loaded(subject.base, under, template, subject.seed)

  def engine(self, subject: Subject) -> Engine:
    """The engine of the subject itself."""
    if subject.whole:
      return self._loaded(_trained(subject), '', subject.template)
    engine = self.base(subject)
    if not subject.adapter:
      return engine
    adapter, scale = _adapter(subject.adapter, engine.model.config)
    adapter = sharding.place(self._how[0], adapter)
    return engine.of(lora.bind(scale, adapter, engine.weights))

  def _loaded(self, spec: fields.Model, under, template, seed=0) -> Engine:
    mesh, backend, rows = self._how
    key = spec, under, template, seed
    if self._last[0] != key:
      self._last = None, None  # frees it before the next one is there
      model, tokenizer, weights = weights_lib.load_model(spec, seed, mesh)
      if under:
        adapter, scale = _adapter(under, model)
        weights = lora.merge(scale, adapter, weights)
      weights = weights_lib.quantized(spec, weights)
      model = Model(model, tokenizer, template)
      placed = sharding.place(mesh, weights)
      self._last = key, Engine(model, placed, backend, mesh, rows)
    return self._last[1]


def _adapter(path: str, model):
  folder = hub.fetch(sources.resolve(path))
  if (folder / peft.CONFIG).exists():
    return peft.load(folder, model)
  return files_lib.load_adapter(folder)
