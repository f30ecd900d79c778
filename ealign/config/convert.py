"""From a config file's ConfigDict to the frozen dataclasses the code is given.

A config file returns `default()` with some fields changed; `validate` lists
every problem of it at once; `freeze` turns it into a `fields.Config`.

`arms` is the one extra field of the ConfigDict: name -> {'dotted.field': value}
are runs that share the config but for these fields, and run one after another.
"""

import dataclasses
import json
import math
import re
import sys
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from ealign.config import limits, synonyms
from ealign.fields import Config, annotations
from ealign.kinds import bare
from ealign.runtime.errors import UserError

# Fields that may differ when a run is continued: they change no result.
_FREE = ('log.', 'train.log_every', 'train.export', 'conscience.audit')
# What lies beside the folders of arms.
_TAKEN = ('config.json', 'plan.json', 'grid.json', 'run.json', 'STATUS.json')
_TAKEN += ('report.html', 'report.md', 'results.csv', 'hosts', 'trash', 'LEASE')
_TAKEN += ('cells', 'prepared', 'DONE', 'answers.jsonl', 'metrics.jsonl')


def default() -> config_dict.ConfigDict:
  """The ConfigDict with every field at its default, for a config file."""
  # Dicts are kept as they are: as ConfigDicts the arms could have no dotted
  # keys, and would be sorted by name. A bare None could not be set by a flag.
  free = lambda value: config_dict.placeholder(str) if value is None else value
  made = lambda items: config_dict.ConfigDict({k: free(v) for k, v in items})
  config = config_dict.ConfigDict(convert_dict=False)
  for name, value in dataclasses.asdict(Config(), dict_factory=made).items():
    config[name] = value
  # Its default is text, and a number must be as welcome.
  either = config_dict.FieldReference(Config().conscience.threshold, object)
  config.conscience['threshold'] = either
  config.arms = {}
  return config


def field_types() -> dict[str, Any]:
  """Every dotted field name with its type."""
  return {name: bare(kind) for name, kind in annotations()}


def flatten(config: Any) -> dict[str, Any]:
  """Dotted names to values, of a ConfigDict, a Config or nested dicts."""
  if dataclasses.is_dataclass(config):
    config = dataclasses.asdict(config)
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping | config_dict.ConfigDict):
      flat |= {f'{name}.{key}': leaf for key, leaf in flatten(value).items()}
    else:
      flat[name] = value
  return flat


def structure(config: config_dict.ConfigDict) -> dict[str, str]:
  """Fields that are unknown, missing or of a wrong type, with the problem."""
  types, flat = field_types(), flatten(_without_arms(config))
  problems = {name: _unknown(name) for name in flat if name not in types}
  start = 'start from ealign.config.default()'
  for name, kind in types.items():
    section = name.partition('.')[0]
    if section != name and not any(n.startswith(f'{section}.') for n in flat):
      value = flat.get(section)  # told once, not for each of its fields
      problems[section] = f'{section}={value!r}: must be a section; {start}'
    elif name not in flat:
      problems[name] = f'{name}: missing; {start}'
    elif not _fits(flat[name], kind):
      problems[name] = f'{name}={flat[name]!r}: must be {type_name(kind)}'
  return problems


def _unknown(name: str) -> str:
  hint = synonyms.hint(name, field_types())
  return f'{name}: there is no such field.{hint}'


def _fits(value, kind) -> bool:
  if kind is Any:
    return isinstance(value, str | int | float | bool | None)
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, tuple | list):
      return False
    items = typing.get_args(kind)
    items = items[:1] * len(value) if items[-1] is ... else items
    return len(value) == len(items) and all(map(_fits, value, items))
  if kind in (int, float, float | str) and isinstance(value, bool):
    return False  # True is an int to Python
  if kind in (float, float | str) and isinstance(value, int):  # of any length
    return abs(value) <= sys.float_info.max
  return isinstance(value, kind)


_TYPE_NAMES = {
  int: 'a whole number',
  float: 'a number',
  str: 'text',
  bool: 'true or false',
  str | None: 'text or None',
  float | str: "a number or 'auto:ALPHA'",
  tuple[str, ...]: 'a tuple of texts',
  tuple[float, ...]: 'a tuple of numbers',
}
_PAIRS = "a tuple of pairs, such as (('enable_thinking', False),)"


def type_name(kind) -> str:
  """A field's type in words."""
  return _TYPE_NAMES.get(kind, _PAIRS)


def freeze(config: config_dict.ConfigDict) -> Config:
  """The config as frozen, hashable dataclasses.

  Raises:
    UserError: unknown or missing fields, values of a wrong type, or a config
      with arms (freeze each of `arms(config)`).
  """
  problems = list(structure(config).values())
  if config.get('arms'):
    problems.append('arms: freeze one of arms(config), not all at once')
  if problems:
    raise UserError(*problems)
  return _frozen(Config, config)


