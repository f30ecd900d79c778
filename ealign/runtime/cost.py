"""What a compiled program costs on one chip, counted from its HLO text.

XLA's own `cost_analysis` counts the body of a loop once, so its figures cannot
be compared between programs that loop differently; here every body counts as
often as it runs. Nothing is executed.

  FLOPs        of matrix products: dots and convolutions (a TPU has no dots)
  collectives  bytes of the result shapes, by kind
  HBM bytes    read and written by what is not fused, an estimate: a slice
               counts as itself, what stays on the chip (`S(1)`) not at all
  kernels      Pallas kernels, whose insides are not in the text
"""

import collections
import dataclasses
import math
import re

from ealign.runtime import hlo

COLLECTIVES = (
  *('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all'),
  *('collective-permute', 'ragged-all-to-all', 'collective-broadcast'),
)
_NO_BYTES = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
  *('while', 'conditional', 'call', 'after-all', 'partition-id', 'iota'),
  *('replica-id', 'opt-barrier', 'broadcast'),
}


@dataclasses.dataclass
class Counts:
  """Per chip and run of the program.

  Attributes:
    flops: of matrix products, two for each multiply-add.
    hbm_bytes: read and written, an estimate.
    collectives: bytes of result shapes by kind.
    kernels: how often each Pallas kernel runs.
    unknown: loops whose trip count the text does not tell.
    gathered: (bytes, times run) of each all-gather.
    transfers: how often collectives run, all together.
  """

  flops: float = 0.0
  hbm_bytes: float = 0.0
  collectives: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  kernels: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  unknown: int = 0
  gathered: list = dataclasses.field(default_factory=list)
  transfers: int = 0

  @property
  def collective_bytes(self) -> float:
    return sum(self.collectives.values())


def count(text: str, *, unknown: int = 1) -> Counts:
  """Counts a program.

  Args:
    text: `compiled.as_text()`.
    unknown: trips of a loop that ends when its data says so.
  """
  program, entry = hlo.parse(text)
  return _Walk(program, unknown).total(program[entry], 1)


@dataclasses.dataclass
class _Walk:
  """Goes through a program and adds up what each instruction costs."""

  program: dict
  unknown: int
  counts: Counts = dataclasses.field(default_factory=Counts)
  spread: dict[str, tuple] = dataclasses.field(default_factory=dict)

  def total(self, ops: dict[str, hlo.Op], times: int) -> Counts:
    """The counts of a computation, transfers spread over fusions included."""
    self(hlo.Scope(ops), times)
    for op, sent in self.spread.values():
      self.send(op, sent)
      self.counts.hbm_bytes += sent * _sent(op)
    return self.counts

  def __call__(self, scope: hlo.Scope, times: int, fused: bool = False) -> None:
    for op in scope.ops.values():
      self.add(op, scope, times, fused)
      if op.kind == 'while':
        trips = hlo.trips(self.program, op, scope)
        self.counts.unknown += trips is None
        trips = self.unknown if trips is None else trips
        for body in hlo.called(op, 'body'):
          self(hlo.Scope(self.program[body], scope, op), times * trips)
      elif op.kind == 'conditional':
        self.dearest(op, times)
      elif op.kind in ('fusion', 'call', 'async-start'):
        for body in hlo.called(op, 'calls', 'to_apply', 'called_computations'):
          inner = fused or op.kind == 'fusion'
          self(hlo.Scope(self.program[body], scope), times, inner)

  def add(self, op: hlo.Op, scope: hlo.Scope, times: int, fused: bool) -> None:
    counts, kind = self.counts, op.kind.removesuffix('-start')
    if op.kind in ('dot', 'convolution'):
      counts.flops += times * _flops(op, scope.ops)
    if kind in COLLECTIVES and fused:
      # One transfer, spread over the fusions that hide it; some of them may
      # stand in a loop around which it is sent once.
      channel = re.search(r'channel_id=(\d+)', op.rest)
      key = channel[1] if channel else op.name
      known = self.spread.get(key, (op, times))
      self.spread[key] = op, min(times, known[1])
    elif kind in COLLECTIVES:
      self.send(op, times)
    elif op.kind == 'custom-call' and 'tpu_custom_call' in op.rest:
      counts.kernels[op.name.rstrip('.0123456789')] += times
    if not fused:
      counts.hbm_bytes += times * _traffic(self.program, op, scope.ops)

  def send(self, op: hlo.Op, times: int) -> None:
    kind, size = op.kind.removesuffix('-start'), _sent(op)
    self.counts.collectives[kind] += times * size
    self.counts.transfers += times
    if kind == 'all-gather':
      self.counts.gathered.append((size, times))

  def dearest(self, op: hlo.Op, times: int) -> None:
    """Counts a conditional as its most expensive branch."""
    names = ('branch_computations', 'true_computation', 'false_computation')
    found = [
      _Walk(self.program, self.unknown).total(self.program[branch], times)
      for branch in hlo.called(op, *names)
    ]
    best = max(found, key=lambda c: (c.flops, c.hbm_bytes))
    for field in dataclasses.fields(Counts):
      old = getattr(self.counts, field.name)
      setattr(self.counts, field.name, old + getattr(best, field.name))


