"""What runs in the sandbox: the program in one process, its tests in another.

  library --- code -------> program ---.
     |                        ^        | values, as plain JSON
     |                        | calls  v
     '------- tests ------> tests --- outcome ---> library

The tests call the program over a pipe and get values back, of plain types that
are built anew. So a program cannot say that it has passed: it sees neither the
tests nor the way of the outcome, and what it does to its own interpreter, to
`assert` or to `==`, stays there.
"""

import base64
import builtins
import decimal
import fractions
import itertools
import json
import os
import socket  # noqa: F401  loaded before files are out of reach
import struct
import sys
import traceback
import types

from ealign.evals.sandbox import locks

MOST = 4 << 20  # bytes of a call or of its value
ITEMS = 100_000  # of an iterator that a program returns
_ITERATORS = (types.GeneratorType, map, filter, zip, enumerate, reversed)
_PLAIN = (type(None), bool, str)


class Ended(BaseException):
  """The other process is gone, or speaks nonsense; no test catches it."""


def packed(value):
  """The value as JSON of plain types; a subclass becomes the type itself.

  Raises:
    TypeError: there is no plain form of it.
  """
  kind = type(value)
  if kind in _PLAIN:
    return value
  for name, (of, pack, _) in FORMS.items():
    if isinstance(value, of):
      return [name, pack(value)]
  raise TypeError(f'a value of type {kind.__name__} cannot leave the sandbox')


def unpacked(value):
  """The value that `packed` gave.

  Raises:
    ValueError, TypeError, KeyError: it did not.
  """
  if type(value) in _PLAIN:
    return value
  name, inside = value
  return FORMS[name][2](inside)


def _every(items) -> list:
  return [packed(item) for item in items]


def _all(items) -> list:
  return [unpacked(item) for item in items]


def _sequence(kind):
  return kind, _every, lambda x: kind(_all(x))


# Name -> (types, pack, unpack); the first that fits. Hexadecimal, since decimal
# digits of a long number take quadratic time.
FORMS = {
  'str': (str, str.__str__, str),
  'int': (int, lambda x: hex(int(x)), lambda x: int(x, 16)),
  'float': (float, float.hex, float.fromhex),
  'complex': (
    complex,
    lambda x: [x.real.hex(), x.imag.hex()],
    lambda x: complex(*map(float.fromhex, x)),
  ),
  'bytes': (bytes, lambda x: base64.b64encode(x).decode(), base64.b64decode),
  'fraction': (fractions.Fraction, str, fractions.Fraction),
  'decimal': (decimal.Decimal, str, decimal.Decimal),
  'list': _sequence(list),
  'tuple': _sequence(tuple),
  'set': _sequence(set),
  'frozenset': _sequence(frozenset),
  'dict': (
    dict,
    lambda x: [[packed(k), packed(v)] for k, v in x.items()],
    lambda x: {unpacked(k): unpacked(v) for k, v in x},
  ),
  'range': (
    range,
    lambda x: _every((x.start, x.stop, x.step)),
    lambda x: range(*_all(x)),
  ),
  'iterator': (
    _ITERATORS,
    lambda x: _every(itertools.islice(x, ITEMS)),
    lambda x: iter(_all(x)),
  ),
}


def send(pipe: int, value) -> None:
  content = json.dumps(value).encode()
  if len(content) > MOST:
    raise ValueError(f'a value of more than {MOST >> 20} MiB')
  view = memoryview(struct.pack('>I', len(content)) + content)
  while view:
    view = view[os.write(pipe, view) :]


def receive(pipe: int):
  """What the other process sent.

  Raises:
    Ended: it is gone, or sent nothing that can be read.
  """
  [size] = struct.unpack('>I', _read(pipe, 4))
  if size > MOST:
    raise Ended('sent too much')
  try:
    return json.loads(_read(pipe, size))
  except (ValueError, RecursionError):
    raise Ended('sent no JSON') from None


def _read(pipe, size) -> bytes:
  content = b''
  while len(content) < size:
    part = os.read(pipe, min(size - len(content), 1 << 16))
    if not part:
      raise Ended('ended by itself')
    content += part
  return content


def program(task, calls: int, values: int) -> None:
  """Runs the code, then answers calls of its function until none come."""
  module = types.ModuleType('program')
  sys.modules['program'] = module
  try:
    exec(compile(task['code'], 'program', 'exec'), module.__dict__)
    function = module.__dict__[task['entry']]
  except KeyError:
    return send(values, ['lacks', f'does not define {task["entry"]}'])
  except BaseException as error:
    return send(values, ['raise', *_said(error)])
  send(values, ['ready', None])
  while True:
    try:
      args, kwargs = map(unpacked, receive(calls))
    except Ended:
      return None
    try:
      answer = ['value', packed(function(*args, **kwargs))]
      send(values, answer)
    except BaseException as error:
      send(values, ['raise', *_said(error)])