def from_json(text: str) -> Config:
  """The Config that `to_json` wrote; fields that are newer have defaults.

  Raises:
    UserError: it is no such text, or the config has arms.
  """
  try:
    saved = json.loads(text)
    flat = {synonyms.RENAMED.get(k, k): v for k, v in flatten(saved).items()}
    config, problems = apply_arm(default(), flat)
  except (ValueError, AttributeError) as error:
    raise UserError(f'not readable as the config of a run ({error})') from None
  if problems:
    raise UserError(*problems)
  return freeze(config)


def _frozen(section, config):
  value = lambda kind, x: (
    _frozen(kind, x) if dataclasses.is_dataclass(kind) else _cast(x, bare(kind))
  )
  fields = dataclasses.fields(section)
  return section(**{f.name: value(f.type, config[f.name]) for f in fields})


def _cast(value, kind):
  if isinstance(value, tuple | list):
    item = float if kind == tuple[float, ...] else None
    return tuple(_cast(x, item) for x in value)
  number = kind is float or (kind == float | str and isinstance(value, int))
  return float(value) if number else value


def _without_arms(config) -> config_dict.ConfigDict:
  single = config.copy_and_resolve_references()
  with single.unlocked():
    if 'arms' in single:
      del single['arms']
  return single


def apply_arm(config, overrides) -> tuple[config_dict.ConfigDict, list[str]]:
  """The config with the overrides of an arm or a level; their problems."""
  arm, types, problems = _without_arms(config), field_types(), []
  if not isinstance(overrides, Mapping | config_dict.ConfigDict):
    message = "must be a dict of fields such as {'dpo.lam': 0.3}"
    return arm, [f'{overrides!r}: {message}']
  for name, value in flatten(overrides).items():
    if name not in types:
      problems.append(_unknown(name))
      continue
    *path, last = name.split('.')
    holder = arm
    for part in path:
      holder = holder[part]
    with holder.ignore_type():  # `structure` reports types, all at once
      try:
        holder[last] = value
      except OverflowError:  # a whole number that no float holds
        holder[last] = math.inf if value > 0 else -math.inf
  return arm, problems


def arms(config: config_dict.ConfigDict) -> dict[str, config_dict.ConfigDict]:
  """Each arm's own config, in the order written; {} without arms."""
  result, problems = {}, []
  for name, overrides in config.get('arms', {}).items():
    result[name], found = apply_arm(config, overrides)
    problems += [f'arm {name!r}: {problem}' for problem in found]
  if problems:
    raise UserError(*problems)
  return result


def validate(
  config: config_dict.ConfigDict, *, grid: bool = False
) -> list[str]:
  """Every problem of the config and of all its arms; [] when it is sound.

  A problem of all arms is reported once, a problem of some names these arms.
  grid: whether the config is that of a cell of a grid.
  """
  if not config.get('arms'):
    return _problems(config, grid=grid)
  found, earlier = {}, []
  for name, overrides in config.arms.items():
    arm, problems = apply_arm(config, overrides)
    if not re.fullmatch(r'[A-Za-z0-9][\w.+-]{0,99}', str(name)):
      problems.append(f'name {name!r}: must be a plain folder name')
    if not isinstance(name, str) or name in _TAKEN:
      problems.append(f'name {name!r}: must be text that names no file there')
    for problem in problems + _problems(arm, earlier):
      found.setdefault(problem, []).append(name)
    earlier.append(name)
  return [
    problem
    if len(names) == len(earlier) > 1
    else f'arm {", ".join(map(repr, names))}: {problem}'
    for problem, names in found.items()
  ]


def _problems(config, earlier_arms=(), *, grid=False) -> list[str]:
  broken = structure(config)
  flat = flatten(_without_arms(config))
  # A broken field stands at its default, so that the rest is checked as well.
  sound = {n: value for n, value in flat.items() if n not in broken}
  whole = flatten(Config()) | sound
  found = limits.problems(whole, earlier_arms, grid=grid)
  aside = tuple(broken)
  return [*broken.values(), *(p for p in found if not p.startswith(aside))]


def to_json(config: Any) -> str:
  """The config (ConfigDict or Config) as JSON text, tuples as lists."""
  as_dict = lambda x: (
    dataclasses.asdict(x) if dataclasses.is_dataclass(x) else x.to_dict()
  )
  return json.dumps(config, indent=2, default=as_dict) + '\n'


def results(config: Any) -> dict[str, Any]:
  """Dotted names to plain values of the fields that change results."""
  flat = flatten(json.loads(to_json(config)))
  return {
    synonyms.RENAMED.get(name, name): value
    for name, value in flat.items()
    if not name.startswith(_FREE)
  }


def differences(old: Any, new: Any) -> list[str]:
  """'field: old -> new' for each field that differs and changes results.

  Both may be a ConfigDict, a Config or what was read from config.json. A field
  that is not in an old file, because it is newer, stands at its default.
  """
  usual, lines = results(Config()), []
  old, new = usual | results(old), usual | results(new)
  for name in sorted(old.keys() | new.keys()):
    was, now = old.get(name, '(absent)'), new.get(name, '(absent)')
    if was != now:
      lines.append(f'{name}: {was} -> {now}')
  return lines
