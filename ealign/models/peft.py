"""Adapters in PEFT's format: the folder that PEFT, transformers and vLLM load.

PEFT loads a folder whose keys do not fit as if there were no adapter, without a
word; the reader here refuses it.
"""

import json
import pathlib

import numpy as np
from jax import numpy as jnp

from ealign.models import files, lora, names
from ealign.models.config import Config
from ealign.runtime.errors import UserError

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
VERSION = '0.21.2'  # of PEFT; the release these fields were checked with
_READ = ('peft_type', 'r', 'lora_alpha', 'use_rslora', 'target_modules')
_ONLY = {  # what else PEFT can do, and how it is spelt when it is off
  'bias': 'none',
  'fan_in_fan_out': False,
  'layer_replication': None,
  'modules_to_save': None,
  'use_dora': False,
}
_OFF = _ONLY | {  # of these an empty value is the same; none is written
  'alora_invocation_tokens': None,
  'alpha_pattern': {},
  'arrow_config': None,
  'enable_lora': None,
  'kasa_config': None,
  'layers_to_transform': None,
  'lora_bias': False,
  'megatron_config': None,
  'monteclora_config': None,
  'rank_pattern': {},
  'target_parameters': None,
  'trainable_token_indices': None,
  'use_bdlora': None,
  'use_qalora': False,
  'velora_config': None,
}
_IGNORED = (  # whatever they say, the adapter computes the same
  # Who made it, when, for what, on which base.
  *('auto_mapping', 'base_model_name_or_path', 'inference_mode'),
  *('peft_version', 'revision', 'task_type'),
  # Of training: noise, memory, and how an initialization was found; which one
  # it was is in init_lora_weights.
  *('lora_dropout', 'runtime_config', 'merge_weights', 'corda_config'),
  *('eva_config', 'loftq_config', 'lora_ga_config'),
  # Which modules have an adapter: the names of the tensors say it.
  *('exclude_modules', 'layers_pattern', 'ensure_weight_tying'),
  # Details of what is off.
  *('megatron_core', 'qalora_group_size'),
)
# Where an adapter starts. The others take it out of the base's weights, which
# they change: on the base as it is published they compute something else.
_PLAIN_STARTS = (True, False, None, 'gaussian', 'eva', 'orthogonal')
_CONVERTED = ('pissa', 'olora', 'corda', 'lora_ga')


def keys(config: Config, target: str) -> dict[str, tuple]:
  """PEFT's name of each factor of a projection -> (side, index of the layer).

  Raises:
    UserError: PEFT has no name for it.
  """
  entry = names.table(config)[f'layers/{target}']
  if len(entry.stack) != 1:
    raise UserError(
      f'model.lora.targets holds {target!r}: PEFT has no adapters of single '
      'experts; export with --format=merged'
    )
  stem = 'base_model.model.' + entry.name.removesuffix('.weight')
  return {
    f'{stem.format(*index)}.lora_{side.upper()}.weight': (side, index)
    for index in np.ndindex(entry.stack)
    for side in 'ab'
  }


def save(
  folder,
  config: Config,
  adapter: dict,
  *,
  alpha: float,
  rslora: bool,
  base: str,
  revision: str | None = None,
) -> None:
  """Writes adapter_config.json and adapter_model.safetensors, in float32.

  Args:
    config: of the base model.
    adapter: its tree, the scale not in it.
    alpha, rslora: the scale as PEFT computes it: alpha / r or alpha / sqrt(r).
    base, revision: of the base model: a folder, or a Hub id and its revision.
  """
  tensors = {
    key: np.ascontiguousarray(np.asarray(ab[side][index], np.float32).T)
    for target, ab in adapter.items()
    for key, (side, index) in keys(config, target).items()
  }
  fields = {
    'peft_type': 'LORA',
    'peft_version': VERSION,
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'revision': revision,
    'inference_mode': True,
    'r': next(iter(adapter.values()))['a'].shape[-1],
    'lora_alpha': int(alpha) if alpha == int(alpha) else alpha,
    'use_rslora': rslora,
    'lora_dropout': 0.0,
    'init_lora_weights': True,
    'target_modules': sorted({key.split('.')[-3] for key in tensors}),
  }
  folder = pathlib.Path(folder)
  (folder / CONFIG).write_text(json.dumps(fields | _ONLY, indent=2) + '\n')
  files.write(folder / WEIGHTS, tensors)


