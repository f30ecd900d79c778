"""What a config's values may be: ranges, choices, and fields that must agree.

Each check yields problems as 'field=value: what is allowed, remedy'. They take
the flat dict of dotted names, after `config.structure` found its form sound.
"""

import difflib
import functools
import math
import typing
from collections.abc import Iterator
from typing import Any

from ealign import fields
from ealign.conscience.framings import FRAMINGS
from ealign.models import hub
from ealign.runtime.errors import UserError


def did_you_mean(name: str, known) -> str:
  """' Did you mean ...?' or '', by the last part of a path or by spelling."""
  name = str(name)  # a key of a dict may be anything
  known = [str(item) for item in known]
  last = name.rsplit('.', 1)[-1]
  close = [item for item in known if item.rsplit('.', 1)[-1] == last]
  close += difflib.get_close_matches(name, known, 1, 0.5)
  return f' Did you mean {close[0]!r}?' if close else ''


BY = ('conscience.review.by', 'conscience.revise.by')


@functools.cache
def choices() -> dict[str, tuple[str, ...]]:
  """What each field with a list of values may be; most stand in its type."""
  # They load JAX, which what only reads a config or prints help does not need.
  from ealign import align, losses, replay
  from ealign.models import transformer

  found = {
    name: typing.get_args(kind)
    for name, kind in fields.annotations()
    if typing.get_origin(kind) is typing.Literal
  }
  return (
    found
    | {
      'model.remat': ('none', *transformer.REMAT),
      'dpo.variant': tuple(losses.VARIANTS),
      'replay.eviction': tuple(replay.EVICTIONS),
      'replay.draw': tuple(replay.DRAWS),
      'optim.schedule': tuple(align.SCHEDULES),
    }
    | dict.fromkeys(BY, ('frozen', 'policy'))
  )


def ranges() -> dict[str, fields.Range]:
  """What each number may be."""
  annotated = dict(fields.annotations()).items()
  return {
    name: kind.__metadata__[0]
    for name, kind in annotated
    if hasattr(kind, '__metadata__')
  }


def problems(
  flat: dict[str, Any], earlier_arms=(), *, grid: bool = False
) -> list[str]:
  """All problems of the values.

  earlier_arms may be named as 'arm:<name>'; grid: whether 'grid:<name>' may be.
  """
  checks = (_choices, _ranges, _texts, _shapes, _purpose, _files)
  found = [problem for check in checks for problem in check(flat)]
  found += _grid_references(flat) if not grid else ()
  return found + list(_arm_references(flat, tuple(earlier_arms)))


def _choices(flat) -> Iterator[str]:
  for name, allowed in choices().items():
    value = flat[name]
    if value in allowed:
      continue
    listed = ', '.join(item or "''" for item in allowed)
    if name in BY:
      if value.removeprefix('other:') not in (value, ''):
        continue  # a second model; `_files` looks for its folder
      listed += " or 'other:<folder>'"
    hint = did_you_mean(value, allowed)
    yield f'{name}={value!r}: must be one of {listed}.{hint}'


def _ranges(flat) -> Iterator[str]:
  for name, (allowed, holds) in ranges().items():
    value = flat[name]
    if not math.isfinite(value):
      yield f'{name}={value}: must be a finite number'
    elif not holds(value):
      yield f'{name}={value}: must be {allowed}'


def _texts(flat) -> Iterator[str]:
  from ealign.models.lora import TARGETS  # loads JAX

  targets = flat['model.lora.targets']
  for target in targets:
    if target not in TARGETS:
      hint = did_you_mean(target, TARGETS)
      listed = ', '.join(TARGETS)
      yield f'model.lora.targets={target!r}: must be among {listed}.{hint}'
  if not targets or len(set(targets)) < len(targets):
    said = 'must name at least one projection, each once'
    yield f'model.lora.targets={targets}: {said}'
  system = flat['conscience.review.system']
  if system not in ('drop', 'keep') and not system.startswith('own:'):
    hint = did_you_mean(system, ('drop', 'keep'))
    said = f"must be drop, keep or 'own:<text>'.{hint}"
    yield f'conscience.review.system={system!r}: {said}'
  framing = flat['conscience.framing']
  if framing.endswith(('.json', '.yaml', '.yml')):
    yield from _framing_file(framing)
  elif framing not in FRAMINGS:
    listed = ', '.join(FRAMINGS)
    hint = did_you_mean(framing, FRAMINGS)
    said = f'must be one of {listed}, or a .json or .yaml file.{hint}'
    yield f'conscience.framing={framing!r}: {said}'


