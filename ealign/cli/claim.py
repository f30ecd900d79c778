"""The folder of a run: taken for one config, refused to any other."""

import contextlib
import json
import pathlib

from ealign import config as config_lib
from ealign.runtime import atomic
from ealign.runtime.errors import UserError

# What a folder may hold that no run began in: a start that was killed, a plan,
# heartbeats.
_OWN = ('config.json', 'plan.json', 'hosts')


def claim(folder: pathlib.Path, config) -> None:
  """Makes the folder this config's, or refuses.

  Raises:
    UserError: it cannot be written, holds something else, or belongs to a
      config with other values; all that differ are named.
  """
  path = folder / 'config.json'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
      _check_same(folder, path, config)
    elif foreign := _foreign(folder):
      listed = ', '.join(foreign[:3]) + (', ...' if len(foreign) > 3 else '')
      said = f'is not empty ({listed}) and has no config.json'
      raise UserError(f'--workdir={folder}: {said}; use another folder')
    atomic.write(path, config_lib.to_json(config))
  except OSError as error:
    said = f'cannot be written ({error.strerror})'
    raise UserError(f'--workdir={folder}: {said}; use another folder') from None


def _foreign(folder) -> list[str]:
  names = [item.name for item in folder.iterdir()]
  return sorted(n for n in names if n not in _OWN and not n.startswith('.'))


def _check_same(folder, path, config) -> None:
  try:
    saved = json.loads(path.read_text())
    differences = config_lib.differences(saved, config)
  except (ValueError, AttributeError):
    said = 'is damaged; mend it, delete it together with the run'
    raise UserError(f'{path}: {said}, or use another workdir') from None
  if differences and not ('conscience' in saved and _untouched(folder)):
    said = 'belongs to a config that differs; use another folder'
    lines = '\n'.join(f'  {line}' for line in differences)
    raise UserError(f'--workdir={folder}: {said}\n{lines}')


def _untouched(folder) -> bool:
  """Whether no run got past its start there: then nothing can be lost."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return all({path.name, path.parent.name} & {*_OWN} for path in files)


def unclaim(folder) -> None:
  """Leaves nothing of a start that failed before it began."""
  if not folder.exists() or not _untouched(folder):
    return
  (folder / 'config.json').unlink(missing_ok=True)
  with contextlib.suppress(OSError):  # not ours alone: it is not empty
    folder.rmdir()
