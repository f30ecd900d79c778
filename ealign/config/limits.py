"""What a config's values may be: ranges, choices, and fields that must agree.

Each check yields problems as 'field=value: what is allowed, remedy'. They take
the flat dict of dotted names, after `config.structure` found its form sound.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from typing import Any

from ealign import fields, kinds
from ealign.config import methods, starts
from ealign.config.synonyms import did_you_mean
from ealign.conscience import conformal
from ealign.conscience.framings import FORMS, FRAMINGS, Framing
from ealign.evals import judges
from ealign.evals.judges import insecure
from ealign.models import hub
from ealign.runtime.errors import UserError

VERDICT = 'conscience.review.verdict'
BY = 'conscience.review.by', 'conscience.revise.by', 'iteralign.proposer'
_MODEL = ('model.path', 'model.adapter', 'model.frozen_adapter')


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
      VERDICT: ('question', 'inverted', 'random', 'all'),
      'dpo.variant': tuple(losses.VARIANTS),
      'replay.eviction': tuple(replay.EVICTIONS),
      'replay.draw': tuple(replay.DRAWS),
      'optim.schedule': tuple(align.SCHEDULES),
      'eval.judge': (*judges.JUDGES, 'frozen'),
    }
    | dict.fromkeys(BY, ('frozen', 'policy'))
  )


def ranges() -> dict[str, kinds.Range]:
  """What each number may be."""
  return {
    name: kind.__metadata__[0]
    for name, kind in fields.annotations()
    if hasattr(kind, '__metadata__')
  }


def problems(
  flat: dict[str, Any], earlier_arms=(), *, grid: bool = False
) -> list[str]:
  """All problems of the values.

  earlier_arms: those that a field may name as 'arm:<name>'. grid: whether it is
  of a cell of a grid, where 'grid:<name>' and 'cell:<setting>' may be.
  """
  checks = [_choices, _ranges, _texts, _shapes, _purpose, _trained]
  checks += [_asked, _calibrated, _files, _sizes]
  checks += [methods.problems, starts.problems]
  checks += [] if grid else [_grid_references]
  checks.append(functools.partial(_arm_references, earlier=tuple(earlier_arms)))
  found = [problem for check in checks for problem in check(flat)]
  return [
    f'{name}={rest[0] if rest else flat[name]!r}: {what}'
    for name, what, *rest in found
  ]


def _among(value, allowed, more: str = '') -> str:
  listed = ', '.join(item or "''" for item in allowed)
  hint = did_you_mean(value, allowed)
  return f'must be one of {listed}{more}.{hint}'


# A check yields (field, what is wrong); or (field, what is wrong, item) if only
# one item of the field's value is wrong.
def _choices(flat) -> Iterator[tuple]:
  for name, allowed in choices().items():
    if name == 'iteralign.proposer' and flat[name].startswith('openai:'):
      continue  # `methods` has more
    other = name in BY and flat[name].removeprefix('other:')
    if other and other != flat[name]:
      continue  # a second model; `_files` looks for its folder
    if name == VERDICT and kinds.noise(flat[name]) is not None:
      continue
    if name == 'eval.judge' and flat[name].startswith(judges.MODELS):
      continue  # a second model, or a name that its server knows
    if name == 'eval.judge' and judges.parts(flat[name])[0]:
      try:
        judges.load(flat[name])
      except UserError as error:
        yield name, str(error).removeprefix(f'{name}={flat[name]!r}: ')
    elif flat[name] not in allowed:
      more = " or 'other:<folder>'" if name in BY else ''
      if name == VERDICT:
        more = " or 'noisy:EPS' with EPS from 0 to 0.5"
      if name == 'eval.judge':
        more = " or '<file>.py:<name>', 'other:<folder>' or 'openai:<name>'"
      yield name, _among(flat[name], allowed, more)


def _ranges(flat) -> Iterator[tuple]:
  for name, (allowed, holds) in ranges().items():
    number = not isinstance(flat[name], str)
    if number and not math.isfinite(flat[name]):
      yield name, 'must be a finite number'
    elif not holds(flat[name]):
      yield name, f'must be {allowed}'


def _texts(flat) -> Iterator[tuple]:
  from ealign.models.lora import TARGETS  # loads JAX

  name = 'model.lora.targets'
  for target in flat[name]:
    if target not in TARGETS:
      what = _among(target, TARGETS).replace('one of', 'among')
      yield name, what, target
  if not 0 < len(flat[name]) == len(set(flat[name])):
    yield name, 'must name at least one projection, each once'
  name = 'eval.suites'
  for suite in flat[name]:
    from ealign.evals.suites import SUITES  # loads what reads data

    if suite not in SUITES:
      yield name, _among(suite, SUITES), suite
    elif flat[name].count(suite) > 1:
      yield name, 'is named twice; name each once', suite
  name = 'conscience.review.system'
  if flat[name] not in ('drop', 'keep') and flat[name][:4] != 'own:':
    hint = did_you_mean(flat[name], ('drop', 'keep'))
    yield name, f"must be drop, keep or 'own:<text>'.{hint}"
  name = 'conscience.revise.system'
  if flat[name] not in ('', 'drop', 'keep') and flat[name][:4] != 'own:':
    yield name, "must be '', drop, keep or 'own:<text>'"
  name = 'conscience.framing'
  if flat[name].endswith(('.json', '.yaml', '.yml')):
    yield from ((name, what) for what in _framing_file(flat))
  elif flat[name] not in FRAMINGS:
    yield name, _among(flat[name], FRAMINGS, ', or a .json or .yaml file')


def _sizes(flat) -> Iterator[tuple]:
  """Batches of more tokens than an array can have."""
  for rows, tokens in (
    ('data.batch_size', 'data.length'),
    ('dpo.pairs', 'dpo.length'),
    ('eval.batch', 'eval.max_new_tokens'),
    ('conscience.prompts', 'sample.max_new_tokens'),
  ):
    if flat[rows] * flat[tokens] >= 2**31 > max(flat[rows], flat[tokens]):
      yield rows, f'times {tokens}={flat[tokens]} must be below 2**31 tokens'


def _shapes(flat) -> Iterator[tuple]:
  """Sizes that must fit each other."""
  parts = flat['train.microbatches']
  for name in ('data.batch_size', 'dpo.pairs'):
    if parts > 0 and flat[name] % parts:
      near = max(parts, flat[name] // parts * parts)
      yield name, f'must divide by train.microbatches={parts}, such as {near}'
  length, cap = flat['dpo.length'], flat['sample.max_candidates']
  if flat['sample.max_new_tokens'] >= length:
    what = f'must be below dpo.length={length}, which holds prompt and answer'
    yield 'sample.max_new_tokens', what
  n, weights = len(flat['pool.paths']), flat['pool.weights']
  if n != len(weights):
    what = f'pool.paths has {n} entries; give one weight for each'
    yield 'pool.weights', what
  sound = all(math.isfinite(w) and w >= 0 for w in weights)
  if not sound or (weights and not sum(weights) > 0):
    yield 'pool.weights', 'must be at least 0, not all of them 0'
  if flat['sample.top_k'] > cap:
    yield 'sample.top_k', f'must be at most sample.max_candidates={cap}'
  rest = [a for a in ('data', 'fsdp', 'tensor') if flat[f'mesh.{a}'] == -1]
  for axis in rest[1:]:
    what = f'mesh.{rest[0]} takes the devices that are left; write how many'
    yield f'mesh.{axis}', what
  longest = flat['conscience.guards.longest']
  if flat['conscience.guards.shortest'] > longest > 0:
    what = f'must be at most conscience.guards.longest={longest}; 0 = off'
    yield 'conscience.guards.shortest', what
  steps = flat['train.steps']
  if flat['optim.warmup'] > steps > 0:
    yield 'optim.warmup', f'must be at most train.steps={steps}'


def _purpose(flat) -> Iterator[tuple]:
  """Settings that would have no effect, or another than their name says."""
  trains, lam = flat['train.steps'] > 0, flat['dpo.lam']
  sft = flat['data.train']
  if trains and not sft and lam == 0:
    what = 'without SFT data and with dpo.lam=0 nothing is trained'
    yield 'data.train', f'{what}; set one of them, or train.steps=0'
  if trains and lam > 0 and flat['conscience.every'] == 0:
    what = 'no pair would ever be made; set it, or dpo.lam=0'
    yield 'conscience.every', what
  if flat['conscience.every'] > 0 and not flat['pool.paths']:
    what = 'the policy has no prompts to be sampled on'
    yield 'pool.paths', f"{what}; name a file, or 'sft', or every=0"
  reflects = fields.reflects(lam, flat['conscience.every'])
  if trains and reflects and flat['conscience.audit'] == 'on':
    what = (
      "names no file for the audit; name one, or set conscience.audit='off'"
    )
    if not flat['conscience.exchanges']:
      yield 'conscience.exchanges', what
  if 'sft' in flat['pool.paths'] and not sft:
    yield 'pool.paths', "'sft' means the prompts of data.train, which is ''"
  for group, many in (
    ('sample.temperature', 'conscience.samples'),
    ('eval.temperature', 'eval.samples'),
  ):
    if flat[group] == 0 and flat[many] > 1:
      yield many, f'with {group}=0 all would be the same; use 1'
  rule = flat[VERDICT]
  judge = judges.JUDGES.get(flat['eval.judge'])
  if kinds.noise(rule) is not None and not (judge and judge.truth):
    what = 'needs an eval.judge that knows which answers are bad by a rule'
    yield VERDICT, f"{what}, as 'world' does, not {flat['eval.judge']!r}"
  if flat['conscience.scale'] != 'none' and rule != 'question':
    what = f"P does not choose with {VERDICT}={rule!r}; use 'none'"
    yield 'conscience.scale', what
  if flat['mistakes.source'] == 'pool':
    name = 'mistakes.source'
    if flat['method'] != 'mistake_analysis':
      what = f"is for method='mistake_analysis', not {flat['method']!r}"
      yield name, f"{what}; use 'own'"
    if flat['mistakes.good'] > 0:
      what = "needs mistakes.source='own': the pool's rows do not say which"
      yield 'mistakes.good', f'{what} are good; use 0'
  name, sees = 'conscience.review.reason_tokens', flat['conscience.review.sees']
  if flat[name] > 0 and sees != 'chat':
    yield name, f"needs conscience.review.sees='chat', not {sees!r}"
  if flat['train.eval_every'] > 0 and not flat['eval.curve']:
    what = 'eval.curve names no questions to ask; name a file, or use 0'
    yield 'train.eval_every', what


def _asked(flat) -> Iterator[tuple]:
  """What a question, or a writer's system turn, lacks or leaves unused."""
  examples = flat['conscience.review.examples']
  if examples and not flat['conscience.exchanges']:
    what = 'names no file for conscience.review.examples'
    yield 'conscience.exchanges', f'{what}={examples}; name one, or use 0'
  name, sees = 'conscience.revise.system', flat['conscience.revise.sees']
  unused = {'prompt': ('drop', 'keep', 'own:'), 'principle': ('drop', 'keep')}
  if flat[name][:4] in unused.get(sees, ()):
    what = f"has no effect with conscience.revise.sees={sees!r}; use ''"
    yield name, what
  if flat['eval.judge'] == insecure.KIND and not insecure.available():
    what = "needs bandit: pip install 'ealign[bandit]', or leave it empty"
    yield 'eval.judge', what