def load(folder, config: Config) -> tuple[dict, float]:
  """Reads a PEFT folder: the adapter's tree and its scale.

  Raises:
    UserError: a file is missing or broken; the adapter is of another kind; or
      its keys are not exactly the two factors of each target in each layer.
  """
  folder = files.folder(folder)
  fields = _fields(folder / CONFIG)
  _check_weights(folder)
  found = files.read_header(folder / WEIGHTS)
  rank, targets = fields['r'], _targets(folder / CONFIG, config, fields, found)
  wanted, widths = {}, lora.widths(config)
  for target in targets:
    into, out = widths[target]
    for key, (side, _) in keys(config, target).items():
      wanted[key] = (rank, into) if side == 'a' else (out, rank)
  if problems := files.compare(found, wanted, folder / WEIGHTS, CONFIG):
    raise UserError(*problems)
  read = lambda target, side: [
    found[key][:].T.astype(np.float32)
    for key, (own, _) in keys(config, target).items()
    if own == side
  ]
  stacked = {
    target: {side: jnp.asarray(np.stack(read(target, side))) for side in 'ab'}
    for target in targets
  }
  scale = lora.scale(
    rank=rank,
    alpha=fields['lora_alpha'],
    rslora=bool(fields.get('use_rslora')),
  )
  return stacked, scale


def _check_weights(folder) -> None:
  """Refuses an adapter that is there as a pickle alone."""
  if (folder / 'adapter_model.bin').exists():
    if not (folder / WEIGHTS).exists():
      raise UserError(
        f'{folder / WEIGHTS}: not found; the folder holds adapter_model.bin, '
        'which is a pickle and can run code when opened: convert it, with PEFT '
        "and torch, by PeftModel.from_pretrained(base, 'folder')"
        ".save_pretrained('new')"
      )


def _fields(path) -> dict:
  try:
    fields = json.loads(path.read_text('utf-8'))
    size = fields['r'] > 0 and fields['lora_alpha'] > 0
    if fields['peft_type'] != 'LORA' or not size:
      raise ValueError('it must be LORA, with r and lora_alpha above 0')
  except (OSError, ValueError, KeyError, TypeError) as e:
    raise UserError(f'{path}: no readable LoRA config ({e!r})') from e
  if problems := [f'{path}: {each}' for each in _unlike(fields)]:
    raise UserError(*problems)
  return fields


def _unlike(fields):
  """A message for each field by which it is no plain LoRA adapter."""
  for name, value in fields.items():
    off = name in _OFF and (value == _OFF[name] or not value)
    if off or name in _READ or name in _IGNORED:
      continue
    if name in ('rank_pattern', 'alpha_pattern'):
      yield f'{name} is {value!r:.60}; one rank and alpha for all, please'
    elif name in _OFF:
      yield f'{name} is {value!r:.60}; supported: {_OFF[name]!r}'
    elif name != 'init_lora_weights':
      yield (
        f'{name} is {value!r:.60}, and it may change what the adapter computes:'
        ' ealign does not know it; if it changes nothing, remove it'
      )
    elif value not in _PLAIN_STARTS:
      yield f'{name} is {value!r:.60}: {_remedy(value)}'


def _remedy(start) -> str:
  changed = 'it starts from the weights of a base that it changes'
  if str(start).startswith(_CONVERTED):
    return (
      f'{changed}; convert it to plain LoRA with PEFT, by model.save_pretrained'
      "('new', path_initial_model_for_weight_conversion='the adapter as it was "
      "before training'), or merge it there and take the whole model"
    )
  return (
    f'{changed}; merge it with PEFT, by model.merge_and_unload()'
    ".save_pretrained('new'), and give the whole model as model.path"
  )


def _targets(path, config, fields, found) -> list[str]:
  """Our names of the projections that the config or, failing it, the keys say.

  A regular expression, or 'all-linear', leaves it to the keys.
  """
  table = names.table(config)
  ours = {
    table[f'layers/{x}'].name.split('.')[-2]: x for x in lora.widths(config)
  }
  listed = fields.get('target_modules')
  if not isinstance(listed, list):
    listed = {key.split('.')[-3] for key in found if key.count('.') > 2}
  modules = {name.rpartition('.')[2] for name in listed}
  unknown = sorted(modules - ours.keys())
  if unknown or not modules:
    raise UserError(
      f'{path}: target_modules is {sorted(modules)}; can be: {", ".join(ours)}'
    )
  return [name for module, name in ours.items() if module in modules]
