"""A GGUF file: what it says of itself, and its tensors, row by row.

The header is read here, each length checked against the file: the package
`gguf` takes seconds for it, and has no end for a hostile one. The package knows
the kinds of blocks and turns them into numbers.
"""

import dataclasses
import functools
import math
import pathlib
import struct

import numpy as np

from ealign.runtime.errors import UserError

_AGAIN = 'download or copy it again'
_CODES = dict(enumerate('BbHhIif?')) | {10: 'Q', 11: 'q', 12: 'd'}
_TEXT, _ARRAY = 8, 9


@functools.cache
def package():
  """The package `gguf`.

  Raises:
    UserError: it is not installed.
  """
  try:
    import gguf
  except ImportError as e:
    raise UserError(
      'model.path: a GGUF file needs the package gguf; pip install '
      "'ealign[gguf]'"
    ) from e
  return gguf


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of the file; `tensor[a:b]` reads these rows, as float32.

  pairs: the height of a head, where its rows are stored as ggml turns them, in
  pairs of neighbours (0: they are not); less: what is taken off each number.
  """

  path: pathlib.Path
  kind: str  # as gguf.GGMLQuantizationType calls it
  shape: tuple[int, ...]
  offset: int  # of its first byte in the file
  pairs: int = 0
  less: float = 0.0
  dtype = np.dtype(np.float32)

  def __getitem__(self, rows: slice) -> np.ndarray:
    start, stop, _ = rows.indices(self.shape[0])
    height = self.pairs or 1
    first, last = start // height * height, -(-stop // height) * height
    x = self._read(first, last)
    if self.pairs:
      pairs = x.reshape(-1, height // 2, 2, *self.shape[1:])
      x = pairs.swapaxes(1, 2).reshape(x.shape)
    x = x[start - first : stop - first]
    return x - np.float32(self.less) if self.less else x

  def _read(self, first, last):
    width = row_bytes(self.kind, self.shape)
    raw = np.fromfile(
      self.path,
      np.uint8,
      (last - first) * width,
      offset=self.offset + first * width,
    )
    if raw.size != (last - first) * width:
      raise UserError(f'{self.path}: was cut off while it was read')
    g = package()
    x = g.quants.dequantize(
      raw.reshape(-1, width), getattr(g.GGMLQuantizationType, self.kind)
    )
    return x.astype(np.float32, copy=False).reshape(-1, *self.shape[1:])


def row_bytes(kind: str, shape) -> int:
  """Bytes of a row; a row is made of whole blocks."""
  g = package()
  block, size = g.GGML_QUANT_SIZES[getattr(g.GGMLQuantizationType, kind)]
  width = math.prod(shape[1:])
  if width % block:
    raise ValueError(f'rows of {width} numbers are not made of {kind} blocks')
  return width // block * size


def read(path: pathlib.Path) -> tuple[dict, dict[str, Tensor]]:
  """What a file says of itself, by key, and its tensors by name.

  Raises:
    UserError: no GGUF file, a broken or cut off one, or kinds of blocks that
      the package gguf does not know.
  """
  size = path.stat().st_size
  try:
    with open(path, 'rb') as file:
      return _read(path, file, size)
  except (OSError, ValueError, struct.error) as e:
    raise UserError(f'{path}: no readable GGUF file ({e}); {_AGAIN}') from e


def _read(path, file, size):
  def take(count):
    if count > size - file.tell():
      raise ValueError('it was cut off')
    return file.read(count)

  def number(code):
    found = struct.unpack(f'<{code}', take(struct.calcsize(f'<{code}')))[0]
    # 1e-6 was meant by the float32 that is nearest to it.
    return float(str(np.float32(found))) if code == 'f' else found

  def text():
    return str(take(number('Q')), 'utf-8')

  def value(kind):
    if kind == _TEXT:
      return text()
    if kind == _ARRAY:
      kind, count = number('I'), number('Q')
      if kind == _TEXT:
        return [text() for _ in range(count)]
      dtype = np.dtype(f'<{_CODES[kind]}')
      return np.frombuffer(take(count * dtype.itemsize), dtype).tolist()
    return number(_CODES[kind])

  def place():
    shape = struct.unpack(f'<{(n := number("I"))}Q', take(8 * n))[::-1]
    return shape, number('I'), number('Q')

  if take(4) != b'GGUF' or number('I') not in (2, 3):
    raise ValueError('it does not begin as versions 2 and 3 do')
  tensors, pairs = number('Q'), number('Q')
  try:
    said = {text(): value(number('I')) for _ in range(pairs)}
    places = {text(): place() for _ in range(tensors)}
  except KeyError as e:
    raise ValueError(f'a value has the unknown type {e}') from e
  align = said.get('general.alignment', 32)
  start = -(-file.tell() // align) * align
  return said, {
    name: _tensor(path, name, shape, kind, start + offset, size)
    for name, (shape, kind, offset) in places.items()
  }


def _tensor(path, name, shape, kind, offset, size) -> Tensor:
  try:
    kind = package().GGMLQuantizationType(kind).name
  except ValueError as e:
    raise UserError(
      f'{path}: {name} has blocks of the kind {kind}, which the installed '
      'package gguf does not know; update it, or take another file of the model'
    ) from e
  if offset + shape[0] * row_bytes(kind, shape) > size:
    raise ValueError('it was cut off')
  return Tensor(path, kind, shape, offset)
