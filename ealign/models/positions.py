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


FORMS = {  # by the type of a field: what its value must be
  int: (is_size, 'a whole number above 0'),
  bool: (lambda value: isinstance(value, bool), 'true or false'),
  float: (is_positive, 'a number above 0'),
}


def misformed(values: dict, kind: type) -> list[str]:
  """A message for each field whose value is not of the wanted form."""
  right, wanted = FORMS[kind]
  return [unlike(k, v, wanted) for k, v in values.items() if not right(v)]


def unlike(field: str, value, wanted: str) -> str:
  """The message for a field whose value is not supported."""
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


FIELDS = (  # of config.json, that are read here
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'rope_local_base_freq',
  'layer_types',
)


def read_rope(hf: dict, traits, problems: list) -> dict:
  """The fields of Config about RoPE; what is wrong goes to `problems`."""
  parts = _rope_parts(hf, traits.local_rope)
  if wrong := list(_nested(parts)):
    problems += wrong
    return {}
  old, new, near = map(_with_type, parts.values())
  rope = old | new
  wrong = list(_unsupported(old, new, near))
  kind = rope.get('rope_type', 'default')
  names = {} if wrong else _SCALING[kind]
  theta = rope.get('rope_theta', hf.get('rope_theta', traits.rope_theta))
  near_theta = near.get('rope_theta', hf.get('rope_local_base_freq', 1e4))
  numbers = {name: rope.get(name) for name in names.values()}
  numbers |= {'rope_theta': theta, 'rope_local_base_freq': near_theta}
  wrong += misformed(numbers, float)
  problems += wrong
  if wrong:
    return {}
  scaling = {field: rope[name] for field, name in names.items()}
  return {
    'rope_theta': float(theta),
    'rope_scaling': Scaling(kind, **scaling) if scaling else None,
    'local_rope_theta': float(near_theta) if traits.local_rope else 0.0,
  }


def _rope_parts(hf, local_rope) -> dict:
  """The RoPE parameters by the name of their field.

  Those of all layers in the old and the new spelling, then those of local ones.
  """
  parts = {k: hf.get(k) or {} for k in ('rope_scaling', 'rope_parameters')}
  new, near = parts['rope_parameters'], {}
  if local_rope and 'full_attention' in new:  # one for each kind of layer
    parts['rope_parameters'] = new['full_attention']
    near = new.get('sliding_attention') or {}
  return parts | {'sliding_attention': near}


def _nested(parts):
  """Messages for RoPE parameters that are not one flat JSON object."""
  for name, value in parts.items():
    if not isinstance(value, dict):
      yield unlike(name, value, 'an object')
    elif any(isinstance(x, dict) for x in value.values()):
      yield unlike(name, value, 'one for all layers')


def _unsupported(old, new, near):
  """Where the two spellings differ, and kinds of RoPE that are not ours."""
  for name, value in new.items():
    if old.get(name, value) != value:
      wanted = f'{value!r}, as rope_parameters'
      yield unlike(f'rope_scaling: {name}', old[name], wanted)
  rope = old | new
  for name, value, wanted in [
    ('rope_type', rope.get('rope_type', 'default'), tuple(_SCALING)),
    ('rope_type', near.get('rope_type', 'default'), ('default',)),
    ('partial_rotary_factor', rope.get('partial_rotary_factor', 1.0), (1.0,)),
  ]:
    if value not in wanted:
      yield unlike(name, value, ', '.join(map(str, wanted)))
  for part in rope, near:
    # What a kind has in its table, it reads; none reads anything else.
    known = {'rope_type', 'rope_theta', 'partial_rotary_factor'}
    known |= {n for names in _SCALING.values() for n in names.values()}
    for name in sorted(part.keys() - known):
      if part[name] is not None:
        yield unlike(f'RoPE: {name}', part[name], 'no such parameter')


def _with_type(rope):
  """With the older spelling `type` of `rope_type` replaced."""
  rest = {k: v for k, v in rope.items() if k != 'type'}
  return {'rope_type': rope['type'], **rest} if 'type' in rope else rest


_KINDS = ('full_attention', 'sliding_attention')  # layer_types, by `local`


def read_windows(hf: dict, traits, layers, problems: list) -> dict:
  """The fields of Config about windows; what is wrong goes to `problems`."""
  windowed = traits.windows != 'none'
  if traits.windows == 'switch':
    windowed = hf.get('use_sliding_window') or False
    problems += misformed({'use_sliding_window': windowed}, bool)
  defaults = {
    'sliding_window': 4096,
    'sliding_window_pattern': 6,
    'max_window_layers': 28,
  }
  sizes = {name: hf.get(name, value) for name, value in defaults.items()}
  null = traits.windows == 'unless_null' and sizes['sliding_window'] is None
  if not windowed or null:
    sizes = {}
  wrong = misformed(sizes, int)
  problems += wrong
  if wrong or not is_size(layers):
    return {}
  kinds = [_KINDS[x] for x in _local(traits, sizes, layers)]
  given = hf.get('layer_types')
  if sizes and traits.layer_types and _is_types(given, layers):
    kinds = given
  if given and given != kinds:
    problems.append(unlike('layer_types', given, kinds))
  local = tuple(kind == _KINDS[1] for kind in kinds)
  window = {'window': sizes.get('sliding_window'), 'local': local}
  return window if any(local) else {}


def _local(traits, sizes, layers):
  """By layer, whether it is local where `layer_types` does not say so."""
  if not sizes:
    return [False] * layers
  if traits.windows == 'pattern':
    pattern = sizes['sliding_window_pattern']
    return [(i + 1) % pattern > 0 for i in range(layers)]
  first = sizes['max_window_layers'] if traits.layer_types else 0
  return [i >= first for i in range(layers)]


def _is_types(given, layers):
  several = isinstance(given, list) and len(given) == layers
  return several and all(kind in _KINDS for kind in given)


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
  if not config.traits.local_rope:
    return {**old, 'rope_parameters': rope}
  near = {'rope_theta': config.local_rope_theta, 'rope_type': 'default'}
  return {
    **old,
    'rope_local_base_freq': config.local_rope_theta,
    'rope_parameters': {'full_attention': rope, 'sliding_attention': near},
  }


def write_windows(config) -> dict:
  """The inverse of `read_windows`."""
  traits, fields = config.traits, {}
  if traits.windows == 'switch':
    fields['use_sliding_window'] = config.window > 0
  if traits.windows == 'unless_null':  # there an absent window is one of 4096
    fields['sliding_window'] = config.window or None
  elif config.window or traits.windows == 'pattern':
    fields['sliding_window'] = config.window or 4096
    if traits.layer_types:
      local = config.local or [False] * config.layers
      fields['layer_types'] = [_KINDS[x] for x in local]
  return fields