def _calibrated(flat) -> Iterator[tuple]:
  """Settings under which no threshold can be found."""
  name, n = 'conscience.threshold', flat['conscience.held_out']
  alpha = kinds.auto_alpha(flat[name])
  if alpha is None:
    return
  if flat['model.frozen_adapter']:
    what = 'model.frozen_adapter may have made the frozen model misaligned, and'
    what += ' its own answers would tell what is normal'
    yield name, f'{what}; write a number, such as 0.5'
  if flat['eval.questions'] and not flat['pool.paths']:
    what = 'there are no prompts to find it on'
    yield name, f'{what}; name a file in pool.paths, or write a number'
  if n < conformal.least(alpha):
    what = f'conscience.threshold={flat[name]!r} needs at least'
    what += f' {conformal.least(alpha)} answers (1 / {alpha:g} - 1)'
    yield 'conscience.held_out', f'{what}; raise it, or ALPHA'


def _trained(flat) -> Iterator[tuple]:
  """Settings that do not go with what is trained, and how."""
  from ealign import losses  # loads JAX

  kind, lora = flat['model.train'], "needs model.train='lora':"
  if flat['model.quantize'] != 'none' and kind == 'full':
    yield 'model.quantize', f"{lora} int8 takes no gradient; or set 'none'"
  if flat['model.adapter'] and kind == 'full':
    yield 'model.adapter', f'{lora} full fine-tuning starts at model.path'
  if flat['model.adapter'] and flat['model.frozen_adapter']:
    what = 'with model.frozen_adapter the run starts there; give only one'
    yield 'model.adapter', what
  form = flat['train.export']
  forms = {'lora': ('peft', 'merged'), 'full': ('full',)}.get(kind, (form,))
  if form and form not in forms:
    can = ' or '.join(map(repr, forms))
    yield 'train.export', f'model.train={kind!r} can export {can}'
  made = flat['model.init'] != 'weights' or flat['model.frozen_adapter']
  if form == 'peft' and made:
    what = 'its base lies in no files (model.init, model.frozen_adapter)'
    yield 'train.export', f'{what}; use merged'
  variant, usual = flat['dpo.variant'], fields.DPO()
  for name in losses.COEFFICIENTS if variant in losses.VARIANTS else ():
    takes = [n for n, v in losses.VARIANTS.items() if name in v.coefficients]
    default, only = getattr(usual, name), ' or '.join(map(repr, takes))
    if flat[f'dpo.{name}'] != default and variant not in takes:
      what = f'applies to dpo.variant={only} only, not to {variant!r}'
      yield f'dpo.{name}', f'{what}; leave it at {default}'


