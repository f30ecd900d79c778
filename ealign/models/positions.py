"""Where tokens are and how far they see: RoPE and windows of a config.json."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Scaling:
  """RoPE frequencies made lower for contexts longer than trained on.

  kind 'linear': all are divided by `factor`. 'llama3': those that turn less
  than `low` times in `original` positions are; those that turn more than
  `high` times stay, and between the two it goes over smoothly.
  """

  kind: str
  factor: float
  low: float = 1.0
  high: float = 4.0
  original: int = 8192


def is_size(value) -> bool:
  """Whether it is a whole number above 0."""
  return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_positive(value) -> bool:
  """Whether it is a finite number above 0."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 < value < math.inf


def unlike(field: str, value, wanted: str) -> str:
  """What is said of a field that has a value that is not supported."""
  return f'{field} is {value!r}; supported: {wanted}'


_SCALING = {  # rope_type: field of Scaling -> name in config.json
  'default': {},
  'linear': {'factor': 'factor'},
  'llama3': {
    'factor': 'factor',
    'low': 'low_freq_factor',
    'high': 'high_freq_factor',
    'original': 'original_max_position_embeddings',
  },
}


def read_rope(hf: dict, gemma: bool, problems: list) -> dict:
  """The fields of Config about RoPE; what is wrong goes to `problems`."""
  given = {k: hf.get(k) or {} for k in ('rope_scaling', 'rope_parameters')}
  new = given['rope_parameters']
  if gemma and 'full_attention' in new:  # one for each kind of layer
    given['rope_parameters'] = new['full_attention']
    given['sliding_attention'] = new.get('sliding_attention') or {}
  for name, value in given.items():
    if not isinstance(value, dict):
      problems.append(unlike(name, value, 'an object'))
      return {}
    if any(isinstance(x, dict) for x in value.values()):
      problems.append(unlike(name, value, 'one for all layers'))
      return {}
  old, new = (_with_type(given[k]) for k in ('rope_scaling', 'rope_parameters'))
  near = _with_type(given.get('sliding_attention', {}))
  rope = old | new
  wrong = [
    unlike(f'rope_scaling: {name}', old[name], f'{value!r}, as rope_parameters')
    for name, value in new.items()
    if old.get(name, value) != value
  ]
  kind = rope.get('rope_type', 'default')
  for name, value, wanted in [
    ('rope_type', kind, tuple(_SCALING)),
    ('rope_type', near.get('rope_type', 'default'), ('default',)),
    ('partial_rotary_factor', rope.get('partial_rotary_factor', 1.0), (1.0,)),
  ]:
    if value not in wanted:
      wrong.append(unlike(name, value, ', '.join(map(str, wanted))))
  names = {} if wrong else _SCALING[kind]
  theta = rope.get('rope_theta', hf.get('rope_theta', 1e6 if gemma else 1e4))
  near_theta = near.get('rope_theta', hf.get('rope_local_base_freq', 1e4))
  numbers = {name: rope.get(name) for name in names.values()}
  numbers |= {'rope_theta': theta, 'rope_local_base_freq': near_theta}
  wrong += [
    unlike(name, value, 'a number above 0')
    for name, value in numbers.items()
    if not is_positive(value)
  ]
  problems += wrong
  if wrong:
    return {}
  scaling = {field: rope[name] for field, name in names.items()}
  return {
    'rope_theta': float(theta),
    'rope_scaling': Scaling(kind, **scaling) if scaling else None,
    'local_rope_theta': float(near_theta) if gemma else 0.0,
  }


def _with_type(rope):
  """With the older spelling `type` of `rope_type` replaced."""
  rest = {k: v for k, v in rope.items() if k != 'type'}
  return {'rope_type': rope['type'], **rest} if 'type' in rope else rest


_KINDS = ('full_attention', 'sliding_attention')  # layer_types, by `local`
_MIXED = ('qwen2', 'qwen3', 'gemma3_text')  # those that read layer_types


def read_windows(hf: dict, family: str, layers, problems: list) -> dict:
  """The fields of Config about windows; what is wrong goes to `problems`."""
  windowed = family in ('mistral', 'gemma3_text')
  if family.startswith('qwen'):
    windowed = hf.get('use_sliding_window') or False
    if not isinstance(windowed, bool):
      problems.append(unlike('use_sliding_window', windowed, 'true or false'))
  sizes = {
    'sliding_window': hf.get('sliding_window', 4096),
    'sliding_window_pattern': hf.get('sliding_window_pattern', 6),
    'max_window_layers': hf.get('max_window_layers', 28),
  }
  if not windowed or (family == 'mistral' and sizes['sliding_window'] is None):
    sizes = {}
  wrong = [
    unlike(name, value, 'a whole number above 0')
    for name, value in sizes.items()
    if not is_size(value)
  ]
  problems += wrong
  if wrong or not is_size(layers):
    return {}
  if not sizes:
    local = [False] * layers
  elif family == 'gemma3_text':
    pattern = sizes['sliding_window_pattern']
    local = [(i + 1) % pattern > 0 for i in range(layers)]
  else:
    first = sizes['max_window_layers'] if family in _MIXED else 0
    local = [i >= first for i in range(layers)]
  kinds, given = [_KINDS[x] for x in local], hf.get('layer_types')
  if sizes and family in _MIXED and _is_types(given, layers):
    kinds = given
  if given and given != kinds:
    problems.append(unlike('layer_types', given, kinds))
  local = tuple(kind == _KINDS[1] for kind in kinds)
  return (
    {'window': sizes['sliding_window'], 'local': local} if any(local) else {}
  )


def _is_types(given, layers):
  return (
    isinstance(given, list)
    and len(given) == layers
    and all(kind in _KINDS for kind in given)
  )


def write_rope(config) -> dict:
  """The inverse of `read_rope`, in both spellings."""
  rope = {'rope_theta': config.rope_theta, 'rope_type': 'default'}
  old = {'rope_theta': config.rope_theta}
  if config.rope_scaling:
    kind = config.rope_scaling.kind
    scaling = {
      name: getattr(config.rope_scaling, field)
      for field, name in _SCALING[kind].items()
    }
    old['rope_scaling'] = {'rope_type': kind, **scaling}
    rope |= old['rope_scaling']
  if not config.traits.gemma:
    return {**old, 'rope_parameters': rope}
  near = {'rope_theta': config.local_rope_theta, 'rope_type': 'default'}
  return {
    **old,
    'rope_local_base_freq': config.local_rope_theta,
    'rope_parameters': {'full_attention': rope, 'sliding_attention': near},
    'query_pre_attn_scalar': config.query_scalar,
  }


def write_windows(config) -> dict:
  """The inverse of `read_windows`."""
  family, fields = config.family, {}
  if family.startswith('qwen'):
    fields['use_sliding_window'] = config.window > 0
  if family == 'mistral':  # where an absent window is one of 4096
    fields['sliding_window'] = config.window or None
  elif config.window or family == 'gemma3_text':
    fields['sliding_window'] = config.window or 4096
    if family in _MIXED:
      local = config.local or [False] * config.layers
      fields['layer_types'] = [_KINDS[x] for x in local]
  return fields
