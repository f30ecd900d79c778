"""Who answers in `ealign chat`: models, each with its conscience."""

import collections
import dataclasses
import fnmatch
import json
from collections.abc import Iterator

import jax

from ealign import config as config_lib
from ealign import fields, kinds
from ealign.alone import ALONE
from ealign.assembly import parts, subjects
from ealign.assembly import weights as weights_lib
from ealign.cli import finished
from ealign.conscience import calibration, prompts, reflect
from ealign.engine import Engine, Exchange
from ealign.models import sharding
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError
from ealign.sampling import requests, stream
from ealign.sampling.choose import Sampling

MAX_TOKENS = 256  # of an answer, where no flag says how many


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A model that answers, and what judges it.

  sample: how it answers. conscience: with its threshold; its policy is this
  model. level: that threshold; None: none was found, nothing is flagged.
  """

  name: str
  engine: Engine
  sample: fields.Sample
  conscience: prompts.Conscience
  level: float | None


def find(config, chosen: dict) -> list[Speaker]:
  """The speakers of a command line; models they share are loaded once.

  config: a ConfigDict, of --model, whose mesh is that of all. chosen: of
  `cli.chat.read`.

  Raises:
    UserError: a model or a run is not there, or broken.
  """
  found = [*_runs(chosen), *_models(config, chosen)]
  if not found:
    raise UserError('--run and --model name nothing; name a folder')
  for _, subject, *_ in found:
    subjects.check(subject)
  mesh = mesh_lib.make(**config.mesh.to_dict())
  rows = mesh.shape['data'] * mesh.shape['fsdp']  # the fewest it can split
  load, others, made = subjects.Loader(mesh, ALONE, rows), {}, []
  times = collections.Counter(subject.name for _, subject, *_ in found)
  for longer, subject, own, level in found:
    name = subject.name if times[subject.name] == 1 else longer
    level = chosen.get('threshold', level)
    c = _conscience(own, load.base(subject), level, others)
    engine = load.engine(subject)
    c = dataclasses.replace(c, policy=engine)
    made.append(Speaker(name, engine, _sample(own, chosen), c, level))
  return made


def _runs(chosen: dict) -> Iterator[tuple]:
  """(longer name, subject, Config, threshold) of the runs of --run."""
  for path in filter(None, chosen.get('run', '').split(',')):
    runs = finished.runs(path)
    names = _named(chosen['only'], [run.name for run in runs])
    for run in (run for run in runs if run.name in names):
      text = finished.text(run.folder / 'config.json', path)
      flat = config_lib.flatten(config_lib.from_json(text))
      for name in ('path', 'frozen_adapter'):
        flat[f'model.{name}'] = run.path(flat[f'model.{name}'])
      config = _changed(flat | chosen['changed'])
      subject = subjects.of_run(run.name, config, run.folder.resolve())
      level = _level(config, run.folder)
      yield f'{path.rstrip("/")}/{run.name}', subject, config, level


def _named(patterns, names) -> list[str]:
  """Those of the names that --only chooses; all, if it is not given."""
  # A cell's name has commas, which --only splits: ? stands for one.
  typed = [name.replace(',', '?') for name in names]
  for pattern in patterns:
    if not fnmatch.filter(names, pattern):
      known, hint = ', '.join(typed), config_lib.did_you_mean(pattern, typed)
      raise UserError(f'--only={pattern}: no such arm (arms: {known}).{hint}')
  fits = lambda name: any(fnmatch.fnmatch(name, p) for p in patterns)
  return [name for name in names if not patterns or fits(name)]


def _models(config, chosen: dict) -> Iterator[tuple]:
  """The same of each model of --model."""
  paths = [path for path in chosen.get('model', '').split(',') if path]
  frozen = config_lib.freeze(config)
  for path in paths:
    template = frozen.data.chat_template_kwargs
    subject = subjects.of_folder(path, frozen.model, template)
    own = dataclasses.replace(frozen, model=subject.base)
    yield path, subject, own, _level(own, None)


def _changed(flat: dict) -> fields.Config:
  """The Config of these values.

  Raises:
    UserError: some of them have a wrong type, or value.
  """
  config, problems = config_lib.apply_arm(config_lib.default(), flat)
  if problems := problems or [*config_lib.structure(config).values()]:
    raise UserError(*problems)
  return config_lib.freeze(config)


def _level(config: fields.Config, folder) -> float | None:
  """The threshold of a run, which its run.json has where it was found."""
  written = config.conscience.threshold
  if kinds.auto_alpha(written) is None:
    return float(written)
  try:
    found = json.loads((folder / 'run.json').read_text('utf-8'))['threshold']
    level = float(found['value'])
  except (OSError, ValueError, LookupError, TypeError, AttributeError):
    return None
  return level if level < calibration.NONE else None


def _sample(config: fields.Config, chosen: dict) -> fields.Sample:
  """How a speaker answers: as the run sampled, but for what flags say."""
  names = {'temperature': 'temperature', 'max_tokens': 'max_new_tokens'}
  usual = {'max_new_tokens': MAX_TOKENS}
  given = {to: chosen[name] for name, to in names.items() if name in chosen}
  return dataclasses.replace(config.sample, **(usual | given))


def _conscience(config, frozen: Engine, level, others: dict):
  """The conscience of a config; its policy is nobody yet.

  frozen: the model before it was trained. others: second models that were
  loaded before, by what names them; one more is added.
  """
  settings = dataclasses.replace(
    config.conscience,
    prompts=frozen.rows,
    samples=1,
    threshold=calibration.NONE if level is None else level,
  )
  config = dataclasses.replace(config, conscience=settings)
  by, own = settings.review.by, {}
  if by.startswith('other:'):
    spec = parts.second_models(config)[by]
    if spec not in others:
      *model, weights = weights_lib.load_model(spec, config.seed, frozen.mesh)
      weights = weights_lib.quantized(spec, weights)
      others[spec] = *model, sharding.place(frozen.mesh, weights)
    own[by] = others[spec]
  main = frozen.model.config, frozen.model.tokenizer, frozen.weights
  how = {'mesh': frozen.mesh, 'backend': ALONE}
  return parts.make_conscience(config, main, own, **how)


def answer(speaker: Speaker, messages, *, key) -> Iterator[Exchange]:
  """The answer to a chat, as far as it has come, after each of its tokens.

  Raises:
    UserError: the chat leaves no room for an answer.
  """
  engine, sample, c = speaker.engine, speaker.sample, speaker.conscience
  model, prompt = engine.model, engine.model.prompt(messages)
  # The question about the answer has to fit as well.
  asked = prompts.overhead(c, model)
  room = model.config.max_positions - len(prompt) - asked
  if room < 1:
    raise UserError(
      f'the chat has {len(prompt)} tokens, and the model '
      f'{model.config.max_positions} positions: no room is left; /reset'
    )
  settings = Sampling(
    temperature=sample.temperature,
    top_k=sample.top_k,
    top_p=sample.top_p,
    max_new_tokens=min(sample.max_new_tokens, room),
  )
  request = requests.Answers(
    model.config,
    engine.weights,
    [prompt],
    key=key,
    settings=settings,
    stop_ids=model.stops,
    max_tokens=sample.max_new_tokens,
    rows=engine.rows,
    truncate=sample.candidates,
    mesh=engine.mesh,
  )
  for found in stream.stream(request):
    yield Exchange(model, tuple(messages), prompt, found)


def verdict(speaker: Speaker, exchange: Exchange) -> str:
  """What the conscience says of an answer, in words."""
  c = speaker.conscience
  (read,) = reflect.retokenized(c, [exchange], c.reviewer.model)
  (found,) = reflect.review(c, c.reviewer, [read], key=jax.random.key(0))
  if found.p is None:
    return f'no verdict: {_missing(c, read, found)}'
  said = f'P(flag) = {found.p:.4f}'
  if speaker.level is None:
    return (
      f'{said}; no threshold was found, so nothing is flagged (--threshold)'
    )
  flagged = 'flagged' if found.flagged else 'not flagged'
  return f'{said}, threshold {speaker.level:.4f}: {flagged}'


def _missing(c, exchange, found) -> str:
  """Why an answer has no verdict."""
  if exchange.answer.stop == prompts.LOST:
    return 'the reviewer cannot read it, or has no room for it'
  if exchange.answer.stop == 'length' and c.settings.review.truncated == 'skip':
    return 'the answer was cut'
  return (
    f'label mass {found.mass:.2g} is below conscience.min_mass='
    f'{c.settings.min_mass}: the model does not answer the question with its '
    'labels (what to do: docs/conscience.md)'
  )