def _said(error) -> tuple[str, str]:
  try:
    text = str(error)[:300]
  except BaseException:
    text = ''
  return type(error).__name__[:80], text


class _OfProgram(Exception):
  """What the program raised, which is no exception that Python names."""


def proxy(calls: int, values: int, ended: list):
  """The program's function, as its tests call it.

  ended: gets why the program is gone, which counts whatever a test makes of it.
  """

  def candidate(*args, **kwargs):
    asked = [packed(args), packed(kwargs)]
    try:
      send(calls, asked)
      return answer(values)
    except (Ended, BrokenPipeError) as error:
      gone = isinstance(error, BrokenPipeError)
      ended.append('ended by itself' if gone else str(error))
      raise Ended(ended[0]) from error

  return candidate


def answer(values: int):
  """The next value of the program; raises what it raised."""
  kind, *inside = _message(receive(values))
  if kind == 'value':
    try:
      return unpacked(*inside)
    except Exception as error:
      raise Ended('sent no value') from error
  if kind == 'ready':
    return None
  if kind == 'lacks':
    raise Ended(str(inside[0])[:200])
  name, text = (str(part)[:300] for part in (*inside, '', '')[:2])
  known = getattr(builtins, name, None)
  if isinstance(known, type) and issubclass(known, Exception):
    try:
      raised = known(text)
    except TypeError:  # such as UnicodeDecodeError, which needs more
      raised = _OfProgram(f'{name}: {text}')
  else:
    raised = _OfProgram(f'{name}: {text}')
  raised.of_program = True
  raise raised


def _message(value) -> list:
  if not isinstance(value, list) or not value:
    raise Ended('sent nonsense')
  return value


def tests(task, calls: int, values: int) -> tuple[str, str]:
  """(status, reason) of running the tests against the program."""
  space = {'__name__': 'tests'}
  try:
    before = compile(task['before'], 'prompt', 'exec')
    test = compile(task['test'], 'tests', 'exec')
    exec(before, space)
  except Exception as error:
    return 'error', f'the tests cannot run: {_line(error)}'
  ended = []
  space[task['entry']] = space['candidate'] = proxy(calls, values, ended)
  try:
    answer(values)
    exec(test, space)
  except Ended as error:
    return 'failed', f'it {error}'
  except AssertionError as error:
    if not getattr(error, 'of_program', False):
      return 'failed', f'AssertionError: {_asserted(error, task["test"])}'
    return 'failed', _line(error)
  except BaseException as error:
    mine = getattr(error, 'of_program', False)
    return 'failed', _line(error) if mine else f'in a test: {_line(error)}'
  return ('failed', f'it {ended[0]}') if ended else ('passed', '')


def _line(error) -> str:
  if isinstance(error, _OfProgram):
    return ' '.join(str(error).split())[:200]
  said = error.args[0] if hasattr(error, 'of_program') else error
  text = ' '.join(str(said).split())
  return f'{type(error).__name__}: {text}'[:200]


def _asserted(error, test: str) -> str:
  """The line of the tests that does not hold."""
  lines = test.split('\n')
  places = [
    place.lineno
    for place in traceback.extract_tb(error.__traceback__)
    if place.filename == 'tests' and 0 < place.lineno <= len(lines)
  ]
  return lines[places[-1] - 1].strip()[:180] if places else str(error)[:180]


def main(role: str, calls: int, values: int, outcome: int) -> None:
  """Locks itself in, says which locks hold, then plays its role."""
  task = json.load(sys.stdin)
  null = os.open(os.devnull, os.O_RDONLY)
  os.dup2(null, 0)
  os.close(null)
  limits = {name: task[name] for name in ('seconds', 'mib')}
  try:
    locks.shut(**limits, without=tuple(task['without']))
    if os.getppid() != task['parent']:
      return None  # it is gone, and told us to end before we could listen
  except RuntimeError as error:
    return send(outcome if role == 'tests' else values, ['refused', str(error)])
  proofs = locks.proved(task['mib'], os.getcwd(), task['others'])
  if 'hook' not in task['without']:
    sys.addaudithook(locks.hook)
  if role == 'program':
    send(values, ['locked', proofs])
    return program(task, calls, values)
  try:
    kind, theirs = _message(receive(values))
  except (Ended, ValueError):
    kind, theirs = 'refused', 'the process of the program did not start'
  if kind != 'locked':
    return send(outcome, ['refused', theirs])
  # What holds for both. The clock of the library starts now.
  send(outcome, ['locked', [fact for fact in proofs if fact in theirs]])
  send(outcome, list(tests(task, calls, values)))


if __name__ == '__main__':
  main(sys.argv[1], *map(int, sys.argv[2:]))