def _flops(op: hlo.Op, ops) -> float:
  result = op.arrays[0].dims
  left, right = (ops[name].arrays[0].dims for name in op.operands[:2])
  if op.kind == 'dot':
    axes = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', op.rest)
    axes = [int(axis) for axis in axes[1].split(',') if axis]
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in axes)
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', op.rest)
  size = lambda dims, names, axis: dims[names.index(axis)]
  total = 2.0 * size(result, labels[3], 'b') * size(result, labels[3], 'f')
  total *= size(right, labels[2], 'i')
  window = re.search(r'window=\{([^}]*)\}', op.rest)
  fields = dict(f.split('=') for f in window[1].split()) if window else {}
  spatial = sorted(label for label in labels[3] if label.isdigit())
  for i, axis in enumerate(spatial):
    every = {key: value.split('x')[i] for key, value in fields.items()}
    total *= _overlap(
      inputs=size(left, labels[1], axis),
      outputs=size(result, labels[3], axis),
      kernel=size(right, labels[2], axis),
      stride=int(every.get('stride', 1)),
      low=int(every.get('pad', '0').split('_')[0]),
      spread=int(every.get('lhs_dilate', 1)),
      reach=int(every.get('rhs_dilate', 1)),
    )
  return total


def _overlap(*, inputs, outputs, kernel, stride, low, spread, reach) -> int:
  """Pairs (output, kernel place) that meet an input and no padding."""
  last = (inputs - 1) * spread
  places = (
    out * stride + k * reach - low
    for out in range(outputs)
    for k in range(kernel)
  )
  return sum(0 <= place <= last and place % spread == 0 for place in places)


def _sent(op: hlo.Op) -> float:
  """Bytes of a collective's result."""
  return sum(array.bytes for array in _result(op))


def _result(op: hlo.Op) -> tuple[hlo.Array, ...]:
  """The arrays of a result; most of `-start` return their operands as well."""
  if not op.kind.endswith('-start') or op.kind == 'all-reduce-start':
    return op.arrays
  inputs = len(op.operands)
  return op.arrays[inputs : 2 * inputs]


def _traffic(program, op: hlo.Op, ops) -> float:
  """HBM bytes that an instruction reads and writes."""
  if op.kind in _NO_BYTES or op.kind.endswith(('-done', '-update')):
    return 0.0
  if op.kind == 'async-start':  # what it calls is counted
    return 0.0
  held = lambda arrays: sum(a.bytes for a in arrays if a.in_hbm)
  of = lambda name: held(ops[name].arrays) if name in ops else 0.0
  if op.kind == 'fusion':
    return _fused(program, op, ops, held)
  if op.kind in ('dynamic-slice', 'gather', 'slice', 'slice-start'):
    piece = op.arrays[-2:-1] if op.kind == 'slice-start' else op.arrays
    return held(piece) + sum(array.bytes for array in piece)
  if op.kind in ('dynamic-update-slice', 'scatter'):
    return 2 * of(op.operands[-1 if op.kind == 'scatter' else 1])
  result = op.arrays[:1] if op.kind == 'copy-start' else _result(op)
  return held(result) + sum(map(of, op.operands))


def _fused(program, op: hlo.Op, ops, held) -> float:
  """Of a fusion: its operands, as far as they are used, and its result."""
  inside = program[next(hlo.called(op, 'calls'))]
  root = hlo.root_of(inside)
  results = [inside[n] for n in root.operands] if root.kind == 'tuple' else []
  total = held(op.arrays)
  for array, made in zip(op.arrays, results, strict=False):
    if made.kind in _PASSED:
      total -= held([array])
  for inner in inside.values():
    if inner.kind == 'dynamic-update-slice':
      # In place: not the whole array is written but what is new.
      array, piece = inner.arrays[0], inside[inner.operands[1]].arrays[0]
      if array.dims in [a.dims for a in op.arrays if a.in_hbm]:
        total += piece.bytes - array.bytes
    elif inner.kind == 'parameter':
      arrays = ops[op.operands[int(inner.operands[0])]].arrays
      total += min(held(arrays), _read(program, inside, inner))
  return total


# What a fusion with a transfer only hands on: the transfer's bytes are counted.
_PASSED = {'parameter', 'custom-call', 'tuple', *COLLECTIVES}


def _in_place(use: hlo.Op, array: hlo.Op) -> bool:
  """Whether a fusion is the array itself, in another tiling."""
  if use.kind != 'fusion' or use.root:
    return False
  at = re.search(r'output_to_operand_aliasing=\{\{\}: \((\d+), ', use.rest)
  return bool(at) and use.operands[int(at[1])] == array.name


def _read(program, inside, array: hlo.Op) -> float:
  """Bytes that a fused computation reads of an array in it."""
  if array.root:  # handed on in another shape: who takes it reads all of it
    return math.inf
  total = 0.0
  for use in inside.values():
    if array.name not in use.operands or use.kind in _PASSED:
      continue
    first = use.operands[0] == array.name
    if use.kind in ('dynamic-slice', 'slice', 'gather') and first:
      total += use.arrays[0].bytes
    elif use.kind == 'bitcast' or _in_place(use, array):
      total += _read(program, inside, use)
    elif use.kind == 'fusion':
      within = program[next(hlo.called(use, 'calls'))]
      number = str(use.operands.index(array.name))
      total += sum(
        _read(program, within, inner)
        for inner in within.values()
        if inner.kind == 'parameter' and inner.operands[0] == number
      )
    elif not (use.kind == 'dynamic-update-slice' and first):
      return math.inf
  return total