def _shapes(flat) -> Iterator[str]:
  """Sizes that must fit each other."""
  parts = flat['train.microbatches']
  for name in ('data.batch_size', 'dpo.pairs'):
    if parts > 0 and flat[name] % parts:
      near = max(parts, flat[name] // parts * parts)
      said = f'must divide by train.microbatches={parts}, such as {near}'
      yield f'{name}={flat[name]}: {said}'
  new, length = flat['sample.max_new_tokens'], flat['dpo.length']
  if new >= length:
    said = f'must be below dpo.length={length}, which holds prompt and answer'
    yield f'sample.max_new_tokens={new}: {said}'
  paths, weights = flat['pool.paths'], flat['pool.weights']
  if len(paths) != len(weights):
    said = f'pool.paths has {len(paths)} entries; give one weight for each'
    yield f'pool.weights={weights}: {said}'
  if any(not (math.isfinite(w) and w >= 0) for w in weights) or (
    weights and not sum(weights) > 0
  ):
    yield f'pool.weights={weights}: must be at least 0, not all of them 0'
  top, cap = flat['sample.top_k'], flat['sample.max_candidates']
  if top > cap:
    yield f'sample.top_k={top}: must be at most sample.max_candidates={cap}'
  if [flat[f'mesh.{axis}'] for axis in ('data', 'fsdp', 'tensor')].count(
    -1
  ) > 1:
    yield 'mesh: only one of data, fsdp and tensor can be -1, the rest'
  steps, warmup = flat['train.steps'], flat['optim.warmup']
  if warmup > steps > 0:
    yield f'optim.warmup={warmup}: must be at most train.steps={steps}'


def _purpose(flat) -> Iterator[str]:
  """Settings that would do nothing, or nothing of what they say."""
  from ealign.losses import VARIANTS  # loads JAX

  lam, sft = flat['dpo.lam'], flat['data.train']
  if flat['train.steps'] > 0 and not sft and lam == 0:
    said = 'without SFT data and with dpo.lam=0 nothing is trained'
    yield f"data.train='': {said}; set one of them, or train.steps=0"
  if flat['train.steps'] > 0 and lam > 0 and flat['conscience.every'] == 0:
    said = 'no pair would ever be made; set it, or dpo.lam=0'
    yield f'conscience.every=0: {said}'
  if flat['conscience.every'] > 0 and not flat['pool.paths']:
    said = 'the policy has no prompts to be sampled on'
    yield f"pool.paths=(): {said}; name a file, or 'sft', or every=0"
  if 'sft' in flat['pool.paths'] and not sft:
    yield "pool.paths: 'sft' means the prompts of data.train, which is ''"
  if flat['model.quantize'] != 'none' and flat['model.train'] == 'full':
    said = "needs model.train='lora': whole numbers take no gradient"
    yield f'model.quantize={flat["model.quantize"]!r}: {said}'
  if flat['model.adapter'] and flat['model.train'] == 'full':
    said = "needs model.train='lora': full fine-tuning starts at model.path"
    yield f'model.adapter={flat["model.adapter"]!r}: {said}'
  form, trained = flat['train.export'], flat['model.train']
  fits = {'lora': ('peft', 'merged'), 'full': ('full',)}.get(trained, (form,))
  if form and form not in fits:
    said = f'of model.train={trained!r} there is {" or ".join(fits)}'
    yield f'train.export={form!r}: {said}'
  made = flat['model.init'] != 'weights' or flat['model.frozen_adapter']
  if form == 'peft' and made:
    said = 'its base lies in no files (model.init, model.frozen_adapter)'
    yield f'train.export={form!r}: {said}; use merged'
  variant, smoothing = flat['dpo.variant'], flat['dpo.label_smoothing']
  takes = [
    n for n, v in VARIANTS.items() if 'label_smoothing' in v.coefficients
  ]
  if smoothing > 0 and variant in VARIANTS.keys() - takes:
    named = ' or '.join(map(repr, takes))
    said = f'applies to dpo.variant={named} only, not to {variant!r}'
    yield f'dpo.label_smoothing={smoothing}: {said}'
  for group, many in (
    ('sample.temperature', 'conscience.samples'),
    ('eval.temperature', 'eval.samples'),
  ):
    if flat[group] == 0 and flat[many] > 1:
      said = f'with {group}=0 all would be the same; use 1'
      yield f'{many}={flat[many]}: {said}'
  thinking, sees = (
    flat['conscience.review.reason_tokens'],
    flat['conscience.review.sees'],
  )
  if thinking > 0 and sees != 'chat':
    said = f"needs conscience.review.sees='chat', not {sees!r}"
    yield f'conscience.review.reason_tokens={thinking}: {said}'
  if flat['model.adapter'] and flat['model.frozen_adapter']:
    said = 'with model.frozen_adapter the run starts there; give only one'
    yield f'model.adapter={flat["model.adapter"]!r}: {said}'
  if flat['train.eval_every'] > 0 and not flat['eval.curve']:
    said = 'eval.curve names no questions to ask; name a file, or use 0'
    yield f'train.eval_every={flat["train.eval_every"]}: {said}'


def _arm_references(flat, earlier: tuple[str, ...]) -> Iterator[str]:
  for name in ('model.adapter', 'model.frozen_adapter'):
    value = flat[name]
    if value.startswith('arm:') and value[4:] not in earlier:
      known = ', '.join(earlier) or 'none'
      hint = did_you_mean(value[4:], earlier)
      said = f'must be an arm defined before this one ({known}).{hint}'
      yield f'{name}={value!r}: {said}'


def _grid_references(flat) -> Iterator[str]:
  for name in ('model.path', 'model.adapter', 'model.frozen_adapter'):
    if flat[name].startswith('grid:'):
      said = 'is made for a grid; add --sweep, or name a folder'
      yield f'{name}={flat[name]!r}: {said}'


def _files(flat) -> Iterator[str]:
  """Paths that are not there."""
  named = [
    ('model.path', flat['model.path']),
    ('model.adapter', flat['model.adapter']),
    ('model.frozen_adapter', flat['model.frozen_adapter']),
    ('data.train', flat['data.train']),
    *(('pool.paths', path) for path in flat['pool.paths'] if path != 'sft'),
    *(('eval.questions', path) for path in flat['eval.questions']),
    *(('eval.curve', path) for path in flat['eval.curve']),
    ('eval.tokens', flat['eval.tokens']),
    *((name, flat[name]) for name in BY if flat[name][:6] == 'other:'),
  ]
  for name, value in named:
    path = value.removeprefix('other:')
    of_model = name.startswith('model.') or name in BY
    there = _exists if of_model else _data_exists
    on_hub = (name == 'model.path' or name in BY) and hub.is_id(path)
    made = ('arm:', 'grid:') if name.startswith('model.') else ('arm:',)
    later = path.startswith(made)  # there when the run starts
    if path and not later and not (on_hub or there(path)):
      yield f'{name}={value!r}: there is no such file or folder'
  if not flat['model.path']:
    yield "model.path='': must be a Hugging Face folder or a Hub id"


def _exists(path: str) -> bool:
  from ealign.data import sources  # loads data libraries: only when needed

  return sources.resolve(path).exists()


def _data_exists(path: str) -> bool:
  from ealign.data import sources

  return sources.exists(path)


def _framing_file(path: str) -> Iterator[str]:
  from ealign.data import mapping

  name = f'conscience.framing={path!r}'
  try:
    content = mapping.read_mapping(path)
  except UserError as error:
    yield f'{name}: {error}'
    return
  known, labels = ('question', 'ok', 'flag', 'revise'), {}
  for field in known:
    value = content.get(field)
    words = field in ('ok', 'flag') and isinstance(value, list) and value
    labels[field] = words or [value]
    if not all(isinstance(w, str) and w for w in labels[field]):
      many = ' or a list of texts' if field in ('ok', 'flag') else ''
      yield f'{name}: must have {field!r}, a text{many}'
  for word in labels['ok']:
    if word in labels['flag']:
      yield f'{name}: {word!r} cannot be both an ok and a flag label'
  for field in content:
    if field not in known:
      hint = did_you_mean(str(field), known)
      yield f'{name}: there is no field {field!r}.{hint}'
