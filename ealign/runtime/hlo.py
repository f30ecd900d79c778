"""The text of a compiled program: instructions, and how often loops run."""

import dataclasses
import math
import re
from collections.abc import Iterator

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


def called(op: Op, *names: str) -> Iterator[str]:
  """Computations that an attribute names, one or a list in braces."""
  for name in names:
    if match := re.search(rf'\b{name}=(\{{[^}}]*\}}|%[\w.\-]+)', op.rest):
      yield from _NAME.findall(match[1])


def trips(program, op, scope) -> int | None:
  """How often a loop runs: as the compiler notes it, or counted here.

  A loop that counts is `while i < bound` with a bound, a first value and a
  step that are constants; any other is None. scope: where the loop stands.
  """
  if match := _TRIPS.search(op.rest):
    return int(match[1])
  condition, body = (
    program[next(called(op, which))] for which in ('condition', 'body')
  )
  test, new = root_of(condition), root_of(body)
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


def root_of(ops) -> Op:
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
  root = root_of(scope.ops)
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