def _arm_references(flat, earlier: tuple[str, ...]) -> Iterator[tuple]:
  for name in ('model.adapter', 'model.frozen_adapter'):
    kind, _, arm = flat[name].partition(':')
    if kind == 'arm' and arm not in earlier:
      known, hint = ', '.join(earlier) or 'none', did_you_mean(arm, earlier)
      yield name, f'must be an arm defined before this one ({known}).{hint}'


def _grid_references(flat) -> Iterator[tuple]:
  for name in _MODEL:
    if flat[name].startswith(('grid:', 'cell:')):
      yield name, 'is made for a grid; add --sweep, or name a folder'
  if flat['mesh.stack'] > 1:
    yield 'mesh.stack', 'is for the cells of a grid; use 1 without --sweep'


def _files(flat) -> Iterator[tuple]:
  """Paths that are not there."""
  from ealign.data import sources  # loads data libraries: only when needed

  names = [*_MODEL, 'data.train', 'pool.paths', 'eval.questions', 'eval.curve']
  names += ['eval.tokens', 'conscience.exchanges', 'eval.folder']
  names += ['eval.judge_prompts', 'iteralign.listed']
  others = [*BY, 'eval.judge']
  names += [n for n in others if flat[n].startswith('other:')]
  of_data = functools.partial(sources.absent, limit=flat['data.max_mib'])
  for name in names:
    value = flat[name]
    absent = sources.absent_model if name in (*_MODEL, *others) else of_data
    # There when the run starts, or known without a file.
    made = ('arm:', 'grid:', 'cell:') if name in _MODEL else ('arm:',)
    for item in (value,) if isinstance(value, str) else value:
      path = item.removeprefix('other:')
      sft = (name, path) == ('pool.paths', 'sft')
      if not path or path.startswith(made) or sft:
        continue
      if name in ('model.path', *others) and hub.is_id(path):
        continue
      if why := absent(path):
        yield name, why, item
  if not flat['model.path']:
    yield 'model.path', 'must be a Hugging Face folder, a GGUF file or a Hub id'


def _framing_file(flat) -> Iterator[str]:
  from ealign.data import mapping

  try:
    content = mapping.read_mapping(flat['conscience.framing'])
  except UserError as error:
    yield str(error)
    return
  needed, labels = {'question', 'ok', 'flag', 'revise'}, {}
  needed |= {*FORMS.get(flat['conscience.review.form'], ())}
  sees = flat['conscience.revise.sees'], flat['conscience.revise.system'][:4]
  if sees[0] == 'principle' and sees[1] != 'own:':
    needed.add('principle')
  known = [f.name for f in dataclasses.fields(Framing) if f.name != 'name']
  for field in known:
    if field not in needed and field not in content:
      continue
    value = content.get(field)
    words = field in ('ok', 'flag') and isinstance(value, list) and value
    labels[field] = words or [value]
    if not all(isinstance(w, str) and w for w in labels[field]):
      many = ' or a list of texts' if field in ('ok', 'flag') else ''
      yield f'must have {field!r}, a text{many}'
  for word in labels['ok']:
    if word in labels['flag']:
      yield f'{word!r} cannot be both an ok and a flag label'
  for field in content:
    if field not in known:
      hint = did_you_mean(str(field), known)
      yield f'there is no field {field!r}.{hint}'
