"""A model by its name: a folder, a GGUF file, or an id of the Hub."""

import pathlib
import re

from ealign.models import files, gguf
from ealign.runtime.errors import UserError

# Weights, config, tokenizer, template; of the folder itself, not of folders in
# it, where some repositories keep the same weights once more.
WEIGHTS = 'model*.safetensors'
FILES = ('*.json', 'tokenizer*', '*.jinja', '*.txt')
_ID = re.compile(r'[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?')


def is_id(name: str) -> bool:
  """Whether it can only be meant as 'owner/name' or 'owner/name@revision'."""
  path = pathlib.Path(name)
  return bool(_ID.fullmatch(str(name))) and not path.parent.exists()


def split(name: str) -> tuple[str, str | None]:
  """'owner/name' and the revision, where one is given."""
  repository, _, revision = str(name).partition('@')
  return repository, revision or None


def fetch(name, *, weights: bool = True) -> pathlib.Path:
  """The folder of a model: the path itself, or a Hub id's files on disk.

  Of a GGUF file it is one in the cache that lays the file out (`gguf`).
  What is not in the cache yet is downloaded; HF_HOME, HF_HUB_OFFLINE and
  HF_TOKEN mean what they mean to `huggingface_hub`. Of a repository only
  safetensors, configs, tokenizer and template are fetched; without `weights`
  all but the first.

  Raises:
    UserError: there is no such model, no access to it, or no network; or a file
      in the folder is no regular one.
  """
  if gguf.is_file(name):
    return gguf.unpack(name)
  if not is_id(name):
    return files.folder(name)
  import huggingface_hub

  repository, revision = split(name)
  try:
    folder = huggingface_hub.snapshot_download(
      repository,
      revision=revision,
      allow_patterns=[*FILES, WEIGHTS] if weights else list(FILES),
      ignore_patterns=['*/*'],
    )
  except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as e:
    reason = str(e).strip().partition('\n')[0]
    raise UserError(
      f'{name}: there is no such folder, and it could not be had from the '
      f'Hub ({reason}); mend the name, set HF_TOKEN for a gated model, or '
      'unset HF_HUB_OFFLINE'
    ) from e
  return pathlib.Path(folder)
