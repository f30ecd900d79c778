"""What a compiled program does on one chip, counted from its HLO text.

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
from collections.abc import Iterator

COLLECTIVES = (
  *('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all'),
  *('collective-permute', 'ragged-all-to-all', 'collective-broadcast'),
)
_NO_BYTES = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
  *('while', 'conditional', 'call', 'after-all', 'partition-id', 'iota'),
  *('replica-id', 'opt-barrier', 'broadcast'),
}
_WIDTH = {'pred': 1, 'token': 0}  # bytes; others say their bits in the name
_HEAD = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(')
_LINE = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = ')
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape: dtype, dimensions, whether it lies in HBM."""

  dtype: str
  dims: tuple[int, ...]
  in_hbm: bool = True

  @property
  def bytes(self) -> float:
    bits = re.search(r'\d+', self.dtype)
    width = int(bits[0]) / 8 if bits else 1
    return math.prod(self.dims) * _WIDTH.get(self.dtype, width)


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction: its name, kind, arrays of the result, operands, rest."""

  name: str
  kind: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  rest: str
  root: bool = False


@dataclasses.dataclass(frozen=True)
class Scope:
  """Instructions of a computation, and the loop whose body they are."""

  ops: dict[str, Op]
  outer: 'Scope | None' = None
  loop: Op | None = None


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

  @property
  def collective_bytes(self) -> float:
    return sum(self.collectives.values())


def count(text: str, *, unknown: int = 1) -> Counts:
  """Counts a program.

  Args:
    text: `compiled.as_text()`.
    unknown: trips of a loop that ends when its data says so.
  """
  program, entry = parse(text)
  walk = _Walk(program, unknown)
  walk(Scope(program[entry]), 1)
  return walk.finish()


def parse(text: str) -> tuple[dict[str, dict[str, Op]], str]:
  """Computations by name, each its instructions by name; and the entry's."""
  program, entry, ops, last = {}, '', None, ''
  for line in text.splitlines():
    if ops is None:
      head = _HEAD.match(line) if line.endswith('{') else None
      if head:
        ops = program[head[1]] = {}
        entry = head[1] if line.startswith('ENTRY') else entry
    elif line == '}' or line.startswith('}, execution_thread'):
      ops = None
    elif match := _LINE.match(line):
      op = _op(line[match.end() :], match[2], bool(match[1]))
      ops[op.name], last = op, op.name
    elif last in ops:  # an attribute that holds a line break
      op = ops[last]
      ops[last] = dataclasses.replace(op, rest=op.rest + line)
  return program, entry


def _op(text, name, root) -> Op:
  end = _close(text) if text.startswith('(') else text.index(' ')
  shape, text = text[:end], text[end:].lstrip()
  kind, _, text = text.partition('(')
  end = _close('(' + text) - 1
  # A constant's operand is its value, a parameter's its number.
  inside = text[: end - 1]
  operands = tuple(_NAME.findall(inside)) or (inside,)
  return Op(name, kind, _arrays(shape), operands, text[end:], root)


def _close(text: str) -> int:
  """Index behind the parenthesis that closes the first one."""
  depth = 0
  for match in re.finditer(r'[()]', text):
    depth += 1 if match[0] == '(' else -1
    if not depth:
      return match.end()
  return len(text)


def _arrays(shape: str) -> tuple[Array, ...]:
  dims = lambda text: tuple(int(d.lstrip('<=')) for d in text.split(',') if d)
  return tuple(
    Array(m[1], dims(m[2]), not re.search(r'S\([1-9]', m[3] or ''))
    for m in _ARRAY.finditer(shape)
  )


def _called(op: Op, *names: str) -> Iterator[str]:
  """Computations that an attribute names, one or a list in braces."""
  for name in names:
    if match := re.search(rf'\b{name}=(\{{[^}}]*\}}|%[\w.\-]+)', op.rest):
      yield from _NAME.findall(match[1])


@dataclasses.dataclass
class _Walk:
  """Goes through a program and adds up what each instruction costs."""

  program: dict
  unknown: int
  counts: Counts = dataclasses.field(default_factory=Counts)
  spread: dict[str, tuple] = dataclasses.field(default_factory=dict)

  def __call__(self, scope: Scope, times: int, fused: bool = False) -> None:
    for op in scope.ops.values():
      self.add(op, scope, times, fused)
      if op.kind == 'while':
        trips = _trips(self.program, op, scope)
        self.counts.unknown += trips is None
        trips = self.unknown if trips is None else trips
        for body in _called(op, 'body'):
          self(Scope(self.program[body], scope, op), times * trips)
      elif op.kind == 'conditional':
        self.dearest(op, times)
      elif op.kind in ('fusion', 'call', 'async-start'):
        for body in _called(op, 'calls', 'to_apply', 'called_computations'):
          inner = fused or op.kind == 'fusion'
          self(Scope(self.program[body], scope), times, inner)

  def add(self, op: Op, scope: Scope, times: int, fused: bool) -> None:
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

  def send(self, op: Op, times: int) -> None:
    kind, size = op.kind.removesuffix('-start'), _sent(op)
    self.counts.collectives[kind] += times * size
    if kind == 'all-gather':
      self.counts.gathered.append((size, times))

  def finish(self) -> Counts:
    """The counts, with the transfers that are spread over fusions."""
    for op, times in self.spread.values():
      self.send(op, times)
      self.counts.hbm_bytes += times * _sent(op)
    self.spread.clear()
    return self.counts

  def dearest(self, op: Op, times: int) -> None:
    """A conditional costs what its dearest branch does."""
    names = ('branch_computations', 'true_computation', 'false_computation')
    found = []
    for branch in _called(op, *names):
      walk = _Walk(self.program, self.unknown)
      walk(Scope(self.program[branch]), times)
      found.append(walk.finish())
    best = max(found, key=lambda c: (c.flops, c.hbm_bytes))
    for field in dataclasses.fields(Counts):
      old = getattr(self.counts, field.name)
      setattr(self.counts, field.name, old + getattr(best, field.name))


