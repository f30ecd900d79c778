"""The safetensors files of a model folder: what is in them, row by row."""

import contextlib
import dataclasses
import errno
import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ealign.runtime.errors import UserError

_AGAIN = 'download or copy it again'
INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}


def folder(path) -> pathlib.Path:
  """The path of a model's folder, none of whose files is a pipe or a device.

  Raises:
    UserError: one is; reading it might never end.
  """
  path = pathlib.Path(path)
  for file in path.iterdir() if path.is_dir() else (path,):
    if file.exists() and not (file.is_file() or file.is_dir()):
      raise UserError(f'{file}: is no regular file; {_AGAIN}')
  return path


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor on disk; `tensor[a:b]` reads these rows and nothing else.

  Read, not mapped: the pages of a mapped file would count as our memory, and
  arrays that alias it would change with it.
  """

  path: pathlib.Path
  dtype: np.dtype | str  # its name in the file where it is none of DTYPES
  shape: tuple[int, ...]
  offset: int  # of its first byte in the file

  def __getitem__(self, rows: slice) -> np.ndarray:
    start, stop, _ = rows.indices(self.shape[0])
    width = math.prod(self.shape[1:]) * self.dtype.itemsize
    count, offset = (stop - start) * width, self.offset + start * width
    raw = np.fromfile(self.path, np.uint8, count, offset=offset)
    if raw.size != count:
      raise UserError(f'{self.path}: was cut off while it was read')
    return raw.view(self.dtype).reshape(-1, *self.shape[1:])


@contextlib.contextmanager
def opened(path: pathlib.Path, remedy=_AGAIN) -> Iterator[safe_open]:
  """A safetensors file, its lengths and offsets checked.

  Raises:
    UserError: no such file (with the remedy), or it is broken or cut off.
  """
  try:
    with safe_open(path, 'numpy') as file:
      yield file
  except FileNotFoundError as e:
    raise UserError(f'{path}: not found; {remedy}') from e
  except (OSError, SafetensorError, ValueError) as e:
    raise UserError(f'{path}: broken safetensors file ({e}); {_AGAIN}') from e


def read_header(path: pathlib.Path) -> dict[str, Tensor]:
  """The tensors of one safetensors file; errors are those of `opened`."""
  with opened(path), open(path, 'rb') as file:
    size = int.from_bytes(file.read(8), 'little')
    header = json.loads(file.read(size))
  header.pop('__metadata__', None)
  return {
    name: Tensor(
      path,
      DTYPES.get(entry['dtype'], entry['dtype']),
      tuple(entry['shape']),
      8 + size + entry['data_offsets'][0],
    )
    for name, entry in header.items()
  }


def read_folder(folder: pathlib.Path) -> tuple:
  """What a folder's model.safetensors, or the shards of its index, hold.

  Returns:
    the path of that file; tensors by name; problems, one for each missing or
    broken shard; the names of the tensors that the index says are in those.

  Raises:
    UserError: there is no safetensors file, or the index is broken.
  """
  single, index = folder / SINGLE, folder / INDEX
  if single.exists():
    return single, read_header(single), [], set()
  if not index.exists():
    raise UserError(f'{single}: {_absent(folder)}')
  tensors, problems, lost = {}, [], set()
  places = _read_index(index)
  for shard in sorted(set(places.values())):
    try:
      tensors |= read_header(folder / shard)
    except UserError as e:
      held = [name for name, place in places.items() if place == shard]
      lost |= set(held)
      problems.append(f'{e} (it holds {len(held)} of {len(places)} tensors)')
  return index, tensors, problems, lost


def _read_index(path) -> dict[str, str]:
  try:
    places = json.loads(path.read_text('utf-8'))['weight_map']
    if not all(pathlib.Path(p).name == p for p in set(places.values())):
      raise ValueError('a shard must be a plain file name')
    return places
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    message = f'no readable index of shards ({e!r}); {_AGAIN}'
    raise UserError(f'{path}: {message}') from e


def _absent(folder) -> str:
  if not any(folder.glob('*.bin')):
    return 'not found; save the model as safetensors'
  return (
    'not found; the folder holds .bin files only, which are pickles and can '
    'run code when opened: convert them, with transformers and torch, by '
    "AutoModelForCausalLM.from_pretrained(folder).save_pretrained('new')"
  )


def write(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  """Writes a safetensors file as transformers and PEFT do.

  Raises:
    OSError: it cannot be written.
  """
  try:
    save_file(tensors, path, metadata={'format': 'pt'})
  except SafetensorError as error:  # of the disk, too
    raise OSError(errno.EIO, str(error), str(path)) from None
  path.chmod(path.parent.stat().st_mode & 0o666)  # else others cannot read it


def compare(
  found: Mapping, wanted: Mapping[str, tuple[int, ...]], path, by: str
) -> list[str]:
  """All differences of tensors from the shapes wanted; [] if there is none.

  Args:
    found: name -> anything with shape and dtype, such as an array.
    wanted: name -> shape.
    path: the file that they should be in.
    by: the file that says so.

  Returns:
    a line for each file and kind of difference, with its remedy.
  """
  lines = {}  # (file, remedy, kind) -> {difference: names}

  def note(name, difference, remedy, kind=''):
    file = getattr(found.get(name), 'path', path)
    differences = lines.setdefault((file, remedy, kind), {})
    differences.setdefault(difference, []).append(name)

  other = f'it and {by} are not of one model: download or copy both again'
  plain = f'it must be one of {", ".join(DTYPES)}: save the model unquantized'
  for name in sorted(wanted.keys() - found.keys()):
    note(name, 'missing tensor {}', other, 'missing')
  for name in sorted(found.keys() - wanted.keys()):
    note(name, 'unexpected tensor {}', other, 'unexpected')
  for name in sorted(found.keys() & wanted.keys()):
    have, want = tuple(found[name].shape), wanted[name]
    if have != want:
      note(name, f'{{}} has shape {have}, {by}: {want}', other)
    if found[name].dtype not in DTYPES.values():
      note(name, f'{{}} is {found[name].dtype}', plain)
  return [
    f'{file}: {", ".join(_folded(differences))}; {remedy}'
    for (file, remedy, _), differences in lines.items()
  ]


def _folded(differences):
  return (
    difference.replace('{}', name)
    for difference, names in differences.items()
    for name in fold(names)
  )


def fold(names: Iterable[str]) -> list[str]:
  """Names that differ in their numbers alone as one: 'layers.{0-35}.mlp'."""
  rows = [tuple(re.split(r'(?<=\.)(\d+)(?=\.)', name)) for name in names]
  for place in (3, 1):  # the expert, then the layer
    groups = {}
    for row in rows:
      rest = (row[:place], row[place + 1 :])
      groups.setdefault(rest, []).extend(row[place : place + 1])
    rows = [
      (*head, _ranges(numbers), *tail) if numbers else head
      for (head, tail), numbers in groups.items()
    ]
  return [''.join(row) for row in rows]


def _ranges(numbers: list[str]) -> str:
  """'7' of one number, '{0-3,7}' of several."""
  runs = []
  for n in sorted(map(int, numbers)):
    if runs and n == runs[-1][1] + 1:
      runs[-1][1] = n
    else:
      runs.append([n, n])
  ranges = [f'{a}' if a == b else f'{a}-{b}' for a, b in runs]
  return ranges[0] if len(numbers) == 1 else f'{{{",".join(ranges)}}}'