def _trips(program, op, scope) -> int | None:
  """How often a loop runs: as the compiler notes it, or counted here.

  A loop that counts is `while i < bound` with a bound, a first value and a
  step that are constants; any other is None. scope: where the loop stands.
  """
  if match := _TRIPS.search(op.rest):
    return int(match[1])
  condition, body = (
    program[next(_called(op, which))] for which in ('condition', 'body')
  )
  test, new = _root(condition), _root(body)
  if test.kind != 'compare' or 'direction=LT' not in test.rest:
    return None
  inside = lambda ops: Scope(ops, scope, op)
  index = _index(condition[test.operands[0]])
  bound = _value(inside(condition), test.operands[1])
  if index is None or bound is None:
    return None
  step = _copied(body, new.operands[index])
  sides = [_value(inside(body), name) for name in step.operands]
  by = next((side for side in sides if side), None)
  first = _passed(inside(body), index)
  if step.kind != 'add' or first is None or not by:
    return None
  return max(0, -(-(bound - first) // by))


def _copied(ops, name) -> Op:
  """The instruction whose value it is, behind copies of it."""
  op = ops[name]
  while op.kind in ('copy', 'copy-start', 'copy-done', 'bitcast', 'convert'):
    op = ops[op.operands[0]]
  return op


def _root(ops) -> Op:
  return next(op for op in ops.values() if op.root)


def _index(op: Op) -> int | None:
  """Which element of the loop's state an instruction reads."""
  match = re.search(r'index=(\d+)', op.rest)
  return int(match[1]) if match and op.kind == 'get-tuple-element' else None


def _value(scope: Scope, name: str) -> int | None:
  """A whole number known at compile time, also if loops pass it on."""
  op = _copied(scope.ops, name)
  if op.kind == 'constant':
    return int(op.operands[0]) if op.operands[0].lstrip('-').isdigit() else None
  index = _index(op)
  if index is None or scope.loop is None:
    return None
  root = _root(scope.ops)
  if root.kind == 'tuple':
    if _index(_copied(scope.ops, root.operands[index])) != index:
      return None  # the body changes it
  return _passed(scope, index)


def _passed(scope: Scope, index: int) -> int | None:
  """What a loop starts with as one element of its state."""
  start = scope.outer.ops[scope.loop.operands[0]]
  if start.kind != 'tuple':
    return None
  return _value(scope.outer, start.operands[index])


def _flops(op: Op, ops) -> float:
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
    field = lambda key, default, i=i: fields.get(key, default).split('x')[i]
    ones = 'x'.join(['1'] * len(spatial))
    total *= _overlap(
      inputs=size(left, labels[1], axis),
      outputs=size(result, labels[3], axis),
      kernel=size(right, labels[2], axis),
      stride=int(field('stride', ones)),
      low=int(field('pad', ones.replace('1', '0_0')).split('_')[0]),
      spread=int(field('lhs_dilate', ones)),
      reach=int(field('rhs_dilate', ones)),
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


def _sent(op: Op) -> float:
  """Bytes of a collective's result; `-start` returns its operand as well."""
  arrays = op.arrays
  if op.kind.endswith('-start') and op.kind != 'all-reduce-start':
    inputs = len(op.operands)
    arrays = arrays[inputs : 2 * inputs]
  return sum(array.bytes for array in arrays)


def _traffic(program, op: Op, ops) -> float:
  """HBM bytes that an instruction reads and writes."""
  if op.kind in _NO_BYTES or op.kind.endswith(('-done', '-update')):
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
  result = op.arrays[: len(op.operands)] if '-start' in op.kind else op.arrays
  return held(result) + sum(map(of, op.operands))


def _fused(program, op: Op, ops, held) -> float:
  """Of a fusion: its operands, as far as they are used, and its result."""
  inside = program[next(_called(op, 'calls'))]
  root = _root(inside)
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


def _read(program, inside, array: Op) -> float:
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
    elif use.kind == 'bitcast':
      total += _read(program, inside, use)
    elif use.kind == 'fusion':
      within = program[next(_called(use, 'calls'))]
      number = str(use.operands.index(array.name))
      total += sum(
        _read(program, within, inner)
        for inner in within.values()
        if inner.kind == 'parameter' and inner.operands[0] == number
      )
    elif not (use.kind == 'dynamic-update-slice' and first):
      return math.inf
  return total
